"""Convolutions that are fast on CPU: rewritten shapes.

`cpu_conv` rewrites the shapes that are slow in XLA, and leaves the rest alone (gains:
benchmarks/README.md):

  groups            one convolution a group, side by side
  1x1               a matrix product, after a stride has dropped pixels
  few channels in,  as XLA's, but its input gradient is one convolution along rows that makes
  stride > 1        blocks of pixels of a row, for each of the kernel's rows, which are then summed
  bfloat16          products with float32 sums, one for each place of the kernel, of deep maps
  deconvolution     one 2x2 convolution of the small map that makes all four phases of the pixels;
  4x4, stride 2     few channels out: input gradient of columns two by two
  other, stride 1   as XLA's, but the kernel of its input gradient is reversed and transposed one
                    after the other

Kernels turned for a gradient or split into phases are asked of `derive`, so that they can be
computed once for many steps (`derived`).

Layouts are flax's: x (B, H, W, C), kernel (k, k, C, F). Gradients are reverse mode only.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxsynth.models.compiled import Derive, derive_nothing, derive_now, part
from jaxsynth.models.layers import interleave

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW = 4  # channels: images, not features
_DEEP = 128  # channels from which on bfloat16 convolutions gain by being products
_WIDE = 48  # channels out of a convolution: with fewer it is slow, whatever it computes

Padding = Sequence[tuple[int, int]]


def network_conv() -> Callable[..., jax.Array] | None:
    """Return flax's `conv_general_dilated`: `cpu_conv` on CPU, None (XLA's own) elsewhere."""
    return cpu_conv if jax.default_backend() == "cpu" else None


def cpu_conv(
    x: jax.Array,
    kernel: jax.Array,
    window_strides,
    padding,
    derive: Derive = derive_nothing,
    **kwargs,
) -> jax.Array:
    """Convolve, as flax's `conv_general_dilated` hook: NHWC and HWIO in all cases."""
    strides, dilation = tuple(window_strides), tuple(kwargs.get("lhs_dilation") or (1, 1))
    plain = set(kwargs.get("rhs_dilation") or (1,)) == {1} and not isinstance(padding, str)
    k, square = kernel.shape[0], kernel.shape[0] == kernel.shape[1]
    if plain and (groups := kwargs.get("feature_group_count", 1)) > 1:
        return _grouped(x, kernel, strides, padding, groups, derive, kwargs)
    if plain and dilation == (1, 1) and square:
        if k == 1 and _is(padding, 0):
            x = x[:, :: strides[0], :: strides[1]]
            return (_product if x.dtype == jnp.bfloat16 else jnp.matmul)(x, kernel[0, 0])
        even = _is(padding, padding[0][0])
        if strides[0] == strides[1] > 1 and x.shape[-1] <= _FEW and even:
            blocks = derive("blocks", lambda: _block_kernel(kernel, strides[0]))
            return _strided(x, kernel, blocks, strides[0], padding[0][0])
        if strides == (1, 1):
            turned = derive("turned", lambda: turned_kernel(kernel))
            return _unit_stride(x, kernel, turned, tuple(map(tuple, padding)))
    if plain and (dilation, strides, k, square) == ((2, 2), (1, 1), 4, True) and _is(padding, 2):
        phases = derive_now(derive, "phases", lambda: _deconvolution_phases(kernel))
        return _doubling(x, kernel, phases, derive("turned", lambda: _doubling_turned(kernel)))
    return lax.conv_general_dilated(x, kernel, window_strides, padding, **kwargs)


def _is(padding: Padding, amount: int) -> bool:
    return all(tuple(pair) == (amount, amount) for pair in padding)


def _conv(
    x: jax.Array, kernel: jax.Array, padding: Padding, strides: Sequence[int] = (1, 1)
) -> jax.Array:
    if x.dtype == jnp.bfloat16 and tuple(strides) == (1, 1) and kernel.shape[2] >= _DEEP:
        return _shifted_products(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _shifted_products(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolve with stride 1 as a sum of products, one for each place of the kernel, in float32.

    Of bfloat16 numbers with float32 results, XLA's products use the processor's instructions, its
    convolutions do not.
    """
    padded = jnp.pad(x, ((0, 0), *map(tuple, padding), (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    parts = (
        jnp.dot(
            padded[:, i : i + height, j : j + width],
            kernel[i, j],
            preferred_element_type=jnp.float32,
        )
        for i in range(rows)
        for j in range(columns)
    )
    return sum(parts).astype(x.dtype)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply bfloat16 numbers (..., C) @ (C, F) with sums in float32, and so in the gradient."""
    return jnp.dot(x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)


def _product_backward(saved, dy):
    x, kernel = saved
    return _product(dy, kernel.T), jnp.einsum("...c,...f->cf", x, dy)


_product.defvjp(lambda x, kernel: (_product(x, kernel), (x, kernel)), _product_backward)


def _grouped(x, kernel, strides, padding, groups: int, derive: Derive, kwargs) -> jax.Array:
    kwargs = {**kwargs, "feature_group_count": 1}
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    made = [
        cpu_conv(a, b, strides, padding, part(derive, i), **kwargs)
        for i, (a, b) in enumerate(parts)
    ]
    return jnp.concatenate(made, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _strided(
    x: jax.Array, kernel: jax.Array, blocks: jax.Array | None, stride: int, pad: int
) -> jax.Array:
    return _conv(x, kernel, [(pad, pad)] * 2, (stride, stride))


def _strided_backward(stride, pad, saved, dy):
    """Make blocks of `side` pixels of a row of x, for each row of the kernel by itself.

    One convolution along rows of dy does so; those of row i for the kernel's row r belong to row
    stride i + r.
    """
    x, kernel, blocks = saved
    blocks = _block_kernel(kernel, stride) if blocks is None else blocks
    rows, channels, size = kernel.shape[0], kernel.shape[2], x.shape[1:3]
    step, side, reach = _block_sizes(kernel, stride)
    high, wide = (-(-(n + 2 * pad) // by) for n, by in zip(size, (stride, side), strict=True))
    z = _conv(dy, blocks, [(0, 0), (reach, step * wide - dy.shape[2])], (1, step))
    z = z.reshape(*z.shape[:3], rows, side * channels)  # (B, h, wide, rows, side C)

    exact = jnp.promote_types(z.dtype, jnp.float32)

    def phase(first):  # rows stride j + first of the padded x: (B, high, wide, side C)
        seen = [z[:, :, :, row].astype(exact) for row in range(first, rows, stride)]
        after = high - dy.shape[1]
        moved = (_move_down(one, i, after - i) for i, one in enumerate(seen))
        shape = (z.shape[0], high, wide, side * channels)
        return sum(moved, jnp.zeros(shape, exact)).astype(z.dtype)

    dx = jnp.stack([phase(first) for first in range(stride)], axis=2)
    dx = dx.reshape(-1, high * stride, wide * side, channels)
    strides = (stride, stride)
    _, pull = jax.vjp(lambda kernel: _conv(x, kernel, [(pad, pad)] * 2, strides), kernel)
    return dx[:, pad : pad + size[0], pad : pad + size[1]], *pull(dy), None


_strided.defvjp(lambda *given: (_strided(*given), given[:3]), _strided_backward)


def _move_down(maps: jax.Array, above: int, below: int) -> jax.Array:
    """Add rows of zeros above and below: (B, h, ...) -> (B, above + h + below, ...)."""
    return jnp.pad(maps, ((0, 0), (above, below), *((0, 0),) * (maps.ndim - 2)))


def _block_sizes(kernel: jax.Array, stride: int) -> tuple[int, int, int]:
    """Return step over dy, side of a block, and `reach` of `_strided_backward`.

    A pixel is still seen from `reach` places of dy before its own.
    """
    step = 1 if kernel.shape[0] * stride * kernel.shape[2] >= _WIDE else 2
    return step, step * stride, -(-kernel.shape[0] // stride) - 1


def _block_kernel(kernel: jax.Array, stride: int) -> jax.Array:
    """The kernel of `_strided_backward`: (k, k, C, F) -> (1, taps, F, k side C).

    dx[side w + a] of a row is the sum over t of kernel[stride (reach - t) + a] dy[step w - reach +
    t].
    """
    k, _, _, features = kernel.shape
    step, side, reach = _block_sizes(kernel, stride)
    taps = reach + step
    margins = (side - stride, stride * reach + side - k)
    grown = jnp.pad(kernel, ((0, 0), margins, (0, 0), (0, 0)))  # 0 out of the kernel's reach
    starts = range(stride * (taps - 1), -1, -stride)
    by_tap = jnp.stack([grown[:, start : start + side] for start in starts])  # (t, k, a, C, F)
    return by_tap.transpose(0, 4, 1, 2, 3).reshape(1, taps, features, -1)


@jax.custom_vjp
def _doubling(
    x: jax.Array, kernel: jax.Array, phases: jax.Array, turned: jax.Array | None
) -> jax.Array:
    """Deconvolution 4x4, stride 2, padding 1: (B, H, W, C), (4, 4, C, F) -> (B, 2 H, 2 W, F).

    Rows h - 1 and h make output rows 2 h - 1 and 2 h: one 2x2 convolution makes all phases.
    """
    # Padding inside the convolution is slow in float64.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return interleave(_conv(padded, phases, [(0, 0)] * 2), 1)


def _deconvolution_phases(kernel: jax.Array) -> jax.Array:
    """(4, 4, C, F) -> (2, 2, C, 4 F)."""
    channels, features = kernel.shape[2:]
    small = kernel.reshape(2, 2, 2, 2, channels, features)[:, ::-1, :, ::-1]
    return small.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * features)


def _doubling_turned(kernel: jax.Array) -> jax.Array:
    """(4, 4, C, F) -> (4, 4, F, C); of few channels out (4, 3, 2 F, C), for two columns at once."""
    turned, features = turned_kernel(kernel), kernel.shape[3]
    if features > _FEW:
        return turned
    return jnp.pad(turned, ((0, 0), (1, 1), (0, 0), (0, 0))).reshape(4, 3, 2 * features, -1)


def _doubling_backward(saved, dy):
    x, kernel, _, turned = saved
    turned = _doubling_turned(kernel) if turned is None else turned
    _, pull = jax.vjp(lambda kernel: _dilated(x, kernel), kernel)
    batch, height, width, features = dy.shape
    if features > _FEW:
        return _conv(dy, turned, [(1, 1)] * 2, (2, 2)), *pull(dy), None, None
    # A 4x4 convolution of stride 2: two columns side by side are one of twice the channels.
    pairs = dy.reshape(batch, height, width // 2, 2 * features)
    return _conv(pairs, turned, [(1, 1)] * 2, (2, 1)), *pull(dy), None, None


_doubling.defvjp(lambda *given: (_doubling(*given), given), _doubling_backward)


def _dilated(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`_doubling` as XLA has it."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=_LAYOUT
    )


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _unit_stride(
    x: jax.Array, kernel: jax.Array, turned: jax.Array | None, pads: tuple[tuple[int, int], ...]
) -> jax.Array:
    return _conv(x, kernel, pads)


def _unit_stride_backward(pads, saved, dy):
    x, kernel, turned = saved
    turned = turned_kernel(kernel) if turned is None else turned
    _, pull = jax.vjp(lambda kernel: _conv(x, kernel, pads), kernel)
    sides = zip(pads, kernel.shape[:2], strict=True)
    around = [(k - 1 - before, k - 1 - after) for (before, after), k in sides]
    return _conv(dy, turned, around), *pull(dy), None


_unit_stride.defvjp(lambda *given: (_unit_stride(*given), given[:3]), _unit_stride_backward)


def turned_kernel(kernel: jax.Array) -> jax.Array:
    """The kernel of the input gradient: (k, k, C, F) -> (k, k, F, C), both sides reversed.

    The barrier keeps reversing and transposing apart: at once they take twice as long.
    """
    return lax.optimization_barrier(jnp.flip(kernel, (0, 1))).swapaxes(2, 3)
