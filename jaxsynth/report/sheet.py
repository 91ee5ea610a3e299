"""Contact sheets: pages of captioned images, drawn with Pillow alone."""

import base64
import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxsynth.report.fonts import Font, readable

CONTACT_SHEET = "contact_sheet.png"
PAGE_TILES = 400  # a larger sheet is no longer a page
TILE, MIN_TILE = 192, 160  # sides at which large and small pictures are shown
PAPER, INK, SOFT, FLAG = "#fbfbf9", "#22252a", "#6b7076", "#b3261e"
MIN_WIDTH = 480  # room for the title
MARGIN, GAP, TITLE_SIZE, TEXT_SIZE = 28, 14, 20, 13
_MOST_COLUMNS, _HIGH = 40, 2  # of a grid: its columns, its rows per column; else it wraps
_ATLAS_SIDE, _SQUARE_COLUMNS = 112, 20  # a tile of an atlas in pixels; the widest page in tiles
_ELLIPSIS = "…"


class Tile(NamedTuple):
    """One picture and the text under it.

    Attributes:
      image: (H, W, 3) uint8, RGB.
      lines: caption lines, the first one darker.
      blur: shows the picture blurred.
      flag: a word of warning across the picture's corner, e.g. `non-finite`.
    """

    image: np.ndarray
    lines: tuple[str, ...] = ()
    blur: bool = False
    flag: str = ""


DrawTile = Callable[[int, Sequence[str]], Tile]  # a run's number and its caption -> its tile


class _Layout(NamedTuple):
    """Runs on a contact sheet: their order, tiles per row, and the labels of a full grid."""

    order: list[int]
    columns: int
    row_labels: list[str]
    column_labels: list[str]


def _layout(places: Sequence[tuple[str, str]]) -> _Layout:
    """Lay out runs by their (row, column): a grid if they fill a handy one, else a square."""
    numbers = {place: i for i, place in enumerate(places)}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    full = len(numbers) == len(places) == len(rows) * len(columns)
    wide, high = len(columns) > _MOST_COLUMNS, len(rows) > max(8, _HIGH * len(columns))
    if not (full and any(rows)) or wide or high:
        width = _square_columns(len(places), len(columns) if full and not wide else 1)
        return _Layout(list(range(min(len(places), PAGE_TILES))), width, [], [])
    rows = rows[: PAGE_TILES // len(columns)]
    order = [numbers[row, column] for row in rows for column in columns]
    return _Layout(order, len(columns), rows, columns)


def contact_pages(
    title: str,
    runs: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
    tile: DrawTile,
    said: Callable[[int, Mapping[str, Any]], tuple[str, ...]],
) -> Iterator[tuple[str, Image.Image]]:
    """Draw the contact sheet: every run, or the first of them, with its caption."""
    order, columns, row_labels, column_labels = _layout([(r.row, r.column) for r in runs])
    if len(order) < len(runs):
        title = f"{title} (first {len(order)} of {len(runs)} runs)"
    tiles = []
    for i in order:
        place = () if row_labels else filter(None, [place_of(runs[i])])  # a grid's labels say it
        tiles.append(tile(i, (*place, *said(i, rows[i]))))
    yield CONTACT_SHEET, contact_sheet(tiles, columns, title, row_labels, column_labels)


def place_of(run: Any) -> str:
    """Return the row and column of a run as one line."""
    return " · ".join(filter(None, (run.row, run.column)))


def placed(run: Any) -> Any:
    """Return a run with a place that captions can begin with: its seed, if it has no other."""
    return run if place_of(run) else dataclasses.replace(run, column=f"seed {run.seed}")


def atlas_pages(
    title: str, runs: Sequence[Any], rows: Sequence[Mapping[str, Any]], tile: DrawTile
) -> Iterator[tuple[str, Image.Image]]:
    """Draw every run in order: its `row` as the unit's label, below it the unit's activation.

    One page is contact_sheet.png; more of them, of at most 400 tiles, are atlas_00.png and so on.
    """
    columns = _square_columns(len(runs), len({run.seed for run in runs}))
    size = PAGE_TILES // columns * columns
    pages = -(-len(runs) // size)
    for page in range(pages):
        shown = range(page * size, min(len(runs), (page + 1) * size))
        heading, name = title, CONTACT_SHEET
        if pages > 1:
            units = f"{runs[shown[0]].row} to {runs[shown[-1]].row}"
            heading = f"{title} (page {page + 1} of {pages}: {units})"
            name = f"atlas_{page:02d}.png"
        tiles = [tile(i, _atlas_lines(runs[i], rows[i])) for i in shown]
        yield name, contact_sheet(tiles, columns, heading, side=_ATLAS_SIDE)


def _atlas_lines(run: Any, row: Mapping[str, Any]) -> tuple[str, ...]:
    value = row[f"activation_1_{row.get('shown', 'last')}"]
    said = said_of(row).removesuffix(" image")  # tiles are narrow
    return run.row, ", ".join(filter(None, (f"{value:.3g}", run.column))), said


def said_of(row: Mapping[str, Any]) -> str:
    """Say which run a picture is of, by the number that --continue_from takes, and which image."""
    return f"run {row['run']}, {row.get('shown', 'last')} image"


def _square_columns(count: int, seeds: int) -> int:
    """Tiles per row: a page wider than high, few empty places, a row's seeds side by side."""
    near = [_SQUARE_COLUMNS]
    if count <= PAGE_TILES:
        middle = round((1.5 * count) ** 0.5)
        near = [min(_SQUARE_COLUMNS, max(3, middle + d)) for d in (0, 1, -1, 2, -2)]
    fitting = [max(1, columns // seeds) * seeds for columns in near]
    return min(min(fitting, key=lambda columns: -count % columns), PAGE_TILES)


def contact_sheet(
    tiles: Sequence[Tile],
    columns: int,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    side: int | None = None,
) -> Image.Image:
    """Draw tiles row by row, `columns` in each, with the labels of a full grid.

    Pictures are shown at `side`, by default at 160 to 192 pixels, by their own size. The title
    wraps; other text that does not fit is shortened with an ellipsis, so it never overlaps.
    """
    rows = _check_grid(len(tiles), columns, row_labels, column_labels)
    columns = min(columns, len(tiles))
    side = side or max(_shown_side(tile.image) for tile in tiles)
    caption = max(len(tile.lines) for tile in tiles) * _line_height(TEXT_SIZE)
    cell = (side + GAP, side + caption + (8 if caption else 0) + GAP)

    font = _font(TEXT_SIZE)
    widest = math.ceil(max((font.getlength(s) for s in row_labels), default=-GAP))
    left = MARGIN + min(180, widest + GAP)
    width = max(MIN_WIDTH, left + columns * cell[0] - GAP + MARGIN)
    heading = _wrap(title, _font(TITLE_SIZE), width - 2 * MARGIN)
    top = MARGIN + len(heading) * _line_height(TITLE_SIZE) + (GAP if heading else 0)
    grid_top = top + (_line_height(TEXT_SIZE) + 6 if column_labels else 0)

    page = Image.new("RGB", (width, grid_top + rows * cell[1] - GAP + MARGIN), PAPER)
    for i, line in enumerate(heading):
        _font(TITLE_SIZE).draw(page, (MARGIN, MARGIN + i * _line_height(TITLE_SIZE)), line, INK)
    for i, label in enumerate(column_labels):
        text = _fit(label, font, side)
        x = left + i * cell[0] + (side - font.getlength(text)) / 2
        font.draw(page, (x, top), text, INK)
    for i, label in enumerate(row_labels):
        text = _fit(label, font, left - MARGIN - GAP)
        y = grid_top + i * cell[1] + (side - _line_height(TEXT_SIZE)) / 2
        font.draw(page, (left - GAP - font.getlength(text), y), text, INK)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        _draw_tile(page, tile, left + column * cell[0], grid_top + row * cell[1], side)
    return page


def _check_grid(
    count: int, columns: int, row_labels: Sequence[str], column_labels: Sequence[str]
) -> int:
    if count == 0 or columns < 1:
        raise ValueError(f"a contact sheet of {count} tiles in {columns} columns has nothing on it")
    rows, used = -(-count // columns), min(columns, count)
    for what, labels, size in (("row", row_labels, rows), ("column", column_labels, used)):
        if labels and len(labels) != size:
            raise ValueError(f"{len(labels)} {what} labels for {size} {what}s of tiles")
    return rows


def _draw_tile(page: Image.Image, tile: Tile, x: int, y: int, side: int) -> None:
    picture = scaled(tile.image, side)
    if tile.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(side / 12))
    page.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
    font = _font(TEXT_SIZE)
    if tile.flag:
        text = _fit(tile.flag, font, side - 16)
        box = (x, y, x + font.getlength(text) + 12, y + _line_height(TEXT_SIZE) + 4)
        ImageDraw.Draw(page).rectangle(box, fill=FLAG)
        font.draw(page, (x + 6, y + 3), text, "white")
    for i, line in enumerate(tile.lines):
        at = (x, y + side + 6 + i * _line_height(TEXT_SIZE))
        font.draw(page, at, _fit(line, font, side), SOFT if i else INK)


def _shown_side(image: np.ndarray) -> int:
    """Return the longer side on the page: small pictures grow to MIN_TILE, large ones shrink."""
    return min(max(image.shape[0], image.shape[1], MIN_TILE), TILE)


def scaled(image: np.ndarray, side: int) -> Image.Image:
    """Resize a picture (H, W, 3) uint8 so that its longer side is `side` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = side / max(picture.size)
    width, height = (max(1, round(s * scale)) for s in picture.size)
    size = width, height
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def webp_url(image: Image.Image, **how: int) -> str:
    """Encode a picture as a data URL; `how` is of Pillow's WebP writer."""
    file = io.BytesIO()
    image.save(file, "WEBP", **how)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


@functools.cache
def _font(size: int) -> Font:
    return Font(size)


def _line_height(size: int) -> int:
    return round(1.35 * size)


def _fit(text: str, font: Font, width: float) -> str:
    """Return the text on one line, shortened with an ellipsis until it is no wider than `width`.

    A number at the end stays: `swimming_po… 0.87`, `block10:*:d… -0.2`.
    """
    text = readable(text[:500])
    if font.getlength(text) <= width:
        return text
    head, space, tail = text.rpartition(" ")
    number = tail.removeprefix("-")[:1].isdigit() and len(tail) < 10
    end = _ELLIPSIS + space + tail if number else _ELLIPSIS
    head = head if end != _ELLIPSIS else text
    while head and font.getlength(head + end) > width:
        head = head[:-1]
    return head.rstrip() + end


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Return the text's words on as many lines as it takes."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [_fit(line, font, width) for line in lines]
