"""Films finished runs: each run's path, a morph between runs, or many runs side by side.

  python -m experiments.film out/scene --runs=3,7
  python -m experiments.film out/scene --runs=0,5,9 --morph
  python -m experiments.film out/scene --grid

Writes animated WebP into the sweep's folder or --out, and MP4 where ffmpeg or imageio-ffmpeg is
installed. No step is computed again: the codes that --record_codes saved are decoded. A morph needs
none. Pictures are not blurred.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxsynth.disk import expand
from jaxsynth.environment import keep_compiled, writable_cache
from jaxsynth.inputs import option
from jaxsynth.report.film import (
    MOST_FILMS,
    film_text,
    morph_film,
    run_film,
    side_by_side,
    write_film,
    write_films,
)
from jaxsynth.report.pages import read_sweep

from .launch import run_experiment


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    TAKES_WORDS = True

    runs: tuple[int, ...] = option((), "Which runs, such as 3,7; by default the first 64.")
    morph: bool = option(False, "From each run to the next, over the sphere of codes.")
    grid: bool = option(False, "All of these runs in one film.")
    seconds: float = option(0.2, "That each picture is shown.", above=0.0)
    out: Path | None = option(None, "Where the films go; by default the folder of the sweep.")


def main(flags: Flags, words: Sequence[str]) -> int:
    """Film runs of a folder."""
    if len(words) != 1:
        raise ValueError(f"film takes the folder of a finished sweep, here are {len(words)} words")
    if flags.morph and flags.grid:
        raise ValueError("--morph and --grid are two films: give one of them")
    keep_compiled(writable_cache())
    folder = expand(words[0])
    sweep = read_sweep(folder)
    runs = flags.runs or tuple(range(min(len(sweep), MOST_FILMS)))
    if wrong := [run for run in runs if not 0 <= run < len(sweep)]:
        raise ValueError(f"--runs: there is no run {wrong[0]} in {folder}: 0 to {len(sweep) - 1}")
    out = flags.out or folder
    out.mkdir(parents=True, exist_ok=True)
    how = flags.seconds, film_text(sweep, runs)
    if flags.morph:
        paths = write_film(out / "film_morph.webp", list(morph_film(sweep, runs)), *how)
    elif flags.grid:
        pictures = list(side_by_side([list(run_film(sweep, run)) for run in runs]))
        paths = write_film(out / "film_grid.webp", pictures, *how)
    else:
        paths = write_films(sweep, out, runs, flags.seconds)
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    run_experiment(main, Flags)
