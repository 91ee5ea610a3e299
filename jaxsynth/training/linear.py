"""A linear layer on the pooled features of a frozen network, trained on photographs.

What judges a prior should share nothing with it: a network that others trained, of which only the
last layer learns the categories. The features of each photograph and of its mirror image are
computed once; the layer is then fitted to all of them by L-BFGS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsynth.inputs import option
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.network import Network
from jaxsynth.runs.saving import Stopped
from jaxsynth.training.augment import to_input
from jaxsynth.training.data import ImageSet, batches, epoch_rows

_EPSILON = 1e-6
_STEPS = 200


@dataclass(frozen=True)
class LinearTraining:
    """Settings of the fit."""

    decay: float = option(1e-2, "Weight of the kernel's squared norm.", low=0)


def balanced_rows(images: ImageSet, count: int | None, seed: int) -> np.ndarray:
    """Choose rows of `count` photographs in random order, as many of each class as there are."""
    rows = epoch_rows(images.rows, seed, 0)
    labels = images.labels[rows]
    rank = np.zeros(len(rows), int)  # of each among those of its class
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    return rows[np.argsort(rank, kind="stable")[:count]]


def pooled_features(
    network: Network,
    images: ImageSet,
    batch: int,
    say: Callable[[str], None],
    every: int,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Compute the pooled features (2, N, C) of photographs and of their mirror images.

    Raises:
      Stopped: if it was asked to; nothing is saved.
    """
    found = []
    for i, (rgb, _, count) in enumerate(batches(images, batch), 1):
        both = _pooled(network.apply, network.params, rgb)
        found.append(np.asarray(both)[:, :count])
        done = f"features of {min(i * batch, len(images.rows))} of {len(images.rows)} photographs"
        if i % every == 0:
            say(done)
        if asked_to_stop():
            raise Stopped(f"{done}, not saved")
    return np.concatenate(found, axis=1)


@partial(network_jit, static_argnums=0)
def _pooled(apply, params, rgb: jax.Array) -> jax.Array:
    both = jnp.stack([rgb, rgb[:, :, ::-1]])  # (2, B, S, S, 3)
    x = to_input(both.reshape(-1, *rgb.shape[1:]))
    return jax.vmap(apply, (None, 0))(params, x)["pool"].reshape(2, len(rgb), -1)


def fit_linear(
    features: np.ndarray, labels: np.ndarray, classes: int, training: LinearTraining
) -> dict[str, np.ndarray]:
    """Fit a linear layer by cross-entropy with a squared penalty.

    Args:
      features: (N, C). They are standardised for the fit; the layer returned takes them as they
        are.
      labels: (N,), below `classes`.
      classes: Number of units K.
      training: The settings.

    Returns:
      `kernel` (C, K) and `bias` (K,).
    """
    mean, deviation = features.mean(0), features.std(0) + _EPSILON
    x = jnp.asarray((features - mean) / deviation, jnp.float32)
    params = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
    fitted = _fit(training, params, x, jnp.asarray(labels))
    kernel = np.asarray(fitted["kernel"]) / deviation[:, None]
    return {"kernel": kernel, "bias": np.asarray(fitted["bias"]) - mean @ kernel}


@partial(jax.jit, static_argnums=0)
def _fit(training: LinearTraining, params: Any, x: jax.Array, labels: jax.Array) -> Any:
    def loss(params):
        logits = x @ params["kernel"] + params["bias"]
        entropy = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return entropy + training.decay * jnp.square(params["kernel"]).sum() / 2

    optimizer = optax.lbfgs()

    def step(carry, _):
        params, state = carry
        value, grad = optax.value_and_grad_from_state(loss)(params, state=state)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=loss
        )
        return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, length=_STEPS)[0][0]
