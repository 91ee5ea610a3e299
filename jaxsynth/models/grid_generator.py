"""A generator from a code of whitened features on a grid: (D,) -> every activation up to the image.

The code is a whitened grid of an encoder's features (`encoder.py`): zero mean, unit variance,
uncorrelated over the training photographs. The first layer takes the whitening back; then come
gated blocks (GLU, Dauphin et al. 2017), normalised at each place (Karras et al. 2018), that double
the map. The image is BGR, mean-subtracted, within 0 to 255 by a tanh.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsynth.models.cpu_convolution import interleave
from jaxsynth.models.derived import derived_of, layer_conv
from jaxsynth.models.layers import (
    dense,
    leaky_relu,
    to_bgr,
)
from jaxsynth.models.upsample import upsample_conv, upsample_phases

_EPSILON = 1e-5
_SLOPE = 0.2
_PAINT = 16  # channels of the last map, which has the image's side
_MULTIPLES = {1: 1, 2: 2, 4: 4, 8: 6, 16: 8}  # of `width`, by how often a map halves below size / 2


@dataclass(frozen=True)
class GridGeneratorConfig:
    """Shapes: a grid (height, width, channels) grows to a square image of `size`.

    The maps of side size / 2, size / 4, ... have 1, 2, 4, 6, 8, 8, ... times `width` channels.
    """

    grid: tuple[int, int, int]
    size: int
    width: int = 32

    @property
    def code(self) -> int:
        """Length of the code."""
        height, width, channels = self.grid
        return height * width * channels

    def channels(self, side: int) -> int:
        """Channels of the map of a side."""
        return self.width * _MULTIPLES.get(self.size // 2 // side, 8)


class GridGenerator(nn.Module):
    """feat (..., D) -> dict of activations; `image` is (..., S, S, 3).

    Maps are `grid`, then by their side `conv4`, `up8`, `conv8`, `up16` and so on. `conv` replaces
    `lax.conv_general_dilated`, and is given a `derive` (`derived`) besides.
    """

    config: GridGeneratorConfig
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, feat: jax.Array) -> dict[str, jax.Array]:
        """Compute every activation of a code, up to the image."""
        config = self.config
        side = config.grid[0]
        x = dense(config.code, "colour")(feat).reshape(*feat.shape[:-1], *config.grid)
        out = {"feat": feat, "grid": x}
        x = nn.glu(self._conv("conv_in", 2 * config.channels(side), x))
        x = out[f"conv{side}"] = self._gated(f"conv{side}", side, x)
        while side < config.size // 2:
            side *= 2
            x = out[f"up{side}"] = self._gated(f"up{side}", side, x, double=True)
            if side <= config.size // 8:
                x = out[f"conv{side}"] = self._gated(f"conv{side}", side, x)
        out["image"] = to_bgr(127.5 + 127.5 * jnp.tanh(self._paint(x)))
        return out

    def _gated(self, name: str, side: int, x: jax.Array, double: bool = False) -> jax.Array:
        x = self._conv(name, 2 * self.config.channels(side), x, double)
        return nn.glu(x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + _EPSILON))

    def _conv(self, name: str, features: int, x: jax.Array, double: bool = False) -> jax.Array:
        """3x3, padding 1; `double` doubles the map before, by nearest neighbour."""
        conv = layer_conv(self, name)
        if double:

            def doubling(x, kernel, *_, **__):  # flax makes the kernel and adds the bias
                derive = derived_of(self, name)
                return upsample_conv(x, kernel, False, layer_conv(self, name), derive)

            conv = doubling
        return nn.Conv(features, (3, 3), padding=1, conv_general_dilated=conv, name=name)(x)

    def _paint(self, x: jax.Array) -> jax.Array:
        """Doubles the last map bilinearly, 3x3 to `_PAINT` channels, 1x1 to RGB: (..., S, S, 3).

        By nearest neighbour, or by a free kernel for each of the four phases, a grid of dots stays.
        All is computed on phases, which are put in order when they have three channels.
        """

        def phases(x, kernel, *_, **__):  # flax makes the kernel
            conv, derive = layer_conv(self, "paint"), derived_of(self, "paint")
            return upsample_phases(x, kernel, True, conv, derive)

        paint = nn.Conv(_PAINT, (3, 3), use_bias=False, conv_general_dilated=phases, name="paint")
        x = paint(x)
        x = x.reshape(*x.shape[:-1], 4, _PAINT)
        x = x + self.param("paint_bias", nn.initializers.zeros, (_PAINT,))
        x = nn.Dense(3, name="rgb")(leaky_relu(x, _SLOPE))  # (..., S / 2, S / 2, 4, 3)
        lead, side = x.shape[:-4], x.shape[-3]
        pixels = interleave(x.reshape(-1, side, side, 12), 0)
        return pixels.reshape(*lead, 2 * side, 2 * side, 3)
