"""Figures of a trained pair on validation photographs. Pure JAX inside, batches outside."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Network, image_blob, logits_blob
from jaxsynth.system import shift, view
from jaxsynth.training.augment import centre_input

NOISE = 8.0  # grey levels
Batch = tuple[np.ndarray, np.ndarray, int]  # pixels (B, S, S, 3) uint8 RGB, labels (B,), count


class Pair(NamedTuple):
    """A generator G and the encoder E that it inverts."""

    generator: Network
    encoder: Network


def top_k_accuracy(
    logits_fn: Callable[[jax.Array], jax.Array], batches: Iterable[Batch], size: int
) -> dict[str, float]:
    """Top-1 and top-5 rate of the true label, and the mean cross-entropy."""
    first = fifth = loss = total = 0.0
    for rgb, labels, count in batches:
        logits = np.asarray(logits_fn(centre_input(rgb, size)))[:count]
        true = labels[:count]
        rank = (logits > np.take_along_axis(logits, true[:, None], 1)).sum(1)
        first += float((rank < 1).sum())
        fifth += float((rank < 5).sum())
        log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
        loss -= float(log_p[np.arange(count), true].sum())
        total += count
    return {"val top-1": first / total, "val top-5": fifth / total, "val loss": loss / total}


def logits_of(network: Network) -> Callable[[jax.Array], jax.Array]:
    """x (B, S, S, 3), BGR, mean-subtracted -> logits (B, K)."""
    static = (network.apply, network.input_shape[0], logits_blob(network.info.config))
    return partial(_logits, static, network.params)


@partial(network_jit, static_argnums=0)
def _logits(static, params, x):
    apply, size, blob = static
    return jax.vmap(apply, (None, 0))(params, view(x, size))[blob]


def steadiness(
    logits_fn: Callable[[jax.Array], jax.Array], batches: Iterable[Batch], size: int
) -> dict[str, float]:
    """How often a network names the same category of a photograph that is moved or noisy.

    A brittle network cannot be inverted: it asks for details that no eye sees.

    Returns:
      `same_moved`: moved by a pixel down and right; `same_noisy`: with Gaussian noise of a standard
      deviation of `NOISE` grey levels.
    """
    move = jax.jit(jax.vmap(lambda one: shift(one, jnp.array([1, 1]), 1)))
    same, total = np.zeros(2), 0
    for i, (rgb, _, count) in enumerate(batches):
        x = centre_input(rgb, size)
        noisy = x + NOISE * jax.random.normal(jax.random.key(i), x.shape)
        first, *others = (np.asarray(logits_fn(v)).argmax(1)[:count] for v in (x, move(x), noisy))
        same += [(first == other).sum() for other in others]
        total += count
    return dict(zip(("same_moved", "same_noisy"), (same / total).tolist(), strict=True))


def invert(generator: Network, encoder: Network) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    """x (B, S, S, 3) -> logits of E(x), of E(G(E(x))), both codes, and G(E(x)), not clipped."""
    static = (
        (generator.apply, image_blob(generator.info.config), generator.info.encoder_blob),
        (encoder.apply, encoder.input_shape[0], logits_blob(encoder.info.config)),
    )
    return lambda x: _invert(static, generator.params, encoder.params, x)


@partial(network_jit, static_argnums=0)
def _invert(static, generator_params, encoder_params, x):
    (generate, image, code), (encode, size, logits) = static

    def encoded(image):
        out = jax.vmap(encode, (None, 0))(encoder_params, view(image, size))
        return out[logits], out[code].reshape(image.shape[0], -1)

    real, code_real = encoded(x)
    made_image = jax.vmap(generate, (None, 0))(generator_params, code_real)[image]
    made, code_made = encoded(made_image)
    return real, made, code_real, code_made, made_image


def inversion_figures(
    invert: Callable[[jax.Array], tuple[jax.Array, ...]], batches: Iterable[Batch], size: int
) -> dict[str, float]:
    """How well G inverts E on photographs x.

    Args:
      invert: x (B, H, W, 3) -> logits of E(x) and of E(G(E(x))), both codes, and G(E(x)).

    Returns:
      `agreement`: rate of the same top category; `cosine`: mean of the codes; `kept`: 1 less the
      mean square of what is lost over a unit's variance, at least 0, the mean over units that are
      not silent: a unit's strength and mean do not enter; `silent`: number of units that do not
      vary; `rms`: of the difference of images in grey levels.
    """
    same = cosine = square = total = 0.0
    sums = 0.0  # (3, D): of codes, of their squares, of the squares of what is lost
    for rgb, _, count in batches:
        x = centre_input(rgb, size)
        real, made, code, code_made, image = (np.asarray(v)[:count] for v in invert(x))
        same += float((real.argmax(1) == made.argmax(1)).sum())
        norms = np.linalg.norm(code, axis=1) * np.linalg.norm(code_made, axis=1)
        cosine += float(((code * code_made).sum(1) / np.maximum(norms, 1e-12)).sum())
        square += float(((image - np.asarray(x)[:count]) ** 2).mean((1, 2, 3)).sum())
        wide = code.astype(np.float64)
        sums = np.stack([wide, wide**2, (code_made - wide) ** 2]).sum(1) + sums
        total += count
    mean, power, lost = sums / total
    variance = power - mean**2
    heard = variance > 1e-9 * power
    kept = np.mean(np.maximum(1 - lost[heard] / variance[heard], 0)) if heard.any() else 0.0
    figures = {"agreement": same / total, "cosine": cosine / total, "kept": float(kept)}
    return figures | {"silent": int((~heard).sum()), "rms": (square / total) ** 0.5}
