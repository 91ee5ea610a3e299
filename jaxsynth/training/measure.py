"""Accuracy of a classifier on validation photographs."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.compiled import network_jit
from jaxsynth.models.network import Network, logits_blob
from jaxsynth.system import view
from jaxsynth.training.augment import centre_input

Batch = tuple[np.ndarray, np.ndarray, int]  # pixels (B, S, S, 3) uint8 RGB, labels (B,), count


def top_k_accuracy(
    logits_fn: Callable[[jax.Array], jax.Array], batches: Iterable[Batch], size: int
) -> dict[str, float]:
    """Measure the top-1 and top-5 rate of the true label, and the mean cross-entropy."""
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
    """Make the function x (B, S, S, 3), BGR, mean-subtracted -> logits (B, K)."""
    static = (network.apply, network.input_shape[0], logits_blob(network.info.config))
    return partial(_logits, static, network.params)


@partial(network_jit, static_argnums=0)
def _logits(static, params, x):
    apply, size, blob = static
    return jax.vmap(apply, (None, 0))(params, view(x, size))[blob]
