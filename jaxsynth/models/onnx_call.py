"""The call of an ONNX operator, its values, and the table that operators enter themselves in.

ONNX graphs are NCHW, convolutions on CPU want NHWC. A transpose only changes the order that is
noted with the array (`Laid`), so layouts follow the data: convolutions leave NHWC behind,
elementwise operators keep what they find, and the transposes of a graph (tf2onnx, ConvNeXt) cost
nothing. Numpy arrays are constants, known when the graph is loaded, in their own order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.compiled import Derive, derive_nothing
from jaxsynth.models.onnx_file import OnnxNode

MOST_NUMBERS = 2**28  # of a tensor: a damaged file may claim any number


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
    array, order = in_memory(value)
    return tuple(array.shape[axis] for axis in order)


def in_memory(value: Value) -> tuple[Any, tuple[int, ...]]:
    """Return an array as it lies, and the order of its axes."""
    return (value, tuple(range(value.ndim))) if isinstance(value, np.ndarray) else value


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
    array, own = in_memory(value)
    perm = tuple(own[axis] for axis in inverse)
    return array if perm == tuple(range(len(perm))) else array.transpose(perm)


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the order of an (N, C, ...) tensor that lies as (N, ..., C)."""
    return (0, rank - 1, *range(1, rank - 1))


def align(values: Sequence[Value]) -> tuple[list[Any], tuple[int, ...]]:
    """Bring the operands of a broadcasting operator into one order: arrays of as many axes, and it.

    It is that of the largest traced operand.
    """
    rank = max(len(shape_of(v)) for v in values)
    traced = [v for v in values if isinstance(v, Laid) and len(v.order) == rank]
    largest = max(traced, key=lambda v: v.array.size, default=None)
    order = tuple(range(rank)) if largest is None else largest.order
    return [ordered(_widened(v, rank), order) for v in values], order


def _widened(value: Value, rank: int) -> Value:
    """Put axes of one in front, as broadcasting does."""
    array, order = in_memory(value)
    more = rank - len(order)
    array = array.reshape((1,) * more + array.shape)
    if isinstance(value, np.ndarray):
        return array
    return Laid(array, (*range(more), *(axis + more for axis in order)))


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


# --- operators ------------------------------------------------------------------------------------


class Operator(NamedTuple):
    """How one operator is computed.

    Attributes:
      function: Call -> value or tuple of values; of a `pointwise` one (call, *arrays) -> array.
      folds: Whether numpy computes it where all inputs are known.
      pointwise: Whether it broadcasts its inputs and keeps their axes.
      image: Whether its first input and output are (N, C, H, W).
    """

    function: Callable[..., Any]
    folds: bool = False
    pointwise: bool = False
    image: bool = False


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, **kind: bool) -> Callable[[Callable], Callable]:
    """Enter a function in the table under the names of its operators."""

    def enter(function: Callable) -> Callable:
        OPERATORS.update(dict.fromkeys(names, Operator(function, **kind)))
        return function

    return enter


class Call:
    """A node with the values of its inputs.

    Attributes:
      node: The node.
      opset: Version of the operators.
      values: One an input, None for absent ones.
      dtype: Of the network's arithmetic.
      fixed: Names of the tensors that depend on parameters alone.
      derive: Stores arrays made of these.
      known: Whether numpy computes this node, as all inputs are known.
      xp: numpy or jax.numpy, accordingly.
    """

    def __init__(
        self,
        node: OnnxNode,
        opset: int,
        values: Sequence[Value | None],
        dtype: Any,
        fixed: frozenset[str] = frozenset(),
        derive: Derive = derive_nothing,
    ):
        """Describe the call; floats that are known follow the arithmetic of the network."""
        self.node, self.opset, self.dtype, self.fixed = node, opset, dtype, fixed
        self.derive = derive
        self.values = list(values)
        given = [v for v in values if v is not None]
        folds = OPERATORS[node.op].folds
        self.known = folds and all(isinstance(v, np.ndarray) for v in given)
        self.xp: Any = np if self.known else jnp

    def compute(self) -> tuple[Value, ...]:
        """Compute the node's outputs."""
        function, _, pointwise, _ = OPERATORS[self.node.op]
        if pointwise:
            arrays, order = align([self.value(i) for i in range(len(self.values))])
            out = self.result(function(self, *arrays), order)
        else:
            out = function(self)
        return out if isinstance(out, tuple) and not isinstance(out, Laid) else (out,)

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute; ValueError if it has another kind than its default."""
        value = self.node.attributes.get(name, default)
        kind = (int, float) if isinstance(default, int | float) else type(default)
        if default is not None and not isinstance(value, kind):
            raise ValueError(f"attribute {name} is {value!r:.50}")
        return value

    def required(self, name: str) -> Any:
        """Return an attribute that must be there."""
        if name not in self.node.attributes:
            raise ValueError(f"attribute {name} is missing")
        return self.node.attributes[name]

    def has(self, index: int) -> bool:
        """Return whether an optional input is there."""
        return index < len(self.values) and self.values[index] is not None

    def value(self, index: int) -> Value:
        """Return an input; known floats next to traced arrays have the network's precision."""
        if not self.has(index):
            raise ValueError(f"input {index} is missing")
        value = self.values[index]
        if not self.known and isinstance(value, np.ndarray) and is_float(value):
            return value.astype(self.dtype)
        return value

    def array(self, index: int) -> Any:
        """Return an input with its axes as the graph has them."""
        return as_graph(self.value(index))

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of an input."""
        return shape_of(self.value(index))

    def static(self, index: int, default: Any = None) -> np.ndarray:
        """Return an input that must be known when the graph is loaded."""
        if not self.has(index):
            if default is None:
                raise ValueError(f"input {index} is missing")
            return np.asarray(default)
        if not isinstance(self.values[index], np.ndarray):
            name = self.node.inputs[index]
            raise ValueError(
                f"its input {name!r} is computed from the image, but must be known beforehand: "
                "export with fixed sizes"
            )
        return self.values[index]

    def numbers(self, index: int, attribute: str, default: Any = None) -> tuple[int, ...] | None:
        """Return integers that are an input, in older opsets an attribute; None if neither."""
        if self.has(index):
            return tuple(int(i) for i in self.static(index).ravel())
        value = self.node.attributes.get(attribute, default)
        return value if value is None else tuple(map(int, np.atleast_1d(value)))

    def axis(self, default: int | None = None) -> int:
        """Return the attribute `axis` of the first input, counted from the front."""
        axis = self.required("axis") if default is None else self.attr("axis", default)
        return positive(axis, len(self.shape()))

    def result(self, array: Any, order: Sequence[int] | None = None) -> Value:
        """Wrap an array; without an order its axes are the graph's."""
        if self.known:
            return np.asarray(array)
        array = jnp.asarray(array)
        return laid(array) if order is None else Laid(array, tuple(order))


def is_float(array: Any) -> bool:
    """Return whether an array holds floats, of any precision."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def positive(axis: int, rank: int) -> int:
    """Return an axis counted from the front; ValueError if there is none."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def check_size(shape: Sequence[int]) -> tuple[int, ...]:
    """Check and return a shape; ValueError if no tensor of an image network has it."""
    shape = tuple(map(int, shape))
    if min(shape, default=0) < 0 or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"a tensor of shape {shape} is too large or impossible")
    return shape


def root(x: Any, power: float = 2) -> Any:
    """Return a root; its gradient at 0 is 0, as that of PyTorch's norms."""
    xp = np if isinstance(x, np.ndarray | np.generic) else jnp
    return xp.where(x == 0, 0, xp.where(x == 0, 1, x) ** (1 / power)).astype(x.dtype)
