"""Photographs next to synthetic images: the choice for a unit or cell, and pages of them.

A film strip has a row of pictures per run, from a photograph to the end image. Those in between
need recorded codes: `path_steps` says after which steps.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, one_run
from jaxsynth.examples import Responses, crop, seen_part
from jaxsynth.image_search import ImageFile
from jaxsynth.models.base import Classifier
from jaxsynth.programs import classify_jit, draw_jit
from jaxsynth.report.sheet import CONTACT_SHEET, DrawTile, Tile, contact_sheet, scaled
from jaxsynth.system import GENERATOR, params_of
from jaxsynth.table import BLUR_ABOVE, of_run

if TYPE_CHECKING:
    from jaxsynth.activation_map import Cell, Samples

_PAGE_ROWS = 20
STRIP = "strip.png"
STRIP_ROWS = 20  # a strip of more runs is no longer a page
PHOTOGRAPH = "photograph"
PATH = 5  # pictures of a path between the reconstruction and the end image
_BINS, _SIDE, _CELL = 24, 120, 104
_PAPER, _BAR = (246, 246, 243), (92, 120, 150)
_MOST, _LEAST = "that raise it most", "that lower it most"
Draw = Callable[..., Iterator[tuple[str, Image.Image]]]  # for `report`


class Photograph(NamedTuple):
    """A part of a photograph that is shown with a run.

    Attributes:
      picture: (h, w, 3) uint8, the longer side 120 pixels.
      lines: caption lines: its activation, its name.
      p: the probability of a sensitive class, above which it is blurred.
      group: heading of those that it stands among.
    """

    picture: np.ndarray
    lines: tuple[str, ...]
    p: float
    group: str


def extreme_photographs(
    found: Responses,
    classifier: Classifier,
    blob: str,
    count: int,
    sensitive: Callable[[np.ndarray], float],
) -> list[list[Photograph]]:
    """Return for each unit the photographs that raise it most, then those that lower it most.

    `sensitive`: picture (h, w, 3) -> probability of a sensitive class.
    """
    cut = _cutter(classifier, blob, sensitive)
    return [
        [
            cut(found.files[n], found.places[n, column], found.values[n, column], group)
            for group, numbers in zip((_MOST, _LEAST), found.extremes(column, count), strict=True)
            for n in numbers
        ]
        for column in range(found.values.shape[1])
    ]


def cell_photographs(
    found: "Samples",
    cells: "Sequence[Cell]",
    classifier: Classifier,
    blob: str,
    count: int,
    sensitive: Callable[[np.ndarray], float],
) -> list[list[Photograph]]:
    """Return for each cell of a map the photographs nearest to its mean, one part of each."""
    cut, shown = _cutter(classifier, blob, sensitive), []
    for cell in cells:
        _, first = np.unique(found.number[cell.members], return_index=True)
        group = f"of the {len(cell.members)} places in this cell"
        own = cell.members[np.sort(first)][:count]
        shown.append([cut(found.files[found.number[n]], found.places[n], None, group) for n in own])
    return shown


def _cutter(classifier: Classifier, blob: str, sensitive: Callable[[np.ndarray], float]):
    part_of = functools.cache(functools.partial(seen_part, classifier, blob))

    def cut(file: ImageFile, place: np.ndarray, value: float | None, group: str) -> Photograph:
        part = crop(classifier, file, part_of(tuple(map(int, place))))
        name = str(file).replace("\\", "/").rpartition("/")[2]
        lines = (name,) if value is None else (f"{value:.3g}", name)
        return Photograph(np.asarray(scaled(part, _SIDE)), lines, sensitive(part), group)

    return cut


def example_pages(found: Responses, shown: Sequence[Sequence[Photograph]]) -> Draw:
    """Make the function that draws pages of units: a row each, the extremes next to its image.

    The columns of `found`, and `shown`, are in the order of runs.
    """
    count = max(sum(one.group == end for one in own) for own in shown for end in (_MOST, _LEAST))

    def draw(
        title: str, runs: Sequence[Any], rows: Sequence[Mapping[str, Any]], tile: DrawTile
    ) -> Iterator[tuple[str, Image.Image]]:
        heads = ["synthetic", f"{len(found.files)} photographs"]
        heads += [f"most {i + 1}" for i in range(count)] + [f"least {i + 1}" for i in range(count)]
        pages = -(-len(runs) // _PAGE_ROWS)
        for page in range(pages):
            tiles, at = [], range(page * _PAGE_ROWS, min(len(runs), (page + 1) * _PAGE_ROWS))
            for i in at:
                tiles += [tile(i, (f"{rows[i]['activation_1_last']:.3g}",)), _histogram(found, i)]
                for end in (_MOST, _LEAST):
                    own = [_tile(one) for one in shown[i] if one.group == end]
                    tiles += own + [_empty()] * (count - len(own))
            name = CONTACT_SHEET if pages == 1 else f"examples_{page:02d}.png"
            labels = [runs[i].row for i in at]
            yield name, contact_sheet(tiles, len(heads), title, labels, heads, side=_SIDE)

    return draw


def map_page(cells: "Sequence[Cell]", side: int) -> Draw:
    """Make the function that draws a map, its cells by run: the image of each in its place."""

    def draw(
        title: str, runs: Sequence[Any], rows: Sequence[Mapping[str, Any]], tile: DrawTile
    ) -> Iterator[tuple[str, Image.Image]]:
        tiles = [_empty()] * (side * side)
        for i, cell in enumerate(cells):
            said = (cell.label or f"{cell.row}, {cell.column}", f"{len(cell.members)} places")
            tiles[cell.row * side + cell.column] = tile(i, said)
        yield CONTACT_SHEET, contact_sheet(tiles, side, title, side=_CELL)

    return draw


def _tile(shown: Photograph) -> Tile:
    return Tile(shown.picture, shown.lines, blur=shown.p > BLUR_ABOVE)


def _empty() -> Tile:
    return Tile(np.full((8, 8, 3), _PAPER, np.uint8))


def _histogram(found: Responses, column: int) -> Tile:
    """Draw how often each value occurs, from the least to the most."""
    values = found.values[:, column]
    values = values[np.isfinite(values)]
    if not len(values):
        return _empty()
    counts, edges = np.histogram(values, _BINS)
    picture = np.full((_SIDE, _SIDE, 3), _PAPER, np.uint8)
    width = _SIDE // _BINS
    for i, height in enumerate(np.ceil(counts / counts.max() * (_SIDE - 8)).astype(int)):
        if height:
            picture[_SIDE - height :, i * width : (i + 1) * width - 1] = _BAR
    return Tile(picture, (f"{edges[0]:.3g} to {edges[-1]:.3g}",))


# --- the film strip -------------------------------------------------------------------------------


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

    Start codes of the sweep are those of the photograph (H, W, 3), as the encoder sees it in the
    generator's units. Of many recorded steps `PATH` evenly spaced ones are shown.
    """
    recipe = problem.settings.recipe
    end = max(0, recipe.steps - (recipe.last_image == "last_forward"))
    recorded = problem.settings.record
    shown = _spread(tuple(sorted({step for step in recorded if step < end})), PATH)
    codes = {step: results.recorded_codes[run, recorded.index(step)] for step in shown}
    photo = np.asarray(photo, problem.batch.codes.dtype)
    start = _picture(problem, run, "reconstruction", problem.batch.codes[problem.row_of(run)])
    path = [_picture(problem, run, f"step {step}", code) for step, code in codes.items()]
    every: Any = results.last.watched
    watched = of_run(every, run)
    last = Picture(f"end, step {end}", np.array(results.last.image[run]), watched)
    return [Picture(PHOTOGRAPH, photo, _judged(problem, run, photo)), start, *path, last]


def film_strip(title: str, runs: Sequence[Any], paths: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw the paths of the first runs, equally many tiles each, a row each."""
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
