"""The objective of a code, and its gradient with the balance that several classifiers need.

Gradients of two networks differ by orders of magnitude, so a plain weighted sum is governed by one
of them (Goh 2016: "isn't strictly correct, and needs one more tweak"). The balances:

  image      each classifier's image-space gradient / its own mean |g|, times its strength, summed,
             sent once through the generator's VJP (DGN-AM divides the image gradient in this way)
  code       the same in code space: one VJP per network
  sum        the plain gradient of the objective (also with one network: the raw gradient)
  alternate  one network per step in turn, plain gradient (strengths do not matter, signs do)

A network's strength is the sum of its weights' absolute values: a weight of 0.5 counts half as much
as a weight of 1 whatever the networks' scales. The generator's own terms (regularisers, the code)
are one more part; in `image` they are balanced in code space against the classifiers together. A
function of several classifiers is a part of its own, balanced as a classifier is.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxsynth.goals import Acts, Goal, RunData, Values, weigh_part
from jaxsynth.inputs import check_name
from jaxsynth.system import (
    GENERATOR,
    AllActivations,
    Params,
    Request,
    System,
    Viewer,
    generator_activations,
    pixels_seen,
    view,
)

BALANCES = ("image", "code", "sum", "alternate")


def objective(
    system: System,
    params: Mapping[str, Params],
    run: RunData,
    code: jax.Array,
    move: Callable[[jax.Array], jax.Array] = lambda image: image,
) -> tuple[jax.Array, AllActivations, Values]:
    """Evaluate the objective of a code (D,); classifiers see `move`(image (H, W, 3)).

    Returns:
      The objective (), the activations of every network, the terms' own values.
    """
    activations = {GENERATOR: generator_activations(system, params[GENERATOR], code, run)}
    image = move(activations[GENERATOR][system.image])
    for c in system.classifiers:
        activations[c.name] = c.apply(params[c.name], view(image, c.size, c.units))
    total, values = jnp.zeros((), code.dtype), {}
    for part in sorted(run.goal.strength):
        seen = activations[GENERATOR][system.image] if part == GENERATOR else image
        value, found = weigh_part(system.functions, part, run, Acts(activations, seen, code))
        total += value
        values = _merged(values, found)
    return total, activations, values


def value_and_gradient(
    request: Request,
    params: Mapping[str, Params],
    run: RunData,
    code: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, AllActivations, Values, jax.Array]:
    """Evaluate `objective` at a code (D,), and the balanced ascent direction (D,).

    With transforms the classifiers see a changed image, and image-space gradients are those of what
    they see. The generator's own terms are of the image itself.
    """
    check_name("balance", request.balance, BALANCES)
    system, goal, move = request.system, run.goal, request.transforms.view(run.seed, step)

    def draw(z):
        out = generator_activations(system, params[GENERATOR], z, run)
        return move(out[system.image]), out

    image, pull, generated = jax.vjp(draw, code, has_aux=True)
    activations, values = {GENERATOR: generated}, {}
    value = jnp.zeros((), code.dtype)
    image_gradients, seen = {}, {}
    for c in system.classifiers:
        part, activations[c.name], found, gradient = _classifier_part(
            system, c, params, run, image, code
        )
        if c.name in goal.strength:
            value += part
            values = _merged(values, found)
            image_gradients[c.name] = gradient
            seen[c.name] = 3 * pixels_seen(image.shape[0], c.size)
    for name in _joint_parts(system):
        part, found, image_gradients[name] = _joint_part(system, name, params, run, image, code)
        value += part
        values = _merged(values, found)
        seen[name] = image.size

    strengths = _strengths(request.balance, goal, step)
    gradient = jnp.zeros_like(code)
    if image_gradients:
        gradient = _classifiers(request.balance, pull, image_gradients, strengths, seen)
    if not _weighs_generator(system, goal):
        return value, activations, values, gradient

    def regularise(z):
        out = generator_activations(system, params[GENERATOR], z, run)
        acts = Acts({GENERATOR: out}, out[system.image], z)
        return weigh_part(system.functions, GENERATOR, run, acts)

    (part, found), own = jax.value_and_grad(regularise, has_aux=True)(code)
    if request.balance == "image" and image_gradients:
        gradient = sum(strengths[name] for name in image_gradients) * _unit_mean(gradient)
    if request.balance in ("image", "code"):
        own = _unit_mean(own)
    gradient = gradient + strengths[GENERATOR] * own
    return value + part, activations, _merged(values, found), gradient


def _strengths(balance: str, goal: Goal, step: jax.Array) -> dict[str, jax.Array]:
    """Factor of each part's gradient: its strength, or whether it is its turn."""
    sizes = {name: goal.strength[name] for name in sorted(goal.strength)}
    if balance == "sum":
        return {name: jnp.ones(()) for name in sizes}
    if balance == "alternate":
        active = jnp.stack([size > 0 for size in sizes.values()])
        place = jnp.cumsum(active) - 1  # among those with any weight
        turn = jnp.argmax(active & (place == step % jnp.maximum(active.sum(), 1)))
        return {name: jnp.where(turn == i, 1.0, 0.0) for i, name in enumerate(sizes)}
    return sizes


def _classifiers(balance, pull, image_gradients, strengths, seen) -> jax.Array:
    """Code gradient (D,) of all classifiers together; `pull` is the generator's VJP."""
    if balance == "code":
        return sum(strengths[r] * _unit_mean(pull(g)[0]) for r, g in image_gradients.items())
    if balance == "image":
        image_gradients = {r: _unit_mean(g, count=seen[r]) for r, g in image_gradients.items()}
    return pull(sum(strengths[r] * g for r, g in image_gradients.items()))[0]


def _classifier_part(system: System, c: Viewer, params, run: RunData, image, code):
    """Value, activations, terms and image gradient of the terms of one classifier."""

    def part(im):
        out = c.apply(params[c.name], view(im, c.size, c.units))
        total, values = weigh_part(system.functions, c.name, run, Acts({c.name: out}, im, code))
        return total + jnp.zeros((), im.dtype), (out, values)

    (value, (activations, values)), gradient = jax.value_and_grad(part, has_aux=True)(image)
    return value, activations, values, gradient


def _joint_part(system: System, name: str, params, run: RunData, image, code):
    """Value, terms and image gradient of the functions that read the same several classifiers."""
    reads = next(f.reads for f in system.functions if f.part == name)

    def part(im):
        viewers = [c for c in system.classifiers if c.name in reads]
        out = {c.name: c.apply(params[c.name], view(im, c.size, c.units)) for c in viewers}
        return weigh_part(system.functions, name, run, Acts(out, im, code))

    (value, values), gradient = jax.value_and_grad(part, has_aux=True)(image)
    return value, values, gradient


def _joint_parts(system: System) -> list[str]:
    return list(dict.fromkeys(f.part for f in system.functions if len(f.reads) > 1))


def _weighs_generator(system: System, goal: Goal) -> bool:
    return GENERATOR in goal.linear or any(f.part == GENERATOR for f in system.functions)


def _merged(values: Values, found: Values) -> Values:
    """Terms by network and blob; those of both are of different blobs."""
    names = {**values, **found}
    return {name: {**values.get(name, {}), **found.get(name, {})} for name in names}


def _unit_mean(g: jax.Array, count: int | None = None) -> jax.Array:
    """Divide g by its mean |g|; zeros stay zeros. No epsilon: it would stop saturated runs."""
    mean = jnp.abs(g).sum() / (count or g.size)
    return jnp.where(mean == 0, jnp.zeros_like(g), g / jnp.where(mean == 0, 1.0, mean))
