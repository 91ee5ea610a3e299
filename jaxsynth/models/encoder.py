"""An encoder: a network, one of whose blobs is reduced and whitened to a code.

The blob's features at each place of its grid and the mean colour there are projected on their first
principal components over training photographs; the whole grid is then whitened (ZCA), so that the
code has zero mean, unit variance and no correlations there, and keeps its layout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsynth.models.layers import dense


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
