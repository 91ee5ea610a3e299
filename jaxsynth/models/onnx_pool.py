"""Windows of ONNX operators on images, and pooling over them. All compute in NHWC.

Sources: the operators' pages at onnx.ai/onnx/operators, and onnxruntime where they are silent
(windows that overhang in ceil mode).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.depthwise import same_padding
from jaxsynth.models.layers import max_pool
from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    channels_last,
    check_size,
    operator,
    ordered,
    root,
)


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
    totals = [sum(same_padding(n, (k - 1) * d + 1, s)) for n, k, s, d in every]
    return [halves(total, auto) for total in totals]


def halves(total: int, auto: str) -> tuple[int, int]:
    """Split a padding into before and after; an odd one has more at the end, or as it is told."""
    less, more = total // 2, total - total // 2
    return (more, less) if auto == "SAME_LOWER" else (less, more)


def _pool(c: Call, x: Any, padding: Any, reduce: Callable[[list], Any]) -> tuple:
    """Pool (N, ..., C), or a tuple of them, axis by axis: reduce windows' values, as whole maps.

    The result comes with how many places of the image, and of image and padding, each window of
    every axis sees. `padding` is the value outside.
    """
    kernel, shape = c.required("kernel_shape"), jax.tree.leaves(x)[0].shape
    rank = len(shape) - 2
    if len(kernel) != rank:
        raise ValueError(f"kernel_shape is {kernel} for images of shape {c.shape()}")
    strides, dilations = steps_of(c, "strides", rank), steps_of(c, "dilations", rank)
    pads, seen = pads_of(c, shape[1:-1], kernel, strides, dilations), []
    for i in reversed(range(rank)):
        side, (before, after) = shape[i + 1], pads[i]
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
        widths = [(0, 0)] * len(shape)
        widths[i + 1] = (before, over)
        if before or over:
            x = jax.tree.map(lambda a, p, w=widths: jnp.pad(a, w, constant_values=p), x, padding)
        spans = [(j * d, j * d + (out - 1) * s + 1, s, i + 1) for j in range(k)]
        x = reduce([jax.tree.map(lambda a, s=s: lax.slice_in_dim(a, *s), x) for s in spans])
    return x, seen[::-1]


def _first_largest(windows: list[jax.Array]) -> jax.Array:
    """The maximum; the first of equals has the gradient, as in PyTorch."""
    best = windows[0]
    for x in windows[1:]:
        best = jnp.where(best >= x, best, x)
    return best


def _first_largest_place(windows: list[tuple]) -> tuple:
    """The maximum and where it is."""
    best, at = windows[0]
    for x, place in windows[1:]:
        at, best = jnp.where(best >= x, at, place), jnp.where(best >= x, best, x)
    return best, at


@operator("MaxPool", image=True)
def _max_pool(c: Call) -> Any:
    x = images(c)
    lowest = -math.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    if any(c.node.outputs[1:]):
        order = "F" if c.attr("storage_order", 0) else "C"  # of an image's places
        image = np.arange(math.prod(x.shape[1:-1])).reshape(x.shape[1:-1], order=order)
        planes = np.arange(len(x) * x.shape[-1]).reshape(len(x), *(1,) * image.ndim, x.shape[-1])
        pair = x, jnp.asarray(planes * image.size + image[None, ..., None])
        made = _pool(c, pair, (lowest, 0), _first_largest_place)[0]
        return tuple(map(as_images, made))
    steps = c.attr("strides"), c.attr("dilations") or (1, 1), c.attr("ceil_mode", 0)
    if tuple(c.required("kernel_shape")) == (3, 3) and steps == ((2, 2), (1, 1), 0):
        pads = pads_of(c, x.shape[1:3], (3, 3), (2, 2), (1, 1))
        sides = zip(x.shape[1:3], pads, strict=True)
        # Windows of 3 at distance 2 fill an odd side.
        ends = [(a, b - (n + a + b + 1) % 2, 0) for n, (a, b) in sides]
        widths = [(0, 0, 0), *ends, (0, 0, 0)]
        return as_images(max_pool(lax.pad(x, jnp.asarray(lowest, x.dtype), widths)))
    return as_images(_pool(c, x, lowest, _first_largest)[0])


@operator("AveragePool", image=True)
def _average_pool(c: Call) -> Value:
    total, seen = _pool(c, images(c), 0.0, sum)
    count = np.ones((), np.float64)
    for inside, padded in seen:
        count = count[..., None] * (padded if c.attr("count_include_pad", 0) else inside)
    return as_images(total / count[..., None].astype(total.dtype))


@operator("LpPool", image=True)
def _lp_pool(c: Call) -> Value:
    p = c.attr("p", 2)
    return as_images(root(_pool(c, abs(images(c)) ** p, 0.0, sum)[0], p))


@operator("MaxUnpool", image=True)
def _max_unpool(c: Call) -> Value:
    """Put maxima where MaxPool found them, zeros elsewhere."""
    x, kernel = jnp.asarray(c.array(0)), c.required("kernel_shape")
    rank = len(kernel)
    sides, pads = zip(x.shape[2:], steps_of(c, "strides", rank), strict=True), given_pads(c, rank)
    every = zip(sides, kernel, pads, strict=True)
    shape = x.shape[:2] + tuple((n - 1) * s + k - a - b for (n, s), k, (a, b) in every)
    shape = check_size(c.static(2, shape))
    flat = jnp.zeros(math.prod(shape), x.dtype).at[c.array(1).ravel()].set(x.ravel())
    return c.result(flat.reshape(shape))


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
