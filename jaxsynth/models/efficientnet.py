"""EfficientNet-lite: an image (H, W, 3) -> every activation.

Tan & Le 2019 ("EfficientNet: Rethinking model scaling for convolutional neural networks"), in the
lite variant: ReLU6 in place of swish, no squeeze-and-excitation. Padding is TensorFlow's SAME,
batch norm is folded into the convolutions. The input is the engine's (BGR, mean-subtracted); the
network itself sees (RGB - 127) / 128.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    from_bgr,
    kept,
)


class Stage(NamedTuple):
    """Blocks of one width: `expand` times wider inside, the first of stride `stride`."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    features: int


@dataclass(frozen=True)
class EfficientNetConfig:
    """Shapes. With `classes` 0 the network ends after its last block, without head and logits."""

    size: int
    classes: int
    stem: int = 32
    stages: tuple[Stage, ...] = (
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    )
    head: int = 1280


class EfficientNet(nn.Module):
    """data (..., H, W, 3) -> dict of activations, spatial ones (..., H, W, C).

    Blobs are `conv_stem`, for block n `block{n}_expand`, `block{n}_depthwise` and its output
    `block{n}`, then `conv_head`, `pool` and `logits`. What a ReLU6 takes in is `{blob}_pre`.
    """

    config: EfficientNetConfig

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every activation of an image."""
        config, out = self.config, {"data": data}
        x = (from_bgr(data) - 127.0) / 128.0
        x = _rectify(out, "conv_stem", _same_conv(config.stem, 3, 2, "conv_stem")(x))
        number = 0
        for stage in config.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                x = _block(out, f"block{number}", x, stage, stride)
                number += 1
        if not config.classes:
            return out
        x = _rectify(out, "conv_head", nn.Dense(config.head, name="conv_head")(x))
        out["pool"] = x.mean(axis=(-3, -2))
        out["logits"] = dense(config.classes, "logits")(at_least_float32(out["pool"]))
        return out | classifier_outputs(out["logits"])


def _block(out: dict, name: str, x: jax.Array, stage: Stage, stride: int) -> jax.Array:
    """An inverted residual: widen, filter each channel, narrow; skip where shapes allow."""
    before = x
    if stage.expand != 1:
        wide = stage.expand * x.shape[-1]
        x = _rectify(out, f"{name}_expand", nn.Dense(wide, name=f"{name}_expand")(x))
    x = _Depthwise(stage.kernel, stride, name=f"{name}_depthwise")(x)
    x = _rectify(out, f"{name}_depthwise", x)
    x = nn.Dense(stage.features, name=f"{name}_project")(x)
    out[name] = before + x if stride == 1 and before.shape == x.shape else x
    return out[name]


class _Depthwise(nn.Module):
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.normal(1 / self.kernel), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        return depthwise_conv(x, kernel, self.stride) + bias


def _same_conv(features: int, kernel: int, stride: int, name: str) -> nn.Conv:
    return nn.Conv(features, (kernel, kernel), strides=stride, padding="SAME", name=name)


def _rectify(out: dict[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    """ReLU6; saves the blob and, as `{name}_pre`, what it was before."""
    out[f"{name}_pre"], out[name] = x, relu6(x)
    return out[name]


LITE0 = EfficientNetConfig(size=224, classes=1000)


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); the gradient at exactly 0 and 6 is 0."""
    return kept(jnp.clip(x, 0, 6))


def _relu6_forward(x):
    y = kept(jnp.clip(x, 0, 6))
    return y, y


relu6.defvjp(_relu6_forward, lambda y, dy: (jnp.where((y > 0) & (y < 6), dy, 0),))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Filters each channel by itself: (..., H, W, C), (k, k, C) -> (..., H', W', C).

    Padding is TensorFlow's SAME. Written as a sum of shifted products: XLA's grouped convolution
    takes 6 to 22 times as long on CPU.
    """
    k = kernel.shape[0]
    pads = [same_padding(n, k, stride) for n in x.shape[-3:-1]]
    size = [-(-n // stride) for n in x.shape[-3:-1]]
    padded = _pad_image(x, pads)
    taps = [(i, j) for i in range(k) for j in range(k)]
    return sum(_strided_window(padded, i, j, size, stride) * kernel[i, j] for i, j in taps)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: (before, after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _depthwise_forward(x, kernel, stride):
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, saved, dy):
    x, kernel = saved
    return _depthwise_input_gradient(x.shape, kernel, stride, dy), _depthwise_kernel_gradient(
        x, kernel.shape[0], stride, dy
    )


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def _depthwise_input_gradient(shape, kernel, stride, dy) -> jax.Array:
    """One sum of shifted products for each phase of the stride; phases interleave to pixels."""
    k, (height, width) = kernel.shape[0], shape[-3:-1]
    (top, _), (left, _) = (same_padding(n, k, stride) for n in (height, width))
    high, wide = -(-height // stride), -(-width // stride)
    padded = _pad_image(dy, [(k, k), (k, k)])

    def phase(p, q):
        taps = [
            (i, j)
            for i in range(k)
            for j in range(k)
            if (p + top - i) % stride == 0 and (q + left - j) % stride == 0
        ]
        starts = [(k + (p + top - i) // stride, k + (q + left - j) // stride) for i, j in taps]
        windows = [_strided_window(padded, a, b, (high, wide), 1) for a, b in starts]
        return sum(w * kernel[i, j] for w, (i, j) in zip(windows, taps, strict=True))

    if stride == 1:
        return phase(0, 0)
    rows = [
        jnp.stack([phase(p, q) for q in range(stride)], axis=-2) for p in range(stride)
    ]  # of each (..., high, wide, stride, C)
    pixels = jnp.stack(rows, axis=-4).reshape(*shape[:-3], high * stride, wide * stride, shape[-1])
    return pixels[..., :height, :width, :]


def _depthwise_kernel_gradient(x, k, stride, dy) -> jax.Array:
    padded = _pad_image(x, [same_padding(n, k, stride) for n in x.shape[-3:-1]])
    size, channels = dy.shape[-3:-1], dy.shape[-1]
    ones = jnp.ones(dy.size // channels, dy.dtype)

    def tap(i, j):
        return ones @ (_strided_window(padded, i, j, size, stride) * dy).reshape(-1, channels)

    return jnp.stack([jnp.stack([tap(i, j) for j in range(k)]) for i in range(k)])


def _pad_image(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """Zeros around (..., H, W, C), made once however many windows look at them."""
    return kept(jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)]))


def _strided_window(x: jax.Array, top: int, left: int, size, stride: int) -> jax.Array:
    rows = slice(top, top + stride * (size[0] - 1) + 1, stride)
    columns = slice(left, left + stride * (size[1] - 1) + 1, stride)
    return x[..., rows, columns, :]
