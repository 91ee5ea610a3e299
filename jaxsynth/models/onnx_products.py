"""ONNX operators of matrices, attention, and quantised numbers.

Source: the operators' pages at onnx.ai/onnx/operators.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.onnx_call import Call, operator, positive
from jaxsynth.models.onnx_file import dtype_of
from jaxsynth.models.onnx_layout import Value, as_graph, transpose
from jaxsynth.models.onnx_math import between


@operator("MatMul", folds=True)
def _product(c: Call) -> Value:
    return c.result(c.xp.matmul(c.array(0), c.array(1)))


@operator("Gemm", folds=True)
def _gemm(c: Call) -> Value:
    a = transpose(c.value(0), (1, 0)) if c.attr("transA", 0) else c.value(0)
    b = transpose(c.value(1), (1, 0)) if c.attr("transB", 0) else c.value(1)
    out = c.xp.matmul(as_graph(a), as_graph(b))
    alpha, beta = c.attr("alpha", 1.0), c.attr("beta", 1.0)
    out = out if alpha == 1 else out * np.asarray(alpha, out.dtype)
    if c.has(2) and beta:
        bias = c.array(2)
        out = out + (bias if beta == 1 else bias * np.asarray(beta, bias.dtype))
    return c.result(out)


@operator("Einsum", folds=True)
def _einsum(c: Call) -> Value:
    equation = c.required("equation").replace(" ", "")
    return c.result(c.xp.einsum(equation, *(c.array(i) for i in range(len(c.values)))))


@operator("Attention")
def _attention(c: Call) -> Value:
    """Scaled dot product attention (opset 23), without a cache of keys."""
    if any(map(c.has, range(4, len(c.values)))):
        raise ValueError("caches of keys are not computed")
    heads = c.attr("q_num_heads", 0), c.attr("kv_num_heads", 0), c.attr("kv_num_heads", 0)
    split = len(c.shape()) == 3
    q, k, v = (_heads(c.array(i), n) if split else c.array(i) for i, n in enumerate(heads))
    repeat = q.shape[1] // k.shape[1]
    k, v = (jnp.repeat(x, repeat, axis=1) if repeat > 1 else x for x in (k, v))
    scale = c.attr("scale", 1 / math.sqrt(q.shape[-1]))
    scores, cap = scale * (q @ jnp.swapaxes(k, -1, -2)), c.attr("softcap", 0.0)
    scores = cap * jnp.tanh(scores / cap) if cap else scores
    if c.has(3):
        mask = c.array(3)
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    if c.attr("is_causal", 0):
        scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
    out = jax.nn.softmax(scores, axis=-1) @ v
    if split:
        out = jnp.swapaxes(out, 1, 2)
        out = out.reshape(*out.shape[:2], -1)
    return c.result(out)


def _heads(x: Any, heads: int) -> Any:
    """(N, T, heads D) -> (N, heads, T, D)."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2)


# --- quantised weights ----------------------------------------------------------------------------


def _per_axis(c: Call, value: Value, shape: tuple[int, ...]) -> Any:
    """A scale or zero point of one axis, or of blocks along it, as the tensor has its axes."""
    array = as_graph(value)
    if array.ndim == 0 or array.size == 1:
        return array.reshape(())
    axis = positive(c.attr("axis", 1), len(shape))
    if array.ndim == 1:
        return array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    block = c.attr("block_size", 0)
    if not block:
        raise ValueError(f"a scale of shape {array.shape} without block_size")
    return c.xp.take(c.xp.repeat(array, block, axis=axis), np.arange(shape[axis]), axis=axis)


@operator("DequantizeLinear", folds=True)
def _dequantize(c: Call) -> Value:
    x, shape = c.array(0), c.shape()
    scale = _per_axis(c, c.value(1), shape)
    if c.has(2):
        zero = _per_axis(c, c.value(2), shape)
        x = x.astype(scale.dtype) - zero.astype(scale.dtype)
    return c.result(x.astype(scale.dtype) * scale)


@operator("QuantizeLinear")
def _quantize(c: Call) -> Value:
    """Quantise; the gradient passes straight through, 0 where the number is out of range.

    The result stays a float, so that a DequantizeLinear behind it has a gradient.
    """
    x, shape = c.array(0), c.shape()
    scale = _per_axis(c, c.value(1), shape)
    wanted = dtype_of(c.attr("output_dtype", 0) or 2)
    zero = c.values[2] if c.has(2) else np.zeros((), wanted)
    if not isinstance(zero, np.ndarray):
        raise ValueError("its zero point must be known beforehand")
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    y = x / scale
    y = y + jax.lax.stop_gradient(jnp.round(y) - y)
    return c.result(between(jnp, y + _per_axis(c, zero.astype(c.dtype), shape), low, high))
