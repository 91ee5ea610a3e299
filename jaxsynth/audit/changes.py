"""Changes of pictures: those that should not matter, and the smallest ones that flip a decision.

The smallest change is searched over pixels, and over codes of the prior. Each step goes to where
the decision's linear approximation crosses the threshold, and a little beyond. Source:
Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks";
here with one decision, steps of limited length, and codes as well as pixels.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from jaxsynth.audit.networks import Network, Prior
from jaxsynth.audit.subjects import DECISION, PIXELS, PRIOR
from jaxsynth.lpips import lpips

_BEYOND = 0.02  # share of a step that it goes beyond the linear crossing
_STEPS = 20
_LEAST_LPIPS = 32  # pixels a side
_LONGEST = {PIXELS: 2.0, PRIOR: 0.15}  # of a step, root mean square: grey levels, sigmas of codes
Slope = Callable[[np.ndarray], tuple[Any, Any]]  # (N, ...) -> decisions (N,), their gradients
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


class Flip(NamedTuple):
    """Pictures before and after, as the classifier sees them.

    Attributes:
      before, after: (N, size, size, 3) float RGB of 0..255.
      odds: (N, 2) decision before and after.
      code: (N,) root mean square change of the code, in its sigmas; None for pixels.
    """

    before: np.ndarray
    after: np.ndarray
    odds: np.ndarray
    code: np.ndarray | None = None

    def part(self, rows: np.ndarray) -> "Flip":
        """Return some of them."""
        code = None if self.code is None else self.code[rows]
        return Flip(self.before[rows], self.after[rows], self.odds[rows], code)


def cross(
    slope: Slope, start: np.ndarray, level: float, longest: float, limits: tuple[Any, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Move points (N, ...) until their decision is on the other side of a level.

    `slope` gives decisions and gradients. No step is longer than `longest`, as a root mean square.
    Returns the points, and decisions (N, 2) before and after. A point that does not cross stays
    where its last step led.
    """
    x, axes = np.array(start, np.float32), tuple(range(1, np.ndim(start)))
    low, high = np.minimum(limits[0], x), np.maximum(limits[1], x)
    first, value, left = np.zeros(len(x)), np.zeros(len(x)), np.arange(len(x))
    for step in range(_STEPS + 1):
        found, gradient = slope(x[left])
        value[left] = np.asarray(found, float) - level
        if step == 0:
            first = value.copy()
        still = (value[left] > 0) == (first[left] > 0)
        left, gradient = left[still], np.asarray(gradient)[still]
        if step == _STEPS or not len(left):
            break
        square = np.maximum((gradient**2).sum(axes), 1e-20)
        length = -(1 + _BEYOND) * value[left] / square
        length -= 1e-4 * np.sign(first[left]) / np.sqrt(square)
        rms = np.abs(length) * np.sqrt(square / gradient[0].size)
        length *= np.minimum(1.0, longest / np.maximum(rms, 1e-20))
        move = length.reshape(-1, *(1,) * len(axes)) * gradient
        x[left] = np.clip(x[left] + move, low[left], high[left])
    return x, np.stack([first, value], 1) + level


def flip_pixels(network: Network, inputs: np.ndarray, threshold: float) -> Flip:
    """Change the pixels of a classifier's inputs (N, size, size, 3) until its decision flips."""
    units, decision = network.model.preprocess, network.weights(DECISION)

    def slope(x: np.ndarray) -> tuple[Any, Any]:
        readings, gradient, _ = network.slopes(x, decision)
        return readings @ decision, gradient

    black, dark, white = (units.to_input(np.full(3, v)) for v in (0, 1, 255))
    limits = np.minimum(black, white), np.maximum(black, white)
    longest = _LONGEST[PIXELS] * float(np.abs(dark - black).mean())
    after, odds = cross(slope, inputs, _level(threshold), longest, limits)
    return Flip(units.to_rgb(inputs), units.to_rgb(after), odds)


def flip_codes(network: Network, prior: Prior, codes: np.ndarray, threshold: float) -> Flip:
    """Change codes (N, D) until the decision on their images flips."""
    code, decision = prior.generator.code, network.weights(DECISION)
    size = prior.generator.code_size
    sigma = np.ones(size) if code is None or code.sigma is None else code.sigma
    sigma = np.maximum(np.asarray(sigma, np.float32), 1e-3 * np.float32(np.max(sigma)))

    def slope(scaled: np.ndarray) -> tuple[Any, Any]:
        z = scaled * sigma
        x = prior.view(network, prior.draw(z))
        readings, gradient, _ = network.slopes(x, decision)
        back = prior.draw_back(z, prior.view_back(network, gradient))
        return readings @ decision, back * sigma

    low = -np.inf if code is None else (np.zeros(size) if code.lower is None else code.lower)
    high = np.inf if code is None else code.upper
    limits = np.asarray(low) / sigma, np.asarray(high) / sigma
    start = np.asarray(codes, np.float32) / sigma
    after, odds = cross(slope, start, _level(threshold), _LONGEST[PRIOR], limits)
    seen = [prior.view(network, prior.draw(z * sigma)) for z in (start, after)]
    before, changed = (np.clip(network.model.preprocess.to_rgb(x), 0, 255) for x in seen)
    return Flip(before, changed, odds, np.sqrt(((after - start) ** 2).mean(1)))


def distances(flip: Flip, perceived: np.ndarray | tuple = ()) -> dict[str, np.ndarray]:
    """Measure changes: root mean square in grey levels, of codes, and LPIPS if it is known."""
    rms = np.sqrt(((flip.after - flip.before) ** 2).mean((1, 2, 3)))
    found = {"grey levels": rms} | ({} if flip.code is None else {"code": flip.code})
    return found | ({"LPIPS": np.asarray(perceived)} if len(perceived) else {})


def perceived(found: Sequence[Flip]) -> np.ndarray:
    """Return the LPIPS (N,) of all changes; (0,) of tiny pictures, or if it is not installed."""
    before, after = (np.concatenate([getattr(f, k) for f in found]) for k in ("before", "after"))
    try:
        return lpips(before, after) if before.shape[1] >= _LEAST_LPIPS else np.zeros(0)
    except ValueError:  # the package is not installed
        return np.zeros(0)


def _level(threshold: float) -> float:
    return math.log(threshold / (1 - threshold))
