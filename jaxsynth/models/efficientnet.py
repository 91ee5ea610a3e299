"""EfficientNet-lite: an image (H, W, 3) -> every activation.

Tan & Le 2019 ("EfficientNet: Rethinking model scaling for convolutional neural networks"), in the
lite variant: ReLU6 in place of swish, no squeeze-and-excitation. Padding is TensorFlow's SAME,
batch norm is folded into the convolutions. The input is the engine's (BGR, mean-subtracted); the
network itself sees (RGB - 127) / 128.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax

from jaxsynth.models.depthwise import depthwise_conv, same_padding
from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    from_bgr,
    rectify,
    relu6,
)

_rectify = partial(rectify, by=relu6)


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
        pads = tuple(same_padding(n, self.kernel, self.stride) for n in x.shape[-3:-1])
        return depthwise_conv(x, kernel, (self.stride, self.stride), pads) + bias


def _same_conv(features: int, kernel: int, stride: int, name: str) -> nn.Conv:
    return nn.Conv(features, (kernel, kernel), strides=stride, padding="SAME", name=name)


LITE0 = EfficientNetConfig(size=224, classes=1000)
