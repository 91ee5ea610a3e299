"""Objective, balance, recipes and sweeps on tiny networks."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from short import Run, Sweep, Term, plan, problem_of, steps_of, synthesize
from tiny import compiles_once, in_float64, tiny_networks

from jaxsynth import ascent, chunks, programs, recipes
from jaxsynth.ask_tell import Setting
from jaxsynth.balance import BALANCES, objective, value_and_gradient
from jaxsynth.models.layers import log_odds, softmax
from jaxsynth.optimizers import from_recipe
from jaxsynth.recipes import RECIPES, Recipe
from jaxsynth.starts import make_box, start_codes
from jaxsynth.system import view

SCENE = Term("places", "fc8", (1,), 1.0, "bar")
NSFW = Term("nsfw", "fc8", (1,), 0.5, "NSFW")
SHORT = dataclasses.replace(RECIPES["goh"], steps=6)


# Compiled once: run op by op, every operation would be compiled by itself.
objective = jax.jit(objective, static_argnums=0)
value_and_gradient = jax.jit(value_and_gradient, static_argnums=0)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


def code(seed=0, size=12):
    return jnp.asarray(np.random.default_rng(seed).uniform(0, 2, size))


# ---------------------------------------------------------------- softmax and objective


def test_softmax_gradient_is_the_usual_one_and_survives_saturation():
    w = jnp.array([0.3, -1.0, 2.0])
    logits = jnp.array([0.1, 0.4, -0.2])
    usual = jax.grad(lambda x: jnp.vdot(w, jax.nn.softmax(x)))(logits)
    ours = jax.grad(lambda x: jnp.vdot(w, softmax(x)))(logits)
    np.testing.assert_allclose(ours, usual, rtol=1e-5)
    far = jnp.array([0.0, 60.0])
    g = jax.grad(lambda x: softmax(x)[1])(far)
    assert g[1] > 0
    np.testing.assert_allclose(g[1] / -g[0], 1.0, rtol=1e-5)
    assert jax.grad(lambda x: jax.nn.softmax(x)[1])(far)[1] == 0  # what the usual rule gives


def test_log_odds():
    logits = jnp.array([0.1, 0.4, -0.2])
    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(log_odds(logits), jnp.log(p / (1 - p)), rtol=1e-5)
    np.testing.assert_allclose(log_odds(jnp.array([0.0, 200.0])), [-200, 200], rtol=1e-6)


def test_objective_is_the_weighted_sum(networks):
    terms = [
        SCENE,
        Term("places", "conv2", (2, 3, 5), -0.7),
        Term("nsfw", "prob", (0,), 2.0),
        Term("generator", "feat", (4,), 0.25),
        Term("generator", "code_l2", (0,), -0.1),
        Term("generator", "image_tv", (0,), -0.01),
    ]
    request, params, run = problem_of(networks, *terms)
    z = code()
    value, seen, _ = objective(request.system, params, run, z)
    image = np.asarray(seen["generator"]["deconv0"])
    tv = np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()
    wanted = (
        seen["places"]["fc8"][1]
        - 0.7 * seen["places"]["conv2"][2, 3, 5]
        + 2.0 * seen["nsfw"]["prob"][0]
        + 0.25 * z[4]
        - 0.1 * np.mean(np.square(z))
        - 0.01 * tv
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    own = networks["nsfw"].apply(networks["nsfw"].params, image[1:15, 1:15])  # centre crop of 14
    np.testing.assert_allclose(own["fc8"], seen["nsfw"]["fc8"], rtol=1e-5)


def test_views():
    image = jnp.arange(256 * 256 * 3, dtype=jnp.float32).reshape(256, 256, 3)
    np.testing.assert_array_equal(view(image, 227), image[14:241, 14:241])
    np.testing.assert_array_equal(view(image, 224), image[16:240, 16:240])
    assert view(image, 256) is not None and view(image, 64).shape == (64, 64, 3)
    flat = jnp.full((64, 64, 3), 7.0)
    np.testing.assert_allclose(view(flat, 224), jnp.full((224, 224, 3), 7.0), rtol=1e-6)


# ---------------------------------------------------------------- balance


def by_hand(networks, balance, z, step):
    """The balances of one scene and one NSFW term, written out term by term."""
    generator, places, nsfw = (networks[r] for r in ("generator", "places", "nsfw"))

    def draw(c):
        return generator.apply(generator.params, c)["deconv0"]

    def scene(im):
        return places.apply(places.params, im)["fc8"][1]

    def risk(im):
        return 0.5 * nsfw.apply(nsfw.params, im[1:15, 1:15])["fc8"][1]

    image, pull = jax.vjp(draw, z)
    g_scene, g_risk = jax.grad(scene)(image), jax.grad(risk)(image)
    if balance == "sum":
        return pull(g_scene + g_risk)[0]
    if balance == "alternate":
        # Networks take turns in the order in which the weights name them (sorted by jit).
        return pull((g_risk, g_scene)[step % 2])[0]
    if balance == "code":
        a, b = pull(g_scene)[0], pull(g_risk)[0]
        return a / jnp.abs(a).mean() + 0.5 * b / jnp.abs(b).mean()
    mean_risk = jnp.abs(g_risk[1:15, 1:15]).mean()
    return pull(g_scene / jnp.abs(g_scene).mean() + 0.5 * g_risk / mean_risk)[0]


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("step", [0, 1])
def test_balances(networks, x64, balance, step):
    networks = in_float64(networks)
    request, params, run = problem_of(networks, SCENE, NSFW, balance=balance)
    z = code()
    value, _, _, got = value_and_gradient(request, params, run, z, step)
    wanted = jax.jit(lambda c: by_hand(networks, balance, c, step))(z)
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(value, objective(request.system, params, run, z)[0], rtol=1e-12)


@pytest.mark.parametrize("balance", BALANCES)
def test_a_network_without_weight_does_not_count(networks, x64, balance):
    networks = in_float64(networks)
    silent = dataclasses.replace(NSFW, weight=0.0)
    both, params, run = problem_of(networks, SCENE, silent, balance=balance)
    alone, alone_params, alone_run = problem_of(networks, SCENE, balance=balance)
    for step in (0, 1):
        *_, got = value_and_gradient(both, params, run, code(), step)
        *_, want = value_and_gradient(alone, alone_params, alone_run, code(), step)
        np.testing.assert_allclose(got / np.abs(got).mean(), want / np.abs(want).mean(), rtol=1e-9)


def test_regularisers_pull(networks):
    term = Term("generator", "code_l2", (0,), -1.0)
    request, params, run = problem_of(networks, term, balance="sum")
    *_, g = value_and_gradient(request, params, run, code(), 0)
    np.testing.assert_allclose(g, -2 * code() / 12, rtol=1e-5)


# ---------------------------------------------------------------- recipes


def plain_loop(recipe, gradient, z, upper):
    """The update rules of the papers in plain numpy."""
    z, velocity = np.array(z, np.float64), 0.0
    momentum = dict(recipe.optimizer_args).get("momentum", 0.0)
    out = []
    for t in range(recipe.steps):
        g = np.asarray(gradient(z))
        velocity = momentum * velocity + g / np.abs(g).mean()
        z = z + (recipe.lr_start + (recipe.lr_end - recipe.lr_start) * t / recipe.steps) * velocity
        if recipe.decay_when == "before":
            z = recipe.decay * z
        z = np.clip(z, 0, upper)
        if recipe.decay_when == "after":
            z = recipe.decay * z
        out.append(z)
    return np.array(out)


@pytest.mark.parametrize("name", ["goh", "dgn_am", "dgn_am_image", "cnnpref"])
def test_recipes_follow_their_papers(networks, x64, name):
    networks = in_float64(networks)
    recipe = dataclasses.replace(RECIPES[name], steps=8)
    request, params, run = problem_of(networks, SCENE)
    upper = networks["generator"].code.upper

    slope = jax.jit(jax.grad(lambda c: objective(request.system, params, run, c)[0]))

    def gradient(z):
        return slope(jnp.asarray(z))

    start = np.asarray(code())[None]
    result = synthesize(
        networks,
        [Run(0, (SCENE,))],
        Sweep(recipe, precision="float64", batch=1, record=tuple(range(1, 9))),
        start,
    )
    wanted = plain_loop(recipe, gradient, start[0], upper)
    np.testing.assert_allclose(result.recorded_codes[0], wanted, rtol=1e-9, atol=1e-12)
    reported = wanted[-1] if recipe.last_image == "final" else wanted[-2]
    image = networks["generator"].apply(networks["generator"].params, reported)["deconv0"]
    np.testing.assert_allclose(result.last.image[0], image, rtol=1e-9)


def test_adam_is_optax_adam_in_the_box(networks, x64):
    networks = in_float64(networks)
    recipe = dataclasses.replace(RECIPES["adam"], steps=5, schedule="constant")
    request, params, run = problem_of(networks, SCENE)
    z, tx = code(), optax.adam(recipe.lr_start)
    state = tx.init(z)
    slope = jax.jit(jax.grad(lambda c: -objective(request.system, params, run, c)[0]))
    for _ in range(5):
        g = slope(z)
        updates, state = tx.update(g, state)
        z = jnp.clip(z + updates, 0, networks["generator"].code.upper)
    result = synthesize(
        networks,
        [Run(0, (SCENE,))],
        Sweep(recipe, precision="float64", batch=1, balance="sum"),
        np.asarray(code())[None],
    )
    np.testing.assert_allclose(result.codes[0], z, rtol=1e-9)


@pytest.mark.parametrize("schedule", [*recipes.SCHEDULES, optax.constant_schedule(0.1)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lion", "rmsprop", "nadam"])
def test_any_optax_optimizer_and_schedule_runs(networks, schedule, optimizer):
    recipe = Recipe(steps=3, optimizer=optimizer, schedule=schedule, lr_end=0.1)
    recipes.check_recipe(recipe)
    tx = recipes.make_transform(recipe)
    updates, _ = tx.update(jnp.array([1.0, -3.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))
    assert jnp.isfinite(updates).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": -1}, "steps"),
        ({"optimizer": "sdg"}, "sdg"),
        ({"optimizer_args": (("speed", 1.0),)}, "speed"),
        ({"schedule": "cubic"}, "cubic"),
        ({"box": "sphere"}, "sphere"),
        ({"lr_start": float("nan")}, "nan"),
        ({"decay": 0.0}, "decay"),
    ],
)
def test_wrong_recipes_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        recipes.check_recipe(dataclasses.replace(Recipe(), **change))


def test_boxes(networks):
    for box, low, high in [("upper", 0, 6), ("unit", -1, 1), ("none", -np.inf, np.inf)]:
        made = make_box(Recipe(box=box), 12, networks["generator"].code.upper, np.float32)
        assert made.lower.min() == low and made.upper.max() == high
    with pytest.raises(ValueError, match="--bounds"):
        make_box(Recipe(), 12, None, np.float32)


# ---------------------------------------------------------------- sweeps


def runs_of(count, unit=1):
    return [Run(seed, (dataclasses.replace(SCENE, index=(unit,)), NSFW)) for seed in range(count)]


def test_a_seed_starts_the_same_whatever_the_sweep(networks):
    box = make_box(SHORT, 12, networks["generator"].code.upper, np.float32)
    root = jax.random.key(0)
    many = start_codes(SHORT, box, root, np.arange(40))
    alone = start_codes(SHORT, box, root, np.array([17]))
    np.testing.assert_array_equal(many[17], alone[0])
    assert len(np.unique(np.asarray(many), axis=0)) == 40
    assert (many >= 0).all()


def test_alone_in_a_batch_and_in_a_python_loop_agree_in_float64(networks, x64):
    networks = in_float64(networks)
    settings = Sweep(SHORT, precision="float64", batch=5)
    together = synthesize(networks, runs_of(5), settings)
    single = synthesize(networks, runs_of(5)[3:4], dataclasses.replace(settings, batch=1))
    np.testing.assert_allclose(single.codes[0], together.codes[3], rtol=1e-10)
    np.testing.assert_allclose(single.objective[0], together.objective[3], rtol=1e-10)

    request, params, run = problem_of(networks, *runs_of(1)[0].terms)
    box = make_box(SHORT, 12, networks["generator"].code.upper, np.float64)
    [z] = start_codes(SHORT, box, jax.random.key(0), np.array([3]))
    optimizer, setting = from_recipe(SHORT), Setting(z, None, None, None, box)
    state = ascent.init(optimizer, setting)

    @jax.jit
    def step(state):
        response = ascent.respond(request, params, run, state.code, state.step)
        response = jax.tree.map(lambda leaf: leaf[None], response)
        return ascent.update(optimizer, setting, state, response)

    for _ in range(SHORT.steps):
        state, _ = step(state)
    np.testing.assert_allclose(state.code, together.codes[3], rtol=1e-10)


def test_bit_equal_at_a_fixed_batch_whatever_the_neighbours(networks):
    settings = Sweep(SHORT, batch=4)
    many = synthesize(networks, runs_of(9), settings)  # three chunks, the last padded
    few = synthesize(networks, [runs_of(9)[i] for i in (8, 2)], settings)
    for name in ("codes", "best_codes", "objective"):
        np.testing.assert_array_equal(getattr(few, name)[0], getattr(many, name)[8])
        np.testing.assert_array_equal(getattr(few, name)[1], getattr(many, name)[2])
    np.testing.assert_array_equal(few.last.image[0], many.last.image[8])


def test_one_compilation_serves_every_unit_category_and_weighting(networks):
    recipe = dataclasses.replace(SHORT, steps=2)
    with compiles_once():
        for unit, weight, seeds in ((0, 1.0, 3), (3, -2.0, 7), (4, 0.0, 1)):
            terms = (
                Term("places", "fc8", (unit,), weight),
                Term("places", "conv2", (1, 1, unit), 1.0),
            )
            synthesize(networks, [Run(s, terms) for s in range(seeds)], Sweep(recipe, batch=3))


@pytest.mark.parametrize(("fails", "steps"), [(False, 2), (True, 2), (False, 0)])
def test_the_evaluation_is_compiled_during_the_first_chunk_of_a_process(
    networks, monkeypatch, fails, steps
):
    real, callers = programs.evaluate_jit, []

    def evaluate(*args):
        callers.append(threading.current_thread() is threading.main_thread())
        if fails and not callers[-1]:
            raise ValueError("only there")
        return real(*args)

    monkeypatch.setattr(programs, "evaluate_jit", evaluate)
    monkeypatch.setattr(chunks, "_evaluated", set())
    recipe = dataclasses.replace(SHORT, steps=steps)
    for sweeps in (1, 2):
        found = synthesize(networks, runs_of(6), Sweep(recipe, batch=3))
        assert callers.count(False) == (steps > 0)
        assert callers.count(True) == 4 * sweeps  # last and best of two chunks
    assert np.isfinite(found.last.image).all()


def test_scan_blocks_and_single_steps_agree(networks, x64):
    networks = in_float64(networks)
    start = np.asarray(code())[None]
    settings = Sweep(SHORT, batch=1, precision="float64")
    problem = plan(networks, [Run(0, (SCENE,))], settings, start)
    single, block = (steps_of(problem, blocks) for blocks in ([1] * 6, [6]))
    np.testing.assert_allclose(block[0], single[0], rtol=1e-10)
    np.testing.assert_allclose(block[1], single[1], rtol=1e-10)


def test_best_is_the_highest_objective_met(networks):
    recipe = dataclasses.replace(SHORT, steps=12, lr_start=30.0, lr_end=30.0)  # overshoots
    result = synthesize(networks, runs_of(3), Sweep(recipe, batch=3))
    met = np.concatenate([result.objective, result.last.objective[:, None]], axis=1)
    np.testing.assert_allclose(result.best.objective, met.max(axis=1), rtol=1e-4)
    assert (met.max(axis=1) > met[:, -1]).any()


def test_no_steps_only_looks(networks):
    recipe = dataclasses.replace(SHORT, steps=0, box="none", start="normal")
    result = synthesize(networks, [Run(5, ()), Run(6, ())], Sweep(recipe, batch=2))
    assert result.objective.shape == (2, 0)
    np.testing.assert_array_equal(result.codes, result.best_codes)
    assert set(result.last.watched) == {"places", "nsfw"}


def test_zero_gradient_ends_a_run_and_leaves_its_neighbours(networks):
    dead = Run(0, (dataclasses.replace(SCENE, weight=0.0), dataclasses.replace(NSFW, weight=0.0)))
    settings = Sweep(SHORT, batch=3)
    good = runs_of(3)
    mixed = synthesize(networks, [good[0], dead, good[2]], settings)
    clean = synthesize(networks, good, settings)
    assert mixed.ended.tolist() == [-1, 0, -1]
    box = make_box(SHORT, 12, networks["generator"].code.upper, np.float32)
    start = start_codes(SHORT, box, jax.random.key(0), np.array([0]))
    np.testing.assert_array_equal(mixed.codes[1], start[0])
    for i in (0, 2):
        np.testing.assert_array_equal(mixed.codes[i], clean.codes[i])


def test_a_non_finite_objective_freezes_a_run_and_leaves_its_neighbours(networks):
    # Three log-probabilities sum to -3.3 at most: times 1.1e38 that is not finite in float32.
    bad, fine = (
        Run(1, tuple(Term("places", "log_prob", (i,), weight) for i in range(3)))
        for weight in (1.1e38, 1.0)
    )
    settings = Sweep(SHORT, batch=3)
    good = [Run(s, (SCENE,)) for s in range(3)]
    mixed = synthesize(networks, [good[0], bad, good[2]], settings)
    clean = synthesize(networks, [good[0], fine, good[2]], settings)
    assert mixed.sound.tolist() == [True, False, True] and mixed.ended.tolist() == [-1, 0, -1]
    assert np.isfinite(mixed.codes).all()
    for i in (0, 2):
        np.testing.assert_array_equal(mixed.codes[i], clean.codes[i])


def test_wrong_sweeps_are_refused(networks):
    with pytest.raises(ValueError, match=r"\[7\] lie outside 1..6"):
        synthesize(networks, runs_of(1), Sweep(SHORT, record=(7,)))
    with pytest.raises(ValueError, match=r"expected \(1, 12\)"):
        synthesize(networks, runs_of(1), Sweep(SHORT), np.zeros((2, 12)))
    with pytest.raises(ValueError, match="balance is 'even'"):
        synthesize(networks, runs_of(1), Sweep(SHORT, balance="even"))
    swapped = {"generator": networks["places"], "places": networks["generator"]}
    with pytest.raises(ValueError, match="expected a generator"):
        synthesize(swapped, [Run(0, ())], Sweep(SHORT))


def test_unused_activations_cost_nothing(networks):
    places = networks["places"]

    def flops(blob):
        one = jax.jit(lambda p, x: places.apply(p, x)[blob])
        cost = one.lower(places.params, jnp.zeros((16, 16, 3))).compile().cost_analysis()
        return cost["flops"]

    assert flops("conv1") < 0.7 * flops("prob")
