"""Optimizers that are told the objective alone: evosax's strategies, and SphereCMA.

A strategy searches the space u of code = start + rate * u, from a spread of 1, so that every one of
them is tuned by the same number. What it proposes is clipped to the box before it is evaluated. A
strategy of a distribution is told its own draws and its mean is clipped; one of a population is
told the clipped ones. evosax minimises: it is told the negative objective. evosax is an extra:
pip install 'jaxsynth[bench]'.

`sphere_cma` is after Wang & Ponce 2022 ("High-performance evolutionary algorithms for online neuron
control"): isotropic steps along a sphere of natural codes, whose angle falls on a schedule.
`xdream_ga` is the genetic algorithm that they compare with, of Ponce et al. 2019 ("Evolving images
for visual neurons"): the best quarter lives on, the others are children of two parents.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.study.gradient import project
from benchmarks.study.protocol import VALUE, How, Optimizer, Seen, choose

POPULATION = 16
_NATURAL = 0.3  # norm of a natural code, as a share of the norm of the box's upper corner
_LAST_ANGLE = 0.15  # of the first
_SPHERE_RATE = 1.5  # Wang & Ponce's learning rate of the centre
# Of Ponce et al. 2019:
_SURVIVORS = 4  # one of so many codes lives on unchanged
_SELECTION = 2.0  # temperature, in standard deviations of a generation's values
_FIRST_PARENT = 0.75  # share of a child's units
_MUTATED = 0.25  # share of a child's units
_MUTATION = 0.75  # standard deviation of a mutation, in those of the first generation


def distribution(name: str, rate: float, population: int = POPULATION, **options: Any) -> Optimizer:
    """One of evosax's strategies that hold a distribution, by its class name.

    Raises:
      ValueError: if evosax is not installed.
    """
    _named(name)

    def init(how: How):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        return strategy.init(how.key, jnp.zeros_like(how.start), params), _nothing(how, population)

    def ask(how: How, step: jax.Array, state):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        draws, inner = strategy.ask(jax.random.fold_in(how.key, step), state[0], params)
        return how.start + how.rate * draws, (inner, draws)

    def tell(how: How, step: jax.Array, state, codes: jax.Array, seen: Seen):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        inner, draws = state
        inner, _ = strategy.tell(
            jax.random.fold_in(how.key, step), draws, -seen.value, inner, params
        )
        mean = project(how.box, how.start + how.rate * inner.mean)
        return inner.replace(mean=(mean - how.start) / how.rate), draws

    return Optimizer(VALUE, rate, init, ask, tell, population)


def population_based(
    name: str, rate: float, population: int = POPULATION, **options: Any
) -> Optimizer:
    """One of evosax's strategies that hold a population, by its class name; the first one is drawn
    around the start, which is its first member.

    Raises:
      ValueError: if evosax is not installed.
    """
    _named(name)

    def begin(how: How, members: jax.Array, fitness: jax.Array):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        return strategy.init(how.key, members, fitness, params)

    def init(how: How):
        return begin(how, _first(how, population), jnp.zeros(population, how.start.dtype))

    def ask(how: How, step: jax.Array, state):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        members, told = strategy.ask(jax.random.fold_in(how.key, step), state, params)
        members = jnp.where(step == 0, _first(how, population), members)
        return how.start + how.rate * members, choose(step == 0, state, told)

    def tell(how: How, step: jax.Array, state, codes: jax.Array, seen: Seen):
        strategy, params = _strategy(name, population, how.start.shape[0], options)
        members = (codes - how.start) / how.rate
        key = jax.random.fold_in(how.key, step)
        told, _ = strategy.tell(key, members, -seen.value, state, params)
        return choose(step == 0, begin(how, members, -seen.value), told)

    return Optimizer(VALUE, rate, init, ask, tell, population)


def random_search(rate: float, population: int = POPULATION) -> Optimizer:
    """Codes drawn around the start, never told anything."""

    def ask(how: How, step: jax.Array, state):
        key = jax.random.fold_in(how.key, step)
        draws = jax.random.normal(key, (population, how.start.shape[0]), how.start.dtype)
        return how.start + how.rate * draws, state

    return Optimizer(
        VALUE, rate, lambda how: (), ask, lambda how, step, state, *_: state, population
    )


def sphere_cma(rate: float, population: int = POPULATION) -> Optimizer:
    """Steps along a sphere; `rate` is the first generation's angle, a right one at most: beyond it
    codes come round to the other side."""

    def init(how: How):
        return _unit(how.start), _nothing(how, population)

    def ask(how: How, step: jax.Array, state):
        centre, _ = state
        key = jax.random.fold_in(how.key, step)
        draws = jax.random.normal(key, (population, centre.shape[0]), centre.dtype)
        tangents = _unit(draws - jnp.outer(draws @ centre, centre))  # (P, D), each of norm 1
        angle = _angle(how, step)
        around = jnp.cos(angle) * centre + jnp.sin(angle) * tangents
        radius = _NATURAL * jnp.linalg.norm(how.box.upper)
        return radius * around, (centre, tangents)

    def tell(how: How, step: jax.Array, state, codes: jax.Array, seen: Seen):
        centre, tangents = state
        weights = _rank_weights(seen.value)
        way = weights @ tangents  # (D,)
        length = jnp.linalg.norm(way)
        turn = _SPHERE_RATE * _angle(how, step) * length
        moved = jnp.cos(turn) * centre + jnp.sin(turn) * way / length
        return _unit(moved), tangents

    return Optimizer(VALUE, rate, init, ask, tell, population, largest=math.pi / 2)


def xdream_ga(rate: float, population: int = POPULATION) -> Optimizer:
    """Survivors and mutated children of two parents each, which are drawn by their values.

    Unlike theirs the first code is the start, codes stay in the box, and a mutation's size is tuned
    with the first generation's spread. Survivors are evaluated, and paid for, anew, as theirs are.
    """

    def init(how: How) -> jax.Array:
        return how.start + how.rate * _first(how, population)

    def ask(how: How, step: jax.Array, state: jax.Array):
        return state, state

    def tell(how: How, step: jax.Array, state: jax.Array, codes: jax.Array, seen: Seen):
        keys = jax.random.split(jax.random.fold_in(how.key, step), 4)
        finite = jnp.isfinite(seen.value)
        value = jnp.where(finite, seen.value, jnp.min(seen.value, initial=0.0, where=finite))
        survivors = codes[jnp.argsort(-value)[: population // _SURVIVORS]]
        children = population - len(survivors)
        logits = (value - value.max()) / jnp.maximum(_SELECTION * value.std(), 1e-8)
        drawn = jax.random.categorical(keys[0], logits, shape=(2, children))
        first, second = codes[drawn]  # (children, D) each
        mixed = jnp.where(jax.random.bernoulli(keys[1], _FIRST_PARENT, first.shape), first, second)
        mutated = jax.random.bernoulli(keys[2], _MUTATED, first.shape)
        mutation = how.rate * _MUTATION * jax.random.normal(keys[3], first.shape, codes.dtype)
        return jnp.concatenate([survivors, mixed + mutated * mutation])

    return Optimizer(VALUE, rate, init, ask, tell, population)


def _angle(how: How, step: jax.Array) -> jax.Array:
    return how.rate * (1 + (_LAST_ANGLE - 1) * step / how.steps)


def _rank_weights(values: jax.Array) -> jax.Array:
    """CMA-ES's weights (P,) of the better half, sum 1; 0 for the others."""
    ranks = jnp.argsort(jnp.argsort(-values))
    weights = jnp.maximum(jnp.log(values.shape[0] / 2 + 0.5) - jnp.log(ranks + 1.0), 0.0)
    return weights / weights.sum()


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def _first(how: How, population: int) -> jax.Array:
    """A first generation (P, D) of spread 1; its first member is the start, 0."""
    draws = jax.random.normal(how.key, (population, how.start.shape[0]), how.start.dtype)
    return draws.at[0].set(0.0)


def _nothing(how: How, population: int) -> jax.Array:
    return jnp.zeros((population, how.start.shape[0]), how.start.dtype)


@functools.cache
def _named(name: str) -> Callable[..., Any]:
    try:
        from evosax import algorithms
    except ImportError as error:
        raise ValueError(
            f"gradient-free optimizers need evosax ({error}): pip install 'jaxsynth[bench]', or "
            "name gradient ones with --optimizers"
        ) from None
    return getattr(algorithms, name)


def _strategy(name: str, population: int, size: int, options: dict[str, Any]) -> tuple[Any, Any]:
    """evosax's strategy and its parameters; options of either, by their names."""
    own = {k: v for k, v in options.items() if k in ("optimizer", "std_schedule")}
    strategy = _named(name)(population, jnp.zeros(size), **own)
    params = strategy.default_params.replace(**{k: v for k, v in options.items() if k not in own})
    return strategy, params
