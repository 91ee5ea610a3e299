"""Convolution of each channel by itself, written as a sum of shifted products.

XLA's grouped convolution takes 6 to 22 times as long on CPU.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.layers import materialised

Pairs = tuple[tuple[int, int], tuple[int, int]]  # of rows and columns: (before, after)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis: (before, after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pairs
) -> jax.Array:
    """Filter each channel by itself: (..., H, W, C), (k, m, C) -> (..., H', W', C)."""
    padded = _pad_image(x, pads)
    sides = zip(padded.shape[-3:-1], kernel.shape[:2], strides, strict=True)
    size = [(n - k) // s + 1 for n, k, s in sides]
    shifts = [((i, j), (i, j)) for i, j in np.ndindex(*kernel.shape[:2])]
    return _shifted_products(padded, kernel, shifts, size, strides)


def _depthwise_backward(strides, pads, saved, dy):
    (x, kernel), how = saved, (strides, pads, dy)
    return _input_gradient(x.shape, kernel, *how), _kernel_gradient(x, kernel, *how)


depthwise_conv.defvjp(lambda *given: (depthwise_conv(*given), given[:2]), _depthwise_backward)


def _input_gradient(shape, kernel, strides, pads, dy) -> jax.Array:
    """One sum of shifted products for each phase of the strides; phases interleave to pixels."""
    (high, wide), (rows, columns) = shape[-3:-1], kernel.shape[:2]
    (top, _), (left, _) = pads
    # Output row p' + (p + top - i) / s takes input row s p' + p, where that is a whole number.
    margin = [
        k + 2 + before + after for k, (before, after) in zip((rows, columns), pads, strict=True)
    ]
    padded = _pad_image(dy, [(m, m) for m in margin])
    size = [-(-n // s) for n, s in zip((high, wide), strides, strict=True)]

    def phase(p, q):
        shifts = []
        for i, j in np.ndindex(rows, columns):
            a, over_a = divmod(p + top - i, strides[0])
            b, over_b = divmod(q + left - j, strides[1])
            if not over_a and not over_b:
                shifts.append(((i, j), (margin[0] + a, margin[1] + b)))
        return _shifted_products(padded, kernel, shifts, size, (1, 1))

    if strides == (1, 1):
        return phase(0, 0)
    phases = [
        jnp.stack([phase(p, q) for q in range(strides[1])], axis=-2) for p in range(strides[0])
    ]  # of each (..., h, w, stride, C)
    pixels = jnp.stack(phases, axis=-4)
    whole = (size[0] * strides[0], size[1] * strides[1])
    return pixels.reshape(*shape[:-3], *whole, shape[-1])[..., :high, :wide, :]


def _shifted_products(x, kernel, shifts, size, strides) -> jax.Array:
    """Sum windows of x, each times a place of the kernel; `shifts` are pairs (place, start).

    In lax's own operations: the hundreds of them are traced in a third of jnp's time.
    """
    columns, channels = kernel.shape[1:]
    flat = lax.reshape(kernel, (kernel.shape[0] * columns, channels))
    made = None
    for (i, j), start in shifts:
        window = _window(x, *start, size, strides)
        place = i * columns + j
        factor = lax.slice(flat, (place, 0), (place + 1, channels))
        factor = lax.broadcast_in_dim(factor, window.shape, (0, window.ndim - 1))
        product = lax.mul(window, factor)
        made = product if made is None else lax.add(made, product)
    return jnp.zeros((*x.shape[:-3], *size, channels), x.dtype) if made is None else made


def _kernel_gradient(x, kernel, strides, pads, dy) -> jax.Array:
    padded = _pad_image(x, pads)
    size, channels = dy.shape[-3:-1], dy.shape[-1]
    ones = jnp.ones(dy.size // channels, dy.dtype)

    def tap(i, j):
        return ones @ (_window(padded, i, j, size, strides) * dy).reshape(-1, channels)

    rows, columns = kernel.shape[:2]
    return jnp.stack([jnp.stack([tap(i, j) for j in range(columns)]) for i in range(rows)])


def _pad_image(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """Zeros around (..., H, W, C), made once however many windows read them."""
    return materialised(jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*pads, (0, 0)]))


def _window(x: jax.Array, top: int, left: int, size, strides) -> jax.Array:
    lead, channels = x.shape[:-3], x.shape[-1]
    end = [a + s * (n - 1) + 1 for a, s, n in zip((top, left), strides, size, strict=True)]
    starts, ends = (*(0,) * len(lead), top, left, 0), (*lead, *end, channels)
    return lax.slice(x, starts, ends, (*(1,) * len(lead), *strides, 1))
