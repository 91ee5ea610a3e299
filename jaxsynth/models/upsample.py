"""Doubling a map and convolving it, computed at the small size."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxsynth.models.cpu_convolution import interleave
from jaxsynth.models.derived import Derive, derive_nothing, derive_now


def upsample_conv(
    x: jax.Array,
    kernel: jax.Array,
    smooth: bool,
    conv: Callable[..., jax.Array] | None = None,
    derive: Derive = derive_nothing,
) -> jax.Array:
    """Double x, then convolve: (B, H, W, C), (3, 3, C, F) -> (B, 2 H, 2 W, F).

    `smooth` is bilinear (half-pixel centres, borders replicated), otherwise nearest neighbour
    (borders zero). Computed at the small size, in sub-pixel form: upsampling and kernel together
    are one small kernel for each of the four output phases (Shi et al. 2016, "Is the deconvolution
    layer the same as a convolutional layer?"); nearest neighbour needs 2x2 taps of it, 2.25 times
    less work. `conv` replaces `lax.conv_general_dilated`, `derive` is asked for the four.
    """
    y = upsample_phases(x, kernel, smooth, conv, derive)
    return interleave(y, 0 if smooth else 1)


def upsample_phases(
    x: jax.Array,
    kernel: jax.Array,
    smooth: bool,
    conv: Callable[..., jax.Array] | None = None,
    derive: Derive = derive_nothing,
) -> jax.Array:
    """Compute `upsample_conv` up to the order of its pixels: four phases of F channels each.

    Returns:
      (B, H, W, 4 F) if `smooth`, else (B, H + 1, W + 1, 4 F); see `interleave`.
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
    return sum(part if weight == 1 else weight * part for part, weight in seen)


# What tap i of a 3-tap kernel sees around an output pixel of each phase, as weights of the input's:
# nearest neighbour p - 1 and p around pixels 2 p - 1 and 2 p, bilinear p - 1, p and p + 1 around
# 2 p and 2 p + 1.
_NEAREST_TAPS = (((1, 0), (1, 0), (0, 1)), ((1, 0), (0, 1), (0, 1)))
_BILINEAR_TAPS = (
    ((0.75, 0.25, 0), (0.25, 0.75, 0), (0, 0.75, 0.25)),
    ((0.25, 0.75, 0), (0, 0.75, 0.25), (0, 0.25, 0.75)),
)
