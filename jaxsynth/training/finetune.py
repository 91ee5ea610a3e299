"""Fine-tuning of a classifier on other categories: a fitted last layer, most others trained on.

The last layer is fitted to the frozen features first, so that training does not spoil them while it
learns (Kumar et al. 2022, "Fine-tuning can distort pretrained features"). Then cross-entropy with
label smoothing on random crops, mirrored and with changed colours; Adam with a warm-up and a cosine
schedule; a moving average of the weights is what is used. Batch norm is folded already, and stays
so.
"""

from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.inputs import option
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.network import Config, Params, logits_blob, make_apply
from jaxsynth.training.augment import random_colours, random_crop_flip
from jaxsynth.training.scene import label_loss, moving_average, schedule
from jaxsynth.training.setup import cast


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
