"""The atlas: every unit of a layer, labelled, on as few compact pages as it takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsynth.maximize import Run
from jaxsynth.report.pages import CONTACT_SHEET, Visible, run_tile
from jaxsynth.report.sheet import contact_sheet

PAGE_TILES = 400
_SIDE, _WIDEST = 112, 20  # of a tile in pixels, of a page in tiles


def write_atlas(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    visible: Visible,
    blur: bool = False,
) -> list[str]:
    """Draws every run in order: its `row` as the unit's label, below it the unit's activation.

    One page is contact_sheet.png; more of them, of at most 400 tiles, are atlas_00.png and so on.

    Args:
      folder: where.
      title: heading of every page.
      runs, rows: the runs, a term each, and their metric rows.
      visible: a run's number -> its last image.
      blur: blurs pictures of P(NSFW) > 0.5.

    Returns:
      The names of the files, in order.
    """
    columns = _columns(len(runs), len({run.seed for run in runs}))
    size = PAGE_TILES // columns * columns
    names = [CONTACT_SHEET]
    if len(runs) > size:
        names = [f"atlas_{page:02d}.png" for page in range(-(-len(runs) // size))]
    for page, name in enumerate(names):
        shown = range(page * size, min(len(runs), (page + 1) * size))
        tiles = [run_tile(visible(i), rows[i], _lines(runs[i], rows[i]), blur) for i in shown]
        heading = title
        if len(names) > 1:
            first, last = runs[shown[0]].row, runs[shown[-1]].row
            heading = f"{title} (page {page + 1} of {len(names)}: {first} to {last})"
        contact_sheet(tiles, columns, heading, side=_SIDE).save(folder / name)
    return names


def _lines(run: Run, row: Mapping[str, Any]) -> tuple[str, ...]:
    activation = f"{row['activation_1_last']:.3g}"
    return run.row, f"{activation}, {run.column}" if run.column else activation


def _columns(count: int, seeds: int) -> int:
    """Tiles per row: a page wider than high, few empty places, a unit's seeds side by side."""
    if count > PAGE_TILES:
        near = [_WIDEST]
    else:
        middle = round((1.5 * count) ** 0.5)
        near = [min(_WIDEST, max(3, middle + d)) for d in (0, 1, -1, 2, -2)]
    whole = [max(1, columns // seeds) * seeds for columns in near]
    return min(min(whole, key=lambda columns: -count % columns), PAGE_TILES)
