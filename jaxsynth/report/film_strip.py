"""The film strip: from a photograph to the end image, one row of pictures per run.

The pictures in between need recorded codes: `path_steps` says after which steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, one_run
from jaxsynth.programs import classify_jit, draw_jit
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.system import GENERATOR, params_of
from jaxsynth.table import of_run

STRIP = "strip.png"
STRIP_ROWS = 20  # a strip of more runs is no longer a page
PHOTOGRAPH = "photograph"
PATH = 5  # pictures of a path between the reconstruction and the end image


class Picture(NamedTuple):
    """One picture of a path.

    Attributes:
      name: `photograph`, `reconstruction`, `step 10`, `end, step 30`.
      image: (H, W, 3) float, in the generator's units.
      watched: recorded activations, {network: {blob: (K,)}}; of a photograph without the generator.
    """

    name: str
    image: np.ndarray
    watched: dict[str, dict[str, np.ndarray]]


def path_steps(steps: int, count: int = PATH) -> tuple[int, ...]:
    """Return at most `count` evenly spaced steps between the first and the last of `steps`."""
    return _spread(tuple(range(1, steps)), count)


def path_pictures(
    problem: Problem, results: ChunkResult, run: int, photo: np.ndarray
) -> list[Picture]:
    """Return the photograph, its reconstruction, pictures of recorded codes, the end image.

    Args:
      problem: a sweep; start codes are those of the photograph, and codes are recorded
        (`path_steps`). Of many recorded steps `PATH` evenly spaced ones are shown.
      results: its arrays.
      run: which of the sweep's runs.
      photo: the photograph (H, W, 3) as the encoder sees it, in the generator's units.

    Returns:
      Pictures in the order of the path. The last is the sweep's own last image.
    """
    recipe = problem.settings.recipe
    end = max(0, recipe.steps - (recipe.last_image == "last_forward"))
    recorded = problem.settings.record
    shown = _spread(tuple(sorted({step for step in recorded if step < end})), PATH)
    codes = {step: results.recorded_codes[run, recorded.index(step)] for step in shown}
    photo = np.asarray(photo, problem.batch.codes.dtype)
    start = _picture(problem, run, "reconstruction", problem.batch.codes[problem.row_of(run)])
    path = [_picture(problem, run, f"step {step}", code) for step, code in codes.items()]
    watched = of_run(results.last.watched, run)
    last = Picture(f"end, step {end}", np.array(results.last.image[run]), watched)
    return [Picture(PHOTOGRAPH, photo, _judged(problem, run, photo)), start, *path, last]


def film_strip(title: str, runs: Sequence[Any], paths: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw the paths of the first runs, as many as there are, a row each.

    Args:
      title: heading of the page.
      runs: of the sweep; those without a path are left out.
      paths: equally many tiles for every run.
    """
    if len(paths) < len(runs):
        title = f"{title} (first {len(paths)} of {len(runs)} runs)"
    labels = [_label(run) for run in runs[: len(paths)]]
    tiles = [tile for path in paths for tile in path]
    return contact_sheet(tiles, len(paths[0]), title, labels if any(labels) else ())


def _label(run: Any) -> str:
    """A run's place without its seed: from a photograph all seeds start alike."""
    parts = [part for place in (run.row, run.column) for part in place.split(", ")]
    return " · ".join(part for part in parts if part and part != f"seed {run.seed}")


def _picture(problem: Problem, run: int, name: str, code: np.ndarray) -> Picture:
    structure, data = one_run(problem, run)
    record, params = structure.request.record, problem.params[GENERATOR]
    image, watched = draw_jit(problem.judge, record, params, data, jnp.asarray(code))
    seen = {GENERATOR: _host(watched)} if watched else {}
    return Picture(name, np.asarray(image), seen | _judged(problem, run, image))


def _judged(problem: Problem, run: int, image: Any) -> dict[str, dict[str, np.ndarray]]:
    structure, data = one_run(problem, run)
    params = params_of(problem.judge, problem.params)
    watched = classify_jit(
        problem.judge, structure.request.record, params, data, jnp.asarray(image)
    )
    return {role: _host(blobs) for role, blobs in watched.items()}


def _host(blobs: dict[str, Any]) -> dict[str, np.ndarray]:
    return {blob: np.asarray(values) for blob, values in blobs.items()}


def _spread(steps: tuple[int, ...], count: int) -> tuple[int, ...]:
    """At most `count` of the steps, evenly spaced, without preference for either end."""
    if len(steps) <= count:
        return steps
    return tuple(steps[round((len(steps) + 1) * j / (count + 1)) - 1] for j in range(1, count + 1))
