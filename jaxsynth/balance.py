"""Code gradients of the objective, with the balance that several classifiers need.

Gradients of two networks differ by orders of magnitude, so a plain weighted sum is governed by one
of them (Goh 2016: "isn't strictly correct, and needs one more tweak"). The balances:

  image      each classifier's image-space gradient / its own mean |g|, times its strength, summed,
             sent once through the generator's VJP (DGN-AM divides the image gradient in this way)
  code       the same in code space: one VJP per network
  sum        the plain gradient of the objective (also with one network: the raw gradient)
  alternate  one network per step in turn, plain gradient (strengths do not matter, signs do)

A network's strength is the sum of its weights' absolute values: a weight of 0.5 counts half as much
as a weight of 1 whatever the networks' scales. The generator's own blobs (regularisers, the code)
are one more part; in `image` they are balanced in code space against the classifiers together.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxsynth.models.network import Params
from jaxsynth.system import (
    GENERATOR,
    AllActivations,
    System,
    Weights,
    generator_activations,
    pixels_seen,
    view,
    weigh,
)

BALANCES = ("image", "code", "sum", "alternate")


def check_balance(balance: str) -> None:
    """Raises ValueError unless `balance` is one of `BALANCES`."""
    if balance not in BALANCES:
        raise ValueError(f"balance {balance!r} is none of {', '.join(BALANCES)}")


def value_and_gradient(
    system: System,
    balance: str,
    params: Mapping[str, Params],
    code: jax.Array,
    weights: Weights,
    step: jax.Array,
    look: Callable[[jax.Array], jax.Array] = lambda image: image,
) -> tuple[jax.Array, AllActivations, jax.Array]:
    """Objective, activations and balanced ascent direction (D,) at a code (D,).

    The classifiers see `look(image)`, (H, W, 3) as well; image-space gradients are those of what
    they see. The generator's own terms are of the image itself.

    Raises:
      ValueError: for a balance that is not one of `BALANCES`.
    """
    check_balance(balance)

    def draw(z):
        out = generator_activations(system, params[GENERATOR], z)
        return look(out[system.image]), out

    image, pull, generated = jax.vjp(draw, code, has_aux=True)
    activations = {GENERATOR: generated}
    value = jnp.zeros((), code.dtype)
    image_gradients, seen = {}, {}
    for c in system.classifiers:
        part, activations[c.role], gradient = _classifier_part(c, params, image, weights)
        if c.role in weights:
            value += part
            image_gradients[c.role] = gradient
            seen[c.role] = 3 * pixels_seen(image.shape[0], c.size)

    strengths = _strengths(balance, weights, step)
    gradient = jnp.zeros_like(code)
    if image_gradients:
        gradient = _classifiers(balance, pull, image_gradients, strengths, seen)
    if GENERATOR not in weights:
        return value, activations, gradient

    def regularise(z):
        return weigh(generator_activations(system, params[GENERATOR], z), weights[GENERATOR])

    part, own = jax.value_and_grad(regularise)(code)
    if balance == "image" and image_gradients:
        gradient = sum(strengths[role] for role in image_gradients) * _unit_mean(gradient)
    if balance in ("image", "code"):
        own = _unit_mean(own)
    return value + part, activations, gradient + strengths[GENERATOR] * own


def _strengths(balance: str, weights: Weights, step: jax.Array) -> dict[str, jax.Array]:
    """Factor of each network's gradient: its sum of |weights|, or whether it is its turn."""
    sizes = {role: sum(jnp.abs(w).sum() for w in blobs.values()) for role, blobs in weights.items()}
    if balance == "sum":
        return {role: jnp.ones(()) for role in sizes}
    if balance == "alternate":
        active = jnp.stack([size > 0 for size in sizes.values()])
        place = jnp.cumsum(active) - 1  # among those with any weight
        turn = jnp.argmax(active & (place == step % jnp.maximum(active.sum(), 1)))
        return {role: jnp.where(turn == i, 1.0, 0.0) for i, role in enumerate(sizes)}
    return sizes


def _classifiers(balance, pull, image_gradients, strengths, seen) -> jax.Array:
    """Code gradient (D,) of all classifiers together; `pull` is the generator's VJP."""
    if balance == "code":
        return sum(strengths[r] * _unit_mean(pull(g)[0]) for r, g in image_gradients.items())
    if balance == "image":
        image_gradients = {r: _unit_mean(g, count=seen[r]) for r, g in image_gradients.items()}
    return pull(sum(strengths[r] * g for r, g in image_gradients.items()))[0]


def _classifier_part(c, params, image, weights):
    def part(im):
        out = c.apply(params[c.role], view(im, c.size))
        return weigh(out, weights.get(c.role, {})) + jnp.zeros((), im.dtype), out

    (value, activations), gradient = jax.value_and_grad(part, has_aux=True)(image)
    return value, activations, gradient


def _unit_mean(g: jax.Array, count: int | None = None) -> jax.Array:
    """g / mean |g|, or zeros where g is zero. No epsilon: it would stop saturated runs."""
    mean = jnp.abs(g).sum() / (count or g.size)
    return jnp.where(mean == 0, jnp.zeros_like(g), g / jnp.where(mean == 0, 1.0, mean))
