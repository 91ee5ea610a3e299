"""Layers shared by the networks: dense ones, Caffe's ReLUs, pooling, response norm and softmax.

All take images as (..., H, W, C) or vectors as (..., N), whatever the leading axes.
Sources: Caffe's layer definitions (pooling in ceil mode, LRN with alpha divided by the window,
ReLU gradient 0 at exactly 0). Caffe reads its constants as float32 and widens them, and so does
`caffe_constant`: a float64 run then follows Caffe's double build.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

Blobs = dict[str, jax.Array]


def caffe_constant(value: float) -> float:
    """Round `value` to float32 and widen it again, as Caffe reads it from a prototxt."""
    return float(np.float32(value))


SLOPE = caffe_constant(0.3)
BGR_MEAN = (104.0, 117.0, 123.0)  # of ImageNet, as `images.CAFFE` has it
LRN_ALPHA = caffe_constant(1e-4)


def materialised(y: jax.Array) -> jax.Array:
    """Return y, on CPU behind a barrier that programs of `network_jit` respect.

    Without it XLA computes y again wherever it is used, or merges it with its users.
    """
    return lax.optimization_barrier(y) if jax.default_backend() == "cpu" else y


def relu(x: jax.Array) -> jax.Array:
    """Compute max(x, 0); the gradient at exactly 0 is 0, as in Caffe."""
    return _rectified(x, 0.0)


def leaky_relu(x: jax.Array, slope: float = SLOPE) -> jax.Array:
    """Compute x where x > 0, else slope * x; the gradient at exactly 0 is `slope`, as in Caffe."""
    return _rectified(x, slope)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _rectified(x: jax.Array, slope: float) -> jax.Array:
    return _rectified_forward(x, slope)[0]


def _rectified_forward(x, slope):
    """Rectify; the gradient needs the output only, since slope is not negative."""
    y = materialised(jnp.where(x > 0, x, slope * x) if slope else jnp.maximum(x, 0))
    return y, y


_rectified.defvjp(
    _rectified_forward, lambda slope, y, dy: (jnp.where(y > 0, dy, slope * dy if slope else 0),)
)


def rectify(
    out: dict[str, jax.Array], name: str, x: jax.Array, by: Callable[..., jax.Array] = relu
) -> jax.Array:
    """Apply a ReLU; enter its result as the blob of a name, and its input as `{name}_pre`."""
    out[f"{name}_pre"], out[name] = x, by(x)
    return out[name]


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """Compute min(max(x, 0), 6); the gradient at exactly 0 and 6 is 0."""
    return materialised(jnp.clip(x, 0, 6))


relu6.defvjp(lambda x: (relu6(x),) * 2, lambda y, dy: (jnp.where((y > 0) & (y < 6), dy, 0),))


def dense(features: int, name: str) -> nn.Dense:
    """Make a dense layer, (..., K) -> (..., F), fast for large kernels and few rows."""

    def product(x, kernel, dimension_numbers, precision):  # flax asks for x @ kernel by them
        return _dense(x, kernel)

    return nn.Dense(features, name=name, dot_general=product)


@jax.custom_vjp
def _dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply x @ kernel, with the input gradient as kernel @ dy^T.

    As dy @ kernel^T it takes twice as long on CPU, where the whole kernel is transposed first.
    """
    return x @ kernel


def _dense_backward(saved, dy):
    x, kernel = saved
    # (K, ...), so that the product keeps its sides.
    dx = materialised(jnp.tensordot(kernel, dy, (1, -1)))
    return jnp.moveaxis(dx, 0, -1), jnp.einsum("...k,...f->kf", x, dy)


_dense.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _dense_backward)


def max_pool_relu(x: jax.Array) -> jax.Array:
    """Compute `max_pool(relu(x))`, the pool first: a quarter of the values are left to rectify."""
    return relu(max_pool(x))


def max_pool(x: jax.Array) -> jax.Array:
    """Apply Caffe's max pooling 3/2, no padding, ceil mode: (..., H, W, C) -> (..., H', W', C).

    The last window may overhang the lower and right border. First within rows, then over them: of
    equal values the first in reading order gets the gradient, as in Caffe, twenty times faster on
    CPU than from `reduce_window`.
    """
    return _pool(_pool(x, x.ndim - 2), x.ndim - 3)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x: jax.Array, axis: int) -> jax.Array:
    first, second, third = _windows(x, axis)
    return jnp.maximum(jnp.maximum(first, second), third)


def _pool_backward(axis, x, dy):
    dy = materialised(dy)  # three pixels read each value
    first, second, third = _windows(x, axis)
    wins_first = (first >= second) & (first >= third)
    wins_second = ~wins_first & (second >= third)
    d_second = jnp.where(wins_second, dy, 0)
    d_third = jnp.where(wins_first | wins_second, 0, dy)  # goes to the next window's first
    size, out = x.shape[axis], dy.shape[axis]
    even = _widen(jnp.where(wins_first, dy, 0), axis, 0, 1) + _widen(d_third, axis, 1, 0)
    pairs = jnp.stack([even, _widen(d_second, axis, 0, 1)], axis=axis + 1)  # out + 1 pairs
    shape = (*x.shape[:axis], 2 * (out + 1), *x.shape[axis + 1 :])
    return (lax.slice_in_dim(pairs.reshape(shape), 0, size, axis=axis),)


_pool.defvjp(lambda x, axis: (_pool(x, axis), x), _pool_backward)


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
    """Return the first, second and third values of all windows of 3 at distance 2 on an axis."""
    size = x.shape[axis]
    out = -(-(size - 3) // 2) + 1
    slices = [lax.slice_in_dim(x, i, min(size, i + 2 * out - 1), 2, axis=axis) for i in range(3)]
    return [_widen(s, axis, 0, out - s.shape[axis], -jnp.inf) for s in slices]


def _widen(x: jax.Array, axis: int, before: int, after: int, value: float = 0) -> jax.Array:
    if before == after == 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths, constant_values=value)


def interleave(phases: jax.Array, shift: int) -> jax.Array:
    """Turn sub-pixel phases into pixels: (B, H + shift, W + shift, 4 F) -> (B, 2 H, 2 W, F).

    Phase (a, b) of place (h, w) is pixel (2 h + a - shift, 2 w + b - shift).
    """
    batch, height, width, channels = phases.shape
    y = phases.reshape(batch, height, width, 2, 2, channels // 4)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return y[:, shift : 2 * height - shift, shift : 2 * width - shift]


def at_least_float32(x: jax.Array) -> jax.Array:
    """Widen x to float32 if its precision is less, as for logits, probabilities, objectives."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def local_response_norm(x: jax.Array, size: int = 5) -> jax.Array:
    """Apply Caffe's across-channel LRN: x / (1 + alpha / size * sum of squares)^3/4.

    `size` is odd. The power is two roots: `pow` takes four times as long on CPU.
    """
    return _normed(x, size)[0]


def _normed(x, size):
    root = lax.rsqrt(1.0 + (LRN_ALPHA / size) * _channel_sum(x * x, size))
    return x * root * jnp.sqrt(root), (x, root)


def _normed_backward(size, saved, dy):
    """Pull back with one sum over neighbouring channels; transposing the forward pass has five."""
    x, root = saved
    dx = dy * root * jnp.sqrt(root)
    return (dx - (1.5 * LRN_ALPHA / size) * x * _channel_sum(dx * x * root * root, size),)


local_response_norm.defvjp(_normed, _normed_backward)


def _channel_sum(x: jax.Array, size: int) -> jax.Array:
    """Sum over `size` channels around each, (..., C) -> (..., C); outside they are 0."""
    channels, half = x.shape[-1], size // 2
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)])
    return sum(lax.slice_in_dim(padded, i, i + channels, axis=x.ndim - 1) for i in range(size))


@jax.custom_vjp
def softmax(logits: jax.Array) -> jax.Array:
    """Apply softmax over the last axis, (..., N) -> (..., N); its gradient survives saturation.

    The usual rule p_i (w_i - sum_j w_j p_j) cancels to 0 once some p is 1 in float32. Counted from
    the weight of the likeliest class k, v = w - w_k, it is p_i (v_i - sum_j v_j p_j): the sum then
    leaves out the class that saturates. Its direction stays right until the other p underflow
    (log-odds of about 87 in float32).
    """
    return jax.nn.softmax(logits, axis=-1)


def _softmax_forward(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = jax.nn.softmax(logits, axis=-1)
    return p, p


def _softmax_backward(p: jax.Array, w: jax.Array) -> tuple[jax.Array]:
    top = jnp.argmax(p, axis=-1, keepdims=True)
    v = w - jnp.take_along_axis(w, top, axis=-1)
    return (p * (v - jnp.sum(p * v, axis=-1, keepdims=True)),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def log_odds(logits: jax.Array) -> jax.Array:
    """Compute log(p / (1 - p)) of every class, (..., N) -> (..., N); no gradient saturates.

    The sum over the other classes is the whole sum without the class: exact enough for every class
    but the likeliest, whose own share is at most half. That one's others are summed by themselves.
    """
    top = jnp.argmax(logits, axis=-1, keepdims=True)
    is_top = jnp.arange(logits.shape[-1]) == top
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    powers = jnp.exp(logits - largest)
    rest = jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, logits), axis=-1, keepdims=True)
    others = jnp.where(is_top, 1.0, powers.sum(-1, keepdims=True) - powers)
    return logits - jnp.where(is_top, rest, largest + jnp.log(others))


def classifier_outputs(logits: jax.Array) -> dict[str, jax.Array]:
    """Compute `prob`, `log_prob` and `log_odds` over the last axis, each (..., N)."""
    return {
        "prob": softmax(logits),
        "log_prob": jax.nn.log_softmax(logits, axis=-1),
        "log_odds": log_odds(logits),
    }


def with_logits(out: Blobs, name: str, x: jax.Array, classes: int) -> Blobs:
    """Add a last dense layer of x (..., K), in float32 or wider, with its probabilities."""
    out[name] = dense(classes, name)(at_least_float32(x))
    return out | classifier_outputs(out[name])


def normalised(data: jax.Array, mean: ArrayLike, deviation: ArrayLike) -> jax.Array:
    """Turn images in Caffe's units into (RGB of 0..255 - mean) / deviation."""
    mean, deviation = (jnp.asarray(x, data.dtype) for x in (mean, deviation))
    return (from_bgr(data) - mean) / deviation


def from_bgr(x: jax.Array) -> jax.Array:
    """Turn images (..., 3) in Caffe's units, BGR and mean-subtracted, into RGB of 0..255."""
    return (x + jnp.asarray(BGR_MEAN, x.dtype))[..., ::-1]


def to_bgr(rgb: jax.Array) -> jax.Array:
    """Invert `from_bgr`."""
    return rgb[..., ::-1] - jnp.asarray(BGR_MEAN, rgb.dtype)
