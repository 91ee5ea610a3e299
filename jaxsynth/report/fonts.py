"""Text in pictures: DejaVu Sans, the system's fonts where it lacks a letter, else an escape."""

import functools
import itertools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jaxsynth.inputs import printable

FONT = Path(__file__).parent / "DejaVuSans.ttf"
_MISSING = "\U000f0000"  # a private character, which no font has
# Fonts of wide coverage on Linux, macOS and Windows; Pillow knows the folders.
_OF_THE_SYSTEM = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc",
    "msgothic.ttc", "malgun.ttf", "Nirmala.ttf", "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf", "Arial Unicode.ttf", "unifont.otf", "unifont.ttf", "FreeSans.ttf",
)  # fmt: skip


class Font:
    """A size of the fonts, first the bundled one; draws and measures one line of text."""

    def __init__(self, size: int):
        """Take a size in pixels."""
        self.size = size

    def getlength(self, text: str) -> float:
        """Return the width of a line in pixels."""
        return sum(_font(path, self.size).getlength(part) for path, part in _parts(text))

    def mask(self, text: str) -> Image.Image:
        """Draw a line, as opacities: mode L, its height that of any line."""
        ascent, descent = _font(str(FONT), self.size).getmetrics()
        mask = Image.new("L", (round(self.getlength(text)) + 2, ascent + descent))
        draw, x = ImageDraw.Draw(mask), 0.0
        for path, part in _parts(text):
            font = _font(path, self.size)
            draw.text((x, ascent), part, 255, font, anchor="ls")
            x += font.getlength(part)
        return mask

    def draw(self, page: Image.Image, at: tuple[float, float], text: str, fill: str) -> None:
        """Write a line, its upper left corner at `at`."""
        page.paste(fill, (round(at[0]), round(at[1])), self.mask(text))


def readable(text: str) -> str:
    """Return printable text; characters that no font has are escapes, such as `U+5C71`."""
    return "".join(
        c if _font_of(c) else c.encode("unicode_escape").decode("ascii") for c in printable(text)
    )


def files_for(text: str) -> list[str]:
    """Return the font files that draw a text, the bundled one first."""
    return list(dict.fromkeys([str(FONT), *(path for path, _ in _parts(text))]))


def _parts(text: str) -> list[tuple[str, str]]:
    """Split readable text into (font file, characters that it draws)."""
    return [(path, "".join(part)) for path, part in itertools.groupby(readable(text), _font_of)]


@functools.cache
def _font_of(char: str) -> str:
    """Name the first font that has a character; "" if none does."""
    if _has(str(FONT), char):
        return str(FONT)
    return next((path for path in _system_fonts() if _has(path, char)), "")


@functools.cache
def _has(path: str, char: str) -> bool:
    font = _font(path, 16)
    found, missing = font.getmask(char), font.getmask(_MISSING)
    return (found.size, bytes(found)) != (missing.size, bytes(missing))


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    found = []
    for name in _OF_THE_SYSTEM:
        try:
            found.append(str(_font(name, 16).path))
        except OSError:  # it is not here
            continue
    return tuple(found)


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
