"""ONNX operators with weights: convolutions, products, attention; and normalisation.

Sources: the operators' pages at onnx.ai/onnx/operators, and onnxruntime where they are silent
(windows that overhang in ceil mode). Images are computed in NHWC; convolutions go the way of the
package's own networks.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.compiled import derive_nothing, derive_now
from jaxsynth.models.cpu_convolution import cpu_conv, network_conv
from jaxsynth.models.depthwise import depthwise_conv
from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    as_graph,
    in_memory,
    operator,
    ordered,
    root,
    transpose,
)
from jaxsynth.models.onnx_pool import as_images, given_pads, halves, images, pads_of, steps_of

_MOST_GROUPS = 64  # convolutions side by side; more take longer to compile than they save


# --- convolutions ---------------------------------------------------------------------------------


@operator("Conv", image=True)
def _conv(c: Call) -> Value:
    features, inner, *sides = c.shape(1)
    x, groups, strides, dilations = _parts(c, inner * c.attr("group", 1), features)
    pads = pads_of(c, x.shape[1:-1], sides, strides, dilations)
    kernel = _kernel(c, lambda w: jnp.transpose(w, (*range(2, w.ndim), 1, 0)))
    y = _convolve(x, kernel, (strides, pads, dilations), groups, c.derive)
    return as_images(y + c.array(2) if c.has(2) else y)


def _parts(c: Call, channels: int, split: int) -> tuple[jax.Array, int, Any, Any]:
    """The images, groups, strides and dilations; groups must split a number of channels."""
    x, rank, groups = images(c), len(c.shape(1)) - 2, c.attr("group", 1)
    if x.ndim != rank + 2 or x.shape[-1] != channels or split % groups:
        raise ValueError(f"weights of shape {c.shape(1)} for images of shape {c.shape()}")
    return x, groups, steps_of(c, "strides", rank), steps_of(c, "dilations", rank)


def _kernel(c: Call, make: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The weights with channels last, once for many steps where they are parameters."""
    derive = c.derive if c.node.inputs[1] in c.fixed else derive_nothing
    return derive_now(derive, "kernel", lambda: make(c.array(1)))


def _layout(rank: int) -> tuple[str, str, str]:
    letters = "DHW"[-rank:]
    return f"N{letters}C", f"{letters}IO", f"N{letters}C"


def _convolve(x, kernel, steps, groups: int, derive) -> jax.Array:
    """Convolve (N, ..., C) with (..., C / groups, F)."""
    (strides, pads, dilations), rank = steps, x.ndim - 2
    layout = _layout(rank)
    if network_conv() is not None and rank == 2 and min(map(min, pads)) >= 0:
        if groups == x.shape[-1] == kernel.shape[-1] > 1 and set(dilations) == {1}:
            return depthwise_conv(x, kernel[:, :, 0], strides, tuple(pads))
        if groups <= _MOST_GROUPS:
            kwargs = {"rhs_dilation": dilations, "dimension_numbers": layout}
            return cpu_conv(x, kernel, strides, pads, derive, feature_group_count=groups, **kwargs)
    return lax.conv_general_dilated(
        x, kernel, strides, pads, (1,) * rank, dilations, layout, groups
    )


@operator("ConvTranspose", image=True)
def _conv_transpose(c: Call) -> Value:
    """The gradient of a convolution: one of the input with zeros between its pixels."""
    channels, _, *sides = c.shape(1)
    x, groups, strides, dilations = _parts(c, channels, channels)
    rank = len(sides)
    extra = c.attr("output_padding") or (0,) * rank
    reach = [(k - 1) * d + 1 for k, d in zip(sides, dilations, strict=True)]
    full = [
        (n - 1) * s + e + k for n, s, e, k in zip(x.shape[1:-1], strides, extra, reach, strict=True)
    ]
    wanted, auto = c.attr("output_shape"), c.attr("auto_pad", "NOTSET")
    if wanted or auto.startswith("SAME"):
        wanted = wanted or [n * s for n, s in zip(x.shape[1:-1], strides, strict=True)]
        auto = auto if auto == "SAME_UPPER" else "SAME_LOWER"  # as the specification has it
        every = [(f - w, auto) for f, w in zip(full, wanted[-rank:], strict=True)]
        pads = [halves(more, auto) if more > 0 else (0, more) for more, auto in every]
    else:
        pads = given_pads(c, rank)
    kernel = _kernel(c, partial(_turned, groups=groups))
    around = [(k - 1 - a, k - 1 - b + e) for k, (a, b), e in zip(reach, pads, extra, strict=True)]
    how = strides, dilations, _layout(rank), groups
    y = lax.conv_general_dilated(x, kernel, (1,) * rank, around, *how)
    return as_images(y + c.array(2) if c.has(2) else y)


def _turned(w: jax.Array, groups: int) -> jax.Array:
    """(C, F / groups, ...) -> (..., C / groups, F), reversed."""
    channels, features, *sides = w.shape
    w = jnp.flip(w, range(2, w.ndim)).reshape(groups, channels // groups, features, *sides)
    w = jnp.moveaxis(w, (0, 1, 2), (-2, -3, -1))  # (..., C / groups, groups, F / groups)
    return w.reshape(*sides, channels // groups, groups * features)


# --- products -------------------------------------------------------------------------------------


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


# --- normalisation --------------------------------------------------------------------------------


@operator("BatchNormalization", image=True)
def _batch_norm(c: Call) -> Value:
    if c.attr("training_mode", 0) or not c.attr("spatial", 1):
        raise ValueError("statistics are of training or of pixels: export in evaluation mode")
    scale, bias, mean, variance = (c.array(i) for i in range(1, 5))
    gain = scale * lax.rsqrt(jnp.asarray(variance + c.attr("epsilon", 1e-5)))
    return as_images(images(c) * gain + (bias - mean * gain))


@operator("InstanceNormalization", image=True)
def _instance_norm(c: Call) -> Value:
    x = images(c)
    y = _normalised(x, tuple(range(1, x.ndim - 1)), c.attr("epsilon", 1e-5))
    return as_images(y * c.array(1) + c.array(2))


@operator("GroupNormalization", image=True)
def _group_norm(c: Call) -> Value:
    """With a scale of each channel; before opset 21 of each group."""
    x, groups = images(c), c.required("num_groups")
    parts = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    y = _normalised(parts, axes, c.attr("epsilon", 1e-5)).reshape(x.shape)
    scale, bias = (c.array(i) for i in (1, 2))
    if c.opset < 21:
        scale, bias = (jnp.repeat(a, x.shape[-1] // groups) for a in (scale, bias))
    return as_images(y * scale + bias)


@operator("LayerNormalization", "RMSNormalization")
def _layer_norm(c: Call) -> Value:
    x, rank = c.value(0), len(c.shape())
    order = in_memory(x)[1]
    axes = [order[a] for a in range(c.axis(-1), rank)]
    epsilon, centred = c.attr("epsilon", 1e-5), c.node.op == "LayerNormalization"
    y = _normalised(jnp.asarray(ordered(x, order)), tuple(axes), epsilon, centred)

    def spread(index: int) -> jax.Array:
        shape = (1,) * (rank - len(c.shape(index))) + c.shape(index)
        return ordered(c.result(c.array(index).reshape(shape)), order)

    y = y * spread(1)
    return Laid(y + spread(2) if c.has(2) else y, order)


@operator("MeanVarianceNormalization")
def _mean_variance_norm(c: Call) -> Value:
    axes = tuple(c.attr("axes") or (0, 2, 3))
    return c.result(_normalised(c.array(0), axes, 1e-9))


@operator("LpNormalization")
def _lp_norm(c: Call) -> Value:
    x, axis, p = jnp.asarray(c.array(0)), c.attr("axis", -1), c.attr("p", 2)
    norm = root((abs(x) ** p).sum(axis, keepdims=True), p)
    return c.result(x / jnp.where(norm == 0, 1, norm))


def _normalised(x, axes: tuple[int, ...], epsilon: float, centred: bool = True) -> jax.Array:
    mean = partial(jnp.mean, axis=axes, keepdims=True)
    x = x - mean(x) if centred else x
    return x * lax.rsqrt(mean(x * x) + epsilon)


@operator("LRN", image=True)
def _local_response_norm(c: Call) -> Value:
    """Over neighbouring channels: x / (bias + alpha / size * sum of squares)^beta."""
    x, size = images(c), c.required("size")
    channels = x.shape[-1]
    before, after = (min(n, channels) for n in ((size - 1) // 2, size // 2))
    squares = jnp.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(before, after)])
    steps = range(before + after + 1)
    total = sum(lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in steps)
    base = c.attr("bias", 1.0) + c.attr("alpha", 1e-4) / size * total
    return as_images(x * base ** -c.attr("beta", 0.75))
