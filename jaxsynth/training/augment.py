"""Cached photographs -> network inputs, as pure JAX.

In: (B, S, S, 3) uint8, RGB. Out: (B, size, size, 3) float32, BGR, ImageNet-mean subtracted.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.layers import to_bgr


def to_input(rgb: jax.Array) -> jax.Array:
    """(..., 3) RGB 0..255 -> (..., 3) float32 BGR, mean-subtracted."""
    return to_bgr(rgb.astype(jnp.float32))


def random_crop_flip(
    key: jax.Array, rgb: jax.Array, size: int, min_scale: float = 0.7
) -> jax.Array:
    """A random rectangle of each image, resized to `size` (triangle filter), half of them flipped.

    The rectangle's sides are independently uniform in [min_scale, 1] of the image's.
    """
    keys = jax.random.split(key, 3)
    batch, side = rgb.shape[0], rgb.shape[1]
    scale = jax.random.uniform(keys[0], (2, batch), minval=min_scale, maxval=1.0)
    start = jax.random.uniform(keys[1], (2, batch)) * (1.0 - scale)
    rows = _resample(start[0], scale[0], side, size)  # (B, size, S)
    cols = _resample(start[1], scale[1], side, size)
    flip = jax.random.bernoulli(keys[2], 0.5, (batch, 1, 1))
    cols = jnp.where(flip, cols[:, ::-1], cols)
    x = to_input(rgb)
    x = jnp.einsum("bis,bstc->bitc", rows, x)
    return jnp.einsum("bjt,bitc->bijc", cols, x)


def random_colours(key: jax.Array, x: jax.Array, strength: float) -> jax.Array:
    """Random brightness, contrast and saturation of each image; `strength` 0 changes nothing.

    x: (B, H, W, 3), mean-subtracted. Contrast and saturation are factors in [1 - s, 1 + s] towards
    the image's mean and towards grey; brightness shifts by up to 64 s grey levels.
    """
    if strength == 0:
        return x
    amount = strength * jax.random.uniform(key, (3, x.shape[0], 1, 1, 1), minval=-1.0)
    grey = x.mean(-1, keepdims=True)
    x = grey + (1.0 + amount[0]) * (x - grey)
    middle = x.mean((1, 2, 3), keepdims=True)
    return middle + (1.0 + amount[1]) * (x - middle) + 64.0 * amount[2]


def _resample(start: jax.Array, scale: jax.Array, side: int, size: int) -> jax.Array:
    """(B,) start and length of an interval of [0, 1] -> weights (B, size, side), rows sum to 1."""
    step = scale[:, None] * side / size  # source pixels per output pixel, (B, 1)
    centre = start[:, None] * side + (jnp.arange(size) + 0.5) * step  # (B, size)
    pixel = jnp.arange(side) + 0.5
    distance = jnp.abs(centre[..., None] - pixel) / jnp.maximum(step, 1.0)[..., None]
    weight = jnp.maximum(0.0, 1.0 - distance)
    return weight / weight.sum(-1, keepdims=True)


def centre_input(rgb: np.ndarray, size: int) -> jax.Array:
    """The whole picture at `size`, no randomness; the cache must have that side."""
    if rgb.shape[1] != size:
        raise ValueError(f"images of side {rgb.shape[1]} given, expected {size}")
    return to_input(jnp.asarray(rgb))
