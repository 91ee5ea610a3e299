"""A prior on whitened features: an encoder (H, W, 3) -> code (D,), and a generator back to images.

The encoder is a network, one of whose blobs is the code: the blob's features at each place of its
grid and the mean colour there are projected on their first principal components over training
photographs. The whole grid is then whitened (ZCA), so that the code has zero mean, unit variance
and no correlations there, and keeps its layout.

The generator's first layer takes the whitening back; then come gated blocks (GLU, Dauphin et al.
2017), normalised at each place (Karras et al. 2018), that double the map. The image is BGR,
mean-subtracted, within 0 to 255 by a tanh.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxsynth.models.compiled import Derive, derive_nothing, derive_now, derived_of, layer_conv
from jaxsynth.models.layers import dense, interleave, leaky_relu, materialised, to_bgr

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
    `lax.conv_general_dilated`, and is given a `derive` (`derived`) as well.
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
        x = materialised(self._conv(name, 2 * self.config.channels(side), x, double))
        normed = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + _EPSILON)
        return materialised(nn.glu(normed))

    def _conv(self, name: str, features: int, x: jax.Array, double: bool = False) -> jax.Array:
        """3x3, padding 1; `double` doubles the map before, by nearest neighbour."""
        conv = layer_conv(self, name)
        if double:

            def doubling(x, kernel, *_, **__):  # flax makes the kernel and adds the bias
                hooks = layer_conv(self, name), derived_of(self, name)
                return interleave(upsample_phases(x, kernel, False, *hooks), 1)

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


# --- the encoder ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncoderConfig:
    """Shapes: the `trunk` is any network, `grid` is the code's (height, width, channels)."""

    trunk: Any
    blob: str
    grid: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Side of the input image."""
        return self.trunk.size


class Encoder(nn.Module):
    """data (..., H, W, 3) -> the trunk's activations and `code` (..., D)."""

    config: EncoderConfig
    make: Callable[..., nn.Module]  # makes the trunk from its configuration

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every activation of an image, and its code."""
        config = self.config
        out = dict(self.make(config.trunk, name="trunk")(data))
        features = grid_features(out[config.blob], data, config.grid[:2])
        components = dense(config.grid[2], "project")(features)
        flat = components.reshape(*components.shape[:-3], -1)
        out["code"] = dense(flat.shape[-1], "whiten")(flat)
        return out


def grid_features(blob: jax.Array, image: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """A blob (..., h, w, C) or (..., C) with the mean colours of its places: (..., h, w, C + 3).

    image: (..., H, W, 3), H and W multiples of h and w.
    """
    height, width = grid
    blob = blob.reshape(*image.shape[:-3], height, width, -1)
    rows, columns = image.shape[-3] // height, image.shape[-2] // width
    image = image[..., : rows * height, : columns * width, :]
    places = image.reshape(*image.shape[:-3], height, rows, width, columns, 3)
    return jnp.concatenate([blob, places.mean((-4, -2))], axis=-1)


# --- doubling a map and convolving it, computed at the small size ---------------------------------


def upsample_phases(
    x: jax.Array,
    kernel: jax.Array,
    smooth: bool,
    conv: Callable[..., jax.Array] | None = None,
    derive: Derive = derive_nothing,
) -> jax.Array:
    """Double x, then convolve, up to the order of pixels: (B, H, W, C), (3, 3, C, F) -> 4 phases.

    `smooth` is bilinear (half-pixel centres, borders replicated), otherwise nearest neighbour
    (borders zero). Computed at the small size, in sub-pixel form: upsampling and kernel together
    are one small kernel for each of the four output phases (Shi et al. 2016, "Is the deconvolution
    layer the same as a convolutional layer?"); nearest neighbour needs 2x2 taps of it, 2.25 times
    less work. `conv` replaces `lax.conv_general_dilated`, `derive` is asked for the four.

    Returns:
      (B, H, W, 4 F) if `smooth`, else (B, H + 1, W + 1, 4 F); `interleave` makes pixels of them.
    """
    taps = _BILINEAR_TAPS if smooth else _NEAREST_TAPS
    small = derive_now(derive, "phases", lambda: _phase_kernels(kernel, taps))
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = jnp.pad(x, border, mode="edge") if smooth else jnp.pad(x, border)
    conv = lax.conv_general_dilated if conv is None else conv
    return conv(padded, small, (1, 1), ((0, 0), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _phase_kernels(kernel: jax.Array, taps: Sequence) -> jax.Array:
    """Put the kernels of all four phases side by side: (3, 3, C, F) -> (k, k, C, 4 F).

    Written as sums: one product with the taps is up to half of a small generator's step on CPU.
    """
    rows = [_of_phase(kernel, phase, 0) for phase in taps]  # of each (k, 3, C, F)
    views = [_of_phase(row, phase, 1) for row in rows for phase in taps]
    return jnp.concatenate(views, axis=-1)


def _of_phase(kernel: jax.Array, phase: Sequence, axis: int) -> jax.Array:
    """Make the taps of one phase along an axis of the kernel, which is 3 and becomes k."""
    parts = [lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3)]
    return jnp.stack([_weighted(parts, column) for column in zip(*phase, strict=True)], axis)


def _weighted(parts: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Sum `weights` times the parts; those of weight 0 are left out."""
    seen = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight]
    total: Any = sum(part if weight == 1 else weight * part for part, weight in seen)
    return total


# What tap i of a 3-tap kernel sees around an output pixel of each phase, as weights of the input's:
# nearest neighbour p - 1 and p around pixels 2 p - 1 and 2 p, bilinear p - 1, p and p + 1 around
# 2 p and 2 p + 1.
_NEAREST_TAPS = (((1, 0), (1, 0), (0, 1)), ((1, 0), (0, 1), (0, 1)))
_BILINEAR_TAPS = (
    ((0.75, 0.25, 0), (0.25, 0.75, 0), (0, 0.75, 0.25)),
    ((0.25, 0.75, 0), (0, 0.75, 0.25), (0, 0.25, 0.75)),
)
