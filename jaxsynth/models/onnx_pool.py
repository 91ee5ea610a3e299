"""Windows of ONNX operators on images, and pooling over them. All compute in NHWC.

Sources: the operators' pages at onnx.ai/onnx/operators, and onnxruntime where they are silent
(windows that overhang in ceil mode).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.layers import max_pool
from jaxsynth.models.onnx_call import Call, check_size, operator
from jaxsynth.models.onnx_layout import Laid, Value, channels_last, ordered
from jaxsynth.models.onnx_math import root


def images(c: Call, index: int = 0) -> jax.Array:
    """An input (N, C, ...) as (N, ..., C)."""
    return jnp.asarray(ordered(c.value(index), channels_last(len(c.shape(index)))))


def as_images(array: jax.Array) -> Laid:
    """Say of an (N, ..., C) array that it is the graph's (N, C, ...)."""
    return Laid(array, channels_last(array.ndim))


def steps_of(c: Call, name: str, rank: int) -> tuple[int, ...]:
    """Return the attribute `strides` or `dilations`, by default ones."""
    steps = tuple(c.attr(name) or (1,) * rank)
    if len(steps) != rank or min(steps) < 1:
        raise ValueError(f"{name} are {steps}, expected {rank} numbers from 1 up")
    return steps


def given_pads(c: Call, rank: int) -> list[tuple[int, int]]:
    """Return the attribute `pads` as a pair for each axis."""
    pads = tuple(c.attr("pads") or (0,) * (2 * rank))
    if len(pads) != 2 * rank:
        raise ValueError(f"pads are {pads}, expected {2 * rank} numbers")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def pads_of(c: Call, sides, kernel, strides, dilations) -> list[tuple[int, int]]:
    """Padding of each axis, by the attribute or by `auto_pad`."""
    auto = c.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return given_pads(c, len(sides))
    if auto == "VALID":
        return [(0, 0)] * len(sides)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {auto!r} is unknown")
    every = zip(sides, kernel, strides, dilations, strict=True)
    totals = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in every]
    return [halves(total, auto) for total in totals]


def halves(total: int, auto: str) -> tuple[int, int]:
    """Split a padding into before and after; an odd one has more at the end, or as it is told."""
    less, more = total // 2, total - total // 2
    return (more, less) if auto == "SAME_LOWER" else (less, more)


def _pool(c: Call, padding: float, reduce: Callable[[list[jax.Array]], jax.Array]) -> tuple:
    """Pool axis by axis: the windows' values from first to last, as slices of the whole map.

    Returns:
      (N, ..., C), and of every axis how many places of the image, and of image and padding, each
      window sees.
    """
    x, kernel = images(c), c.required("kernel_shape")
    rank = x.ndim - 2
    if len(kernel) != rank:
        raise ValueError(f"kernel_shape is {kernel} for images of shape {c.shape()}")
    strides, dilations = steps_of(c, "strides", rank), steps_of(c, "dilations", rank)
    pads, seen = pads_of(c, x.shape[1:-1], kernel, strides, dilations), []
    for i in reversed(range(rank)):
        side, (before, after) = x.shape[i + 1], pads[i]
        k, s, d = kernel[i], strides[i], dilations[i]
        reach = (k - 1) * d + 1
        room = side + before + after - reach
        out = room // s + 1
        if c.attr("ceil_mode", 0):
            out = -(-room // s) + 1
            out -= (out - 1) * s >= side + before  # no window begins behind the image
        if out < 1:
            raise ValueError(f"windows of {reach} in {side + before + after} places")
        check_size([out, k, k])  # a damaged window may be of any size
        place = np.arange(out)[:, None] * s + np.arange(k) * d - before
        inside = (place >= 0) & (place < side)
        padded = (place >= -before) & (place < side + after)
        seen.append((inside.sum(1), padded.sum(1)))
        over = max(0, (out - 1) * s + reach - side - before)
        widths = [(0, 0)] * x.ndim
        widths[i + 1] = (before, over)
        x = jnp.pad(x, widths, constant_values=padding) if before or over else x
        starts = [j * d for j in range(k)]
        x = reduce([lax.slice_in_dim(x, a, a + (out - 1) * s + 1, s, axis=i + 1) for a in starts])
    return x, seen[::-1]


def _first_largest(windows: list[jax.Array]) -> jax.Array:
    """The maximum; the first of equals has the gradient, as in PyTorch."""
    best = windows[0]
    for x in windows[1:]:
        best = jnp.where(best >= x, best, x)
    return best


@operator("MaxPool", image=True)
def _max_pool(c: Call) -> Value:
    x = images(c)
    lowest = -math.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    steps = c.attr("strides"), c.attr("dilations") or (1, 1), c.attr("ceil_mode", 0)
    if tuple(c.required("kernel_shape")) == (3, 3) and steps == ((2, 2), (1, 1), 0):
        pads = pads_of(c, x.shape[1:3], (3, 3), (2, 2), (1, 1))
        sides = zip(x.shape[1:3], pads, strict=True)
        # Windows of 3 at distance 2 fill an odd side.
        ends = [(a, b - (n + a + b + 1) % 2, 0) for n, (a, b) in sides]
        widths = [(0, 0, 0), *ends, (0, 0, 0)]
        return as_images(max_pool(lax.pad(x, jnp.asarray(lowest, x.dtype), widths)))
    return as_images(_pool(c, lowest, _first_largest)[0])


@operator("AveragePool", image=True)
def _average_pool(c: Call) -> Value:
    total, seen = _pool(c, 0.0, sum)
    count = np.ones((), np.float64)
    for inside, padded in seen:
        count = count[..., None] * (padded if c.attr("count_include_pad", 0) else inside)
    return as_images(total / count[..., None].astype(total.dtype))


@operator("LpPool", image=True)
def _lp_pool(c: Call) -> Value:
    p = c.attr("p", 2)
    powers = Call(c.node, c.opset, [as_images(abs(images(c)) ** p)], c.dtype)
    return as_images(root(_pool(powers, 0.0, sum)[0], p))


@operator("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", image=True)
def _global_pool(c: Call) -> Value:
    x = images(c)
    how = {"axis": tuple(range(1, x.ndim - 1)), "keepdims": True}
    if c.node.op == "GlobalAveragePool":
        return as_images(x.mean(**how))
    if c.node.op == "GlobalMaxPool":
        return as_images(x.max(**how))
    p = c.attr("p", 2)
    return as_images(root((abs(x) ** p).sum(**how), p))
