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

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxsynth.engine.objective import (
    GENERATOR,
    AllActivations,
    System,
    Weights,
    generator_activations,
    pixels_seen,
    view,
    weigh,
)
from jaxsynth.networks.network import Params

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
) -> tuple[jax.Array, AllActivations, jax.Array]:
    """Objective, activations and balanced ascent direction (D,) at a code (D,).

    Raises:
      ValueError: for a balance that is not one of `BALANCES`.
    """
    check_balance(balance)

    def draw(z):
        out = generator_activations(system, params[GENERATOR], z)
        return out[system.image], out

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

    own = None
    if GENERATOR in weights:

        def regularise(z):
            own_blobs = generator_activations(system, params[GENERATOR], z)
            return weigh(own_blobs, weights[GENERATOR])

        part, own = jax.value_and_grad(regularise)(code)
        value += part

    strengths = {role: _strength(w) for role, w in weights.items()}
    if balance == "alternate":
        turn = _turn(strengths, step)
        strengths = {role: jnp.where(turn == i, 1.0, 0.0) for i, role in enumerate(strengths)}

    gradient = jnp.zeros_like(code)
    if image_gradients and balance == "code":
        for role, g in image_gradients.items():
            gradient += strengths[role] * _unit_mean(pull(g)[0])
    elif image_gradients:
        total = jnp.zeros_like(image)
        for role, g in image_gradients.items():
            if balance == "image":
                g = strengths[role] * _unit_mean(g, count=seen[role])
            elif balance == "alternate":
                g = strengths[role] * g
            total += g
        gradient = pull(total)[0]
    if own is not None:
        if balance == "image" and image_gradients:
            together = sum(strengths[role] for role in image_gradients)
            gradient = together * _unit_mean(gradient)
        scale = {"sum": lambda g: g, "alternate": lambda g: strengths[GENERATOR] * g}
        gradient += scale.get(balance, lambda g: strengths[GENERATOR] * _unit_mean(g))(own)
    return value, activations, gradient


def _classifier_part(c, params, image, weights):
    def part(im):
        out = c.apply(params[c.role], view(im, c.size))
        return weigh(out, weights.get(c.role, {})) + jnp.zeros((), im.dtype), out

    (value, activations), gradient = jax.value_and_grad(part, has_aux=True)(image)
    return value, activations, gradient


def _strength(weights: Mapping[str, jax.Array]) -> jax.Array:
    return sum(jnp.abs(w).sum() for w in weights.values())


def _unit_mean(g: jax.Array, count: int | None = None) -> jax.Array:
    """g / mean |g|, or zeros where g is zero. No epsilon: it would stop saturated runs."""
    mean = jnp.abs(g).sum() / (count or g.size)
    return jnp.where(mean == 0, jnp.zeros_like(g), g / jnp.where(mean == 0, 1.0, mean))


def _turn(strengths: Mapping[str, jax.Array], step: jax.Array) -> jax.Array:
    """Index of the network whose turn it is at `step`, among those with any weight."""
    active = jnp.stack([s > 0 for s in strengths.values()])
    order = jnp.cumsum(active) - 1
    return jnp.argmax(active & (order == step % jnp.maximum(active.sum(), 1)))
