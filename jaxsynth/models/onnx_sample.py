"""ONNX operators that read an image at computed places: `GridSample`, `AffineGrid`, `Col2Im`.

Sources: onnx.ai/onnx/operators/onnx__GridSample.html and onnx's reference implementation, which
agrees with PyTorch's grid_sample and affine_grid.
"""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.onnx_call import Call, check_size, operator
from jaxsynth.models.onnx_layout import Value
from jaxsynth.models.onnx_pool import as_images, images, steps_of

_CUBIC = -0.75  # of Keys' kernel
_Taps = list[tuple[Any, Any]]  # place and weight


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


def _taps(at: Any, mode: str) -> _Taps:
    """The pixels of one axis that a place reads, with their weights."""
    if mode == "nearest":
        return [(at, jnp.ones_like(at))]
    first = lax.stop_gradient(jnp.floor(at))
    t = at - first
    if mode in ("linear", "bilinear"):
        return [(first, 1 - t), (first + 1, t)]
    if mode not in ("cubic", "bicubic"):
        raise ValueError(f"mode {mode!r} is unknown")
    near = lambda d: ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1  # noqa: E731
    far = lambda d: ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC  # noqa: E731
    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
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
