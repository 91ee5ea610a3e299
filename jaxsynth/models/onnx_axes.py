"""ONNX operators along axes: gathers, scatters, sums, the largest of an axis, softmax.

Source: the operators' pages at onnx.ai/onnx/operators.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    check_size,
    in_memory,
    operator,
    positive,
    reshape,
    root,
)
from jaxsynth.models.onnx_file import dtype_of
from jaxsynth.models.onnx_shapes import cut

_REDUCE: dict[str, Callable] = {
    "ReduceL1": lambda xp, x, **k: abs(x).sum(**k),
    "ReduceL2": lambda xp, x, **k: root((x * x).sum(**k)),
    "ReduceLogSum": lambda xp, x, **k: xp.log(x.sum(**k)),
    "ReduceLogSumExp": lambda xp, x, **k: _log_sum_exp(xp, x, **k),
    "ReduceMax": lambda xp, x, **k: x.max(**k),
    "ReduceMean": lambda xp, x, **k: x.mean(**k),
    "ReduceMin": lambda xp, x, **k: x.min(**k),
    "ReduceProd": lambda xp, x, **k: x.prod(**k),
    "ReduceSum": lambda xp, x, **k: x.sum(**k),
    "ReduceSumSquare": lambda xp, x, **k: (x * x).sum(**k),
}
_REDUCTIONS: dict[str, Any] = {  # of scattered numbers: a method of jax's, a function of numpy's
    "none": ("set", None),
    "add": ("add", np.add),
    "mul": ("multiply", np.multiply),
    "min": ("min", np.minimum),
    "max": ("max", np.maximum),
}


@operator("Gather", folds=True)
def _gather(c: Call) -> Value:
    axis, index = c.axis(0), c.array(1)
    index = _inside(c, index, c.shape()[axis])
    if c.known or index.ndim or isinstance(c.value(0), np.ndarray):
        return c.result(c.xp.take(c.array(0), index, axis=axis))
    if not isinstance(index, np.ndarray):
        return c.result(jnp.take(c.array(0), index, axis=axis))
    one = cut(c.value(0), {axis: slice(int(index), int(index) + 1)})
    return reshape(one, [s for i, s in enumerate(c.shape()) if i != axis])


@operator("GatherElements", folds=True)
def _gather_elements(c: Call) -> Value:
    axis = c.axis(0)
    index = _inside(c, c.array(1), c.shape()[axis])
    within = tuple(slice(None if i == axis else n) for i, n in enumerate(index.shape))
    return c.result(c.xp.take_along_axis(c.xp.asarray(c.array(0))[within], index, axis=axis))


@operator("GatherND", folds=True)
def _gather_nd(c: Call) -> Value:
    x, batch = c.xp.asarray(c.array(0)), c.attr("batch_dims", 0)
    own = _places(c.shape(1)[:-1], range(batch))
    return c.result(x[(*own, *_columns(c, batch))])


@operator("ScatterND", folds=True)
def _scatter_nd(c: Call) -> Value:
    return _scattered(c, tuple(_columns(c, 0)))


@operator("Scatter", "ScatterElements", folds=True)
def _scatter_elements(c: Call) -> Value:
    shape, axis = c.shape(1), c.axis(0)
    at = list(_places(shape, range(len(shape))))
    at[axis] = _inside(c, c.array(1), c.shape()[axis])
    return _scattered(c, tuple(at))


def _scattered(c: Call, at: tuple) -> Value:
    """Write the third input at places of the first."""
    x, new, how = c.array(0), c.array(2), c.attr("reduction", "none")
    method, function = _REDUCTIONS[how]
    if not c.known:
        return c.result(getattr(jnp.asarray(x).at[at], method)(new))
    x = x.copy()
    if function is None:
        x[at] = new
    else:
        function.at(x, at, new)
    return x


def _columns(c: Call, first: int) -> list[Any]:
    """The indices along the last axis of the second input, one for each axis from `first` on."""
    index, shape = c.array(1), c.shape()[first:]
    return [_inside(c, index[..., i], shape[i]) for i in range(index.shape[-1])]


def _places(shape: tuple[int, ...], axes: range) -> tuple[np.ndarray, ...]:
    """The numbers of the places along some axes of a shape, ready to broadcast."""
    return tuple(
        np.arange(shape[i]).reshape([-1 if i == j else 1 for j in range(len(shape))]) for i in axes
    )


def _inside(c: Call, index: Any, side: int) -> Any:
    """Count indices from the front, known ones checked."""
    if isinstance(index, np.ndarray):
        if index.size and not (-side <= index.min() and index.max() < side):
            raise ValueError(f"an index is not within {side}")
        return index % side
    return c.xp.where(index < 0, index + side, index)


@operator("OneHot", folds=True)
def _one_hot(c: Call) -> Value:
    depth = int(c.static(1).item())
    index, values = c.array(0), c.array(2)
    axis = positive(c.attr("axis", -1), index.ndim + 1)
    check_size((depth, *index.shape))
    index = c.xp.expand_dims(c.xp.where(index < 0, index + depth, index), axis)
    units = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(index.ndim)])
    return c.result(c.xp.where(index == units, values[1], values[0]))


@operator("EyeLike")
def _eye_like(c: Call) -> Value:
    rows, columns = c.shape()
    return np.eye(rows, columns, c.attr("k", 0), dtype_of(c.attr("dtype", 1)))


@operator("NonZero", folds=True)
def _non_zero(c: Call) -> Value:
    return np.stack(np.nonzero(c.static(0))).astype(np.int64)


@operator("TopK")
def _top_k(c: Call) -> Any:
    k = (c.numbers(1, "k") or [1])[0]
    axis = c.axis(-1)
    x = jnp.moveaxis(c.array(0), axis, -1)
    sign = 1 if c.attr("largest", 1) else -1
    values, places = jax.lax.top_k(sign * x, k)
    return tuple(c.result(jnp.moveaxis(out, -1, axis)) for out in (sign * values, places))


@operator("Compress", folds=True)
def _compress(c: Call) -> Value:
    """Take what a condition, known beforehand, is true for."""
    places, x = np.nonzero(c.static(1).ravel())[0], c.array(0)
    if c.node.attributes.get("axis") is None:
        return c.result(c.xp.take(x.ravel(), places))
    return c.result(c.xp.take(x, places, axis=c.axis()))


# --- sums over axes -------------------------------------------------------------------------------


@operator(*_REDUCE, folds=True)
def _reduce(c: Call) -> Value:
    x, rank = c.value(0), len(c.shape())
    axes = c.numbers(1, "axes")
    if not axes:
        if c.attr("noop_with_empty_axes", 0):
            return x
        axes = range(rank)
    axes = {positive(a, rank) for a in axes}
    keep, function = bool(c.attr("keepdims", 1)), _REDUCE[c.node.op]
    if isinstance(x, np.ndarray):
        return np.asarray(function(np, x, axis=tuple(axes), keepdims=keep)).astype(x.dtype)
    array = function(jnp, x.array, axis=tuple(x.order[a] for a in axes), keepdims=keep)
    array = array.astype(x.array.dtype)
    if keep:
        return Laid(array, x.order)
    left = [x.order[a] for a in range(rank) if a not in axes]
    return Laid(array, tuple(sorted(left).index(place) for place in left))


def _log_sum_exp(xp: Any, x: Any, axis: Any, keepdims: bool) -> Any:
    if xp is np:
        return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))
    return jax.nn.logsumexp(x, axis=axis, keepdims=keepdims)


@operator("ArgMax", "ArgMin", folds=True)
def _arg(c: Call) -> Value:
    x, axis = c.array(0), c.axis(0)
    find = c.xp.argmax if c.node.op == "ArgMax" else c.xp.argmin
    if c.attr("select_last_index", 0):
        out = x.shape[axis] - 1 - find(c.xp.flip(x, axis), axis=axis)
    else:
        out = find(x, axis=axis)
    return c.result(c.xp.expand_dims(out, axis) if c.attr("keepdims", 1) else out)


@operator("CumSum", folds=True)
def _cumulative_sum(c: Call) -> Value:
    x, axis = c.array(0), positive(int(c.static(1).item()), len(c.shape()))
    x = c.xp.flip(x, axis) if c.attr("reverse", 0) else x
    out = c.xp.cumsum(x, axis=axis, dtype=x.dtype)
    out = out - x if c.attr("exclusive", 0) else out
    return c.result(c.xp.flip(out, axis) if c.attr("reverse", 0) else out)


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Call) -> Value:
    """Over one axis; before opset 13 over all axes from that one on."""
    (array, order), shape = in_memory(c.value(0)), c.shape()
    axis = c.axis(-1 if c.opset >= 13 else 1)
    axes = [order[a] for a in ([axis] if c.opset >= 13 else range(axis, len(shape)))]
    if c.node.op != "Hardmax":
        function = jax.nn.softmax if c.node.op == "Softmax" else jax.nn.log_softmax
        return c.result(function(jnp.asarray(array), axis=tuple(axes)), order)
    matrix = math.prod(shape[:axis]), math.prod(shape[axis:])
    flat = jnp.asarray(c.array(0)).reshape(shape if c.opset >= 13 else matrix)
    along = axis if c.opset >= 13 else 1
    hot = jax.nn.one_hot(flat.argmax(along), flat.shape[along], axis=along, dtype=flat.dtype)
    return c.result(hot.reshape(shape))
