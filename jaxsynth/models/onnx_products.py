"""ONNX operators of matrices, and attention.

Source: the operators' pages at onnx.ai/onnx/operators.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.onnx_call import Call, operator
from jaxsynth.models.onnx_layout import Value, as_graph, transpose


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
