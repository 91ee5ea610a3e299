"""The contact sheet: a page of captioned images, drawn with Pillow alone."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from jaxsynth.report.tables import printable

TILE, MIN_TILE = 192, 160  # sides at which large and small pictures are shown
PAPER, INK, SOFT, FLAG = "#fbfbf9", "#22252a", "#6b7076", "#b3261e"
MIN_WIDTH = 480  # room for the title
MARGIN, GAP, TITLE_SIZE, TEXT_SIZE = 28, 14, 20, 13
_ELLIPSIS = "…"


class Tile(NamedTuple):
    """One picture and what is written under it.

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


def contact_sheet(
    tiles: Sequence[Tile],
    columns: int,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    side: int | None = None,
) -> Image.Image:
    """Draws tiles row by row.

    Args:
      tiles: in reading order.
      columns: tiles per row.
      title: heading of the page; it wraps to the page's width.
      row_labels, column_labels: of a grid, e.g. the weights of a sweep; empty for none.
      side: at which every picture is shown; by default 160 to 192 pixels, by their own size.

    Returns:
      An RGB image. Text that does not fit is shortened with an ellipsis, so it never overlaps.

    Raises:
      ValueError: without tiles, without columns, or with labels that do not match the grid.
    """
    rows = _check_grid(len(tiles), columns, row_labels, column_labels)
    columns = min(columns, len(tiles))
    side = side or max(_shown_side(tile.image) for tile in tiles)
    caption = max(len(tile.lines) for tile in tiles) * _line_height(TEXT_SIZE)
    cell = (side + GAP, side + caption + (8 if caption else 0) + GAP)

    font = _font(TEXT_SIZE)
    left = MARGIN + min(180, int(max((font.getlength(s) for s in row_labels), default=-GAP)) + GAP)
    width = max(MIN_WIDTH, left + columns * cell[0] - GAP + MARGIN)
    heading = _wrap(title, _font(TITLE_SIZE), width - 2 * MARGIN)
    top = MARGIN + len(heading) * _line_height(TITLE_SIZE) + (GAP if heading else 0)
    grid_top = top + (_line_height(TEXT_SIZE) + 6 if column_labels else 0)

    page = Image.new("RGB", (width, grid_top + rows * cell[1] - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(heading):
        y = MARGIN + i * _line_height(TITLE_SIZE)
        draw.text((MARGIN, y), line, INK, _font(TITLE_SIZE))
    for i, label in enumerate(column_labels):
        x = left + i * cell[0] + side / 2
        draw.text((x, top), _fit(label, font, side), INK, font, anchor="ma")
    for i, label in enumerate(row_labels):
        y = grid_top + i * cell[1] + side / 2
        text = _fit(label, font, left - MARGIN - GAP)
        draw.text((left - GAP, y), text, INK, font, anchor="rm")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        _draw_tile(page, draw, tile, left + column * cell[0], grid_top + row * cell[1], side)
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


def _draw_tile(
    page: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int, side: int
) -> None:
    picture = _scaled(tile.image, side)
    if tile.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(side / 12))
    page.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
    font = _font(TEXT_SIZE)
    if tile.flag:
        text = _fit(tile.flag, font, side - 16)
        box = (x, y, x + font.getlength(text) + 12, y + _line_height(TEXT_SIZE) + 4)
        draw.rectangle(box, fill=FLAG)
        draw.text((x + 6, y + 3), text, "white", font)
    for i, line in enumerate(tile.lines):
        at = (x, y + side + 6 + i * _line_height(TEXT_SIZE))
        draw.text(at, _fit(line, font, side), SOFT if i else INK, font)


def _shown_side(image: np.ndarray) -> int:
    """The longer side on the page: small pictures grow to MIN_TILE, large ones shrink to TILE."""
    return min(max(image.shape[0], image.shape[1], MIN_TILE), TILE)


def _scaled(image: np.ndarray, side: int) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = side / max(picture.size)
    size = tuple(max(1, round(s * scale)) for s in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _line_height(size: int) -> int:
    return round(1.35 * size)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, shortened with an ellipsis until it is no wider than `width`.

    A number at the end stays: `swimming_po… 0.87`.
    """
    text = printable(text[:500])
    if font.getlength(text) <= width:
        return text
    head, space, tail = text.rpartition(" ")
    end = _ELLIPSIS + space + tail if tail[:1].isdigit() and len(tail) < 9 else _ELLIPSIS
    head = head if end != _ELLIPSIS else text
    while head and font.getlength(head + end) > width:
        head = head[:-1]
    return head.rstrip() + end


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The text's words on as many lines as it takes."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [_fit(line, font, width) for line in lines]
