"""Training of a scene network: an AlexNet with batch norm that is folded away at the end.

Cross-entropy with label smoothing, SGD with Nesterov momentum, weight decay on kernels, a short
warm-up and a cosine schedule. Inputs are BGR, mean-subtracted, (B, H, W, 3); pure functions.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxsynth.networks.alexnet import AlexNet, AlexNetConfig
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.batch_norm import INPUT_SCALE, NORM_EPSILON
from jaxsynth.training.convolution import matmul_conv
from jaxsynth.training.initial import initial_variables


class SceneState(NamedTuple):
    """What a checkpoint holds."""

    params: Any
    batch_stats: Any
    opt: Any


@dataclasses.dataclass(frozen=True)
class SceneTraining:
    """Settings of the optimiser; `rate` is the peak step size for the loop's batch."""

    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 5e-4
    smoothing: float = 0.1
    dropout: float = 0.2
    warm_up: float = 0.03
    min_scale: float = 0.7


def scene_module(config: AlexNetConfig, train: bool, dropout: float = 0.0) -> AlexNet:
    """The module with batch norm before each ReLU (and dropout on the dense layers)."""
    hidden = {name for name, _ in config.dense}

    def norm(name: str):
        layer = nn.BatchNorm(
            use_running_average=not train, momentum=0.98, epsilon=NORM_EPSILON, name=f"{name}_bn"
        )
        if train and dropout > 0 and name in hidden:
            drop = nn.Dropout(dropout, deterministic=False, name=f"{name}_drop")
            return lambda x: drop(layer(x))
        return layer

    return AlexNet(config, norm=norm, conv=matmul_conv)


def init_scene(seed: int, config: AlexNetConfig, training: SceneTraining) -> SceneState:
    """Fresh weights and an empty optimiser."""
    shape = (1, config.size, config.size, 3)
    variables = initial_variables(scene_module(config, train=False), seed, shape)
    params = variables["params"]
    return SceneState(params, variables["batch_stats"], _optimiser(training).init(params))


def warm_scene(params: Any, batch_stats: Any, training: SceneTraining) -> SceneState:
    """Given weights (see `unfold_batch_norm`) and an empty optimiser."""
    return SceneState(params, batch_stats, _optimiser(training).init(params))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def scene_step(
    config: AlexNetConfig,
    training: SceneTraining,
    state: SceneState,
    frozen: None,
    rgb,
    labels,
    key,
    progress,
) -> tuple[SceneState, dict[str, jax.Array]]:
    """One step: rgb (B, S, S, 3) uint8, labels (B,) int32, progress 0..1 of the whole run."""
    del frozen
    crop_key, drop_key = jax.random.split(key)
    x = random_crop_flip(crop_key, rgb, config.size, training.min_scale) / INPUT_SCALE
    module = scene_module(config, train=True, dropout=training.dropout)

    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        out, new = module.apply(variables, x, rngs={"dropout": drop_key}, mutable=["batch_stats"])
        target = optax.smooth_labels(jax.nn.one_hot(labels, config.classes), training.smoothing)
        loss = optax.softmax_cross_entropy(out["fc8"], target).mean()
        accuracy = (out["fc8"].argmax(-1) == labels).mean()
        return loss, (new["batch_stats"], accuracy)

    (loss, (stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimiser(training).update(grads, state.opt, state.params)
    rate = training.rate * schedule(progress, training.warm_up)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    return SceneState(params, stats, opt), {"loss": loss, "batch top-1": accuracy, "rate": rate}


def schedule(progress: jax.Array, warm_up: float) -> jax.Array:
    """Linear from 0 to 1 over `warm_up` of the run, then a half cosine to 0."""
    rest = (progress - warm_up) / (1.0 - warm_up)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(rest, 0.0, 1.0)))
    return jnp.where(progress < warm_up, progress / max(warm_up, 1e-9), cosine)


@partial(jax.jit, static_argnums=0)
def normed_logits(config: AlexNetConfig, state: SceneState, x: jax.Array) -> jax.Array:
    """Logits (B, classes) of the network as trained, batch norm with its running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return scene_module(config, train=False).apply(variables, x / INPUT_SCALE)["fc8"]


def _optimiser(training: SceneTraining) -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.chain(
        optax.add_decayed_weights(
            training.decay, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
        ),
        optax.trace(training.momentum, nesterov=True),
    )
