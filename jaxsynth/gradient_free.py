"""Optimizers that are told the objective alone: evosax's strategies, SphereCMA, XDream.

A strategy searches the space u of code = start + rate * u, from a spread of 1. So all of them are
tuned by the same number. Codes are clipped to the box before they are evaluated. A strategy
of a distribution is told its own draws and its mean is clipped; one of a population is told the
clipped codes. evosax minimises: it is told the negative objective. evosax is an extra:
pip install 'jaxsynth[free]'.

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
import optax

from jaxsynth.ask_tell import VALUE, Optimizer, Seen, Setting, choose, project, rate_of
from jaxsynth.optimizers import POPULATION

_NATURAL = 0.3  # norm of a natural code, as a share of the norm of the box's upper corner
_LAST_ANGLE = 0.15  # of the first
_SPHERE_RATE = 1.5  # Wang & Ponce's learning rate of the centre
# Of Ponce et al. 2019:
_SURVIVORS = 4  # one of so many codes lives on unchanged
_SELECTION = 2.0  # temperature, in standard deviations of a generation's values
_FIRST_PARENT = 0.75  # share of a child's units
_MUTATED = 0.25  # share of a child's units
_MUTATION = 0.75  # standard deviation of a mutation, in those of the first generation


def cma_es(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make CMA-ES; its covariance is (D, D), so for codes of some hundred units at most."""
    return distribution("cma_es", "CMA_ES", rate, population)


def sep_cma_es(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make CMA-ES with a diagonal covariance."""
    return distribution("sep_cma_es", "Sep_CMA_ES", rate, population)


def open_es(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make OpenAI's evolution strategy; draws come in pairs of opposite sign."""
    return distribution("open_es", "Open_ES", rate, population, _OPEN_ES)


def snes(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make the separable natural evolution strategy."""
    return distribution("snes", "SNES", rate, population)


def ga(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make evosax's simple genetic algorithm, half of a child's units of either parent."""
    return population_based("ga", "SimpleGA", rate, population, _CROSSOVER)


def de(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make differential evolution."""
    return population_based("de", "DifferentialEvolution", rate, population)


def pso(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make particle swarm optimization."""
    return population_based("pso", "PSO", rate, population)


Options = tuple[tuple[str, Any], ...]  # of a strategy, by name
_OPEN_ES: Options = (("optimizer", optax.adam(0.5)),)
_CROSSOVER: Options = (("crossover_rate", 0.5),)


@functools.cache
def distribution(
    name: str, strategy: str, rate: float, population: int, options: Options = ()
) -> Optimizer:
    """Make an optimizer of an evosax strategy that holds a distribution, by its class name."""
    make = functools.partial(_strategy, _class(strategy), population, options)

    def init(setting: Setting):
        inner, params = make(setting)
        start = jnp.zeros_like(setting.start)
        return inner.init(setting.key, start, params), _nothing(setting, population)

    def ask(setting: Setting, step: jax.Array, state):
        inner, params = make(setting)
        draws, told = inner.ask(jax.random.fold_in(setting.key, step), state[0], params)
        codes = setting.start + rate_of(setting, rate) * draws
        return project(setting.box, codes), (told, draws)

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        inner, params = make(setting)
        own, (before, draws) = rate_of(setting, rate), state
        key = jax.random.fold_in(setting.key, step)
        told, _ = inner.tell(key, draws, -seen.value, before, params)
        mean = project(setting.box, setting.start + own * told.mean)
        return told.replace(mean=(mean - setting.start) / own), draws

    return Optimizer(name, VALUE, rate, init, ask, tell, population)


@functools.cache
def population_based(
    name: str, strategy: str, rate: float, population: int, options: Options = ()
) -> Optimizer:
    """Make an optimizer of an evosax strategy that holds a population, by its class name.

    The first population is drawn around the start, which is its first member.
    """
    make = functools.partial(_strategy, _class(strategy), population, options)

    def begin(setting: Setting, members: jax.Array, fitness: jax.Array):
        inner, params = make(setting)
        return inner.init(setting.key, members, fitness, params)

    def init(setting: Setting):
        fitness = jnp.zeros(population, setting.start.dtype)
        return begin(setting, _first(setting, population), fitness)

    def ask(setting: Setting, step: jax.Array, state):
        inner, params = make(setting)
        members, told = inner.ask(jax.random.fold_in(setting.key, step), state, params)
        members = jnp.where(step == 0, _first(setting, population), members)
        codes = setting.start + rate_of(setting, rate) * members
        return project(setting.box, codes), choose(step == 0, state, told)

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        inner, params = make(setting)
        members = (codes - setting.start) / rate_of(setting, rate)
        key = jax.random.fold_in(setting.key, step)
        told, _ = inner.tell(key, members, -seen.value, state, params)
        return choose(step == 0, begin(setting, members, -seen.value), told)

    return Optimizer(name, VALUE, rate, init, ask, tell, population)


@functools.cache
def random_search(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make codes drawn around the start: a baseline that learns nothing."""

    def ask(setting: Setting, step: jax.Array, state):
        key, start = jax.random.fold_in(setting.key, step), setting.start
        draws = jax.random.normal(key, (population, start.shape[0]), start.dtype)
        return project(setting.box, start + rate_of(setting, rate) * draws), state

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        return state

    return Optimizer("random", VALUE, rate, lambda setting: (), ask, tell, population)


@functools.cache
def sphere_cma(population: int = POPULATION, rate: float = 0.5) -> Optimizer:
    """Make steps along a sphere of natural codes, of the start's norm where the box has no bounds.

    `rate` is the first generation's angle, a right one at most: beyond it codes come round to the
    other side.
    """

    def init(setting: Setting):
        return _unit(setting.start), _nothing(setting, population)

    def ask(setting: Setting, step: jax.Array, state):
        centre, _ = state
        key = jax.random.fold_in(setting.key, step)
        draws = jax.random.normal(key, (population, centre.shape[0]), centre.dtype)
        tangents = _unit(draws - jnp.outer(draws @ centre, centre))  # (P, D), each of norm 1
        angle = _angle(setting, rate, step)
        around = jnp.cos(angle) * centre + jnp.sin(angle) * tangents
        corner, own = (jnp.linalg.norm(v) for v in (setting.box.upper, setting.start))
        radius = jnp.where(jnp.isfinite(corner), _NATURAL * corner, own)
        return project(setting.box, radius * around), (centre, tangents)

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        centre, tangents = state
        weights = _rank_weights(seen.value)
        way = weights @ tangents  # (D,)
        length = jnp.linalg.norm(way)
        turn = _SPHERE_RATE * _angle(setting, rate, step) * length
        moved = jnp.cos(turn) * centre + jnp.sin(turn) * way / length
        return _unit(moved), tangents

    right = math.pi / 2
    return Optimizer("sphere_cma", VALUE, rate, init, ask, tell, population, largest=right)


@functools.cache
def xdream_ga(population: int = POPULATION, rate: float = 1.0) -> Optimizer:
    """Make survivors and mutated children of two parents each, which are drawn by their values.

    Unlike theirs the first code is the start, codes stay in the box, and a mutation's size is tuned
    with the first generation's spread. Survivors are evaluated again, at full cost, as theirs are.
    """

    def init(setting: Setting) -> jax.Array:
        return setting.start + rate_of(setting, rate) * _first(setting, population)

    def ask(setting: Setting, step: jax.Array, state: jax.Array):
        return project(setting.box, state), state

    def tell(setting: Setting, step: jax.Array, state: jax.Array, codes: jax.Array, seen: Seen):
        keys = jax.random.split(jax.random.fold_in(setting.key, step), 4)
        finite = jnp.isfinite(seen.value)
        value = jnp.where(finite, seen.value, jnp.min(seen.value, initial=0.0, where=finite))
        survivors = codes[jnp.argsort(-value)[: population // _SURVIVORS]]
        children = population - len(survivors)
        logits = (value - value.max()) / jnp.maximum(_SELECTION * value.std(), 1e-8)
        drawn = jax.random.categorical(keys[0], logits, shape=(2, children))
        first, second = codes[drawn]  # (children, D) each
        mixed = jnp.where(jax.random.bernoulli(keys[1], _FIRST_PARENT, first.shape), first, second)
        mutated = jax.random.bernoulli(keys[2], _MUTATED, first.shape)
        size = rate_of(setting, rate) * _MUTATION
        mutation = size * jax.random.normal(keys[3], first.shape, codes.dtype)
        return jnp.concatenate([survivors, mixed + mutated * mutation])

    return Optimizer("xdream_ga", VALUE, rate, init, ask, tell, population)


_MAKERS = cma_es, sep_cma_es, sphere_cma, open_es, snes, ga, xdream_ga, de, pso
ROWS: dict[str, Callable[..., Optimizer]] = {make.__name__: make for make in _MAKERS}
ROWS["random"] = random_search


def _angle(setting: Setting, rate: float, step: jax.Array) -> jax.Array:
    return rate_of(setting, rate) * (1 + (_LAST_ANGLE - 1) * step / setting.steps)


def _rank_weights(values: jax.Array) -> jax.Array:
    """CMA-ES's weights (P,) of the better half, sum 1; 0 for the others."""
    ranks = jnp.argsort(jnp.argsort(-values))
    weights = jnp.maximum(jnp.log(values.shape[0] / 2 + 0.5) - jnp.log(ranks + 1.0), 0.0)
    return weights / weights.sum()


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def _first(setting: Setting, population: int) -> jax.Array:
    """A first generation (P, D) of spread 1; its first member is the start, 0."""
    start = setting.start
    draws = jax.random.normal(setting.key, (population, start.shape[0]), start.dtype)
    return draws.at[0].set(0.0)


def _nothing(setting: Setting, population: int) -> jax.Array:
    return jnp.zeros((population, setting.start.shape[0]), setting.start.dtype)


@functools.cache
def _class(name: str) -> Callable[..., Any]:
    try:
        from evosax import algorithms
    except ImportError as error:
        raise ValueError(
            f"gradient-free optimizers need evosax ({error}): pip install 'jaxsynth[free]', or "
            "choose an optimizer with gradients"
        ) from None
    return getattr(algorithms, name)


def _strategy(
    kind: Callable[..., Any], population: int, options: Options, setting: Setting
) -> tuple[Any, Any]:
    """A strategy of evosax and its parameters; options of either, by their names."""
    given = dict(options)
    own = {k: v for k, v in given.items() if k in ("optimizer", "std_schedule")}
    strategy = kind(population, jnp.zeros(setting.start.shape[0]), **own)
    params = strategy.default_params.replace(**{k: v for k, v in given.items() if k not in own})
    return strategy, params
