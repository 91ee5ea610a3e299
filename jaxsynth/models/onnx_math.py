"""ONNX operators number by number, sums over axes, and products of matrices.

Sources: the operators' pages at onnx.ai/onnx/operators; where they leave a gradient open,
PyTorch's.
"""

import math
from collections.abc import Callable
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
    operator,
    positive,
    root,
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


# --- sums over axes -------------------------------------------------------------------------------

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
    x, rank = c.value(0), len(c.shape())
    x = x if isinstance(x, Laid) else c.result(x)
    axis = c.axis(-1 if c.opset >= 13 else 1)
    axes = [x.order[a] for a in ([axis] if c.opset >= 13 else range(axis, rank))]
    if c.node.op != "Hardmax":
        function = jax.nn.softmax if c.node.op == "Softmax" else jax.nn.log_softmax
        return x._replace(array=function(x.array, axis=tuple(axes)))
    shape = c.shape()
    matrix = math.prod(shape[:axis]), math.prod(shape[axis:])
    flat = as_graph(x).reshape(shape if c.opset >= 13 else matrix)
    along = axis if c.opset >= 13 else 1
    hot = jax.nn.one_hot(flat.argmax(along), flat.shape[along], axis=along, dtype=flat.dtype)
    return c.result(hot.reshape(shape))
