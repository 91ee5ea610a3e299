"""The call of an ONNX operator, and the table that operators enter themselves in."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsynth.models.derived import Derive, derive_nothing
from jaxsynth.models.onnx_file import OnnxNode
from jaxsynth.models.onnx_layout import Laid, Value, align, as_graph, laid, shape_of

MOST_NUMBERS = 2**28  # of a tensor: a damaged file may claim any number


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
            out = function(self, *arrays)
            out = np.asarray(out) if self.known else Laid(out, order)
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

    def result(self, array: Any) -> Value:
        """Wrap an array whose axes are the graph's."""
        return np.asarray(array) if self.known else laid(jnp.asarray(array))


def is_float(array: Any) -> bool:
    """Return whether an array holds floats, of any precision."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def positive(axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
      ValueError: If there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of a tensor with {rank} axes")
    return axis % rank


def check_size(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that is asked for.

    Raises:
      ValueError: If no tensor of an image network has it.
    """
    shape = tuple(map(int, shape))
    if min(shape, default=0) < 0 or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"a tensor of shape {shape} is too large or impossible")
    return shape


def root(x: Any, power: float = 2) -> Any:
    """Return a root; its gradient at 0 is 0, as that of PyTorch's norms."""
    xp = np if isinstance(x, np.ndarray | np.generic) else jnp
    return xp.where(x == 0, 0, xp.where(x == 0, 1, x) ** (1 / power)).astype(x.dtype)
