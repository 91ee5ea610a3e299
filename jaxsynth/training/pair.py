"""Training of a scene network E and the generator G that inverts its code, both in one step.

A generator alone leaves E(G(E(x))) some way from E(x): an encoder asks for details that no
generator of this size paints, and few eyes see. Here both move. G learns as in `inversion`; E names
photographs, reads from G(E(x)) what it read from x, and codes what G needs in order to paint x: a
supervised autoencoder (Le, Patterson & White 2018, "Supervised autoencoders: improving
generalization performance with unsupervised regularizers") with the cycle of Zhu et al. 2017
("Unpaired image-to-image translation using cycle-consistent adversarial networks") on codes. What E
reads is moved and noisy, and some of it is photographs: no code can hide in what no eye sees. And
what E makes of x follows what it reads in G(E(x)), not only the other way about: nothing else
would keep E from details that no painting of x can bring back.

Pure functions; images are BGR, mean-subtracted, (B, H, W, 3). Batch norm keeps its statistics: E
is trained as it is used, and the two kinds of image share them.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.models.alexnet import AlexNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.network import logits_blob
from jaxsynth.system import shift
from jaxsynth.training.adversary import PIXEL_SCALE, CriticState, contest, init_critic
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.batch_norm import INPUT_SCALE
from jaxsynth.training.inversion import generate, image_distance, layer_distance
from jaxsynth.training.precision import cast
from jaxsynth.training.scene import (
    following_prediction,
    label_loss,
    moving_average,
    scene_module,
    schedule,
)

CODE = "fc6"
_READ = (CODE, "logits")


class PairState(NamedTuple):
    """What a checkpoint holds; `average` is the moving average of `params` that is exported.

    params: {`scene`, `generator`} in the form in which they are trained. batch_stats: of the scene
    network, constant. critic: None without an adversary.
    """

    params: dict[str, Any]
    average: dict[str, Any]
    batch_stats: Any
    opt: Any
    step: jax.Array
    critic: CriticState | None


class CodeScale(NamedTuple):
    """Of the code as trained, at the start. rms: (); sigma: (D,) of each unit."""

    rms: jax.Array
    sigma: jax.Array


@dataclasses.dataclass(frozen=True)
class PairTraining:
    """Adam's peak step sizes and the weights of the losses, which both networks share.

    Attributes:
      scene_rate, generator_rate: peak step sizes.
      label: cross-entropy of the photographs' categories.
      code: share of a unit's variance that is lost from the code of x to that read in G(E(x)), the
        mean over units, each image alike; a unit's strength and mean do not enter.
      agreement: cross-entropy of what is predicted of G(E(x)) to what is predicted of x.
      temperature: of the predictions that are followed; below 1 they are sharpened, which moves
        photographs away from the border between two categories.
      image, feature: distances of G(E(x)) to x in pixels and in the scene network's `layers`.
      mutual: weight of code and prediction of x following those of G(E(x)), as a share of the
        weights of the other direction.
      shared: weight of the square of what the batch's mean G(E(x)) differs by from its mean x: no
        texture is to be at the same place in all images.
      through: share of the gradient of G's losses that reaches E through the given code.
      adversary, adversary_start, critic_rate, critic_width: as in `InversionTraining`.
      noise: on the given codes, in sigmas of each unit.
      photographs: share of x itself among the images that are read, the others are G(E(x)).
      jitter, grain: what is read is moved by up to so many pixels, and has noise of a standard
        deviation of up to so many grey levels.
      smoothing: of the labels. average: decay of the moving average of the weights.
      warm_up: share of the run in which the rates rise.
      min_scale: shortest side of a random crop, as a share of the picture's.
    """

    scene_rate: float = 3e-4
    generator_rate: float = 7e-4
    label: float = 6.0
    code: float = 40.0
    agreement: float = 7.0
    temperature: float = 0.4
    image: float = 4.0
    feature: float = 1.0
    layers: tuple[str, ...] = ("conv2", "conv3", "conv5")
    mutual: float = 1.0
    shared: float = 20.0
    through: float = 0.5
    adversary: float = 0.06
    adversary_start: float = 0.3
    critic_rate: float = 5e-4
    critic_width: int = 24
    noise: float = 0.03
    photographs: float = 0.25
    jitter: int = 1
    grain: float = 10.0
    smoothing: float = 0.05
    average: float = 0.998
    warm_up: float = 0.03
    min_scale: float = 0.75

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature:g}, expected more than 0")


def init_pair(
    seed: int,
    config: GeneratorConfig,
    training: PairTraining,
    scene: Any,
    batch_stats: Any,
    generator: Any,
) -> PairState:
    """Given weights (see `warm_scene` and `unfold_scales`) and an empty optimiser."""
    params = {"scene": scene, "generator": generator}
    copy = jax.tree.map(jnp.copy, params)  # the state is donated: no two leaves may be one buffer
    critic = None
    if training.adversary > 0:
        critic = init_critic(seed, config.size, config.code, training.critic_width)
    opt = _optimiser().init(params)
    return PairState(params, copy, batch_stats, opt, jnp.int32(0), critic)


def pair_step(
    scene: AlexNetConfig,
    config: GeneratorConfig,
    training: PairTraining,
    activations: str,
    adversarial: bool,
    state: PairState,
    scale: CodeScale,
    rgb,
    labels,
    key,
    progress,
) -> tuple[PairState, dict[str, jax.Array]]:
    """One step: rgb (B, S, S, 3) uint8, labels (B,) int32, progress 0..1 of the whole run.

    activations: `float32` or `bfloat16`; weights, losses and images stay float32. adversarial:
    whether the critic takes part.
    """
    crop_key, noise_key, *keys = jax.random.split(key, 6)
    photo = random_crop_flip(crop_key, rgb, config.size, training.min_scale)
    look = partial(_look, scene, training.layers, activations, state.batch_stats)

    def draw(params):
        """x -> what E makes of it, and G(E(x)) of the noisy code."""
        real = look(params["scene"], photo)
        code = real[CODE] / scale.rms
        code = training.through * code + (1 - training.through) * jax.lax.stop_gradient(code)
        noise = jax.random.normal(noise_key, code.shape) * scale.sigma / scale.rms
        given = jnp.maximum(code + training.noise * noise, 0.0)
        out = generate(config, cast(params["generator"], activations), cast(given, activations))
        label, right = label_loss(real["logits"], labels, training.smoothing)
        image = PIXEL_SCALE * out.astype(jnp.float32)
        seen = {name: real[name] for name in _READ}
        return (image, seen, training.label * label), (
            real,
            given,
            {"label": label, "top-1": right},
        )

    def read(image, network):
        return look(network, _disturbed(training, keys, image, photo))

    (image, _, _), pull, (real, given, metrics) = jax.vjp(draw, state.params, has_aux=True)
    real, given = jax.lax.stop_gradient((real, given))
    made, pull_made = jax.vjp(read, image, state.params["scene"])
    seen, to_read, to_features = _cotangents(training, real, made, scale)
    at_real = jax.grad(partial(following_loss, training, scale.sigma))(
        {n: real[n] for n in _READ}, made
    )
    at_image, at_scene = pull_made(to_read)
    at_image += pull_made(to_features)[0]  # E is not to lose the details that G cannot paint
    distance, away = jax.value_and_grad(image_distance, argnums=1)(photo, image)
    shared, apart = jax.value_and_grad(_shared_texture, argnums=1)(photo, image)
    at_image += training.image * away + training.shared * apart
    metrics |= seen | {"image": distance, "shared": shared}

    rate, critic = schedule(progress, training.warm_up), state.critic
    if adversarial:
        pull_up, critic, seen = contest(
            training, critic, photo, image, given, activations, progress, rate, at_image
        )
        at_image += pull_up
        metrics |= seen
    (grads,) = pull((at_image, at_real, jnp.float32(1.0)))
    grads["scene"] = jax.tree.map(jnp.add, grads["scene"], at_scene)
    updates, opt = _optimiser().update(grads, state.opt)
    params = {
        name: jax.tree.map(lambda p, u, r=peak: p - r * rate * u, state.params[name], updates[name])
        for name, peak in (("scene", training.scene_rate), ("generator", training.generator_rate))
    }
    step = state.step + 1
    average = moving_average(state.average, params, training.average, step)
    return PairState(params, average, state.batch_stats, opt, step, critic), metrics


def _look(scene, layers, activations, batch_stats, params, image) -> dict[str, jax.Array]:
    """The scene network's code, logits and compared layers, float32."""
    variables = {"params": cast(params, activations), "batch_stats": batch_stats}
    module = scene_module(scene, train=False)
    out = module.apply(variables, cast(image / INPUT_SCALE, activations))
    chosen = {name: out[name] for name in (CODE, *layers)} | {"logits": out[logits_blob(scene)]}
    return {name: value.astype(jnp.float32) for name, value in chosen.items()}


def _cotangents(training: PairTraining, real, made, scale: CodeScale):
    """Metrics of what was read, and the gradients of both kinds of loss at it.

    Returns:
      metrics; cotangents of `made` for code and predictions, and for the compared layers.
    """

    def reading(made):
        code = lost_variance(made[CODE], real[CODE], scale.sigma)
        same = following_prediction(made["logits"], real["logits"], training.temperature)
        agreement = (made["logits"].argmax(-1) == real["logits"].argmax(-1)).mean()
        loss = training.code * code + training.agreement * same
        return loss, {"code": code, "agreement": agreement}

    def features(made):
        feature = layer_distance(made, real, training.layers)
        return training.feature * feature, {"feature": feature}

    pairs = [jax.grad(loss, has_aux=True)(made) for loss in (reading, features)]
    return pairs[0][1] | pairs[1][1], *(cotangent for cotangent, _ in pairs)


def following_loss(
    training: PairTraining,
    sigma: jax.Array,
    real: dict[str, jax.Array],
    made: dict[str, jax.Array],
) -> jax.Array:
    """The loss by which E(x) follows what is read in G(E(x)). No code comes nearer by shrinking.

    sigma: (D,) of the code's units at the start. real, made: code (B, D) and logits (B, K) of x and
    of what was read.
    """
    code = lost_variance(made[CODE], real[CODE], sigma)
    same = following_prediction(real["logits"], made["logits"], training.temperature)
    return training.mutual * (training.code * code + training.agreement * same)


def lost_variance(made: jax.Array, real: jax.Array, sigma: jax.Array) -> jax.Array:
    """Share of a unit's variance in the batch that is lost from codes `real` to `made` (B, D), the
    mean over units. Each image has the weight of one over its code's power (and a tenth of the
    batch's, lest faint ones rule): images of strong codes would rule a unit's variance otherwise.
    The weights are no way to a smaller loss, so they have no gradient.

    sigma: (D,) of the units at the start. A tenth of its square, and a little for units that were
    silent, is added to the variance, or a unit that is silent in a batch would count without bound.
    What is added grows with the code as a whole, so no scale of both codes lowers what is lost; as
    most units do, so no few strong ones hide what the others lose. A unit that is silent in both
    codes loses nothing.
    """
    usual = sigma**2 + 0.01 * jnp.mean(sigma**2)
    power = jnp.mean(real**2 / usual, axis=1)
    weight = 1 / (power + 0.1 * jnp.mean(power) + 1e-12)
    weight = jax.lax.stop_gradient(weight / jnp.sum(weight))  # (B,)
    square, variance = weight @ (made - real) ** 2, weight @ (real - weight @ real) ** 2  # (D,)
    grown = variance / usual
    typical = jnp.mean((grown + 1e-3 * jnp.mean(grown) + 1e-12) ** 0.25) ** 4
    return jnp.mean(square / (variance + 0.1 * usual * typical + 1e-12))


def _shared_texture(photo: jax.Array, image: jax.Array) -> jax.Array:
    """Square of what the batch's mean image differs by, in units of 64 grey levels."""
    return jnp.mean((image - photo).mean(0) ** 2) / PIXEL_SCALE**2


def _disturbed(
    training: PairTraining, keys: Sequence[jax.Array], made: jax.Array, x: jax.Array
) -> jax.Array:
    """What is read: some of the photographs instead of what was made of them, moved, with noise."""
    batch, reach = len(x), training.jitter
    plain = jax.random.bernoulli(keys[0], training.photographs, (batch, 1, 1, 1))
    offset = jax.random.randint(keys[1], (2,), -reach, reach + 1)  # one: its gradient is a slice
    image = jax.vmap(lambda one: shift(one, offset, reach))(jnp.where(plain, x, made))
    size = training.grain * jax.random.uniform(keys[2], (batch, 1, 1, 1))
    return image + size * jax.random.normal(keys[3], image.shape)


def _optimiser() -> optax.GradientTransformation:
    """Without the step sizes, which follow the run's progress."""
    return optax.scale_by_adam(0.9, 0.99)
