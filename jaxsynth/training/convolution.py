"""A convolution that trains faster on CPU than XLA's own, for flax's `conv_general_dilated` hook.

The forward pass is XLA's. On small maps both gradients are matrix products: that of the input by
adding up what each tap sends (col2im), that of the kernel over the shifted copies of the input
(im2col). On larger maps the kernel's gradient is a convolution whose contraction runs over the
batch. Stride 2 with an even kernel becomes stride 1 on blocks of 2x2 pixels. The same function;
what is neither goes to XLA.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxsynth.models.cpu_convolution import turned_kernel

_IM2COL_SIDE = 10  # up to this the kernel's gradient is a product
_COL2IM_SIDE = 17  # up to this the input's gradient is one
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def training_conv() -> Callable[..., jax.Array] | None:
    """What to give flax as `conv_general_dilated`: `matmul_conv` on CPU, XLA's own elsewhere."""
    return matmul_conv if jax.default_backend() == "cpu" else None


def matmul_conv(x, kernel, window_strides, padding, derive=None, **kwargs) -> jax.Array:
    """Convolve like `lax.conv_general_dilated`: x (B, H, W, C), kernel (k, k, C, F).

    Kernels change at every step, so nothing is derived from them once: `derive` is not asked.
    """
    dilated = {*(kwargs.get("lhs_dilation") or ()), *(kwargs.get("rhs_dilation") or ())} - {1}
    if dilated or kwargs.get("feature_group_count", 1) != 1 or isinstance(padding, str):
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **kwargs)
    if set(window_strides) == {1}:
        return _conv(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel)
    sides = [n + sum(pad) for n, pad in zip(x.shape[1:3], padding, strict=True)]
    if set(window_strides) == {2} and not any(n % 2 for n in (*kernel.shape[:2], *sides)):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        return _conv(_blocks(x), _kernel_blocks(kernel))
    return lax.conv_general_dilated(x, kernel, window_strides, padding, **kwargs)


def _blocks(x: jax.Array) -> jax.Array:
    """Blocks of 2x2 pixels as channels: (B, H, W, C) -> (B, H / 2, W / 2, 4 C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def _kernel_blocks(kernel: jax.Array) -> jax.Array:
    """The same of a kernel: (k, k, C, F) -> (k / 2, k / 2, 4 C, F)."""
    k, m, c, f = kernel.shape
    kernel = kernel.reshape(k // 2, 2, m // 2, 2, c, f).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(k // 2, m // 2, 4 * c, f)


def _native(x: jax.Array, kernel: jax.Array, pad: int = 0) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=_LAYOUT)


@jax.custom_vjp
def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, no padding."""
    return _native(x, kernel)


def _conv_forward(x, kernel):
    return _native(x, kernel), (x, kernel)


def _conv_backward(saved, dy):
    x, kernel = saved
    side = dy.shape[1]
    input_gradient = _col2im if side <= _COL2IM_SIDE else _turned
    kernel_gradient = _im2col if side <= _IM2COL_SIDE else _over_batch
    return input_gradient(dy, kernel), kernel_gradient(x, dy).reshape(kernel.shape)


_conv.defvjp(_conv_forward, _conv_backward)


def _turned(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return _native(dy, turned_kernel(kernel), kernel.shape[0] - 1)


def _col2im(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    k, m, c, f = kernel.shape
    sent = (dy.reshape(-1, f) @ kernel.reshape(-1, f).T).reshape(*dy.shape[:3], k, m, c)
    around = partial(jnp.pad, mode="constant")
    return sum(
        around(sent[..., i, j, :], ((0, 0), (i, k - 1 - i), (j, m - 1 - j), (0, 0)))
        for i in range(k)
        for j in range(m)
    )


def _im2col(x: jax.Array, dy: jax.Array) -> jax.Array:
    (_, height, width, f), c = dy.shape, x.shape[-1]
    k, m = x.shape[1] - height + 1, x.shape[2] - width + 1
    shifts = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(m)]
    return jnp.concatenate(shifts, axis=-1).reshape(-1, k * m * c).T @ dy.reshape(-1, f)


def _over_batch(x: jax.Array, dy: jax.Array) -> jax.Array:
    """A convolution of x as (C, H, W, B) with dy as (H', W', B, F): (k, k, C, F)."""
    made = _native(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3))
    return made.transpose(1, 2, 0, 3)
