"""The images of an audit: random samples, both ends of neurons, what two classifiers dispute.

Weighed sums of readings are maximised over codes: a recipe's own steps, by an audit's programs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth import programs
from jaxsynth.arithmetic import arithmetic
from jaxsynth.ascent import Response
from jaxsynth.ask_tell import Setting
from jaxsynth.audit.networks import BATCH, LOG_ODDS, Goal, Network, Prior
from jaxsynth.audit.subjects import DECISION, LEAST, MOST, Subject
from jaxsynth.batch import Problem, Run
from jaxsynth.devices import batches
from jaxsynth.models.registry import load_encoder
from jaxsynth.objectives import Objective
from jaxsynth.problem import Settings, plan
from jaxsynth.recipes import RECIPES, Recipe, make_recipe
from jaxsynth.starts import still
from jaxsynth.system import make_encoder
from jaxsynth.transforms import Transforms

Networks = Mapping[str, Network]


class Made(NamedTuple):
    """Synthesised images.

    Attributes:
      images: (R, H, W, 3) uint8, RGB.
      codes: (R, D) that made them.
      rows: (R,) what each is: `what`, `end`, `seed`, and `frozen` where it did not stay finite.
    """

    images: np.ndarray
    codes: np.ndarray
    rows: list[dict[str, Any]]


def random_samples(prior: Prior, count: int) -> Made:
    """Draw the images of random codes, by seed."""
    codes = start_codes(prior, still(prior.generator), range(count))
    images = prior.generator.preprocess.show(prior.draw(codes))
    return Made(images, codes, [{"seed": seed} for seed in range(count)])


def neurons_of(subject: Subject, most: int, p: np.ndarray) -> list[int]:
    """Choose the classes of a subject that are shown.

    Of two classes one is enough: the other end of its scale is the other class. Of many, those
    that count come first, then the likeliest.

    `p` are probabilities (N, classes) of random samples.
    """
    classes = range(subject.model.classes)
    if len(classes) == 2:
        return list(subject.classes)
    order = np.argsort(-p.mean(0), kind="stable").tolist()
    chosen = [*subject.classes, *(i for i in order if i not in subject.classes)][:most]
    return sorted(chosen)


def neuron_goals(networks: Networks, subject: Subject, classes: Sequence[int]) -> dict[str, Goal]:
    """Return the log-odds of classes, and of all that count together, as goals."""
    network, names = networks[subject.name], subject.model.class_names
    goals = {names[i]: network.goal(LOG_ODDS, i) for i in classes}
    if len(subject.classes) > 1:
        goals[subject.decision] = network.goal(DECISION)
    return goals


def dispute_goals(networks: Networks, subjects: Sequence[Subject]) -> dict[tuple[str, str], Goal]:
    """Return, for each ordered pair, what the first is sure of and the second denies.

    Both orders of a pair follow each other, so that few batches need more than two networks.
    """
    pairs = [(a, b) for i, a in enumerate(subjects) for b in subjects[i + 1 :]]
    goals = {subject.name: networks[subject.name].goal(DECISION) for subject in subjects}
    return {
        (a.name, b.name): added(goals[a.name], negative(goals[b.name]))
        for pair in pairs
        for a, b in (pair, pair[::-1])
    }


def added(*goals: Goal) -> Goal:
    """Add goals up; a factor may be applied before."""
    names = dict.fromkeys(name for goal in goals for name in goal)
    return {n: np.sum([goal[n] for goal in goals if n in goal], axis=0) for n in names}


def negative(goal: Goal) -> Goal:
    """Return the opposite of a goal."""
    return {name: -weights for name, weights in goal.items()}


def maximise(
    prior: Prior,
    networks: Networks,
    goals: Mapping[Any, Goal],
    seeds: Sequence[int],
    steps: int,
    ends: Sequence[str] = (MOST, LEAST),
    start: np.ndarray | None = None,
) -> Made:
    """Maximise goals, and minimise them, by the generator's own recipe.

    Codes (R, D) to start from, instead of the seeds', are in the order of goals, ends, seeds.
    """
    rows = [{"what": key, "end": end, "seed": s} for key in goals for end in ends for s in seeds]
    wanted = [goals[r["what"]] if r["end"] == MOST else negative(goals[r["what"]]) for r in rows]
    recipe = make_recipe(RECIPES[prior.generator.recipe], steps=steps)
    found = search(prior, networks, wanted, [row["seed"] for row in rows], recipe, start)
    for row, sound in zip(rows, found.sound, strict=True):
        row |= {} if sound else {"frozen": "not finite"}
    return Made(found.images, found.codes, rows)


class Ends(NamedTuple):
    """Where runs end: images (R, H, W, 3) uint8 RGB, codes (R, D), whether all was finite (R,)."""

    images: np.ndarray
    codes: np.ndarray
    sound: np.ndarray


def start_codes(prior: Prior, recipe: Recipe, seeds: Sequence[int]) -> np.ndarray:
    """Return the codes (R, D) that a recipe starts from, by seed."""
    return _problem(prior, recipe, tuple(seeds)).batch.codes[:]


def search(
    prior: Prior,
    networks: Networks,
    goals: Sequence[Goal],
    seeds: Sequence[int],
    recipe: Recipe,
    start: np.ndarray | None = None,
) -> Ends:
    """Maximise a goal for each run.

    A run ends at its best code, or at the last one if that is better, without the recipe's random
    moves. Several classifiers are joined as the balance `image` does: each gradient by the image
    is divided by its mean size. A run's seed decides its random moves, and its start unless codes
    (R, D) are given.
    """
    problem = _problem(prior, recipe, tuple(dict.fromkeys(seeds)))
    if start is None:
        own = dict(zip(dict.fromkeys(seeds), problem.batch.codes[:], strict=True))
        start = np.stack([own[seed] for seed in seeds])
    found = []
    for (places, codes), count in batches((np.arange(len(goals)), start), BATCH):
        weights = _weights(networks, [goals[i] for i in places])
        numbers = np.array([seeds[i] for i in places], np.uint32)
        codes, sound = _steps(prior, problem, weights, numbers, codes)
        images = prior.generator.preprocess.show(prior.draw(codes))
        found.append((images[:count], codes[:count], sound[:count]))
    return Ends(*map(np.concatenate, zip(*found, strict=True)))


Weights = Sequence[tuple[Network, np.ndarray]]  # (B, K) of each network


def _weights(networks: Networks, goals: Sequence[Goal]) -> Weights:
    named = dict.fromkeys(name for goal in goals for name in goal)
    nothing = {name: np.zeros(networks[name].count, np.float32) for name in named}
    return [(networks[n], np.stack([goal.get(n, nothing[n]) for goal in goals])) for n in named]


def _steps(
    prior: Prior, problem: Problem, weights: Weights, seeds: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make all steps of a batch; return where it ends, and whether all was finite."""
    recipe, optimizer = problem.settings.recipe, problem.optimizer
    transforms = Transforms(recipe.jitter, float(recipe.zoom), float(recipe.rotate))
    pull = _pull(prior) if recipe.prior else None
    with arithmetic():
        keys, steps = programs.noise_keys(jnp.asarray(seeds)), jnp.float32(recipe.steps)
        setting = Setting(jnp.asarray(start), None, keys, steps, problem.box)
        state = programs.init_jit(optimizer, setting)
        for step in range(recipe.steps):
            codes = np.asarray(state.code)
            images = prior.draw(codes)
            at = transforms, seeds, np.int32(step)
            seen = np.asarray(_move(*at, images)) if transforms.draws else images
            value, gradient = _value_and_gradient(prior, weights, seen)
            gradient = np.asarray(_move_back(*at, gradient)) if transforms.draws else gradient
            gradient = prior.draw_back(codes, gradient)
            good = np.isfinite(value) & np.isfinite(images).all((1, 2, 3))
            pulls = pull(images, codes) if pull else None
            found: tuple[Any, ...] = (value, gradient, pulls, good, {})
            response = Response(*found)
            state, _ = programs.update_jit(optimizer, None, setting, state, response)
    last, best = np.asarray(state.code), np.asarray(state.best_code)
    better = _values(prior, weights, last) >= _values(prior, weights, best)
    return np.where(better[:, None], last, best), np.asarray(state.sound)


def _value_and_gradient(
    prior: Prior, weights: Weights, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums (B,), and their balanced gradients by images."""
    value, total = np.zeros(len(images), np.float32), np.zeros_like(images)
    for network, w in weights:
        rows = np.flatnonzero(np.abs(w).sum(1))
        readings, gradient, _ = network.slopes(prior.view(network, images[rows]), w[rows])
        value[rows] += (w[rows] * readings).sum(1)
        gradient = prior.view_back(network, gradient)
        mean = np.abs(gradient).sum((1, 2, 3)) / prior.pixels(network)
        strength = np.abs(w[rows]).sum(1) / np.where(mean == 0, 1, mean)
        total[rows] += strength[:, None, None, None] * gradient
    return value, total


def _values(prior: Prior, weights: Weights, codes: np.ndarray) -> np.ndarray:
    images = prior.draw(codes)
    return np.sum([(w * n.read(prior.view(n, images))).sum(1) for n, w in weights], axis=0)


def _pull(prior: Prior) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The prior term of a recipe: (images, codes) -> E(image) - code."""
    encoder = load_encoder(prior.generator)
    how = make_encoder(prior.generator, encoder)

    def pull(images: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return np.stack([programs.encode_jit(how, encoder.params, x) for x in images]) - codes

    return pull


@functools.partial(jax.jit, static_argnums=0)
def _move(transforms: Transforms, seeds: jax.Array, step: jax.Array, images: jax.Array):
    """Move images (B, H, H, 3) as a step of their seeds does."""
    return jax.vmap(lambda seed, image: transforms.view(seed, step)(image))(seeds, images)


@functools.partial(jax.jit, static_argnums=0)
def _move_back(transforms: Transforms, seeds: jax.Array, step: jax.Array, gradient: jax.Array):
    """Turn a gradient by moved images (B, H, H, 3) into one by images."""

    def one(seed: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(transforms.view(seed, step), jnp.zeros_like(g))[1](g)[0]

    return jax.vmap(one)(seeds, gradient)


@functools.lru_cache(maxsize=8)
def _problem(prior: Prior, recipe: Recipe, seeds: tuple[int, ...]) -> Problem:
    """Let the library check a recipe and draw its start codes."""
    nothing: Any = Objective(())
    encoder = load_encoder(prior.generator) if recipe.prior else None
    runs = [Run(seed, nothing) for seed in seeds]
    return plan(runs, prior.generator, settings=Settings(recipe=recipe), encoder=encoder)
