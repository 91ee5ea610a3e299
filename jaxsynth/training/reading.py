"""A trained scene network learns to read the images that its generator makes of its codes.

A generator trained on E leaves E(G(E(x))) some way from E(x): an encoder asks for details that no
generator of this size paints, and few eyes see. Here G stands still and E moves, so that it reads
from G(E(x)) what it read from x, on top of naming photographs: the cycle of Zhu et al. 2017
("Unpaired image-to-image translation using cycle-consistent adversarial networks"), one half at a
time, so that no code can hide in an image that both have agreed upon. A third term keeps the codes
where G knows them. Pure functions; images are BGR, mean-subtracted, (B, H, W, 3).

Batch norm keeps its statistics: E is trained as it is used, and the two kinds of image share them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.engine.objective import shift, view
from jaxsynth.networks.network import Config, logits_blob
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.batch_norm import INPUT_SCALE
from jaxsynth.training.precision import cast
from jaxsynth.training.scene import (
    SceneState,
    SceneTraining,
    label_loss,
    scene_module,
    schedule,
)


@dataclasses.dataclass(frozen=True)
class ReadingTraining:
    """Adam's peak step size, and the terms beside the cross-entropy of photographs.

    Attributes:
      rate: peak step size; the schedule is that of plain training.
      reading, agreement: distance of the codes of what is read and of x; cross-entropy of what is
        predicted of the former to what is predicted of the latter.
      anchor: distance of a photograph's code to the one it had at the start.
      photographs: share of x itself among the images that are read, the others are G(E(x)).
      jitter, noise: what is read is moved by up to so many pixels, and has noise of a standard
        deviation of up to so many grey levels: E learns not to ask for what no eye sees.
    """

    rate: float = 1e-3
    reading: float = 2.0
    agreement: float = 2.0
    anchor: float = 0.1
    photographs: float = 0.5
    jitter: int = 2
    noise: float = 12.0


class Partner(NamedTuple):
    """The two networks that stand still. Static.

    draw: (params, code (D,)) -> image (H, W, 3). first: (params, x (H, W, 3)) -> code (D,), the
    scene network as it was at the start. blob: name of the code.
    """

    draw: Callable[[Any, jax.Array], jax.Array]
    first: Callable[[Any, jax.Array], jax.Array]
    blob: str


def reading_state(params: Any, batch_stats: Any) -> SceneState:
    """Given weights and an empty optimiser."""
    return SceneState(params, batch_stats, _optimiser().init(params))


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=5)
def reading_step(
    config: Config,
    training: SceneTraining,
    reading: ReadingTraining,
    partner: Partner,
    activations: str,
    state: SceneState,
    frozen: Mapping[str, Any],
    rgb,
    labels,
    key,
    progress,
) -> tuple[SceneState, dict[str, jax.Array]]:
    """One step: rgb (B, S, S, 3) uint8, labels (B,) int32, progress 0..1 of the whole run.

    frozen: parameters of `generator` and `first`; `scale`, a trained code over the plain one; and
    `power` (), the mean variance of a unit of the trained code.
    """
    crop_key, *keys = jax.random.split(key, 5)
    x = random_crop_flip(crop_key, rgb, config.size, training.min_scale)
    module = scene_module(config, train=False)
    first = frozen["scale"] * jax.vmap(partner.first, (None, 0))(frozen["first"], x)  # (B, D)

    def look(params, image):
        variables = {"params": cast(params, activations), "batch_stats": state.batch_stats}
        out = module.apply(variables, cast(image / INPUT_SCALE, activations))
        return [out[blob].astype(jnp.float32) for blob in (partner.blob, logits_blob(config))]

    def loss_fn(params):
        code, logits = look(params, x)
        given = jax.lax.stop_gradient(code) / frozen["scale"]
        made = jax.vmap(partner.draw, (None, 0))(frozen["generator"], given)
        image = _disturbed(reading, keys, view(made, config.size), x)
        read, read_logits = look(params, jax.lax.stop_gradient(image))
        same = optax.softmax_cross_entropy(
            read_logits, jax.lax.stop_gradient(jax.nn.softmax(logits))
        ).mean()
        distance = _distance(read, jax.lax.stop_gradient(code), frozen["power"])
        label, accuracy = label_loss(logits, labels, training.smoothing)
        anchor = _distance(code, first, frozen["power"])
        loss = label + reading.agreement * same
        loss += reading.reading * distance + reading.anchor * anchor
        agreement = (read_logits.argmax(-1) == logits.argmax(-1)).mean()
        metrics = {"code": distance, "anchor": anchor, "batch agreement": agreement}
        return loss, {"loss": label, "batch top-1": accuracy} | metrics

    (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimiser().update(grads, state.opt)
    rate = reading.rate * schedule(progress, training.warm_up)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    return SceneState(params, state.batch_stats, opt), metrics | {"rate": rate}


def _disturbed(
    reading: ReadingTraining, keys: Sequence[jax.Array], made: jax.Array, x: jax.Array
) -> jax.Array:
    """What is read: some of the photographs instead of what was made of them, moved, with noise."""
    batch, reach = len(x), reading.jitter
    plain = jax.random.bernoulli(keys[0], reading.photographs, (batch, 1, 1, 1))
    offsets = jax.random.randint(keys[1], (batch, 2), -reach, reach + 1)
    image = jax.vmap(partial(shift, reach=reach))(jnp.where(plain, x, made), offsets)
    size = reading.noise * jax.random.uniform(keys[2], (batch, 1, 1, 1))
    return image + size * jax.random.normal(keys[3], image.shape)


def _distance(a: jax.Array, b: jax.Array, power: jax.Array) -> jax.Array:
    return jnp.mean((a - b) ** 2) / power


def _optimiser() -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.scale_by_adam(0.9, 0.99)
