"""Photographs next to synthetic images: the choice for a unit or cell, and pages of them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from jaxsynth.examples import Responses, crop, seen_part
from jaxsynth.image_search import ImageFile
from jaxsynth.models.base import Classifier
from jaxsynth.report.sheet import CONTACT_SHEET, DrawTile, Tile, contact_sheet, scaled
from jaxsynth.table import BLUR_ABOVE

if TYPE_CHECKING:
    from jaxsynth.activation_map import Cell, Samples

_PAGE_ROWS = 20
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

    Args:
      found: a column for each unit.
      classifier: whose units.
      blob: of the units.
      count: photographs at either end.
      sensitive: picture (h, w, 3) -> probability of a sensitive class.
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

    Args:
      found: a column for each run, in the order of runs.
      shown: the photographs of each.

    Returns:
      (title, runs, rows, tile) -> names and images of pages.
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
    """Make the function that draws a map: the image of each cell in its place.

    Args:
      cells: one for each run, in the order of runs.
      side: cells of a row and of a column.
    """

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
