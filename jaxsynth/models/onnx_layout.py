"""Arrays whose axes lie in another order in memory than the ONNX graph says.

ONNX graphs are NCHW, convolutions on CPU want NHWC. A transpose only changes the order that is
noted beside the array, so layouts follow the data: convolutions leave NHWC behind, elementwise
operators keep what they find, and the transposes of a graph (tf2onnx, ConvNeXt) cost nothing. Numpy
arrays are constants, known when the graph is loaded; their order is always their own.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Laid(NamedTuple):
    """A traced array; axis i of the graph's tensor is axis order[i] of `array`."""

    array: jax.Array
    order: tuple[int, ...]


Value = np.ndarray | Laid


def laid(array: jax.Array) -> Laid:
    """Wrap an array that lies as the graph says."""
    return Laid(array, tuple(range(array.ndim)))


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape of the graph's tensor."""
    if isinstance(value, np.ndarray):
        return value.shape
    return tuple(value.array.shape[axis] for axis in value.order)


def transpose(value: Value, perm: Sequence[int]) -> Value:
    """Transpose the graph's tensor; nothing moves in memory."""
    if isinstance(value, np.ndarray):
        return value.transpose(perm)
    return Laid(value.array, tuple(value.order[axis] for axis in perm))


def as_graph(value: Value) -> Any:
    """Return the array with its axes as the graph has them."""
    return ordered(value, range(len(shape_of(value))))


def ordered(value: Value, order: Sequence[int]) -> Any:
    """Return the array with its axes so that `Laid(array, order)` is the value."""
    order = tuple(order)
    inverse = tuple(order.index(i) for i in range(len(order)))
    if isinstance(value, np.ndarray):
        return value.transpose(inverse)
    perm = tuple(value.order[axis] for axis in inverse)
    return value.array if perm == tuple(range(len(perm))) else value.array.transpose(perm)


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the order of an (N, C, ...) tensor that lies as (N, ..., C)."""
    return (0, rank - 1, *range(1, rank - 1))


def align(values: Sequence[Value]) -> tuple[list[Any], tuple[int, ...]]:
    """Bring the operands of a broadcasting operator into one order.

    Returns:
      The arrays, of as many axes each, and the order that they have in common: that of the largest
      traced operand.
    """
    rank = max(len(shape_of(v)) for v in values)
    traced = [v for v in values if isinstance(v, Laid) and len(v.order) == rank]
    largest = max(traced, key=lambda v: v.array.size, default=None)
    order = tuple(range(rank)) if largest is None else largest.order
    return [ordered(_widened(v, rank), order) for v in values], order


def _widened(value: Value, rank: int) -> Value:
    """Put axes of one in front, as broadcasting does."""
    more = rank - len(shape_of(value))
    if not more:
        return value
    if isinstance(value, np.ndarray):
        return value.reshape((1,) * more + value.shape)
    array = value.array.reshape((1,) * more + value.array.shape)
    return Laid(array, (*range(more), *(axis + more for axis in value.order)))


def reshape(value: Value, shape: Sequence[int]) -> Value:
    """Reshape the graph's tensor.

    Axes that a reshape leaves alone stay where they are in memory: splitting channels, or dropping
    axes of one, keeps NHWC.
    """
    shape, old = tuple(shape), shape_of(value)
    if isinstance(value, np.ndarray):
        return value.reshape(shape)
    if value.order == tuple(range(len(old))) or 0 in old or math.prod(old) != math.prod(shape):
        return laid(as_graph(value).reshape(shape))
    groups = _groups(old, shape)
    groups.sort(key=lambda group: min((value.order[i] for i in group[0]), default=len(old)))
    perm = [value.order[i] for before, _ in groups for i in before]
    after = [i for _, after in groups for i in after]
    array = value.array if perm == sorted(perm) else value.array.transpose(perm)
    order = tuple(after.index(i) for i in range(len(shape)))
    return Laid(array.reshape([shape[i] for i in after]), order)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Split two shapes into the shortest runs of axes that hold as many numbers."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first = i, j
        a, b = math.prod(old[i : i + 1]), math.prod(new[j : j + 1])
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        groups.append((range(first[0], i), range(first[1], j)))
    return groups
