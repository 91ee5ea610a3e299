"""Changes of a picture that should not change what a moderation network says of it. Pure Pillow."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

SAME = "as it is"


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def _crop(image: Image.Image, share: float, x: float = 0.5, y: float = 0.5) -> Image.Image:
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = round((image.width - width) * x), round((image.height - height) * y)
    return image.crop((left, top, left + width, top + height))


def _hue(image: Image.Image, degrees: float) -> Image.Image:
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(round(degrees * 256 / 360) % 256)  # wraps around
    return Image.fromarray(hsv, "HSV").convert("RGB")


def _blur(image: Image.Image, share: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def _thumbnails(image: Image.Image, side: int) -> Image.Image:
    """The picture so many times across and down, with white gaps, in its own size."""
    gap = max(1, max(image.size) // 60)
    cell = [max(1, (length - gap * (side + 1)) // side) for length in image.size]
    small, page = image.resize(cell), Image.new("RGB", image.size, "white")
    for i in range(side * side):
        page.paste(small, (gap + (i % side) * (cell[0] + gap), gap + i // side * (cell[1] + gap)))
    return page


def _bars(image: Image.Image, wide: bool) -> Image.Image:
    """Black bars that make it twice as wide as high, or as high as wide."""
    width, height = image.size
    box = (max(width, 2 * height), height) if wide else (width, max(height, 2 * width))
    return ImageOps.pad(image, box, color="black") if box != image.size else image


_CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    SAME: lambda image: image,
    "mirror": ImageOps.mirror,
    "crop, middle 80 %": lambda image: _crop(image, 0.8),
    "crop, upper left 80 %": lambda image: _crop(image, 0.8, 0, 0),
    "crop, middle 50 %": lambda image: _crop(image, 0.5),
    "JPEG quality 50": lambda image: _jpeg(image, 50),
    "JPEG quality 10": lambda image: _jpeg(image, 10),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brightness x 0.6": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "brightness x 1.4": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "hue + 30 degrees": lambda image: _hue(image, 30),
    "hue + 180 degrees": lambda image: _hue(image, 180),
    "blur of 1 %": lambda image: _blur(image, 0.01),
    "blur of 3 %": lambda image: _blur(image, 0.03),
    "thumbnails 2 x 2": lambda image: _thumbnails(image, 2),
    "thumbnails 3 x 3": lambda image: _thumbnails(image, 3),
    "bars left and right": lambda image: _bars(image, True),
    "bars above and below": lambda image: _bars(image, False),
}
CHANGES = tuple(_CHANGES)


def change(rgb: np.ndarray, name: str) -> np.ndarray:
    """Change a picture (H, W, 3) uint8; `name` is one of `CHANGES`."""
    return np.asarray(_CHANGES[name](Image.fromarray(rgb)).convert("RGB"))
