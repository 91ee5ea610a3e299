"""Layers shared by the networks: Caffe's pooling, local response norm, ReLUs and softmax family.

All take images as (..., H, W, C) or vectors as (..., N); none looks at the leading axes.
Sources: Caffe's layer definitions (pooling in ceil mode, LRN with alpha divided by the window,
ReLU gradient 0 at exactly 0). Caffe reads its constants as float32 and widens them, so
`caffe_constant` does the same: a float64 run then follows Caffe's double build.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def caffe_constant(value: float) -> float:
    """`value` rounded to float32 and widened again, as Caffe reads it from a prototxt."""
    return float(np.float32(value))


SLOPE = caffe_constant(0.3)
LRN_ALPHA = caffe_constant(1e-4)


def leaky_relu(x: jax.Array, slope: float = SLOPE) -> jax.Array:
    """x where x > 0, else slope * x; the gradient at exactly 0 is `slope`, as in Caffe."""
    return jnp.where(x > 0, x, slope * x)


def max_pool(x: jax.Array, window: int = 3, stride: int = 2) -> jax.Array:
    """Caffe's max pooling without padding, in ceil mode: (..., H, W, C) -> (..., H', W', C).

    The last window may overhang the lower and right border. Written as a maximum over the window's
    strided slices: its gradient is ten times faster on CPU than that of `reduce_window`.
    """
    for axis in (-3, -2):
        size = x.shape[axis]
        out = -(-(size - window) // stride) + 1
        x = _pad_end(x, axis, (out - 1) * stride + window - size)
        last = (out - 1) * stride + 1
        slices = [
            lax.slice_in_dim(x, i, i + last, stride, axis=x.ndim + axis) for i in range(window)
        ]
        x = slices[0]
        for s in slices[1:]:
            x = jnp.maximum(x, s)
    return x


def _pad_end(x: jax.Array, axis: int, amount: int) -> jax.Array:
    if amount <= 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, amount)
    return jnp.pad(x, widths, constant_values=-jnp.inf)


def local_response_norm(x: jax.Array, size: int = 5, beta: float = 0.75) -> jax.Array:
    """Caffe's across-channel LRN with k = 1: x / (1 + alpha / size * sum of squares) ** beta."""
    half = size // 2
    squares = jnp.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(half, half)])
    channels = x.shape[-1]
    total = sum(lax.slice_in_dim(squares, i, i + channels, axis=x.ndim - 1) for i in range(size))
    return x * (1.0 + (LRN_ALPHA / size) * total) ** -beta


def upsample_conv(
    x: jax.Array, kernel: jax.Array, smooth: bool, conv: Callable[..., jax.Array] | None = None
) -> jax.Array:
    """Doubles x, then convolves: (B, H, W, C), (3, 3, C, F) -> (B, 2 H, 2 W, F).

    `smooth` is bilinear (half-pixel centres, borders replicated), otherwise nearest neighbour
    (borders zero). Computed at the small size, in sub-pixel form: upsampling and kernel together
    are one small kernel for each of the four output phases (Shi et al. 2016, "Is the deconvolution
    layer the same as a convolutional layer?"); nearest neighbour needs 2x2 taps of it, 2.25 times
    less work. `conv` replaces `lax.conv_general_dilated`.
    """
    taps = jnp.asarray(_BILINEAR_TAPS if smooth else _NEAREST_TAPS, kernel.dtype)  # (2, 3, k)
    k, features = taps.shape[-1], kernel.shape[-1]
    small = jnp.einsum("aiu,bjv,ijcf->uvcabf", taps, taps, kernel)
    small = small.reshape(k, k, kernel.shape[2], 4 * features)
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = jnp.pad(x, border, mode="edge") if smooth else jnp.pad(x, border)
    conv = lax.conv_general_dilated if conv is None else conv
    y = conv(padded, small, (1, 1), ((0, 0), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y.reshape((*y.shape[:3], 2, 2, features))
    batch, height, width = x.shape[:3]
    shift = 0 if smooth else 1  # the phases of nearest neighbour look at neighbouring 2x2 windows
    rows = [
        jnp.stack(
            [y[:, a * shift :, b * shift :, a, b][:, :height, :width] for b in (0, 1)], axis=3
        )
        for a in (0, 1)
    ]  # two of (B, H, W, 2, F)
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


# What tap i of a 3-tap kernel sees around an output pixel of phase a, as weights of input pixels:
# nearest neighbour p - 1 + a and p + a, bilinear p - 1, p and p + 1.
_NEAREST_TAPS = (((1, 0), (0, 1), (0, 1)), ((1, 0), (1, 0), (0, 1)))
_BILINEAR_TAPS = (
    ((0.75, 0.25, 0), (0.25, 0.75, 0), (0, 0.75, 0.25)),
    ((0.25, 0.75, 0), (0, 0.75, 0.25), (0, 0.25, 0.75)),
)


@jax.custom_vjp
def softmax(logits: jax.Array) -> jax.Array:
    """Softmax over the last axis, (..., N) -> (..., N), whose gradient survives saturation.

    The usual rule p_i (w_i - sum_j w_j p_j) cancels to 0 once some p is 1 in float32. The same
    number as p_i sum_j p_j (w_i - w_j) has no cancellation: its direction stays right until p_j
    underflows (log-odds of about 87 in float32).
    """
    return jax.nn.softmax(logits, axis=-1)


def _softmax_forward(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = jax.nn.softmax(logits, axis=-1)
    return p, p


def _softmax_backward(p: jax.Array, w: jax.Array) -> tuple[jax.Array]:
    pairs = w[..., :, None] - w[..., None, :]  # (..., N, N)
    return (p * jnp.sum(p[..., None, :] * pairs, axis=-1),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def log_odds(logits: jax.Array) -> jax.Array:
    """log(p / (1 - p)) of every class, (..., N) -> (..., N); its gradient never saturates."""
    n = logits.shape[-1]
    others = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, logits[..., None, :])  # (..., N, N)
    return logits - jax.nn.logsumexp(others, axis=-1)


def classifier_outputs(logits: jax.Array) -> dict[str, jax.Array]:
    """The probability family over the last axis: `prob`, `log_prob`, `log_odds`, each (..., N)."""
    return {
        "prob": softmax(logits),
        "log_prob": jax.nn.log_softmax(logits, axis=-1),
        "log_odds": log_odds(logits),
    }
