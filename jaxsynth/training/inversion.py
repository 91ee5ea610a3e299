"""Training of a generator that inverts a frozen encoder's code.

Losses of Dosovitskiy & Brox 2016 ("Generating images with perceptual similarity metrics based on
deep networks") without their adversary: distance of images, of codes and of convolutional features
in the encoder. Images are BGR, mean-subtracted; the generator works in units of 64 grey levels and
of the code's root mean square while it trains (`fold_scales` puts both into its weights).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from jaxsynth.networks.generator import Generator, GeneratorConfig
from jaxsynth.networks.network import image_blob
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.convolution import matmul_conv
from jaxsynth.training.initial import initial_variables
from jaxsynth.training.scene import schedule

PIXEL_SCALE = 64.0
_BETAS = (0.9, 0.99)


class InversionState(NamedTuple):
    """What a checkpoint holds; `average` is the moving average of `params` that is exported."""

    params: Any
    average: Any
    opt: Any
    step: jax.Array


class Encoder(NamedTuple):
    """Frozen during training. `features` (params, x (B, H, W, 3)) -> named activations.

    sigma: (D,) of the code; scale: root mean square of the code.
    """

    features: Callable[[Any, jax.Array], dict[str, jax.Array]]
    code: str
    sigma: jax.Array
    scale: float


@dataclasses.dataclass(frozen=True)
class InversionTraining:
    """Weights of the losses and settings of Adam. `layers` are compared beside the code.

    noise: standard deviation of the noise on the given codes, in sigmas of each unit.
    """

    rate: float = 2e-3
    image: float = 4.0
    code: float = 1.0
    feature: float = 0.5
    layers: tuple[str, ...] = ("conv3", "conv5")
    noise: float = 0.1
    average: float = 0.998
    warm_up: float = 0.02
    min_scale: float = 0.8


def init_inversion(
    seed: int, config: GeneratorConfig, training: InversionTraining
) -> InversionState:
    """Fresh weights and an empty optimiser."""
    params = initial_variables(Generator(config), seed, (1, config.code))["params"]
    copy = jax.tree.map(jnp.copy, params)  # the state is donated: no two leaves may be one buffer
    return InversionState(params, copy, _optimiser().init(params), jnp.int32(0))


def generate(config: GeneratorConfig, params: Any, code: jax.Array, scale: float) -> jax.Array:
    """Codes (B, D) -> images (B, H, W, 3), BGR, mean-subtracted, with weights not yet folded."""
    out = Generator(config, conv=matmul_conv).apply({"params": params}, code / scale)
    return PIXEL_SCALE * out[image_blob(config)]


def inversion_losses(
    real: dict[str, jax.Array],
    made: dict[str, jax.Array],
    encoder: Encoder,
    training: InversionTraining,
) -> dict[str, jax.Array]:
    """The terms of the objective, each relative to the size of what it compares, unweighted.

    real, made: the encoder's activations of photographs and of their reconstructions; `data` is the
    image.
    """
    image = jnp.mean((made["data"] - real["data"]) ** 2) / PIXEL_SCALE**2
    code = jnp.mean((made[encoder.code] - real[encoder.code]) ** 2) / jnp.mean(encoder.sigma**2)
    pairs = [(made[name], real[name]) for name in training.layers]
    feature = [jnp.mean((a - b) ** 2) / jnp.mean(b**2) for a, b in pairs]
    return {
        "image": image,
        "code": code,
        "feature": sum(feature, jnp.float32(0)) / len(pairs or "1"),
    }


def inversion_step(
    config: GeneratorConfig,
    encoder: Encoder,
    training: InversionTraining,
    state: InversionState,
    encoder_params: Any,
    rgb,
    labels,
    key,
    progress,
) -> tuple[InversionState, dict[str, jax.Array]]:
    """One step: rgb (B, S, S, 3) uint8, progress 0..1 of the whole run; labels are not used."""
    del labels
    crop_key, noise_key = jax.random.split(key)
    photo = random_crop_flip(crop_key, rgb, config.size, training.min_scale)
    real = jax.lax.stop_gradient(encoder.features(encoder_params, photo))
    noise = jax.random.normal(noise_key, real[encoder.code].shape) * encoder.sigma
    code = jnp.maximum(real[encoder.code] + training.noise * noise, 0.0)

    def loss_fn(params):
        image = generate(config, params, code, encoder.scale)
        made = encoder.features(encoder_params, image)
        losses = inversion_losses(real, made, encoder, training)
        return sum(getattr(training, name) * value for name, value in losses.items()), losses

    (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimiser().update(grads, state.opt, state.params)
    rate = training.rate * schedule(progress, training.warm_up)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    step = state.step + 1
    keep = jnp.minimum(training.average, (1.0 + step) / (10.0 + step))
    average = jax.tree.map(lambda a, p: keep * a + (1.0 - keep) * p, state.average, params)
    return InversionState(params, average, opt, step), {"loss": loss, **losses, "rate": rate}


def fold_scales(params: Any, config: GeneratorConfig, scale: float) -> dict[str, jax.Array]:
    """Flat parameters of the plain generator: raw codes in, raw pixels out."""
    flat = dict(traverse_util.flatten_dict(params, sep="/"))
    first, last = config.dense[0][0], image_blob(config)
    flat[f"{first}/kernel"] = flat[f"{first}/kernel"] / scale
    for part in ("kernel", "bias"):
        flat[f"{last}/{part}"] = flat[f"{last}/{part}"] * PIXEL_SCALE
    return flat


def _optimiser() -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.scale_by_adam(*_BETAS)
