"""ONNX operators number by number, and quantised numbers.

Sources: the operators' pages at onnx.ai/onnx/operators; where they leave a gradient open,
PyTorch's. A quantised tensor stays a float with the value of an integer, so that gradients pass
straight through its rounding; where a number is out of range they are 0, as in PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.layers import relu
from jaxsynth.models.onnx_call import (
    OPERATORS,
    Call,
    Laid,
    Operator,
    Value,
    as_graph,
    in_memory,
    is_float,
    laid,
    operator,
    ordered,
)
from jaxsynth.models.onnx_file import dtype_of


def _divide(c: Call, a: Any, b: Any) -> Any:
    if is_float(a):
        return a / b
    return c.xp.sign(a) * c.xp.sign(b) * (abs(a) // abs(b))  # integers are cut off, not floored


def _power(c: Call, base: Any, exponent: Any) -> Any:
    given = c.values[1]
    if not c.known and isinstance(given, np.ndarray) and given.size == 1:
        known = given.item()
        if known == int(known):
            return base ** int(known)
        if known == 0.5:
            return jnp.sqrt(base).astype(base.dtype)
    return (base**exponent).astype(base.dtype)


def _is_infinite(c: Call, x: Any) -> Any:
    of_sign = jnp.where(x > 0, c.attr("detect_positive", 1), c.attr("detect_negative", 1))
    return jnp.isinf(x) & (of_sign != 0)


def _shrink(c: Call, x: Any) -> Any:
    limit, bias = c.attr("lambd", 0.5), c.attr("bias", 0.0)
    return jnp.where(x < -limit, x + bias, jnp.where(x > limit, x - bias, 0))


def _celu(c: Call, x: Any) -> Any:
    alpha = c.attr("alpha", 1.0)
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha))


def _selu(c: Call, x: Any) -> Any:
    alpha, gamma = c.attr("alpha", 1.67326319217681884765625), c.attr("gamma", 1.05070102214813232)
    return gamma * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


def between(xp: Any, x: Any, low: Any, high: Any) -> Any:
    """Clip; at a bound the gradient is 0, as PyTorch's ReLU6 has it."""
    return xp.where(x <= low, low, xp.where(x >= high, high, x)).astype(x.dtype)


# numpy's function has the operator's name in small letters.
_LIKE_NUMPY = ("Abs", "Add", "Ceil", "Cos", "Equal", "Exp", "Floor", "Greater", "IsNaN", "Less")
_LIKE_NUMPY += ("Log", "Round", "Sign", "Sin", "Sqrt", "Tanh", "Where")
_LIKE_NUMPY_SMOOTH = ("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan")
# Computed with jax.numpy only: numpy has not all of them, and no shape is computed by them.
_SMOOTH: dict[str, Callable] = {
    "Celu": _celu,
    "Elu": lambda c, x: jnp.where(x > 0, x, c.attr("alpha", 1.0) * jnp.expm1(jnp.minimum(x, 0))),
    "Erf": lambda c, x: jax.scipy.special.erf(x),
    "Gelu": lambda c, x: jax.nn.gelu(x, c.attr("approximate", "none") == "tanh"),
    "HardSigmoid": lambda c, x: between(jnp, c.attr("alpha", 0.2) * x + c.attr("beta", 0.5), 0, 1),
    "HardSwish": lambda c, x: x * between(jnp, x / 6 + 0.5, 0, 1),
    "IsInf": _is_infinite,
    "LeakyRelu": lambda c, x: jnp.where(x > 0, x, c.attr("alpha", 0.01) * x),
    "Mish": lambda c, x: x * jnp.tanh(jax.nn.softplus(x)),
    "PRelu": lambda c, x, slope: jnp.where(x > 0, x, slope * x),
    "Relu": lambda c, x: relu(x) if is_float(x) else jnp.maximum(x, 0),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": lambda c, x: jax.nn.sigmoid(x),
    "Softplus": lambda c, x: jax.nn.softplus(x),
    "Softsign": lambda c, x: x / (1 + abs(x)),
    "Swish": lambda c, x: x * jax.nn.sigmoid(c.attr("alpha", 1.0) * x),
    "ThresholdedRelu": lambda c, x: jnp.where(x > c.attr("alpha", 1.0), x, 0),
}
_PLAIN: dict[str, Callable] = {
    "And": lambda c, a, b: a & b,
    "BitShift": lambda c, a, b: a << b if c.required("direction") == "LEFT" else a >> b,
    "BitwiseAnd": lambda c, a, b: a & b,
    "BitwiseNot": lambda c, x: ~x,
    "BitwiseOr": lambda c, a, b: a | b,
    "BitwiseXor": lambda c, a, b: a ^ b,
    "Div": _divide,
    "GreaterOrEqual": lambda c, a, b: a >= b,
    "LessOrEqual": lambda c, a, b: a <= b,
    "Mean": lambda c, *xs: sum(xs[1:], xs[0]) / len(xs),
    "Mod": lambda c, a, b: (c.xp.fmod if c.attr("fmod", 0) else c.xp.mod)(a, b),
    "Mul": lambda c, a, b: a * b,
    "Neg": lambda c, x: -x,
    "Not": lambda c, x: ~x,
    "Or": lambda c, a, b: a | b,
    "Pow": _power,
    "Reciprocal": lambda c, x: 1 / x,
    "Sub": lambda c, a, b: a - b,
    "Sum": lambda c, *xs: sum(xs[1:], xs[0]),
    "Xor": lambda c, a, b: a ^ b,
}
_SMOOTH |= {n: lambda c, x, n=n: getattr(jnp, n.lower())(x) for n in _LIKE_NUMPY_SMOOTH}
_PLAIN |= {n: lambda c, *xs, n=n: getattr(c.xp, n.lower())(*xs) for n in _LIKE_NUMPY}
OPERATORS.update({name: Operator(f, pointwise=True) for name, f in _SMOOTH.items()})
OPERATORS.update({name: Operator(f, folds=True, pointwise=True) for name, f in _PLAIN.items()})


@operator("Max", "Min", folds=True, pointwise=True)
def _extreme(c: Call, *arrays: Any) -> Any:
    best, is_max = arrays[0], c.node.op == "Max"
    for x in arrays[1:]:  # the first of equals has the gradient
        best = c.xp.where((best >= x) if is_max else (best <= x), best, x)
    return best


@operator("Clip", folds=True)
def _clip(c: Call) -> Value:
    (array, order), bounds = in_memory(c.value(0)), []
    ends = (-math.inf, math.inf)
    if not is_float(array):
        ends = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
    for index, (name, missing) in enumerate(zip(("min", "max"), ends, strict=True), 1):
        bound = c.static(index).item() if c.has(index) else c.attr(name, missing)
        bounds.append(min(max(bound, ends[0]), ends[1]))
    # At crossed bounds the upper one counts.
    return c.result(between(c.xp, array, min(bounds), bounds[1]), order)


@operator("Cast", "CastLike", folds=True)
def _cast(c: Call) -> Value:
    """Cast; traced floats keep the network's precision, whatever the file says."""
    x = c.value(0)
    if c.node.op == "CastLike":
        return _as(c, x, in_memory(c.value(1))[0].dtype)
    return _as(c, x, dtype_of(c.required("to")))


def _as(c: Call, x: Value, dtype: Any) -> Value:
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    floating = jnp.issubdtype(dtype, jnp.floating)
    dtype = c.dtype if floating else jax.dtypes.canonicalize_dtype(dtype)
    return x._replace(array=x.array.astype(dtype))


# --- quantised numbers ----------------------------------------------------------------------------


def _as_tensor(c: Call, value: Value, order: Sequence[int]) -> Any:
    """A scale or zero point, one or of an axis or of blocks along it, as the tensor lies."""
    array, shape = as_graph(value), c.shape()
    if array.size == 1:
        return array.reshape(())
    axis = c.axis(1)
    if array.ndim == 1:
        array = array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    elif array.ndim == len(shape) and (block := c.attr("block_size", 0)):
        array = c.xp.take(c.xp.repeat(array, block, axis=axis), np.arange(shape[axis]), axis=axis)
    else:
        raise ValueError(f"a scale of shape {array.shape} without block_size")
    return ordered(array if isinstance(array, np.ndarray) else laid(array), order)


def _parts(c: Call) -> tuple[Any, tuple[int, ...], Any]:
    """The first input and its scale as they lie in memory, and the order of their axes."""
    array, order = in_memory(c.value(0))
    return array, order, _as_tensor(c, c.value(1), order)


@operator("DequantizeLinear", folds=True)
def _dequantize(c: Call) -> Value:
    x, order, scale = _parts(c)
    x = x.astype(scale.dtype)
    if c.has(2):
        x = x - _as_tensor(c, c.value(2), order).astype(scale.dtype)
    return c.result(x * scale, order)


@operator("QuantizeLinear")
def _quantize(c: Call) -> Value:
    x, order, scale = _parts(c)
    zero = c.values[2] if c.has(2) else np.zeros((), dtype_of(c.attr("output_dtype", 0) or 2))
    if not isinstance(zero, np.ndarray):
        raise ValueError("its zero point must be known beforehand")
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    zero = _as_tensor(c, zero.astype(c.dtype), order)
    y = x / scale
    rounded = jax.lax.stop_gradient(jnp.round(y)) + zero
    through = rounded + (y - jax.lax.stop_gradient(y))
    inside = (rounded >= low) & (rounded <= high)
    return c.result(jnp.where(inside, through, jnp.clip(rounded, low, high)), order)


@operator("DynamicQuantizeLinear")
def _quantize_by_range(c: Call) -> tuple[Value, ...]:
    """To 0 to 255 by the least and the largest number; all are within, so all have a gradient."""
    x = c.value(0)
    x = x if isinstance(x, Laid) else laid(jnp.asarray(x))
    given = jax.lax.stop_gradient(x.array)
    low, high = jnp.minimum(given.min(), 0), jnp.maximum(given.max(), 0)
    scale = (high - low) / 255
    scale = jnp.where(scale == 0, 1, scale)
    zero = jnp.clip(jnp.round(-low / scale), 0, 255)
    rounded = jnp.clip(jnp.round(given / scale) + zero, 0, 255)
    y = rounded + (x.array - given) / scale
    return x._replace(array=y), laid(scale), laid(zero)
