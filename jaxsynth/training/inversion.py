"""Training of a generator that inverts a frozen encoder's code.

Losses of Dosovitskiy & Brox 2016 ("Generating images with perceptual similarity metrics based on
deep networks"): distance of images, of codes, of convolutional features in a comparator (the
encoder, or another network), and an adversary. Images are BGR, mean-subtracted; the generator works
in units of 64 grey levels and of the code's root mean square while it trains (`fold_scales` puts
both into its weights, `unfold_scales` takes them out again).

The adversary joins late (from its first step it would win and teach nothing), and its gradient at
the image is scaled to a share of the other losses', so that no weight has to be found by trial.
With `jitter`, encoder and comparator look after one random shift of photograph and
reconstruction, which takes details from the encoder's blind spots at fixed places and costs
agreement.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from jaxsynth.models.generator import Generator, GeneratorConfig
from jaxsynth.models.network import image_blob
from jaxsynth.system import shift, view
from jaxsynth.training.adversary import PIXEL_SCALE, CriticState, contest, init_critic
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.convolution import training_conv
from jaxsynth.training.initial import initial_variables
from jaxsynth.training.precision import cast
from jaxsynth.training.scene import moving_average, schedule

_BETAS = (0.9, 0.99)


class InversionState(NamedTuple):
    """What a checkpoint holds; `average` is the moving average of `params` that is exported.

    critic: None without an adversary.
    """

    params: Any
    average: Any
    opt: Any
    step: jax.Array
    critic: CriticState | None


class Encoder(NamedTuple):
    """Frozen during training. `features` (params, x (B, H, W, 3)) -> named activations.

    size: side of its input; code: the blob that is inverted; sigma: (D,) of the code; scale: root
    mean square of the code.
    """

    features: Callable[[Any, jax.Array], dict[str, jax.Array]]
    size: int
    code: str
    sigma: jax.Array
    scale: float


class Comparator(NamedTuple):
    """The network whose features are compared: the encoder, or another one, frozen as well."""

    features: Callable[[Any, jax.Array], dict[str, jax.Array]]
    size: int


@dataclasses.dataclass(frozen=True)
class InversionTraining:
    """Weights of the losses and settings of Adam.

    Attributes:
      rate: peak step size.
      image, code, feature: weights of the distances. `layers` of the comparator are compared.
      adversary: size of the adversary's gradient at the image as a share of the other losses'.
      adversary_start: share of the run after which it joins.
      critic_rate, critic_width: step size and first width of the critic.
      noise: standard deviation of the noise on the given codes, in sigmas of each unit.
      jitter: largest shift, in pixels, before encoder and comparator look.
      average: decay of the moving average of the weights.
      warm_up: share of the run in which the rate rises.
      min_scale: shortest side of a random crop, as a share of the picture's.
    """

    rate: float = 2e-3
    image: float = 4.0
    code: float = 2.0
    feature: float = 1.0
    layers: tuple[str, ...] = ("conv2", "conv3", "conv5")
    adversary: float = 0.2
    adversary_start: float = 0.5
    critic_rate: float = 5e-4
    critic_width: int = 24
    noise: float = 0.1
    jitter: int = 0
    average: float = 0.998
    warm_up: float = 0.02
    min_scale: float = 0.8


def init_inversion(
    seed: int, config: GeneratorConfig, training: InversionTraining, params: Any = None
) -> InversionState:
    """A first state: fresh weights, or the given ones (see `unfold_scales`)."""
    if params is None:
        params = initial_variables(Generator(config), seed, (1, config.code))["params"]
    copy = jax.tree.map(jnp.copy, params)  # the state is donated: no two leaves may be one buffer
    critic = None
    if training.adversary > 0:
        critic = init_critic(seed, config.size, config.code, training.critic_width)
    return InversionState(params, copy, _optimiser().init(params), jnp.int32(0), critic)


def generate(config: GeneratorConfig, params: Any, code: jax.Array) -> jax.Array:
    """Codes (B, D) over their scale -> images (B, H, W, 3) in units of 64 grey levels."""
    return Generator(config, conv=training_conv()).apply({"params": params}, code)[
        image_blob(config)
    ]


def flat_code(out: Mapping[str, jax.Array], blob: str) -> jax.Array:
    """The code of a batch: (B, ...) -> (B, D), a spatial blob in HWC order."""
    return out[blob].reshape(out[blob].shape[0], -1).astype(jnp.float32)


def inversion_losses(
    photo: jax.Array,
    image: jax.Array,
    real: Mapping[str, jax.Array],
    made: Mapping[str, jax.Array],
    encoder: Encoder,
    training: InversionTraining,
) -> dict[str, jax.Array]:
    """The distances, each relative to the size of what it compares, unweighted.

    photo, image: (B, H, W, 3). real, made: the encoder's `code` and the comparator's `layers` of
    photographs and of their reconstructions.
    """
    return {
        "image": image_distance(photo, image),
        "code": code_distance(made["code"], real["code"], encoder.sigma),
        "feature": layer_distance(made, real, training.layers),
    }


def image_distance(photo: jax.Array, image: jax.Array) -> jax.Array:
    """Mean square in units of 64 grey levels."""
    return jnp.mean((image - photo) ** 2) / PIXEL_SCALE**2


def code_distance(made: jax.Array, real: jax.Array, sigma: jax.Array) -> jax.Array:
    """Mean square of codes (B, D) over the mean variance of a unit."""
    return jnp.mean((made - real) ** 2) / jnp.mean(sigma**2)


def layer_distance(
    made: Mapping[str, jax.Array], real: Mapping[str, jax.Array], layers: Sequence[str]
) -> jax.Array:
    """Mean square of the layers' activations over that of the real ones, the mean over layers."""
    pairs = [(made[n].astype(jnp.float32), real[n].astype(jnp.float32)) for n in layers]
    losses = [jnp.mean((a - b) ** 2) / jnp.mean(b**2) for a, b in pairs]
    return sum(losses, jnp.float32(0)) / max(1, len(pairs))


def inversion_step(
    config: GeneratorConfig,
    encoder: Encoder,
    comparator: Comparator | None,
    training: InversionTraining,
    activations: str,
    adversarial: bool,
    state: InversionState,
    frozen: Mapping[str, Any],
    rgb,
    labels,
    key,
    progress,
) -> tuple[InversionState, dict[str, jax.Array]]:
    """One step: rgb (B, S, S, 3) uint8, progress 0..1 of the whole run; labels are not used.

    comparator: None if it is the encoder. activations: `float32` or `bfloat16`; weights, losses and
    images stay float32. adversarial: whether the critic takes part. frozen: parameters of `encoder`
    and `comparator`.
    """
    del labels
    frozen = cast(frozen, activations)
    crop_key, noise_key, shift_key = jax.random.split(key, 3)
    photo = random_crop_flip(crop_key, rgb, config.size, training.min_scale)
    offset = jax.random.randint(shift_key, (2,), -training.jitter, training.jitter + 1)

    def look(image, offset):
        """The encoder's code and the comparator's layers."""
        # The window moves by `offset`, the picture the other way.
        moved = jax.vmap(lambda one: shift(one, -offset, training.jitter))(image)
        moved = cast(moved, activations)
        out = encoder.features(frozen["encoder"], view(moved, encoder.size))
        code = flat_code(out, encoder.code)
        if comparator is not None:
            out = comparator.features(frozen["comparator"], view(moved, comparator.size))
        return {"code": code} | {name: out[name] for name in training.layers}

    real = jax.lax.stop_gradient(look(photo, offset))
    still = real if training.jitter == 0 else look(photo, jnp.zeros_like(offset))
    code = jax.lax.stop_gradient(still["code"])
    noise = jax.random.normal(noise_key, code.shape) * encoder.sigma
    given = jnp.maximum(code + training.noise * noise, 0.0) / encoder.scale  # (B, D)

    def draw(params):
        out = generate(config, cast(params, activations), cast(given, activations))
        return PIXEL_SCALE * out.astype(jnp.float32)

    def distance(image):
        losses = inversion_losses(photo, image, real, look(image, offset), encoder, training)
        return sum(getattr(training, name) * value for name, value in losses.items()), losses

    image, pull = jax.vjp(draw, state.params)
    (loss, metrics), gradient = jax.value_and_grad(distance, has_aux=True)(image)
    rate = schedule(progress, training.warm_up)
    critic = state.critic
    if adversarial:
        pull_up, critic, seen = contest(
            training, critic, photo, image, given, activations, progress, rate, gradient
        )
        gradient += pull_up
        metrics |= seen
    updates, opt = _optimiser().update(pull(gradient)[0], state.opt, state.params)
    params = jax.tree.map(lambda p, u: p - training.rate * rate * u, state.params, updates)
    step = state.step + 1
    average = moving_average(state.average, params, training.average, step)
    metrics = {"loss": loss, **metrics, "rate": training.rate * rate}
    return InversionState(params, average, opt, step, critic), metrics


def fold_scales(params: Any, config: GeneratorConfig, scale: float) -> dict[str, jax.Array]:
    """Flat parameters of the plain generator: raw codes in, raw pixels out."""
    return _scaled(traverse_util.flatten_dict(params, sep="/"), config, 1.0 / scale, PIXEL_SCALE)


def unfold_scales(params: Mapping[str, jax.Array], config: GeneratorConfig, scale: float) -> Any:
    """Inverse of `fold_scales`: the tree of parameters that training goes on from."""
    return traverse_util.unflatten_dict(_scaled(params, config, scale, 1.0 / PIXEL_SCALE), sep="/")


def _scaled(flat, config: GeneratorConfig, code: float, pixels: float) -> dict[str, jax.Array]:
    flat = dict(flat)
    first, last = config.dense[0][0], image_blob(config)
    flat[f"{first}/kernel"] = flat[f"{first}/kernel"] * code
    for part in ("kernel", "bias"):
        flat[f"{last}/{part}"] = flat[f"{last}/{part}"] * pixels
    return flat


def _optimiser() -> optax.GradientTransformation:
    """Without the step size, which follows the run's progress."""
    return optax.scale_by_adam(*_BETAS)
