"""Convolutions of torchvision's AlexNet and VGG16: an image (H, W, 3) -> every activation.

They are what LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a
perceptual metric") compares. The originals have no last layer; with `classes` a linear one stands
on the mean of the last convolution. The input is the engine's (BGR, mean-subtracted); the network
itself sees RGB by ImageNet's mean and deviation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.derived import conv
from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    from_bgr,
    max_pool,
    rectify,
)

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
        x = (from_bgr(data) - jnp.asarray(MEAN, data.dtype)) / jnp.asarray(DEVIATION, data.dtype)
        for layer in self.config.layers:
            if layer.pool:
                x = _pool(x, layer.pool)
            pad = (layer.kernel - 1) // 2 if layer.stride == 1 else 2
            how = {"strides": layer.stride, "padding": pad}
            x = conv(self, layer.name, layer.features, layer.kernel, **how)(x)
            x = rectify(out, layer.name, x)
        for name in self.config.compared:
            shape = (out[name].shape[-1],)
            weights = self.param(f"lpips_{name}", nn.initializers.ones, shape)
            out[f"lpips_{name}"] = unit_channels(out[name]) * jnp.sqrt(weights)
        out["pool"] = x.mean(axis=(-3, -2))
        if not self.config.classes:
            return out
        out["logits"] = dense(self.config.classes, "logits")(at_least_float32(out["pool"]))
        return out | classifier_outputs(out["logits"])


def _pool(x: jax.Array, window: int) -> jax.Array:
    """Max pooling 2/2 or 3/2 as PyTorch has it: windows that overhang the border are left out."""
    height, width = (window + 2 * ((n - window) // 2) for n in x.shape[-3:-1])
    x = x[..., :height, :width, :]
    if window == 3:
        return max_pool(x)
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
