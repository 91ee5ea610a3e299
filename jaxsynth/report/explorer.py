"""The explorer's files: thumbnails and films as sprite sheets, the table and the traces as data.

The page loads `data.js` at once and the traces of a run when it is opened. JSON in a script is all
that a browser reads beside a page without a server.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxsynth import table
from jaxsynth.disk import write_atomic
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.functions import Activations, prepared
from jaxsynth.report.sheet import place_of, placed, scaled
from jaxsynth.report.summary import lines_that_repeat
from jaxsynth.results import SweepResult, visible
from jaxsynth.table import BLUR_ABOVE

EXPLORER, LIVE = "explorer", "live.js"  # its folder; data of a sweep under way in it
_SIDE = 128  # of a thumbnail in pixels, at most
_COLUMNS, _PER_SHEET = 20, 400  # thumbnails of a sprite sheet
_FILM_ROWS = 40  # runs of a sheet of films
MOST_RUNS = 20_000  # a browser holds the table of all
_MOST_FRAMES = 6000  # of all films together: a page of more is slow to write
_PER_PART, _POINTS = 200, 120  # runs of a file of traces, points of a trace
_BATCH = 8  # codes that are decoded at once
_OURS = ("sprite_*.webp", "photo_*.webp", "film_*.webp", "traces_*.js", "data.js")


def write_explorer(
    sweep: SweepResult,
    folder: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    looks: Sequence[str],
    photographs: Sequence[Sequence[Any]] = (),
) -> None:
    """Write what the explorer shows into FOLDER/explorer.

    `rows` of the table have `shown`; they are of the first runs, if not of all. `looks` are the
    images that each run has a file of.
    """
    own = folder / EXPLORER
    own.mkdir(exist_ok=True)
    for old in {path for pattern in _OURS for path in own.glob(pattern)}:
        old.unlink()
    shown = (sweep.image_of(i, row["shown"]) for i, row in enumerate(rows))
    side = min(_SIDE, max(sweep.arrays.last.image.shape[1:3]))
    thumbs = _sheets(own, "sprite", shown, (min(_COLUMNS, len(rows)), _PER_SHEET, side))
    film = _write_film(sweep, own, side)
    points = trace_points(sweep.objective.shape[1])
    for part, start in enumerate(range(0, len(rows), _PER_PART)):
        part_of = range(start, min(start + _PER_PART, len(rows)))
        found = [_rounded(_curves(sweep, i), points) for i in part_of]
        write_call(own / f"traces_{part:03d}.js", "traces", part, found)
    judges = sweep.classifiers
    hide = {w: [table.sensitive_of(row, judges, w) for row in rows] for w in table.PICTURES}
    hide["film"] = [_most_sensitive(sweep, i, row) for i, row in enumerate(rows)]
    data = {
        "title": title,
        "runs": len(rows),
        "columns": _columns(rows),
        "captions": [_caption(sweep, i, row) for i, row in enumerate(rows)],
        "objectives": _factors(
            [_objective(run.objective, sweep.folder) for run in sweep.runs[: len(rows)]]
        ),
        "sensitive": {j.name: j.sensitive_name for j in judges if j.sensitive is not None},
        "hide": {name: [number(p) for p in found] for name, found in hide.items()},
        "blur_above": BLUR_ABOVE,
        "looks": list(looks),
        "sprites": thumbs,
        "film": film,
        "photos": _write_photographs(own, photographs[: len(rows)]),
        "films": sorted(path.name for path in folder.glob("film_run*.webp")),
        "traces": {"per": _PER_PART, "steps": points},
        "repeat": lines_that_repeat(sweep.config, sweep.folder),
    }
    write_call(own / "data.js", "open", data)


def as_script(value: Any) -> str:
    """Write JSON that is safe within a script: no markup, no character beyond ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def write_call(path: Path, name: str, *values: Any) -> None:
    """Write a script that calls a function of the page with these values."""
    said = ",".join(map(as_script, values))
    write_atomic(path, f"jaxsynth.{name}({said})\n".encode("ascii"))


def _objective(objective: Any, folder: Path | None) -> str:
    """Return the text that `js.parse` reads; its arrays are in the sweep's folder."""
    return str(objective).replace(":@array-", f":@{folder}/inputs/array-" if folder else ":@array-")


def _caption(sweep: SweepResult, place: int, row: Mapping[str, Any]) -> str:
    run = placed(sweep.runs[place])
    lines = [place_of(run)]
    if not isinstance(run.objective, str):
        lines += table.captions(run, row, sweep.classifiers, row["shown"])
    return "\n".join(lines)


# --- numbers --------------------------------------------------------------------------------------


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns by name: numbers, or distinct texts and which of them each run has."""
    names = dict.fromkeys(key for row in rows for key in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {
        name: _factors(["" if v is None else str(v) for v in values])
        if any(isinstance(value, str) for value in values)
        else [number(value) for value in values]
        for name, values in columns.items()
    }


def _factors(texts: Sequence[str]) -> dict[str, list[Any]]:
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return {"values": list(place), "index": [place[text] for text in texts]}


def number(value: Any, digits: int = 6) -> int | float | None:
    """Return a number as JSON may have it, rounded; None for one that is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def trace_points(steps: int) -> list[int]:
    """Choose the steps that a drawn trace has, evenly spread."""
    return np.unique(np.linspace(0, steps - 1, min(steps, _POINTS)).astype(int)).tolist()


def _rounded(curves: Mapping[str, np.ndarray], points: list[int]) -> dict[str, list[float | None]]:
    return {
        name: [number(value, 4) for value in curve[points].tolist()]
        for name, curve in curves.items()
    }


def _curves(sweep: SweepResult, place: int) -> dict[str, np.ndarray]:
    """A run's curves (T,) by name, the objective first."""
    curves = {"objective": np.asarray(sweep.objective[place])}
    for n, curve in enumerate(sweep.curves[place], 1):
        if curve is not None:
            target = str(sweep.table[place][f"target_{n}"])
            curves[f"P({target.split(':', 2)[-1]})"] = curve
    for name, curve in _sensitive_curves(sweep, place):
        curves.setdefault(name, curve)
    return curves


def _sensitive_curves(sweep: SweepResult, place: int) -> Iterator[tuple[str, np.ndarray]]:
    for judge in sweep.classifiers:
        seen = sweep.arrays.watched.get(judge.name, {})
        if judge.sensitive is not None and "prob" in seen:
            name = f"P({judge.sensitive_name})"
            yield name, judge.sensitive_probability(np.asarray(seen["prob"][place]))


def _most_sensitive(sweep: SweepResult, place: int, row: Mapping[str, Any]) -> float | None:
    """Return the highest P of a sensitive class that any picture of a run's film may have."""
    seen = [table.sensitive_of(row, sweep.classifiers, which) for which in table.PICTURES]
    seen += [np.nanmax(curve, initial=0) for _, curve in _sensitive_curves(sweep, place)]
    return max((float(p) for p in seen if p is not None), default=None)


# --- pictures -------------------------------------------------------------------------------------


def _write_film(sweep: SweepResult, own: Path, side: int) -> dict[str, Any] | None:
    """Write each run's path from its start over the recorded steps to its last image, if known."""
    steps = sweep.recorded_codes.shape[1]
    if not steps or sweep.generator is None or len(sweep) * (steps + 2) > _MOST_FRAMES:
        return None
    names = ["start", *(f"step {step}" for step in sorted(recorded_steps(sweep))), "end"]
    frames = (picture for i in range(len(sweep)) for picture in run_film(sweep, i))
    shape = (len(names), len(names) * _FILM_ROWS, side)
    return _sheets(own, "film", frames, shape) | {"frames": names}


def run_film(sweep: SweepResult, place: int) -> Iterator[np.ndarray]:
    """Yield a run's pictures (H, W, 3) uint8: its start, the recorded steps, its last image."""
    check_models(sweep)
    steps = recorded_steps(sweep)
    if not steps:
        raise ValueError(
            f"{sweep.folder or 'the sweep'} has no recorded codes: run it with --record_codes, "
            "such as --record_codes=5,10,15 (record=(5, 10, 15) in Python)"
        )
    order = np.argsort(steps, kind="stable")
    codes = np.concatenate([sweep.start_codes[place][None], sweep.recorded_codes[place][order]])
    for raw in decode(sweep.generator, codes):
        yield visible(raw, sweep.generator, sweep.config)
    yield sweep.image_of(place, "last")


def check_models(sweep: SweepResult) -> None:
    """Raise ValueError if a sweep was read without its models."""
    if sweep.generator is None:
        raise ValueError(f"{sweep.folder}: a film needs the generator: read it with its models")


def recorded_steps(sweep: SweepResult) -> list[int]:
    """Return the steps after which codes were recorded, in the order of the settings."""
    settings = sweep.settings
    return list(settings["record"] if isinstance(settings, Mapping) else settings.record)


def decode(generator: Any, codes: np.ndarray) -> Iterator[np.ndarray]:
    """Draw the images of codes (N, D), one by one (H, W, 3) in the generator's units."""
    params = prepared(generator)
    for start in range(0, len(codes), _BATCH):
        some = np.asarray(codes[start : start + _BATCH], np.float32)
        padded = np.pad(some, ((0, _BATCH - len(some)), (0, 0)))
        images = _draw(generator.activations, generator.image, params, padded)
        yield from np.asarray(images, np.float32)[: len(some)]


@partial(network_jit, static_argnums=(0, 1))
def _draw(activations: Activations, image: str, params: Any, codes: jax.Array) -> jax.Array:
    return jax.vmap(lambda code: activations(params, code)[image])(codes)


def _write_photographs(own: Path, photographs: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
    """Write the photographs of the runs; `of` counts them by run."""
    every = [one for some in photographs for one in some]
    if not every:
        return None
    sheets = _sheets(own, "photo", (_square(one.picture) for one in every), (20, _PER_SHEET, _SIDE))
    groups = _factors([one.group for one in every])
    captions, p = ["\n".join(one.lines) for one in every], [number(one.p, 3) for one in every]
    return (
        sheets
        | {"of": list(map(len, photographs)), "captions": captions, "p": p}
        | {"groups": groups}
    )


def _square(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    side = max(height, width)
    out = np.full((side, side, 3), 128, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = picture
    return out


def _sheets(
    own: Path, stem: str, images: Iterable[np.ndarray], shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Write pictures into sheets of shape (columns, pictures per sheet, side of a picture)."""
    columns, per, side = shape
    files: list[str] = []
    some: list[np.ndarray] = []

    def write() -> None:
        page = Image.new("RGB", (columns * side, -(-len(some) // columns) * side))
        for i, image in enumerate(some):
            page.paste(scaled(image, side), (i % columns * side, i // columns * side))
        files.append(f"{EXPLORER}/{stem}_{len(files):03d}.webp")
        page.save(own.parent / files[-1], "WEBP", quality=88, method=2)
        some.clear()

    for image in images:
        some.append(image)
        if len(some) == per:
            write()
    if some:
        write()
    return {"files": files, "columns": columns, "per": per, "side": side}
