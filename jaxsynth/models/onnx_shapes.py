"""ONNX operators that move numbers: shapes, slices, gathers, padding.

Source: the operators' pages at onnx.ai/onnx/operators. Where all inputs are known, numpy computes
them, so that a graph's computations of shapes are done when it is loaded.
"""

import math
from typing import Any

import numpy as np

from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    check_size,
    in_memory,
    operator,
    ordered,
    positive,
    reshape,
    transpose,
)

_PAD_MODES = ("constant", "reflect", "edge", "wrap")


@operator("Identity", "Dropout", folds=True)
def _identity(c: Call) -> Any:
    x = c.value(0)
    if c.has(2) and c.static(2).any():
        raise ValueError("training_mode is on: export the network in evaluation mode")
    if len(c.node.outputs) < 2:
        return x
    return x, c.result(c.xp.ones(c.shape(), bool))  # a mask that drops nothing


@operator("Constant", folds=True)
def _constant(c: Call) -> Value:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if (value := c.node.attributes.get(name)) is not None:
            kind = np.int64 if "int" in name else np.float32
            return value if isinstance(value, np.ndarray) else np.asarray(value, kind)
    raise ValueError("it holds no array of numbers")


@operator("Shape")
def _shape(c: Call) -> Value:
    return np.asarray(c.shape()[c.attr("start", 0) : c.attr("end")], np.int64)


@operator("Size")
def _size(c: Call) -> Value:
    return np.asarray(math.prod(c.shape()), np.int64)


@operator("Range", folds=True)
def _range(c: Call) -> Value:
    start, stop, step = (c.static(i).item() for i in range(3))
    check_size([max(0, math.ceil((stop - start) / step))])
    return np.arange(start, stop, step, dtype=c.static(0).dtype)


@operator("ConstantOfShape", folds=True)
def _constant_of_shape(c: Call) -> Value:
    value = c.attr("value", np.zeros(1, np.float32))
    return np.full(check_size(c.static(0)), value.item(), value.dtype)


@operator("Reshape", folds=True)
def _reshape(c: Call) -> Value:
    old, new = c.shape(), list(c.numbers(1, "shape") or ())
    if not c.attr("allowzero", 0):
        new = [old[i] if side == 0 else side for i, side in enumerate(new)]
    if new.count(-1) == 1:
        rest = math.prod(side for side in new if side != -1)
        new[new.index(-1)] = math.prod(old) // rest if rest else 0
    if min(new, default=0) < 0 or math.prod(new) != math.prod(old):
        raise ValueError(f"a tensor of shape {old} cannot become {tuple(new)}")
    return reshape(c.value(0), new)


@operator("Flatten", folds=True)
def _flatten(c: Call) -> Value:
    shape, axis = c.shape(), c.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return reshape(c.value(0), (math.prod(shape[:axis]), math.prod(shape[axis:])))


@operator("Squeeze", folds=True)
def _squeeze(c: Call) -> Value:
    shape, axes = c.shape(), c.numbers(1, "axes")
    if axes is None:
        axes = [i for i, side in enumerate(shape) if side == 1]
    axes = {positive(a, len(shape)) for a in axes}
    if any(shape[a] != 1 for a in axes):
        raise ValueError(f"axes {sorted(axes)} of a tensor of shape {shape} are not all of size 1")
    return reshape(c.value(0), [side for i, side in enumerate(shape) if i not in axes])


@operator("Unsqueeze", folds=True)
def _unsqueeze(c: Call) -> Value:
    axes, sides = c.numbers(1, "axes") or (), list(c.shape())
    for axis in sorted(positive(a, len(sides) + len(axes)) for a in axes):
        sides.insert(axis, 1)
    return reshape(c.value(0), sides)


@operator("Transpose", folds=True)
def _transpose(c: Call) -> Value:
    rank = len(c.shape())
    perm = c.attr("perm") or tuple(range(rank))[::-1]
    if sorted(perm) != list(range(rank)):
        raise ValueError(f"perm {perm} does not fit a tensor with {rank} axes")
    return transpose(c.value(0), perm)


@operator("Concat", folds=True)
def _concat(c: Call) -> Value:
    values = [c.value(i) for i in range(len(c.values))]
    axis = c.axis()
    order = next((v.order for v in values if isinstance(v, Laid)), range(len(c.shape())))
    arrays = [ordered(v, order) for v in values]
    return c.result(c.xp.concatenate(arrays, axis=order[axis]), order)


def cut(value: Value, cuts: dict[int, slice]) -> Value:
    """Slice axes of the graph's tensor."""
    array, order = in_memory(value)
    index = [slice(None)] * len(order)
    for axis, cut in cuts.items():
        index[order[axis]] = cut
    array = array[tuple(index)]
    return array if isinstance(value, np.ndarray) else Laid(array, order)


@operator("Split", folds=True)
def _split(c: Call) -> Any:
    x, shape, parts = c.value(0), c.shape(), len(c.node.outputs)
    axis = c.axis(0)
    sizes = c.numbers(1, "split")
    if sizes is None:
        size = -(-shape[axis] // parts)
        sizes = [size] * (parts - 1) + [shape[axis] - size * (parts - 1)]
    if len(sizes) != parts or sum(sizes) != shape[axis] or min(sizes) < 0:
        raise ValueError(f"{shape[axis]} of axis {axis} do not split into {tuple(sizes)}")
    ends = np.cumsum(sizes)
    spans = zip(ends - sizes, ends, strict=True)
    return tuple(cut(x, {axis: slice(int(a), int(b))}) for a, b in spans)


@operator("Slice", folds=True)
def _slice(c: Call) -> Value:
    shape = c.shape()
    starts, ends = c.numbers(1, "starts") or (), c.numbers(2, "ends") or ()
    axes = c.numbers(3, "axes", range(len(starts)))
    steps = c.numbers(4, "steps", [1] * len(starts))
    cuts = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        side = shape[positive(axis, len(shape))]
        low, high = (0, side) if step > 0 else (-1, side - 1)
        start, end = (at + side if at < 0 else at for at in (start, end))
        start, end = min(max(start, 0), high), min(max(end, low), high)
        cuts[positive(axis, len(shape))] = slice(start, None if end < 0 else end, step)
    return cut(c.value(0), cuts)


@operator("Expand", folds=True)
def _expand(c: Call) -> Value:
    shape = np.broadcast_shapes(c.shape(), tuple(map(int, c.static(1))))
    return c.result(c.xp.broadcast_to(c.array(0), check_size(shape)))


@operator("Tile", folds=True)
def _tile(c: Call) -> Value:
    times = [int(n) for n in c.static(1)]
    check_size([side * n for side, n in zip(c.shape(), times, strict=True)])
    return c.result(c.xp.tile(c.array(0), times))


@operator("Trilu", folds=True)
def _triangle(c: Call) -> Value:
    k = int(c.static(1, 0).item())
    return c.result((c.xp.triu if c.attr("upper", 1) else c.xp.tril)(c.array(0), k))


@operator("CenterCropPad", folds=True)
def _centre(c: Call) -> Value:
    """Cut axes that are too long and pad the others with zeros, at both ends alike."""
    x, order = c.array(0), range(len(c.shape()))
    wanted = [int(n) for n in c.static(1)]
    widths, cuts = [(0, 0)] * len(order), {}
    for axis, size in zip(c.numbers(9, "axes", order), check_size(wanted), strict=True):
        axis, more = positive(axis, len(order)), size - x.shape[axis]
        widths[axis] = (max(more, 0) // 2, max(more, 0) - max(more, 0) // 2)
        cuts[axis] = slice(max(-more, 0) // 2, max(-more, 0) // 2 + size)
    return c.result(c.xp.pad(x, widths)[tuple(cuts.get(i, slice(None)) for i in order)])


@operator("Pad", folds=True)
def _pad(c: Call) -> Value:
    """Pad, or cut where a padding is negative."""
    x, rank, mode = c.value(0), len(c.shape()), c.attr("mode", "constant")
    pads = c.numbers(1, "pads") or ()
    axes = [positive(a, rank) for a in c.numbers(3, "axes", range(rank))]
    pairs = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    shape = c.shape()
    check_size([side + max(0, sum(pairs.get(i, (0, 0)))) for i, side in enumerate(shape)])
    cuts = {
        axis: slice(max(0, -before), shape[axis] + min(0, after))
        for axis, (before, after) in pairs.items()
        if min(before, after) < 0
    }
    array, order = in_memory(cut(x, cuts))
    widths = [(0, 0)] * rank
    for axis, pair in pairs.items():
        widths[order[axis]] = tuple(max(0, n) for n in pair)
    if mode not in _PAD_MODES:
        raise ValueError(f"mode {mode!r} is unknown")
    with_what = {}
    if mode == "constant":
        with_what = {"constant_values": c.static(2, c.attr("value", 0.0)).item()}
    return c.result(c.xp.pad(array, widths, mode=mode, **with_what), order)


@operator("DepthToSpace", image=True)
def _depth_to_space(c: Call) -> Value:
    (n, depth, h, w), b = c.shape(), c.required("blocksize")
    if c.attr("mode", "DCR") == "DCR":
        x = transpose(reshape(c.value(0), (n, b, b, depth // b**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        x = transpose(reshape(c.value(0), (n, depth // b**2, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(x, (n, depth // b**2, h * b, w * b))


@operator("SpaceToDepth", image=True)
def _space_to_depth(c: Call) -> Value:
    (n, depth, h, w), b = c.shape(), c.required("blocksize")
    x = reshape(c.value(0), (n, depth, h // b, b, w // b, b))
    return reshape(transpose(x, (0, 3, 5, 1, 2, 4)), (n, depth * b**2, h // b, w // b))
