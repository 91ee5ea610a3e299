"""Training of a judge from fresh weights, with batch norm that is folded away at the end.

Cross-entropy with label smoothing, SGD with Nesterov momentum, weight decay on kernels, a short
warm-up and a cosine schedule. Inputs are BGR, mean-subtracted, (B, H, W, 3); pure functions.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.network import logits_blob, make_module
from jaxsynth.training.data import Batch
from jaxsynth.training.setup import (
    cast,
    initial_variables,
    random_colours,
    random_crop_flip,
    to_input,
    training_conv,
)

NORM_EPSILON = 1e-5
INPUT_SCALE = 64.0  # while training, the first layer sees grey levels in units of this


class SceneState(NamedTuple):
    """What a checkpoint holds."""

    params: Any
    batch_stats: Any
    opt: Any


@dataclasses.dataclass(frozen=True)
class SceneTraining:
    """Settings of optimizer and augmentation, as in `FineTuning`."""

    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 5e-4
    smoothing: float = 0.05
    warm_up: float = 0.03
    min_scale: float = 0.75
    colour: float = 0.0


def scene_module(config: ResNetConfig, train: bool) -> nn.Module:
    """The module with batch norm before each ReLU."""

    def norm(name: str):
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.98, epsilon=NORM_EPSILON, name=f"{name}_bn"
        )

    return make_module(config, norm=norm, conv=training_conv())


def init_scene(seed: int, config: ResNetConfig, training: SceneTraining) -> SceneState:
    """Fresh weights and an empty optimiser."""
    shape = (1, config.size, config.size, 3)
    variables = initial_variables(scene_module(config, train=False), seed, shape)
    params, batch_stats = variables["params"], variables["batch_stats"]
    return SceneState(params, batch_stats, _optimiser(training).init(params))


@partial(network_jit, static_argnums=(0, 1, 2), donate_argnums=3)
def scene_step(
    config: ResNetConfig, training: SceneTraining, activations: str, state: SceneState, *batch
) -> tuple[SceneState, dict[str, jax.Array]]:
    """One step.

    activations: `float32` or `bfloat16`; weights, batch statistics and the loss stay float32.
    batch: nothing frozen, rgb (B, S, S, 3) uint8, labels (B,) int32, a key, progress 0 to 1.
    """
    _, rgb, labels, key, progress = batch
    crop_key, colour_key = jax.random.split(key)
    x = random_crop_flip(crop_key, rgb, config.size, training.min_scale)
    x = random_colours(colour_key, x, training.colour) / INPUT_SCALE
    module = scene_module(config, train=True)

    def loss_fn(params):
        variables = {"params": cast(params, activations), "batch_stats": state.batch_stats}
        out, new = module.apply(variables, cast(x, activations), mutable=["batch_stats"])
        logits = out[logits_blob(config)].astype(jnp.float32)
        loss, accuracy = label_loss(logits, labels, training.smoothing)
        return loss, (new["batch_stats"], accuracy)

    (loss, (stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimiser(training).update(grads, state.opt, state.params)
    rate = training.rate * schedule(progress, training.warm_up)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    return SceneState(params, stats, opt), {"loss": loss, "batch top-1": accuracy, "rate": rate}


def label_loss(
    logits: jax.Array, labels: jax.Array, smoothing: float
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of smoothed labels, and the share of right ones; logits (B, C), labels (B,)."""
    target = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    loss = optax.softmax_cross_entropy(logits, target).mean()
    return loss, (logits.argmax(-1) == labels).mean()


def schedule(progress: jax.Array, warm_up: float) -> jax.Array:
    """Linear from 0 to 1 over `warm_up` of the run, then a half cosine to 0."""
    rest = (progress - warm_up) / (1.0 - warm_up)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(rest, 0.0, 1.0)))
    return jnp.where(progress < warm_up, progress / max(warm_up, 1e-9), cosine)


def moving_average(average: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """The average one step on: a shorter memory at the start, then `decay`."""
    keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: keep * a + (1.0 - keep) * p, average, params)


@partial(network_jit, static_argnums=0)
def normed_logits(config: ResNetConfig, state: SceneState, x: jax.Array) -> jax.Array:
    """Logits (B, classes) of the network as trained, batch norm with its running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return scene_module(config, train=False).apply(variables, x / INPUT_SCALE)[logits_blob(config)]


def top_k_accuracy(
    logits_fn: Callable[[jax.Array], jax.Array], batches: Iterable[Batch]
) -> dict[str, float]:
    """Measure the top-1 and top-5 rate of the true label, and the mean cross-entropy."""
    first = fifth = loss = total = 0.0
    for rgb, labels, count in batches:
        logits = np.asarray(logits_fn(to_input(rgb)))[:count]
        true = labels[:count]
        rank = (logits > np.take_along_axis(logits, true[:, None], 1)).sum(1)
        first += float((rank < 1).sum())
        fifth += float((rank < 5).sum())
        log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
        loss -= float(log_p[np.arange(count), true].sum())
        total += count
    return {"val top-1": first / total, "val top-5": fifth / total, "val loss": loss / total}


def fold_batch_norm(params: Any, batch_stats: Any, first: str) -> dict[str, np.ndarray]:
    """Fold batch norm into flat parameters that compute the same function of raw inputs.

    y = (Wx + b - m) / s * g + c with s = sqrt(v + eps) is the layer W g / s, (b - m) g / s + c.

    Args:
      params: A tree in which layer `x` has its batch norm as `x_bn`.
      batch_stats: Means and variances of those.
      first: The layer that sees the image; the input scale goes into it.
    """
    flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    stats = traverse_util.flatten_dict(jax.device_get(batch_stats), sep="/")
    out = {path: value for path, value in flat.items() if "_bn/" not in path}
    for path in [p for p in flat if p.endswith("_bn/scale")]:
        name = path.removesuffix("_bn/scale")
        factor = flat[path] / np.sqrt(stats[f"{name}_bn/var"] + NORM_EPSILON)
        out[f"{name}/kernel"] = out[f"{name}/kernel"] * factor
        shifted = (out[f"{name}/bias"] - stats[f"{name}_bn/mean"]) * factor
        out[f"{name}/bias"] = shifted + flat[f"{name}_bn/bias"]
    out[f"{first}/kernel"] = out[f"{first}/kernel"] / INPUT_SCALE
    return out


def _optimiser(training: SceneTraining) -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.chain(
        optax.add_decayed_weights(
            training.decay, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
        ),
        optax.trace(training.momentum, nesterov=True),
    )
