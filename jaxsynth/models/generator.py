"""Generators: a code (D,) -> every activation up to the image (H, W, 3), BGR, mean-subtracted.

`DGN_FC6` is the fc6 generator of Dosovitskiy & Brox 2016 ("Generating images with perceptual
similarity metrics based on deep networks"), as used by Nguyen et al. 2016 (DGN-AM), blob names as
in its `generator.prototxt`. Its siblings invert CaffeNet's fc7, fc8 (a code of logits) and pool5 (a
map 6 x 6 x 256, in this order; Caffe and PyTorch have channels first).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsynth.models.compiled import conv
from jaxsynth.models.layers import SLOPE, dense, leaky_relu


class Up(NamedTuple):
    """One spatial layer, of kind `deconv` (Caffe's Deconvolution) or `conv`."""

    name: str
    kind: str
    features: int
    kernel: int
    stride: int
    pad: int = 1


@dataclass(frozen=True)
class GeneratorConfig:
    """Shapes of a generator.

    Attributes:
      code: Length of the code.
      dense: (name, units) of the first layers; none where the code itself is a map.
      seed: (height, width, channels) of the map that the last of them, or the code, becomes.
      layers: The spatial layers; the last one gives the image.
      slope: Of the leaky ReLUs.
    """

    code: int
    dense: tuple[tuple[str, int], ...]
    seed: tuple[int, int, int]
    layers: tuple[Up, ...]
    slope: float = SLOPE

    @property
    def size(self) -> int:
        """Side of the generated image in pixels."""
        side = self.seed[0]
        for layer in self.layers:
            if layer.kind == "conv":
                side += 2 * layer.pad + 1 - layer.kernel
            else:
                side = (side - 1) * layer.stride + layer.kernel - 2 * layer.pad
        return side


class Generator(nn.Module):
    """The flax module: feat (..., D) -> dict of activations, the image (..., H, W, 3) the last.

    Attributes:
      config: Shapes.
      conv: Replaces `lax.conv_general_dilated`; it also takes a `derive` (`derived`).
    """

    config: GeneratorConfig
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, feat: jax.Array) -> dict[str, jax.Array]:
        """Compute every blob."""
        config = self.config
        out = {"feat": feat}
        x = feat
        for name, features in config.dense:
            x = leaky_relu(dense(features, name)(x), config.slope)
            out[name] = x
        if config.dense:
            x = out[f"reshape_{config.dense[-1][0]}"] = _chw_to_hwc(x, config.seed)
        else:
            x = x.reshape(*x.shape[:-1], *config.seed)
        for layer in config.layers:
            x = _spatial(self, layer)(x)
            if layer is not config.layers[-1]:
                x = leaky_relu(x, config.slope)
            out[layer.name] = x
        return out


def _chw_to_hwc(x: jax.Array, seed: tuple[int, int, int]) -> jax.Array:
    height, width, channels = seed
    x = x.reshape((*x.shape[:-1], channels, height, width))
    return jnp.moveaxis(x, -3, -1)


def _spatial(generator: Generator, layer: Up) -> nn.Conv:
    if not isinstance(layer.stride, int):
        raise ValueError(f"layer {layer.name!r}: stride is {layer.stride!r}, expected an integer")
    if layer.kind == "deconv":
        # Zero-stuff by the stride, pad kernel - 1 - pad, correlate with the flipped kernel
        # (flipped once, when the weights are ported).
        how = {"padding": layer.kernel - 1 - layer.pad, "input_dilation": layer.stride}
        return conv(generator, layer.name, layer.features, layer.kernel, **how)
    if layer.kind != "conv" or layer.stride != 1:
        raise ValueError(
            f"layer {layer.name!r}: kind {layer.kind!r}, stride {layer.stride}: expected a deconv, "
            "or a conv of stride 1"
        )
    return conv(generator, layer.name, layer.features, layer.kernel, padding=layer.pad)


_DENSE = (("defc7", 4096), ("defc6", 4096), ("defc5", 4096))
_UPWARDS = (
    Up("deconv5", "deconv", 256, 4, 2),
    Up("conv5_1", "deconv", 512, 3, 1),
    Up("deconv4", "deconv", 256, 4, 2),
    Up("conv4_1", "deconv", 256, 3, 1),
    Up("deconv3", "deconv", 128, 4, 2),
    Up("conv3_1", "deconv", 128, 3, 1),
    Up("deconv2", "deconv", 64, 4, 2),
    Up("deconv1", "deconv", 32, 4, 2),
    Up("deconv0", "deconv", 3, 4, 2),
)
_TO_4X4 = (
    Up("Rconv6", "conv", 512, 3, 1),
    Up("Rconv7", "conv", 512, 3, 1),
    Up("Rconv8", "conv", 512, 3, 1, pad=0),
)
DGN_FC6 = GeneratorConfig(4096, _DENSE, (4, 4, 256), _UPWARDS)
DGN = {
    "dgn_fc6": DGN_FC6,
    "dgn_fc7": DGN_FC6,
    "dgn_fc8": GeneratorConfig(1000, _DENSE, (4, 4, 256), _UPWARDS),
    "dgn_pool5": GeneratorConfig(6 * 6 * 256, (), (6, 6, 256), _TO_4X4 + _UPWARDS),
}
