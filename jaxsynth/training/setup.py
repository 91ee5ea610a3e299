"""What trainings share: devices, precision, first weights, inputs, and a convolution.

Several devices split each batch: weights are replicated over a mesh of one axis, and jit adds the
sums that this takes. Activations are float32 on CPU, bfloat16 on accelerators. First weights are
drawn by numpy: XLA takes 20 s of CPU to compile flax's initialisers.

Inputs are (B, size, size, 3) float32, BGR, ImageNet-mean subtracted, of cached photographs
(B, S, S, 3) uint8, RGB.

The convolution, for flax's `conv_general_dilated` hook, trains faster on CPU than XLA's own. Its
forward pass is XLA's. On small maps both gradients are matrix products: that of the input by adding
up what each tap sends (col2im), that of the kernel over the shifted copies of the input (im2col).
On larger maps the kernel's gradient is a convolution whose contraction runs over the batch. Stride
2 with an even kernel becomes stride 1 on blocks of 2x2 pixels. What is neither goes to XLA.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import lax

from jaxsynth.devices import on_all, runs_mesh, split
from jaxsynth.models.cpu_convolution import turned_kernel
from jaxsynth.models.layers import to_bgr

ACTIVATIONS = ("float32", "bfloat16")
_IM2COL_SIDE = 10  # up to this the kernel's gradient is a product
_COL2IM_SIDE = 17  # up to this the input's gradient is one
_SHIFT = 8  # pixels, the largest random one
_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Placement(NamedTuple):
    """How to put a batch (leading axis split) and a state (replicated) onto the devices."""

    batch: Callable[[np.ndarray], jax.Array]
    state: Callable[[Any], Any]


def place_on(devices: list[jax.Device], batch: int) -> Placement:
    """Place a batch of this size over devices.

    Raises:
      ValueError: if a batch of this size does not split evenly.
    """
    if batch % len(devices):
        raise ValueError(
            f"a batch of {batch} images does not split over {len(devices)} devices: give a "
            "multiple of that"
        )
    mesh = runs_mesh(devices)
    return Placement(partial(split, mesh), partial(on_all, mesh))


def default_activations() -> str:
    """Return what trains fastest here: bfloat16 on an accelerator."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def cast(tree: Any, activations: str) -> Any:
    """Cast a tree's float32 leaves to the activations' precision; gradients flow back through.

    Weights are stored in float32 and cast where they are used.
    """
    return jax.tree.map(
        lambda leaf: leaf.astype(activations) if leaf.dtype == jnp.float32 else leaf, tree
    )


def initial_variables(module: nn.Module, seed: int, *inputs: Any) -> dict[str, Any]:
    """Draw the module's variables for inputs of these shapes, or lists of shapes.

    Kernels are N(0, 1 / fan-in) (LeCun et al. 1998), spectral normalisation's vectors N(0, 1);
    scales, variances and sigmas are 1, everything else 0.
    """
    x = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        inputs,
        is_leaf=lambda shape: isinstance(shape, tuple) and isinstance(shape[0], int),
    )
    shapes = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *x))
    rng = np.random.default_rng(seed)
    return traverse_util.unflatten_dict(
        {path: jnp.asarray(_draw(rng, path[-1], leaf.shape)) for path, leaf in shapes.items()}
    )


def _draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = kind.rpartition("/")[-1]  # spectral normalisation's are called `conv0/kernel/u`
    if kind == "u":
        return rng.normal(size=shape).astype(np.float32)
    if kind == "kernel":
        fan_in = np.prod(shape[:-1])
        return rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
    return np.full(shape, float(kind in ("scale", "var", "sigma")), np.float32)


def to_input(rgb: jax.Array) -> jax.Array:
    """(..., 3) RGB 0..255 -> (..., 3) float32 BGR, mean-subtracted."""
    return to_bgr(rgb.astype(jnp.float32))


def random_offsets(key: jax.Array, count: int) -> jax.Array:
    """Draw shifts (count, 2) by up to `_SHIFT` pixels; half of them are 0."""
    keys = jax.random.split(key, 2)
    drawn = jax.random.randint(keys[0], (count, 2), -_SHIFT, _SHIFT + 1)
    return jnp.where(jax.random.bernoulli(keys[1], 0.5, (count, 1)), drawn, 0)


def shifted(images: jax.Array, offsets: jax.Array) -> jax.Array:
    """Shift images (B, S, S, 3) by offsets (B, 2) in pixels; borders are mirrored.

    What losses see at all offsets cannot settle into a pattern of the encoder's strides.
    """
    side = images.shape[1]
    at = jnp.arange(side) + offsets[..., None]  # (B, 2, S)
    at = side - 1 - jnp.abs(side - 1 - jnp.abs(at))
    rows, columns = jnp.moveaxis(jax.nn.one_hot(at, side), 1, 0)  # each (B, S, S)
    images = jnp.einsum("bip,bpqc->biqc", rows, images)
    return jnp.einsum("bjq,biqc->bijc", columns, images)


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
