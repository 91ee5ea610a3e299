"""A convolution that trains faster on CPU than XLA's own, for flax's `conv_general_dilated` hook.

XLA's weight-gradient convolutions are slow on CPU. Small maps become one matrix product over the
shifted copies (im2col), whose gradients are matrix products too; larger maps keep XLA's forward and
input gradient and take only the weight gradient that way. A quarter more images per second for the
pocket scene network. The same function; what is not of stride 1 and dense goes to XLA.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxsynth.networks.convolution import turned_kernel

_IM2COL_SIDE = 18  # above this the copies cost more than the product saves
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def training_conv() -> Callable[..., jax.Array] | None:
    """What to give flax as `conv_general_dilated`: `matmul_conv` on CPU, XLA's own elsewhere."""
    return matmul_conv if jax.default_backend() == "cpu" else None


def matmul_conv(x, kernel, window_strides, padding, derive=None, **kwargs) -> jax.Array:
    """Drop-in for `lax.conv_general_dilated`: x (B, H, W, C), kernel (k, k, C, F). Kernels change
    at every step, so nothing is derived once."""
    dilated = {*(kwargs.get("lhs_dilation") or ()), *(kwargs.get("rhs_dilation") or ())} - {1}
    strided = set(window_strides) != {1} or kwargs.get("feature_group_count", 1) != 1
    if dilated or strided:
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **kwargs)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return _im2col(x, kernel) if x.shape[1] <= _IM2COL_SIDE else _mixed(x, kernel)


def _columns(x: jax.Array, k: int) -> jax.Array:
    """The k * k shifted copies of x, side by side: (B, H - k + 1, W - k + 1, k * k * C)."""
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    shifts = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    return jnp.concatenate(shifts, axis=-1)


def _im2col(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _columns(x, kernel.shape[0]) @ kernel.reshape(-1, kernel.shape[-1])


def _conv(x: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=_LAYOUT)


@jax.custom_vjp
def _mixed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _conv(x, kernel, 0)


def _mixed_forward(x, kernel):
    return _conv(x, kernel, 0), (x, kernel)


def _mixed_backward(saved, dy):
    x, kernel = saved
    k, c, f = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    d_kernel = _columns(x, k).reshape(-1, k * k * c).T @ dy.reshape(-1, f)
    return _conv(dy, turned_kernel(kernel), k - 1), d_kernel.reshape(kernel.shape)


_mixed.defvjp(_mixed_forward, _mixed_backward)
