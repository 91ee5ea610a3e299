"""Optimizers: their protocol, every one of the table, names and variants."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.study.setting import choose_optimizers
from jaxsynth import gradient_free, optimizers, recipes
from jaxsynth.ask_tell import (
    GRADIENT,
    PRIOR,
    VALUE,
    Box,
    Optimizer,
    Seen,
    Setting,
    project,
)
from jaxsynth.models.base import Code
from jaxsynth.optimizer_names import FREE, OPTIMIZERS, check_protocol, make_optimizer
from jaxsynth.optimizers import from_recipe
from jaxsynth.recipes import RECIPES, make_recipe
from jaxsynth.starts import make_box, start_codes

_BOX = Box(jnp.zeros(6), jnp.full(6, 4.0))
_START = jnp.array([0.0, 0.5, 0.0, 1.0, 0.2, 0.0])
_TOP = jnp.array([3.0, 2.0, 0.0, 1.0, 3.5, 5.0])  # its last unit lies outside the box


def _hill(code):
    return -((code - _TOP) ** 2 * jnp.arange(1.0, 7.0)).sum()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_ascends_a_hill_inside_the_box(name):
    """A tenth of the way is what the weakest, random search, makes in 25 generations."""
    optimizer, steps = make_optimizer(name), 25 if make_optimizer(name).asks == VALUE else 60
    rate = 0.1 if name == "goh+raw" else optimizer.rate
    how = Setting(_START, jnp.float32(rate), jax.random.key(3), jnp.float32(steps), _BOX)

    def one(state, step):
        asked, state = optimizer.ask(how, step, state)
        codes = project(_BOX, asked)
        value = jax.vmap(_hill)(codes)
        told = () if optimizer.asks == VALUE else (jax.vmap(jax.grad(_hill))(codes),)
        told += (jnp.zeros_like(codes),) if optimizer.asks == PRIOR else ()
        return optimizer.tell(how, step, state, codes, Seen(value, *told)), (asked, value)

    run = jax.jit(lambda: jax.lax.scan(one, optimizer.init(how), jnp.arange(steps) * 1.0)[1])
    asked, values = run()
    assert asked.shape == (steps, optimizer.population, 6) and np.isfinite(asked).all()
    if optimizer.asks != VALUE:  # what is told gradients proposes nothing outside
        np.testing.assert_array_equal(asked, project(_BOX, asked))
    top = _hill(project(_BOX, _TOP))
    made = (np.max(values) - _hill(_START)) / (top - _hill(_START))
    told = 0.9 if optimizer.asks != VALUE else 0.1 if name == "random" else 0.5
    assert told < made <= 1 + 1e-6


def test_cma_es_keeps_pace_with_its_reference():
    """evosax's CMA-ES and pycma, from the same start with the same spread and population."""
    import cma

    generations, population = 60, make_optimizer("cma_es").population
    theirs = cma.CMAEvolutionStrategy(
        list(np.asarray(_START, float)), 1.0, {"popsize": population, "seed": 1, "verbose": -9}
    )
    slope = jnp.asarray(_TOP).at[-1].set(3.0)  # inside: both without a bound to meet

    def loss(code):
        return ((code - slope) ** 2 * 10.0 ** jnp.linspace(0, 3, 6)).sum()

    losses = jax.jit(jax.vmap(loss))
    for _ in range(generations):
        asked = theirs.ask()
        theirs.tell(asked, [float(v) for v in losses(jnp.asarray(np.array(asked)))])

    wide = Box(jnp.full(6, -50.0), jnp.full(6, 50.0))
    optimizer = make_optimizer("cma_es")
    how = Setting(_START, jnp.float32(1.0), jax.random.key(1), jnp.float32(generations), wide)

    def one(state, step):
        codes, state = optimizer.ask(how, step, state)
        value = -losses(codes)
        return optimizer.tell(how, step, state, codes, Seen(value)), value.max()

    run = jax.jit(lambda: jax.lax.scan(one, optimizer.init(how), jnp.arange(generations) * 1.0)[1])
    ours, first = -float(run().max()), float(loss(_START))
    made = [np.log10(first / max(end, 1e-9)) for end in (ours, theirs.result.fbest)]
    assert made[0] > 0.6 * made[1] > 0.5  # orders of magnitude that either has gained


def test_names_are_rows_globs_and_variants():
    assert choose_optimizers(["goh", "*cma*", "goh"])[0] == "goh"
    assert len(choose_optimizers(["*cma*"])) == 3
    assert choose_optimizers(["optax:adamw", "adam+raw+cosine"]) == (
        "optax:adamw", "adam+raw+cosine"
    )  # fmt: skip
    assert set(choose_optimizers(["*"])) == set(OPTIMIZERS)
    assert make_optimizer("pocket").rates((0.1, 1.0)) == (RECIPES["pocket"].lr_start,)
    low, high = make_optimizer("goh+raw").rates((0.1, 1.0))
    assert high / low == pytest.approx(100)


@pytest.mark.parametrize("name, said", [
    ("adm", "did you mean adam"),
    ("adam+cosin", "did you mean cosine"),
    ("lbfgs+raw", "'lbfgs' has no variants, unlike goh,"),
    ("optax:polyak_sgd", "learning_rate"),
    ("optax:nothing", "is no optax optimizer"),
    ("cma_es+raw", "after 'cma_es\\+', an even number from 4 up, as in cma_es\\+40"),
    ("de+2", "an even number from 4 up"),
    ("ga+15", "an even number from 4 up"),
    ("ga+040", "an even number from 4 up"),
    ("ga+16", "is the row 'ga' itself"),
    ("xdream+40", "did you mean xdream_ga"),
    ("pocket+40", "'pocket' has no variants"),
    ("goh+40", "only gradient-free rows have a population"),
])  # fmt: skip
def test_unknown_optimizers_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        choose_optimizers([name])


@pytest.mark.parametrize("population", [4, 40])
@pytest.mark.parametrize("name", FREE)
def test_gradient_free_rows_take_another_population(name, population):
    variant = f"{name}+{population}"
    assert choose_optimizers([variant]) == (variant,)
    optimizer = make_optimizer(variant)
    assert (optimizer.population, optimizer.rate) == (population, make_optimizer(name).rate)
    how = Setting(_START, jnp.float32(0.5), jax.random.key(0), jnp.float32(3), _BOX)

    def one(state, step):
        codes, state = optimizer.ask(how, step, state)
        value = jax.vmap(_hill)(codes)
        return optimizer.tell(how, step, state, codes, Seen(value)), codes

    run = jax.jit(lambda: jax.lax.scan(one, optimizer.init(how), jnp.arange(3) * 1.0)[1])
    codes = run()
    assert codes.shape == (3, population, 6) and np.isfinite(codes).all()
    assert not (codes[1] == codes[2]).all()


def _xdream_generation(value):
    """Codes (400, 2000) of the first generation, sigma 0.5, and what follows of these values."""
    optimizer, start = make_optimizer("xdream_ga+400"), jnp.zeros(2000)
    how = Setting(
        start, jnp.float32(0.5), jax.random.key(0), jnp.float32(10), Box(start - 9, start + 9)
    )
    codes, state = optimizer.ask(how, jnp.float32(0), optimizer.init(how))
    assert float(codes[1:].std()) == pytest.approx(0.5, rel=0.02)
    told = optimizer.tell(how, jnp.float32(0), state, codes, Seen(jnp.asarray(value, jnp.float32)))
    return np.asarray(codes), np.asarray(told[:100]), np.asarray(told[100:])


def _parents(codes, children):
    """(children, codes): the share of a child's units that are a code's."""
    return np.array([(child == codes).mean(1) for child in children])


def test_xdream_ga_keeps_the_best_quarter_and_mutates_a_quarter_of_mixed_units():
    codes, survivors, children = _xdream_generation(np.arange(400.0)[::-1])
    np.testing.assert_array_equal(survivors, codes[:100])
    shares = np.sort(_parents(codes, children), axis=1)[:, ::-1]
    assert np.median(shares[:, 0]) == pytest.approx(0.75 * 0.75, abs=0.02)
    assert np.median(shares[:, 1]) == pytest.approx(0.75 * 0.25, abs=0.02)
    mutated = ~np.array([(child == codes).any(0) for child in children])
    assert mutated.mean() == pytest.approx(0.25, abs=0.01)
    sigma = children[mutated].std()  # a unit of sigma 0.5, moved by 0.75 as much
    assert sigma == pytest.approx(0.5 * np.hypot(1, 0.75), rel=0.05)


def test_xdream_ga_draws_parents_by_value_and_passes_over_what_is_not_finite():
    """Half the codes are worth 1, half 0: sigma is 0.5, so 1 is drawn e times as often as 0."""
    value = np.arange(400) % 2 * 1.0
    codes, _, children = _xdream_generation(value)
    first = _parents(codes, children).argmax(1)
    assert value[first].mean() == pytest.approx(np.e / (np.e + 1), abs=0.08)  # sd 0.026
    broken = np.where(np.arange(400) == 3, np.nan, value)
    codes, survivors, children = _xdream_generation(broken)
    assert np.isfinite(survivors).all() and (survivors != codes[3]).any(1).all()
    assert len(set(_parents(codes, children).argmax(1))) > 100


# --- without a rate of the run's own --------------------------------------------------------------


def _ascend(optimizer, steps, rate=None, box=_BOX):
    setting = Setting(_START, rate, jax.random.key(3), jnp.float32(steps), box)

    def one(state, step):
        codes, state = optimizer.ask(setting, step, state)
        told = jax.vmap(_hill)(codes), jax.vmap(jax.grad(_hill))(codes), jnp.zeros_like(codes)
        return optimizer.tell(setting, step, state, codes, Seen(*told)), codes

    return jax.jit(lambda: jax.lax.scan(one, optimizer.init(setting), jnp.arange(steps) * 1.0))()


@pytest.mark.parametrize("name", ["goh", "pocket", "dgn_am", "cnnpref", "adam"])
def test_a_recipe_without_a_rate_follows_its_own_schedule(name):
    recipe = make_recipe(name, steps=12)
    (end, _), codes = _ascend(from_recipe(recipe), 12)
    transform, code = recipes.make_transform(recipe), _START
    state = transform.init(code)
    for step in range(12):
        np.testing.assert_allclose(codes[step, 0], code, rtol=1e-5, atol=1e-6)
        gradient = jax.grad(_hill)(code)
        code, state = optimizers.move(recipe, _BOX, code, state, gradient, jnp.zeros(6))
    np.testing.assert_allclose(end, code, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["goh", "langevin", "lbfgs", "spectral", "xdream_ga"])
def test_without_a_rate_a_row_takes_its_own(name):
    optimizer = make_optimizer(name)
    _, codes = _ascend(optimizer, 6)
    _, same = _ascend(optimizer, 6, jnp.float32(optimizer.rate))
    np.testing.assert_allclose(codes, same, rtol=1e-4, atol=1e-5)


def test_rows_say_their_name_and_whether_they_freeze():
    for name in OPTIMIZERS:
        optimizer = make_optimizer(name)
        assert optimizer.name == name
        assert optimizer.freezes == (name not in (*FREE, "lbfgs", "spectral"))


def test_optax_transformations_take_the_recipes_box_and_normalisation():
    transform, recipe = optax.adamw(0.05), recipes.goh(steps=5)
    optimizer = make_optimizer(transform, recipe)
    assert optimizer is make_optimizer(transform, recipe) and optimizer.asks == GRADIENT
    _, codes = _ascend(optimizer, 60)
    np.testing.assert_array_equal(codes, project(_BOX, codes))
    assert _hill(codes[-1, 0]) > _hill(codes[0, 0])
    assert make_optimizer(transform, recipes.pocket(prior=0.05)).asks == PRIOR
    with pytest.raises(ValueError, match="needs more than gradients"):
        make_optimizer(optax.lbfgs(), recipe)
    for wrong in (3, object()):
        with pytest.raises(ValueError, match="expected a name such as adam"):
            make_optimizer(wrong, recipe)
    assert make_optimizer(None, recipe) is make_optimizer("", recipe)
    assert make_optimizer(optimizer) is optimizer


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"asks": "values"}, "asks is 'values', expected 'value' or 'gradient' or"),
        ({"population": 0}, "population is 0, expected 1 or more"),
        ({"freezes": True}, "freezes needs a population of 1 and its gradient"),
        ({"population": 4}, r"ask gives codes \(1, 6\), expected \(4, 6\)"),
        (
            {"ask": lambda s, step, state: (state, state)},
            r"ask gives codes \(6,\), expected \(1, 6",
        ),
        ({"ask": lambda s, step, state: (state[None, :5], state)}, r"ask gives codes \(1, 5\)"),
        ({"ask": lambda s, step, state: state[None]}, r"ask gives \(1, 6\), expected \(codes"),
        ({"tell": lambda *a: None}, r"tell gives None, expected a state like that .*\(6,\)"),
        (
            {"tell": lambda s, step, state, codes: codes[0]},
            "tell.* fails: .* 4 positional arguments",
        ),
        ({"tell": lambda *a: a[4].gradient[0]}, ".*seen.gradient is None unless asks is"),
        ({"init": lambda s: s.start + jnp.ones(5)}, r"init\(setting\) fails"),
    ],
)
def test_an_own_optimizer_is_checked_by_shapes(changes, said):
    start = {"init": lambda s: s.start, "ask": lambda s, step, state: (state[None], state)}
    fields = {"asks": "value", "rate": 1.0, "tell": lambda *a: a[3][0]} | start
    check_protocol(Optimizer("own", **fields), _BOX)
    with pytest.raises(ValueError, match=f"^optimizer 'own': {said}") as error:
        check_protocol(Optimizer("own", **fields | changes), _BOX)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*FREE, "ppgn", "langevin", "lbfgs", "spectral", "adam"])
def test_rows_keep_to_the_protocol(name):
    check_protocol(make_optimizer(name), _BOX)


def test_sphere_cma_keeps_the_norm_of_the_start_without_a_box():
    free = Box(jnp.full(6, -jnp.inf), jnp.full(6, jnp.inf))
    _, codes = _ascend(gradient_free.sphere_cma(4), 3, box=free)
    norms = np.linalg.norm(codes, axis=-1)
    np.testing.assert_allclose(norms, np.linalg.norm(_START), rtol=1e-5)


def test_functions_of_the_library_make_the_rows():
    assert set(gradient_free.ROWS) == set(FREE)
    assert gradient_free.cma_es(population=16) is make_optimizer("cma_es")
    assert gradient_free.sphere_cma(40).population == 40
    assert optimizers.langevin(0.1).rate == 0.1


# --- recipes --------------------------------------------------------------------------------------


def test_recipes_are_changed_by_field():
    assert recipes.goh(steps=60) == RECIPES["goh"].__class__(steps=60)
    assert recipes.cnnpref(optimizer="adam").optimizer_args == ()
    assert make_recipe(recipes.adam(), steps=1).optimizer == "adam"
    with pytest.raises(ValueError, match=r"'stepz' is no setting of one \(did you mean steps\?\)"):
        recipes.goh(stepz=1)
    with pytest.raises(ValueError, match="did you mean pocket"):
        make_recipe("pocke")


def test_start_codes_have_the_covariance_of_the_factor():
    mean, factor = np.array([1.0, -2.0, 0.5]), np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    code = Code(np.full(3, 9.0), mean=mean, sigma=np.ones(3), factor=factor)
    recipe = recipes.goh(start="code", box="none")
    box = make_box(recipe, 3, None, np.float32)
    codes = start_codes(recipe, box, jax.random.key(0), np.arange(4000), code)
    np.testing.assert_allclose(codes.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(np.cov(codes.T), factor @ factor.T, atol=0.3)


def test_a_box_may_have_lower_bounds():
    upper, lower = np.arange(1.0, 4.0), np.array([-1.0, 0.0, 0.5])
    box = make_box(RECIPES["goh"], 3, upper, np.float32, lower)
    np.testing.assert_array_equal(box.lower, lower)
    assert not make_box(RECIPES["goh"], 3, upper, np.float32).lower.any()
