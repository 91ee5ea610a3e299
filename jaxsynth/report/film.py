"""Films of finished runs: animated WebP, and MP4 where ffmpeg is installed. No step is repeated."""

import io
import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsynth.disk import write_atomic
from jaxsynth.png_text import DESCRIPTION, FILM, describe
from jaxsynth.report.explorer import check_models, decode, run_film
from jaxsynth.report.sheet import scaled
from jaxsynth.results import SweepResult, visible

_SIDE, _GAP = 256, 6  # of a picture in pixels, at least; between the pictures of a grid
_MORPH = 16  # pictures from one run to the next
_HOLD = 5  # times as long is the last picture shown
MOST_FILMS = 64  # that are written at once


def write_films(
    sweep: SweepResult, folder: Path, places: Sequence[int] | None = None, seconds: float = 0.2
) -> list[Path]:
    """Write FOLDER/film_run00003.webp and so on: the paths of runs, by default of the first 64."""
    found: list[Path] = []
    for place in range(min(len(sweep), MOST_FILMS)) if places is None else places:
        path = folder / f"film_run{int(sweep.run_numbers[place]):05d}.webp"
        text = film_text(sweep, [place])
        found += write_film(path, list(run_film(sweep, place)), seconds, text)
    return found


def film_text(sweep: SweepResult, places: Sequence[int]) -> str:
    """Return what made the runs of a film, as `jaxsynth show` prints it."""
    runs = [sweep.runs[place] for place in places]
    of = {"seed": [run.seed for run in runs], "objective": [str(run.objective) for run in runs]}
    return describe(sweep.config, {"run": [int(sweep.run_numbers[i]) for i in places]} | of, FILM)


def morph_film(sweep: SweepResult, places: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield pictures (H, W, 3) uint8 on the way from run to run and back to the first.

    Codes between two runs lie on the great circle through both, their lengths in between (slerp).
    """
    check_models(sweep)
    if len(places) < 2:
        raise ValueError(f"a morph needs two runs or more, here is {len(places)}: --runs=3,7")
    ends = [sweep.best_codes[i] if sweep.which[i] == "best" else sweep.codes[i] for i in places]
    pairs = zip(ends, [*ends[1:], ends[0]], strict=True)
    codes = [slerp(a, b, k / _MORPH) for a, b in pairs for k in range(_MORPH)]
    for raw in decode(sweep.generator, np.stack(codes)):
        yield visible(raw, sweep.generator, sweep.config)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Interpolate codes (D,) over the sphere: direction and length from `a` at 0 to `b` at 1."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if not all(lengths):
        return (1 - t) * a + t * b
    cosine = float(np.clip(a @ b / (lengths[0] * lengths[1]), -1, 1))
    angle, length = math.acos(cosine), (1 - t) * lengths[0] + t * lengths[1]
    if angle < 1e-4:
        mixed = (1 - t) * a / lengths[0] + t * b / lengths[1]
    else:
        parts = math.sin((1 - t) * angle), math.sin(t * angle)
        mixed = (parts[0] * a / lengths[0] + parts[1] * b / lengths[1]) / math.sin(angle)
    return (length * mixed).astype(a.dtype)


def side_by_side(films: Sequence[Sequence[np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield films of equal length as one, their pictures in a grid."""
    columns = math.ceil(math.sqrt(len(films)))
    for pictures in zip(*films, strict=True):
        pictures = [
            np.pad(p, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=251) for p in pictures
        ]
        blank = np.full_like(pictures[0], 251)
        pictures += [blank] * (-len(pictures) % columns)
        rows = [
            np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)
        ]
        yield np.concatenate(rows)[:-_GAP, :-_GAP]


def write_film(
    path: Path, pictures: Sequence[np.ndarray], seconds: float = 0.2, text: str = ""
) -> list[Path]:
    """Write pictures as animated WebP, and as MP4 where ffmpeg or imageio-ffmpeg is installed.

    Args:
      path: ends with .webp.
      pictures: (H, W, 3) uint8, of one size.
      seconds: that each is shown; the last one five times as long.
      text: that travels in the WebP, as its EXIF description.

    Returns:
      The files.

    Raises:
      ValueError: if ffmpeg cannot write its file.
    """
    frames = [scaled(p, max(_SIDE, *p.shape[:2])) for p in pictures]
    times = [round(1000 * seconds)] * len(frames)
    times[-1] *= _HOLD
    film = io.BytesIO()
    how = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0}
    exif = Image.Exif()
    exif[DESCRIPTION] = text
    frames[0].save(film, "WEBP", quality=88, exif=exif if text else b"", **how)
    write_atomic(path, film.getvalue())
    program = _ffmpeg()
    return [path] if not program else [path, _write_mp4(program, path, frames, seconds)]


def _write_mp4(program: str, path: Path, frames: Sequence[Image.Image], seconds: float) -> Path:
    out, (width, height) = path.with_suffix(".mp4"), frames[0].size
    held = [*frames, *[frames[-1]] * (_HOLD - 1)]
    pixels = b"".join(np.asarray(frame).tobytes() for frame in held)
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {1 / seconds:g}".split()
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]
    command = [program, "-v", "error", "-y", *raw, "-i", "-", *even, str(out)]
    done = subprocess.run(command, input=pixels, capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise ValueError(f"{path} is written, {out} is not: ffmpeg says {said[-1]}")
    return out


def _ffmpeg() -> str:
    """Return the program ffmpeg; "" where there is none."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        return shutil.which("ffmpeg") or ""
    return get_ffmpeg_exe()
