"""ONNX operators that resample images: resized, at computed places, from overlapping blocks.

`Resize` and `Upsample` are one small matrix an axis, made by numpy. Sources: the operators' pages
at onnx.ai/onnx/operators and onnx's reference implementation, which agrees with PyTorch's
grid_sample and affine_grid; Keys 1981 for the cubic kernel.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.onnx_call import Call, Laid, Value, check_size, laid, operator, positive
from jaxsynth.models.onnx_pool import as_images, images, steps_of

_CUBIC = -0.75  # of Keys' kernel
_ROUNDING: dict[str, Callable] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@operator("Upsample", image=True)
def _upsample(c: Call) -> Value:
    scales = c.static(1, c.attr("scales")).ravel()
    mode = c.attr("mode", "nearest")
    sizes = check_size([int(side * scale) for side, scale in zip(c.shape(), scales, strict=True)])
    for axis, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        if scale != 1:
            side = c.shape()[axis]
            at = _places(side, size, float(scale), "asymmetric")
            c.values[0] = _along(c.values[0], axis, _weights(c, at, side, mode, "floor", scale))
    return c.values[0]


@operator("Resize", image=True)
def _resize(c: Call) -> Value:
    old, scales, sizes = _wanted(c)
    rule = c.attr("coordinate_transformation_mode", "asymmetric" if c.opset < 11 else "half_pixel")
    how = "floor" if c.opset < 11 else c.attr("nearest_mode", "round_prefer_floor")
    x, mode = c.value(0), c.attr("mode", "nearest")
    crop = _crop(c, len(old)) if rule == "tf_crop_and_resize" else None
    for axis, (side, scale, size) in enumerate(zip(old, scales, sizes, strict=True)):
        if crop:
            begin, end = ((side - 1) * share for share in crop[axis])
            at = np.linspace(begin, end, size) if size > 1 else np.array([(begin + end) / 2])
            x = _along(x, axis, _weights(c, at, side, mode, how, scale))
            x = _filled(x, axis, (at < 0) | (at > side - 1), c.attr("extrapolation_value", 0.0))
        elif size != side or scale != 1:
            at = _places(side, size, scale, rule)
            x = _along(x, axis, _weights(c, at, side, mode, how, scale))
    return x if isinstance(x, Laid) else laid(jnp.asarray(x))


def _crop(c: Call, rank: int) -> list[tuple[float, float]]:
    """Where the region of interest begins and ends on each axis, as shares of it."""
    axes = [positive(a, rank) for a in c.attr("axes") or range(rank)]
    roi, spans = c.static(1).ravel(), [(0.0, 1.0)] * rank
    for axis, begin, end in zip(axes, roi[: len(axes)], roi[len(axes) :], strict=True):
        spans[axis] = float(begin), float(end)
    return spans


def _wanted(c: Call) -> tuple[tuple[int, ...], list[float], list[int]]:
    """Sides before, scales and sides after, of every axis."""
    old = c.shape()
    axes = [positive(a, len(old)) for a in c.attr("axes") or range(len(old))]
    scales, sizes = [1.0] * len(old), list(old)
    given = c.static(1 if c.opset < 11 else 2, np.zeros(0)).ravel()
    if given.size:
        for axis, scale in zip(axes, map(float, given), strict=True):
            scales[axis], sizes[axis] = scale, math.floor(old[axis] * scale)
    else:
        wanted = [int(n) for n in c.static(3).ravel()]
        each = [n / old[axis] for axis, n in zip(axes, wanted, strict=True)]
        if (policy := c.attr("keep_aspect_ratio_policy", "stretch")) != "stretch":
            each = [(min if policy == "not_larger" else max)(each)] * len(axes)
            wanted = [math.floor(old[axis] * each[0] + 0.5) for axis in axes]
        for axis, size, scale in zip(axes, wanted, each, strict=True):
            sizes[axis], scales[axis] = size, scale
    if min(scales) <= 0:
        raise ValueError(f"its scales are {scales}")
    return old, scales, list(check_size(sizes))


def _places(side: int, size: int, scale: float, rule: str) -> np.ndarray:
    """Where in the input each output pixel lies, (size,)."""
    x = np.arange(size, dtype=np.float64)
    if rule == "half_pixel" or (rule == "pytorch_half_pixel" and size > 1):
        return (x + 0.5) / scale - 0.5
    if rule == "pytorch_half_pixel":
        return np.zeros(size)
    if rule == "asymmetric":
        return x / scale
    if rule == "align_corners":
        return x * (side - 1) / (size - 1) if size > 1 else x
    if rule == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if rule == "half_pixel_symmetric":
        centre = side / 2 * (1 - size / (side * scale))
        return centre + (x + 0.5) / scale - 0.5
    raise ValueError(f"coordinate_transformation_mode {rule!r} is not computed")


def _weights(c: Call, at: np.ndarray, side: int, mode: str, how: str, scale: float) -> np.ndarray:
    """Source pixels of each output pixel: indices (size,), or weights (size, side)."""
    if mode == "nearest":
        if how not in _ROUNDING:
            raise ValueError(f"nearest_mode {how!r} is unknown")
        return np.clip(_ROUNDING[how](at), 0, side - 1).astype(np.int32)
    if mode not in ("linear", "bilinear", "cubic", "bicubic"):
        raise ValueError(f"mode {mode!r} is unknown")
    cubic = "cubic" in mode
    wide = max(1.0, 1 / scale) if c.attr("antialias", 0) else 1.0
    reach = math.ceil((2 if cubic else 1) * wide)
    first = np.floor(at).astype(int) - reach + 1
    taps = first[:, None] + np.arange(2 * reach)
    distance = (at[:, None] - taps) / wide
    a = c.attr("cubic_coeff_a", _CUBIC)
    weights = _keys(distance, a) if cubic else np.maximum(0, 1 - abs(distance))
    if c.attr("exclude_outside", 0):
        weights = np.where((taps >= 0) & (taps < side), weights, 0)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(at), side))
    rows = np.arange(len(at))[:, None]
    np.add.at(matrix, (np.broadcast_to(rows, taps.shape), np.clip(taps, 0, side - 1)), weights)
    return matrix


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel."""
    x = abs(x)
    return np.where(x <= 1, _near(x, a), np.where(x < 2, _far(x, a), 0))


def _near(x: Any, a: float = _CUBIC) -> Any:
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _far(x: Any, a: float = _CUBIC) -> Any:
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a


def _filled(value: Laid, axis: int, where: np.ndarray, with_what: float) -> Laid:
    """Put a number at some places of an axis of the graph's tensor."""
    place, x = value.order[axis], value.array
    where = where.reshape([-1 if i == place else 1 for i in range(x.ndim)])
    return value._replace(array=jnp.where(where, jnp.asarray(with_what, x.dtype), x))


def _along(value: Any, axis: int, weights: np.ndarray) -> Laid:
    """Apply the weights of one axis of the graph's tensor."""
    value = value if isinstance(value, Laid) else laid(jnp.asarray(value))
    place, x = value.order[axis], value.array
    if weights.ndim == 1:
        return value._replace(array=jnp.take(x, weights, axis=place))
    moved = jnp.tensordot(weights.astype(x.dtype), x, (1, place))
    return value._replace(array=jnp.moveaxis(moved, 0, place))


@operator("GridSample", image=True)
def _grid_sample(c: Call) -> Value:
    x, grid = images(c), jnp.asarray(c.array(1))
    rank, mode = x.ndim - 2, c.attr("mode", "linear" if c.opset >= 20 else "bilinear")
    if grid.ndim != x.ndim or grid.shape[-1] != rank:
        raise ValueError(f"a grid of shape {grid.shape} for images of shape {c.shape()}")
    padding, aligned = c.attr("padding_mode", "zeros"), bool(c.attr("align_corners", 0))
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError(f"padding_mode {padding!r} is unknown")
    taps = []
    for axis, side in enumerate(x.shape[1:-1]):
        at = (grid[..., rank - 1 - axis] + 1) / 2  # x, which runs along the last axis, comes first
        at = at * (side - 1) if aligned else at * side - 0.5
        ends = (0.0, side - 1.0) if aligned else (-0.5, side - 0.5)
        at = jnp.round(at) if mode == "nearest" else at
        at = at if "cubic" in mode else _held(at, padding, side, ends)  # as PyTorch
        taps.append([(_held(i, padding, side, ends), w) for i, w in _taps(at, mode)])
    batch = np.arange(len(grid)).reshape(-1, *(1,) * rank)
    total = jnp.zeros((), x.dtype)
    for corner in itertools.product(*taps):
        index, weight = [], jnp.ones((), x.dtype)
        for (place, part), side in zip(corner, x.shape[1:-1], strict=True):
            within = (place >= 0) & (place <= side - 1)
            weight = weight * jnp.where(within, part, 0)
            index.append(jnp.clip(place, 0, side - 1).astype(int))
        total = total + weight[..., None] * x[(batch, *index)]
    return as_images(total)


def _taps(at: Any, mode: str) -> list[tuple[Any, Any]]:
    """The pixels of one axis that a place reads, with their weights."""
    if mode == "nearest":
        return [(at, jnp.ones_like(at))]
    first = lax.stop_gradient(jnp.floor(at))
    t = at - first
    if mode in ("linear", "bilinear"):
        return [(first, 1 - t), (first + 1, t)]
    if mode not in ("cubic", "bicubic"):
        raise ValueError(f"mode {mode!r} is unknown")
    weights = (_far(t + 1), _near(t), _near(1 - t), _far(2 - t))
    return [(first + i - 1, weight) for i, weight in enumerate(weights)]


def _held(at: Any, padding: str, side: int, ends: tuple[float, float]) -> Any:
    """Bring places outside an axis back, as the padding has it; with zeros they stay."""
    low, high = ends
    if padding == "zeros":
        return at
    if padding == "border":
        return jnp.where((at < low) | (at > high), jnp.clip(at, 0, side - 1), at)
    span = max(high - low, 1e-9)
    turned = jnp.mod(at - low, 2 * span)
    turned = low + jnp.where(turned > span, 2 * span - turned, turned)
    return jnp.where((at < low) | (at > high), turned, at)


@operator("AffineGrid")
def _affine_grid(c: Call) -> Value:
    theta, sides = c.array(0), check_size(c.numbers(1, "size") or ())[2:]
    steps = []
    for side in sides:
        ends = 1.0 if c.attr("align_corners", 0) else 1 - 1 / side
        steps.append(np.linspace(-ends, ends, side) if side > 1 else np.zeros(1))
    places = np.meshgrid(*steps, indexing="ij")
    base = np.stack([*places[::-1], np.ones(sides)], -1).astype(theta.dtype)
    return c.result(jnp.einsum("...i,nji->n...j", base, theta))


@operator("Col2Im")
def _columns_to_image(c: Call) -> Value:
    """Add up blocks where they overlap, as PyTorch's fold."""
    x, block = jnp.asarray(c.array(0)), c.numbers(2, "block_shape") or ()
    sides = check_size(c.numbers(1, "image_shape") or ())
    rank = len(sides)
    strides, dilations = steps_of(c, "strides", rank), steps_of(c, "dilations", rank)
    pads = tuple(c.attr("pads") or (0,) * (2 * rank))
    before, after = pads[:rank], pads[rank:]
    full = [a + side + b for a, side, b in zip(before, sides, after, strict=True)]
    each = zip(full, block, strides, dilations, strict=True)
    counts = [(f - (k - 1) * d - 1) // s + 1 for f, k, s, d in each]
    x = x.reshape(x.shape[0], -1, *block, *counts)
    out = jnp.zeros((*x.shape[:2], *check_size(full)), x.dtype)
    for offset in np.ndindex(*block):
        spans = zip(offset, counts, strides, dilations, strict=True)
        at = [slice(o * d, o * d + (n - 1) * s + 1, s) for o, n, s, d in spans]
        out = out.at[(slice(None), slice(None), *at)].add(x[(slice(None), slice(None), *offset)])
    cuts = [slice(a, a + side) for a, side in zip(before, sides, strict=True)]
    return c.result(out[(slice(None), slice(None), *cuts)])
