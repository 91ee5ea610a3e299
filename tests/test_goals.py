"""Objectives as arrays: strengths, functions, several classifiers, diversity, units of pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short import first_of, models
from tiny import tiny_networks

from jaxsynth.balance import objective, value_and_gradient
from jaxsynth.batch import chunk_sizes, every_run, join
from jaxsynth.chunks import execute
from jaxsynth.goal_arrays import make_goals, make_layout
from jaxsynth.goals import RUNS, RunData, diversity_value
from jaxsynth.images import UNIT_RGB
from jaxsynth.maximize import Run, Settings, plan
from jaxsynth.objectives import Objective, code_l2, distance_to_start, diversity, function
from jaxsynth.recipes import Recipe

SHORT = Recipe(steps=3, lr_start=0.5)
RAW = dataclasses.replace(SHORT, normalize=False)  # weights are taken as they are


@pytest.fixture(scope="module")
def made():
    return models(tiny_networks())


def computed(made, runs, *classifiers, **settings):
    """All runs, by `execute`."""
    settings = {"recipe": SHORT, "batch": 4} | settings
    problem = plan(runs, made["generator"], classifiers, Settings(**settings))
    return every_run(problem, join(list(execute(problem))))


def one_step(made, goal, balance="sum"):
    """Value, gradient, and the acts by hand of one code."""
    problem = plan([Run(0, goal)], made["generator"], (), Settings(RAW, balance=balance))
    [structure] = problem.structures
    run = RunData(first_of(structure.goals), start=problem.batch.codes[0] * 0.5)
    code = jnp.asarray(np.random.default_rng(1).uniform(0, 2, 12).astype(np.float32))

    def step(code):
        value, _, _, gradient = value_and_gradient(
            structure.request, problem.params, run, code, jnp.int32(0)
        )
        return value, gradient, objective(structure.request.system, problem.params, run, code)[0]

    def acts_of(code):
        g = made["generator"]
        image = g.activations(g.params, code)[g.image]
        seen = {"places": image, "nsfw": image[1:15, 1:15]}
        return {n: made[n].activations(made[n].params, x) for n, x in seen.items()} | {
            "image": image
        }

    return code, run, jax.jit(step)(code), acts_of


def check(made, goal, by_hand):
    """The value, the gradient and the value without one against a function of acts and code."""
    code, run, (value, gradient, alone), acts_of = one_step(made, goal)
    want, slope = jax.jit(jax.value_and_grad(lambda z: by_hand(acts_of(z), z, run)))(code)
    np.testing.assert_allclose(value, want, rtol=1e-4)
    np.testing.assert_allclose(alone, want, rtol=1e-4)
    np.testing.assert_allclose(gradient, slope, rtol=2e-3, atol=1e-4 * np.abs(slope).max())


def test_strengths_and_padding(made):
    places, nsfw = made["places"], made["nsfw"]
    twice = 2.0 * places.unit("conv2", 3, at=(1, 2)) + 1.5 * places.unit("conv2", 3, at=(1, 2))
    mixed = places.channel("conv2", 1) - 0.5 * nsfw.logit("NSFW")
    goals = make_goals([twice, mixed], (), make_layout([twice, mixed]), np.float32)
    assert goals.strength["places"].tolist() == [3.5, 1.0]
    assert goals.strength["nsfw"].tolist() == [0.0, 0.5]
    picked = goals.linear["places"]["conv2"]
    assert picked.index.shape == (2, 2, 64) and picked.weight.tolist() == [[2.0, 1.5], [1.0, 0.0]]
    cancelled = places.logit(0) - places.logit(0)
    goals = make_goals([cancelled], (), make_layout([cancelled]), np.float32)
    assert goals.strength["places"].tolist() == [0.0]


@pytest.mark.parametrize("how", ["match", "cosine", "square", "direction", "channel"])
def test_terms_of_a_layer(made, how):
    places = made["places"]
    recorded = np.random.default_rng(0).normal(size=12).astype(np.float32)
    goals = {
        "match": places.match("fc6", recorded),
        "cosine": places.match("fc6", recorded, cosine=True),
        "square": places.layer("conv2"),
        "direction": places.direction("fc6", recorded),
        "channel": places.channel("conv2", 3),
    }

    def by_hand(acts, code, run):
        fc6, conv2 = acts["places"]["fc6"], acts["places"]["conv2"]
        return (
            0.7
            * {
                "match": -jnp.mean((fc6 - recorded) ** 2),
                "cosine": fc6 @ recorded / jnp.linalg.norm(fc6) / jnp.linalg.norm(recorded),
                "square": jnp.mean(conv2**2),
                "direction": fc6 @ recorded,
                "channel": conv2[..., 3].mean(),
            }[how]
        )

    check(made, 0.7 * goals[how], by_hand)


def test_functions_of_one_and_of_several_classifiers(made):
    places, nsfw = made["places"], made["nsfw"]
    one = function(lambda acts: (acts[places]["conv2"] ** 2).mean() + acts.image.mean(), [places])
    both = function(lambda acts: acts["places"]["fc8"][1] * acts[nsfw]["fc8"][0], [places, nsfw])
    own = function(lambda acts: -jnp.sum(acts.code**2))

    def by_hand(acts, code, run):
        first = (acts["places"]["conv2"] ** 2).mean() + acts["image"].mean()
        second = acts["places"]["fc8"][1] * acts["nsfw"]["fc8"][0]
        return first + 0.5 * second - 2.0 * jnp.sum(code**2) + acts["places"]["fc8"][2]

    check(made, one + 0.5 * both + 2.0 * own + places.logit(2), by_hand)
    for balance in ("image", "code", "alternate"):
        _, _, (_, gradient, _), _ = one_step(made, both + places.logit(2), balance)
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_wrong_functions_are_refused_in_a_line(made):
    places = made["places"]
    for wrong, said in [
        (lambda acts: acts[places]["fc9"], r"'fc9' is no blob of places .did you mean fc8"),
        (lambda acts: acts[places]["x"], "'x' is no blob of places; it has .*prob"),
        (lambda acts: {}["own"], "KeyError: 'own'"),
        (lambda acts: acts["somebody"]["fc8"][0], "'somebody' is none of generator, places: give "),
        (lambda acts: acts[places.named("mine")]["fc8"][0], r"give the run classifiers=.mine.$"),
        (lambda acts: acts[places]["fc8"], r"gives \(5,\), expected a scalar"),
        (lambda acts: acts[places]["fc8"][0] + acts.code[0], "split it"),
    ]:
        with pytest.raises(ValueError, match=said):
            plan([Run(0, function(wrong, [places]))], made["generator"], [places], Settings(SHORT))


def test_runs_of_different_functions_stand_beside_one_another(made):
    places = made["places"]
    match = places.match("fc6", np.ones(12))
    runs = [Run(s, places.logit(1)) for s in range(3)] + [Run(s, match) for s in range(2)]
    problem = plan(runs, made["generator"], [places], Settings(SHORT, batch=2))
    assert chunk_sizes(problem) == {0: 2, 2: 1, 3: 2}
    found = join(list(execute(problem)))
    value = found.last.watched["places"]["match:fc6"]
    assert np.isnan(value[:3]).all() and np.isfinite(value[3:]).all()
    np.testing.assert_allclose(value[3:, 0], found.last.objective[3:], rtol=1e-5)
    alone = computed(made, runs[3:], places, batch=2)
    np.testing.assert_array_equal(alone.codes, found.codes[3:])


def test_diversity_pushes_seeds_apart(made):
    places = made["places"]
    recipe = dataclasses.replace(SHORT, steps=12, lr_start=0.3)
    runs = [Run(seed, diversity(places, "conv2")) for seed in range(5)]
    problem = plan(runs, made["generator"], [places], Settings(recipe, batch=2))
    assert chunk_sizes(problem) == {0: 5}
    [found] = execute(problem)
    assert (found.best.objective > found.objective[:, 0]).all()
    with pytest.raises(ValueError, match="give one device"):
        next(execute(problem, devices=jax.devices() * 2))


def test_padding_does_not_count_in_diversity():
    blobs = jax.random.normal(jax.random.key(0), (5, 4, 4, 3))
    groups = jnp.array([0, 0, 0, 1, -1])
    values = jax.vmap(diversity_value, axis_name=RUNS)(blobs, groups)
    grams = np.einsum("rhwi,rhwj->rij", blobs, blobs).reshape(5, -1)
    units = grams / np.linalg.norm(grams, axis=1, keepdims=True)
    cosines = units[:3] @ units[:3].T
    np.testing.assert_allclose(values[:3], -(cosines.sum(axis=1) - 1) / 2, rtol=1e-5)
    assert values[3] == 0


def test_distances_to_the_start(made):
    for space in ("code", "image"):
        goal = made["places"].logit(1) - 0.1 * distance_to_start(space)
        found = computed(made, [Run(0, goal), Run(1, goal)], balance="sum")
        distance = found.watched["generator"][f"start_{space}_l2"][..., 0]
        assert (distance[:, 0] <= 1e-6).all() and (distance[:, 1] > 1e-4).all()
        value = found.watched["places"]["fc8"][..., 1] - 0.1 * distance
        np.testing.assert_allclose(found.objective, value, rtol=1e-4)


def test_other_units_of_pixels(made):
    places = made["places"]
    other = dataclasses.replace(places, preprocess=UNIT_RGB, name="other")
    _, _, (value, _, _), acts_of = one_step(made, other.logit(1))
    code = jnp.asarray(np.random.default_rng(1).uniform(0, 2, 12).astype(np.float32))
    rgb = made["generator"].preprocess.to_rgb(acts_of(code)["image"])
    seen = places.activations(places.params, UNIT_RGB.to_input(rgb))
    np.testing.assert_allclose(value, seen["fc8"][1], rtol=1e-3)


def test_names_must_differ(made):
    places = made["places"]
    twin = dataclasses.replace(places)
    with pytest.raises(ValueError, match=r"called 'places': give one .* classifier.named"):
        plan([Run(0, places.logit(0) + twin.logit(0))], made["generator"], (), Settings(SHORT))
    other = dataclasses.replace(made["generator"])
    with pytest.raises(ValueError, match="another object"):
        plan([Run(0, other.unit("defc6", 1))], made["generator"], (), Settings(SHORT))


def test_gradient_free_optimizers_in_the_same_chunks(made):
    places = made["places"]
    recipe = dataclasses.replace(SHORT, steps=10)
    runs = [Run(seed, places.logit(1) - 0.01 * code_l2()) for seed in range(3)]
    found = computed(made, runs, places, recipe=recipe, optimizer="cma_es+4", batch=8)
    assert (found.best.objective >= found.objective.max(axis=1) - 1e-4).all()
    assert (found.objective[:, -1] > found.objective[:, 0]).any()
    again = computed(made, runs[2:], places, recipe=recipe, optimizer="cma_es+4", batch=8)
    np.testing.assert_array_equal(again.codes[0], found.codes[2])
    assert (found.codes >= 0).all()


def test_an_empty_objective_only_looks(made):
    found = computed(made, [Run(0, Objective(()))], made["places"], recipe=Recipe(steps=0))
    assert found.objective.shape == (1, 0) and set(found.last.watched) == {"places"}
