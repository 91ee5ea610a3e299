"""Pages of units: the synthetic image, a histogram over photographs, and the extremes of them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxsynth.examples import Responses, crop, seen_part
from jaxsynth.models.base import Classifier
from jaxsynth.report.sheet import CONTACT_SHEET, DrawTile, Tile, contact_sheet
from jaxsynth.results import BLUR_ABOVE

_PAGE_ROWS = 20
_BINS, _SIDE = 24, 120
_PAPER, _BAR = (246, 246, 243), (92, 120, 150)


def example_pages(
    found: Responses,
    classifier: Classifier,
    blob: str,
    count: int,
    sensitive: Callable[[np.ndarray], float],
) -> Callable[..., Iterator[tuple[str, Image.Image]]]:
    """Make the function that draws the pages, for `report(draw_sheet=...)`.

    Args:
      found: A column for each run, in the order of runs.
      classifier: Whose units.
      blob: Of the units.
      count: Photographs shown at either end.
      sensitive: Picture (h, w, 3) -> probability above which a photograph is blurred.

    Returns:
      (title, runs, rows, tile) -> names and images of pages, a row for each run.
    """
    part_of = functools.cache(functools.partial(seen_part, classifier, blob))

    def draw(
        title: str, runs: Sequence[Any], rows: Sequence[Mapping[str, Any]], tile: DrawTile
    ) -> Iterator[tuple[str, Image.Image]]:
        heads = ["synthetic", f"{len(found.files)} photographs"]
        heads += [f"most {i + 1}" for i in range(count)] + [f"least {i + 1}" for i in range(count)]
        pages = -(-len(runs) // _PAGE_ROWS)
        for page in range(pages):
            tiles, shown = [], range(page * _PAGE_ROWS, min(len(runs), (page + 1) * _PAGE_ROWS))
            for i in shown:
                tiles += [tile(i, (f"{rows[i]['activation_1_last']:.3g}",)), _histogram(found, i)]
                for end in found.extremes(i, count):
                    tiles += [_photograph(found, int(n), i) for n in end]
                    tiles += [_empty()] * (count - len(end))
            name = CONTACT_SHEET if pages == 1 else f"examples_{page:02d}.png"
            labels = [runs[i].row for i in shown]
            yield name, contact_sheet(tiles, len(heads), title, labels, heads, side=_SIDE)

    def _photograph(found: Responses, number: int, column: int) -> Tile:
        file, place = found.files[number], tuple(map(int, found.places[number, column]))
        picture = crop(classifier, file, part_of(place))
        name = str(file).replace("\\", "/").rpartition("/")[2]
        lines = (f"{found.values[number, column]:.3g}", name)
        return Tile(picture, lines, blur=sensitive(picture) > BLUR_ABOVE)

    return draw


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
