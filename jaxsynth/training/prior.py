"""A training step of a generator that inverts an encoder's whitened code. Pure JAX.

Losses on G(z), z = E(x) of a photograph x with noise: distance of normalised features at several
depths of the encoder's trunk; distance of coarse pixels; distance of E(G(z)) and z; from
`adversary_start` on the adversary of `projected`. Half of the images are shifted before they are
seen. A part of each batch are codes of no photograph (random ones, mixtures of two, from
`searches_start` on codes of searches under way), which have no features to match: what a search
visits must be painted well, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.arithmetic import root_key
from jaxsynth.inputs import option
from jaxsynth.models.network import Activations, Params
from jaxsynth.training.projected import Adversary, hinge_loss, mix, realism
from jaxsynth.training.setup import random_offsets, shifted, to_input

_COARSE = 4  # pixels a side of what the pixel distance compares
_EPSILON = 1e-3
_RAMP = 16_000  # images over which the adversary's weight rises
BOX = 3.0  # of the code, on either side of 0
_SEARCH_STEPS = 40  # of a search under way, on average
_SEARCH_RATE, _SEARCH_DECAY = 0.2, 0.99


@dataclass(frozen=True)
class PriorTraining:
    """What the weights depend on besides the data; a field's help says what it is."""

    rate: float = option(5e-4, "Step size of Adam.", above=0)
    adversary_rate: float = option(3e-4, "Step size of the adversary's Adam.", above=0)
    pixels: float = option(3.0, "Weight of the distance of coarse pixels.", low=0)
    lpips: float = option(1.0, "Weight of the distance by --comparator, if there is one.", low=0)
    code: float = option(4.0, "Weight of the distance of codes; that of features is 1.", low=0)
    adversary: float = option(0.15, "Weight of the adversary; 0 trains without.", low=0)
    adversary_start: int = option(8_000, "Photographs seen before the adversary joins.", low=0)
    others: float = option(0.5, "Codes of no photograph, as a share of a batch.", low=0)
    searches: float = option(
        0.25, "Those of them that are codes of searches under way, as a share of a batch.", low=0
    )
    searches_start: int = option(16_000, "Photographs seen before searches begin.", low=0)
    noise: float = option(0.1, "Noise on the photographs' codes, in sigmas.", low=0)
    average: float = option(
        0.998, "Weight of the past in the average that is exported.", low=0, high=1
    )
    warmup: int = option(200, "Steps in which the rates rise.", low=0)
    cooldown: float = option(0.2, "Share of the run in which the rates fall to 0.", low=0, high=1)

    def __post_init__(self) -> None:
        if self.searches > self.others:
            raise ValueError(
                f"searches is {self.searches}, expected at most others, {self.others}: codes of "
                "searches are some of them"
            )


class Searches(NamedTuple):
    """Searches under way: codes (A, D), and what E(G(z)) is to point at, (A, D)."""

    codes: jax.Array
    goals: jax.Array


class Phase(NamedTuple):
    """What takes part in a step."""

    adversary: bool = False
    searches: bool = False


class PriorState(NamedTuple):
    """What a checkpoint holds. `average` is what is exported."""

    params: Any
    average: Any
    opt: Any
    adversary: Adversary
    adversary_opt: Any
    searches: Searches
    step: jax.Array


class PriorParts(NamedTuple):
    """Functions of a step; weights come as `frozen` arguments.

    generate: (params, frozen `colour`, z (B, D)) -> image (B, S, S, 3). encode: (params, image) ->
    activations, `code` (B, D) among them. layers: names of the compared features, finest first.
    distance: (params, image, image) -> (B,), a further distance to photographs, or None.
    """

    generate: Callable[[Any, Any, jax.Array], jax.Array]
    encode: Callable[[Params, jax.Array], Activations]
    layers: tuple[str, ...]
    places: int = 1
    distance: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None


def init_prior(
    params: Any, adversary: Adversary, training: PriorTraining, searches: tuple[int, int]
) -> PriorState:
    """Make the state before the first step; `searches` is their shape, (A, D)."""
    return PriorState(
        params,
        jax.tree.map(jnp.copy, params),
        _generator_optimizer(training).init(params),
        adversary,
        _adversary_optimizer(training).init(adversary.params),
        Searches(jax.random.normal(root_key(0), searches), jnp.zeros(searches)),
        jnp.int32(0),
    )


def prior_step(
    parts: PriorParts,
    training: PriorTraining,
    phase: Phase,
    state: PriorState,
    frozen: dict[str, Any],
    batch: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[PriorState, dict[str, jax.Array]]:
    """Take one step.

    Args:
      parts: The functions of the networks (static).
      training: Weights of the losses and the like (static).
      phase: What takes part (static).
      state: Before the step.
      frozen: Parameters `encoder`, `colour` (the generator's layer that undoes the whitening),
        `projections`, and `comparator` of `parts.distance`.
      batch: RGB (B, S, S, 3) uint8, a key, and progress 0 to 1.

    Returns:
      The state after the step, and the losses.
    """
    rgb, key, progress = batch
    photo = to_input(_flip(jax.random.fold_in(key, 0), rgb))
    z = parts.encode(frozen["encoder"], photo)["code"]
    noisy = z + training.noise * jax.random.normal(jax.random.fold_in(key, 1), z.shape)
    searched = state.searches.codes if phase.searches else z[:0]
    count = round(training.others * len(z)) - len(searched)
    others = other_codes(jax.random.fold_in(key, 2), z, count)
    codes = jnp.concatenate([noisy, others, searched])
    offsets = random_offsets(jax.random.fold_in(key, 4), len(codes))
    photo = shifted(photo, offsets[: len(z)])
    seen = parts.encode(frozen["encoder"], photo)
    clean = jnp.concatenate([seen["code"], codes[len(z) :]])
    known = (jnp.arange(len(codes)) < len(z)) | ~offsets.any(-1)  # has a code to reach
    ramp = jnp.clip((state.step * len(z) - training.adversary_start) / _RAMP, 0, 1)

    def loss_fn(params):
        image = shifted(parts.generate(params, frozen["colour"], codes), offsets)
        made = parts.encode(frozen["encoder"], image)
        code = optax.losses.huber_loss(made["code"], clean).mean(-1)
        losses = {
            "features": _feature_distance(seen, made, parts.layers, len(z)),
            "pixels": jnp.abs(_coarse(image[: len(z)] - photo)).mean() / 127.5,
            "code": (code * known).sum() / known.sum(),
        }
        total = losses["features"] + training.pixels * losses["pixels"]
        total = total + training.code * losses["code"]
        if parts.distance is not None:
            apart = parts.distance(frozen["comparator"], image[: len(z)], photo)
            losses["lpips"] = apart.mean()
            total = total + training.lpips * losses["lpips"]
        mixed = ()
        if phase.adversary:
            mixed = mix(frozen["projections"], [made[name] for name in parts.layers])
            losses["realism"] = realism(state.adversary, mixed)
            total = total - training.adversary * ramp * losses["realism"]
        return total, (losses, mixed)

    (_, (losses, mixed)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    rate = _rate(training, state.step, progress)
    params, opt = _update(_generator_optimizer(training), grads, state.opt, state.params, rate)
    weight = jnp.minimum(training.average, (state.step + 1) / (state.step + 20))
    average = jax.tree.map(lambda a, p: weight * a + (1 - weight) * p, state.average, params)
    new = state._replace(params=params, average=average, opt=opt, step=state.step + 1)
    if phase.adversary:
        real = mix(frozen["projections"], [seen[name] for name in parts.layers])
        new, told = _train_adversary(new, training, real, mixed, rate)
        losses |= told
    if phase.searches:
        networks = params, frozen
        searches = advance_searches(parts, networks, state.searches, z, jax.random.fold_in(key, 3))
        new = new._replace(searches=searches)
    return new, losses


def other_codes(key: jax.Array, z: jax.Array, count: int) -> jax.Array:
    """Draw codes (count, D) of no photograph: N(0, s^2) with s from 0.3 to 1.2, and mixtures."""
    keys = jax.random.split(key, 5)
    drawn = jax.random.normal(keys[0], (count, z.shape[1]))
    drawn = drawn * jax.random.uniform(keys[1], (count, 1), minval=0.3, maxval=1.2)
    first, second = (jax.random.choice(k, z, (count,)) for k in keys[2:4])
    angle = jax.random.uniform(keys[4], (count, 1), minval=0.1, maxval=0.9) * jnp.pi / 2
    mixed = jnp.cos(angle) * first + jnp.sin(angle) * second
    return jnp.where(jnp.arange(count)[:, None] % 2 == 0, drawn, mixed)


def advance_searches(
    parts: PriorParts, networks: tuple[Any, dict], searches: Searches, z: jax.Array, key: jax.Array
) -> Searches:
    """Take a step of each search; about one in `_SEARCH_STEPS` begins afresh.

    A search raises the product of E(G(z)) with its goal, the mean over positions of a photograph's
    code, by normalised gradient steps, as users raise a class.

    Args:
      parts: The functions of the networks.
      networks: Parameters of the generator, and the `frozen` ones of a step.
      searches: Before the step.
      z: Codes of photographs (B, D), from which new goals are taken.
      key: Of the draws.
    """
    params, frozen = networks
    count = len(searches.codes)

    def score(codes):
        image = parts.generate(params, frozen["colour"], codes)
        made = parts.encode(frozen["encoder"], image)["code"]
        return (made * searches.goals).sum()

    grad = jax.grad(score)(searches.codes)
    grad = grad / jnp.maximum(jnp.abs(grad).mean(-1, keepdims=True), 1e-12)
    moved = jnp.clip(_SEARCH_DECAY * searches.codes + _SEARCH_RATE * grad, -BOX, BOX)
    keys = jax.random.split(key, 3)
    begins = jax.random.bernoulli(keys[0], 1 / _SEARCH_STEPS, (count, 1))
    begins |= ~searches.goals.any(-1, keepdims=True)
    chosen = jax.random.choice(keys[1], z, (count,)).reshape(count, parts.places, -1)
    goals = jnp.broadcast_to(chosen.mean(1, keepdims=True), chosen.shape).reshape(count, -1)
    start = jax.random.normal(keys[2], moved.shape)
    return Searches(jnp.where(begins, start, moved), jnp.where(begins, goals, searches.goals))


def _train_adversary(state: PriorState, training, real, made, rate):
    loss = lambda params: hinge_loss(params, state.adversary.stats, real, made)  # noqa: E731
    (value, (stats, right)), grads = jax.value_and_grad(loss, has_aux=True)(state.adversary.params)
    optimizer = _adversary_optimizer(training)
    params, opt = _update(optimizer, grads, state.adversary_opt, state.adversary.params, rate)
    told = {"adversary": value, "right": right}
    return state._replace(adversary=Adversary(params, stats), adversary_opt=opt), told


def _update(optimizer, grads, opt, params, rate):
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), opt


def _generator_optimizer(training: PriorTraining) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(training.rate, 0.5, 0.99))


def _adversary_optimizer(training: PriorTraining) -> optax.GradientTransformation:
    return optax.adam(training.adversary_rate, 0.0, 0.99)


def _rate(training: PriorTraining, step: jax.Array, progress: jax.Array) -> jax.Array:
    """What the schedule leaves of the step sizes."""
    rising = (step + 1) / max(1, training.warmup)
    falling = (1 - progress) / training.cooldown if training.cooldown else 1.0
    return jnp.minimum(1.0, jnp.minimum(rising, falling))


def _flip(key: jax.Array, rgb: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(rgb), 1, 1, 1)), rgb[:, :, ::-1], rgb)


def _feature_distance(seen, made, layers, count: int) -> jax.Array:
    """Mean absolute difference of features, each place's normalised, summed over layers."""
    return sum(jnp.abs(_unit(seen[n]) - _unit(made[n][:count])).mean() for n in layers)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + _EPSILON)


def _coarse(image: jax.Array) -> jax.Array:
    """Means of squares of `_COARSE` pixels: (B, S, S, 3) -> (B, S / 4, S / 4, 3)."""
    b, h, w, c = image.shape
    places = image.reshape(b, h // _COARSE, _COARSE, w // _COARSE, _COARSE, c)
    return places.mean((2, 4))
