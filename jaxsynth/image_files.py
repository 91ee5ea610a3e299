"""Image files read, whatever their format.

`read_image` is the only reader, as `jaxsynth.image_search.find_images` is the only search: scores,
starting images, training and evaluation see the same files and the same pixels.
"""

import contextlib
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxsynth.disk import HEAD, expand
from jaxsynth.image_bytes import (
    check_tiff,
    jpeg_complaint,
    still_webp,
    tiff_kind,
    unread_kind,
    without_metadata,
)
from jaxsynth.image_search import ImageFile

READER = 2  # a number that changes with the pixels that `read_image` gives
MAX_PIXELS = 178_956_970  # of an image: Pillow's own limit against decompression bombs
# Formats that Pillow decodes itself (EPS, say, would start another program); TGA has no mark.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO")
_FORMATS += ("PCX", "SGI", "DDS", "PSD", "QOI", "TGA")
# What decoders raise on damaged bytes. A full memory and a failing disk are not among them.
_DAMAGE = (OSError, SyntaxError, ValueError, LookupError, ArithmeticError, TypeError, EOFError)
_DAMAGE += (AttributeError, NotImplementedError, struct.error, zlib.error)
_DAMAGE += (Image.DecompressionBombError,)
_ORIENTATION = 0x0112  # EXIF tag; value -> what makes the picture upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Picture(NamedTuple):
    """A decoded file: (H, W, 3) uint8 RGB, and the complaints of its decoder."""

    rgb: np.ndarray
    complaint: str = ""


def read_image(
    source: str | os.PathLike[str] | bytes | ImageFile, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read the first frame of any image file: upright (EXIF), alpha dropped, profiles ignored.

    Args:
      source: A path, or a file's bytes.
      max_pixels: A larger image is refused.

    Returns:
      (H, W, 3) uint8, RGB.

    Raises:
      ValueError: One line that names the file, if it is no image that can be read.
    """
    return read_picture(source, max_pixels).rgb


def read_picture(
    source: str | os.PathLike[str] | bytes | ImageFile, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read an image as `read_image` does, and return its decoder's complaint, too."""
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "the given data"
        _check_kind(name, data)
    else:
        file = source if isinstance(source, ImageFile) else ImageFile(expand(source))
        name = repr(str(file))
        _check_kind(name, file.read(HEAD))  # before a film is read
        data = file.read()
    try:
        with _quiet:
            rgb = np.array(_upright_rgb(data, max_pixels))
        return Picture(rgb, jpeg_complaint(data))
    except _Unknown as error:
        raise ValueError(f"{name} is not an image: {error}") from None
    except _DAMAGE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be read as an image: {why}") from error


class _Unknown(ValueError):
    """The bytes are of no format that is read."""


class _Quiet:
    """Holds back Pillow's warnings, in many threads at once, until the caller decides."""

    def __init__(self) -> None:
        self._lock, self._inside, self._held = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._held.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._held.close()


_quiet = _Quiet()


def _check_kind(name: str, head: bytes) -> None:
    """Refuse bytes whose beginning shows that they are no readable image."""
    kind = unread_kind(head[:HEAD])
    if kind and not _accepts("AVIF", head):
        raise ValueError(f"{name} is not an image: it is {kind}")


def _accepts(kind: str, head: bytes) -> bool:
    """Whether bytes begin with the mark of one of Pillow's formats, or the format has none."""
    Image.init()
    if kind not in Image.OPEN:
        return False
    accepts = Image.OPEN[kind][1]
    return accepts is None or accepts(head[:16].ljust(16)) is True


def _upright_rgb(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = _decoded(without_metadata(data), max_pixels)
    except _DAMAGE:
        if (pixels := still_webp(data)) is data:
            raise
        image = _decoded(pixels, max_pixels)
    rgb = _to_8_bits(image).convert("RGB")
    turn = _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _decoded(data: bytes, max_pixels: int) -> Image.Image:
    """Decode with the format whose mark the bytes have."""
    for kind in _FORMATS:
        if not _accepts(kind, data):
            continue
        try:
            image = Image.OPEN[kind][0](io.BytesIO(data), "")
        except _DAMAGE as error:
            if kind == _FORMATS[-1]:
                continue
            what = tiff_kind(data) if kind == "TIFF" else unread_kind(data)
            why = f" ({error})" if isinstance(error, OSError) else ""
            raise ValueError(f"it is {what or f'a damaged or unusual {kind} file{why}'}") from error
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(
                f"its {width} x {height} pixels are more than {max_pixels}: it may be a "
                "decompression bomb; allow more with max_pixels if it is a panorama"
            )
        if not width * height:
            raise ValueError("it has no pixels")
        if kind == "TIFF":
            check_tiff(image.tag_v2)
        image.load()
        return image
    raise _Unknown("its content is no known image format")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:  # in EXIF data: the pixels are intact, so show them as stored
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Make of every mode one that `convert` turns into RGB, deep grey scaled to 0..255."""
    if image.mode in ("La", "RGBa"):
        return image.convert(image.mode.upper())
    if image.mode == "LAB":
        raise ValueError("its colours are CIELAB: expected grey, RGB, CMYK or YCbCr")
    if not image.mode.startswith(("I", "F")):
        return image
    tags = getattr(image, "tag_v2", {})
    grey, white = np.asarray(image).astype(np.float64), 65535.0
    low, high = float(grey.min()), float(grey.max())
    if image.mode.startswith("F"):
        white = 1.0 if high <= 1 else 255.0
        fits = low >= 0 and (high <= 1 or 2 < high <= 255)  # False for a NaN
        expected = "floats from 0 to 1, or from 0 to 255"
    else:
        bits = max(tags.get(258, (16,)))
        white = float(2 ** min(bits, 16) - 1)
        fits, expected = low >= 0 and high <= white, "whole numbers of 16 bits"
    if not fits:
        raise ValueError(f"its values go from {low:g} to {high:g}: expected {expected}")
    grey = grey * (255 / white)
    grey = 255 - grey if tags.get(262, 1) == 0 else grey
    return Image.fromarray(np.rint(grey).astype(np.uint8))
