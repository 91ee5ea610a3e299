"""Fine-tuning of a classifier on other categories: a fitted last layer, most others trained on.

The last layer is fitted to the frozen features first, so that training does not spoil them while it
learns (Kumar et al. 2022, "Fine-tuning can distort pretrained features"). Then cross-entropy with
label smoothing on random crops, mirrored and with changed colours; Adam with a warm-up and a cosine
schedule; a moving average of the weights is what is used. Batch norm is folded already, and stays
so.

A judge should share nothing with what it judges: `linear_judge` is a fitted last layer alone, on
a network that others trained. The features of each photograph and of its mirror image are computed
once; the layer is then fitted to all of them by L-BFGS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsynth.inputs import option
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.network import Config, Network, Params, logits_blob, make_apply
from jaxsynth.runs.saving import Stopped
from jaxsynth.training.data import ImageSet, batches, epoch_rows
from jaxsynth.training.scene import label_loss, moving_average, schedule
from jaxsynth.training.setup import cast, random_colours, random_crop_flip, to_input

_EPSILON = 1e-6
_STEPS = 200  # of L-BFGS


@dataclass(frozen=True)
class FineTuning:
    """Settings of optimizer and augmentation; a field's help says what it is.

    Depthwise kernels have few weights and the slowest gradients, and the first blocks see edges and
    textures: by default they stay as they are.
    """

    rate: float = option(2e-4, "Peak step size of Adam.", above=0)
    fitted: int = option(
        16_000, "Photographs that the last layer is fitted to first; with 0 it starts at 0.", low=0
    )
    decay: float = option(0.02, "Decay of kernels, as a share of the step size.", low=0)
    smoothing: float = option(0.1, "Smoothing of labels.", low=0, high=1)
    warm_up: float = option(0.03, "Share of the run in which the rate rises.", low=0, high=1)
    min_scale: float = option(
        0.6, "Shortest side of a random crop, as a share of the picture's.", above=0, high=1
    )
    colour: float = option(
        0.2, "Strength of random brightness, contrast and saturation.", low=0, high=1
    )
    average: float = option(0.999, "Weight of the past in the average that is used.", low=0, high=1)
    freeze: tuple[str, ...] = option(
        ("conv_stem/*", "block[0-4]_*", "*_depthwise/kernel"),
        "Patterns of parameters that stay as they are.",
    )


@dataclass(frozen=True)
class LinearTraining:
    """Settings of the fit."""

    decay: float = option(1e-2, "Weight of the kernel's squared norm.", low=0)


class FineTuned(NamedTuple):
    """What a checkpoint holds: the trained parameters, flat; `average` is what is used."""

    params: Params
    average: Params
    opt: optax.OptState
    step: jax.Array


def split_params(params: Params, freeze: tuple[str, ...]) -> tuple[Params, Params]:
    """Split parameters into those that are trained and those that match a pattern."""
    frozen = {k: v for k, v in params.items() if any(fnmatch(k, pattern) for pattern in freeze)}
    return {k: v for k, v in params.items() if k not in frozen}, frozen


def init_finetuned(trained: Params, training: FineTuning) -> FineTuned:
    """Make the state before the first step."""
    opt = _optimizer(training).init(trained)
    return FineTuned(trained, jax.tree.map(jnp.copy, trained), opt, jnp.int32(0))


@partial(network_jit, static_argnums=(0, 1, 2), donate_argnums=3)
def finetune_step(
    config: Config, training: FineTuning, activations: str, state: FineTuned, *batch
) -> tuple[FineTuned, dict[str, jax.Array]]:
    """Take one step.

    batch: frozen parameters, rgb (B, S, S, 3) uint8, labels (B,) int32, a key, progress 0 to 1.
    """
    frozen, rgb, labels, key, progress = batch
    keys = jax.random.split(key)
    x = random_crop_flip(keys[0], rgb, config.size, training.min_scale)
    x = random_colours(keys[1], x, training.colour)
    apply = jax.vmap(make_apply(config), (None, 0))

    def loss_fn(params):
        made = apply(cast(params | frozen, activations), cast(x, activations))
        return label_loss(made[logits_blob(config)], labels, training.smoothing)

    (loss, right), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimizer(training).update(grads, state.opt, state.params)
    rate = training.rate * schedule(progress, training.warm_up)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    average = moving_average(state.average, params, training.average, state.step)
    metrics = {"loss": loss, "batch top-1": right}
    return FineTuned(params, average, opt, state.step + 1), metrics


@partial(network_jit, static_argnums=0)
def finetuned_logits(config: Config, params: Params, x: jax.Array) -> jax.Array:
    """Compute logits (B, classes) of images (B, S, S, 3), BGR, mean-subtracted."""
    return jax.vmap(make_apply(config), (None, 0))(params, x)[logits_blob(config)]


def _optimizer(training: FineTuning) -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.chain(
        optax.scale_by_adam(0.9, 0.99),
        optax.add_decayed_weights(
            training.decay, mask=lambda tree: {k: v.ndim > 1 for k, v in tree.items()}
        ),
    )


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
