"""The search of an audit against the library's own, on tiny networks."""

import jax
import numpy as np
import pytest
from tiny import tiny_networks

import jaxsynth as js
from jaxsynth.audit.networks import LOG_ODDS, LOG_PROB, Network, Prior
from jaxsynth.audit.subjects import DECISION, make_subject
from jaxsynth.audit.synthesis import added, negative, search, start_codes
from jaxsynth.models.registry import to_model
from jaxsynth.recipes import make_recipe
from jaxsynth.starts import still


@pytest.fixture(scope="module")
def models():
    return {role: to_model(network) for role, network in tiny_networks().items()}


def test_a_search_makes_the_steps_of_the_library(models):
    """One classifier, its opposite, and two in the balance `image`; all with random moves."""
    generator, places = models["generator"], models["places"]
    nsfw = make_subject(models["nsfw"], ("NSFW",)).model
    networks = {model.name: Network(model) for model in (places, nsfw)}
    scene, decided = networks[places.name].goal(LOG_PROB, 1), networks[nsfw.name].goal(DECISION)
    recipe = make_recipe("pocket", steps=4)
    goals = [scene, negative(decided), added(scene, decided)]
    ends = search(Prior(generator), networks, goals, [3] * 3, recipe)
    scene = places.log_prob(1)
    goals = [scene, -nsfw.log_odds("NSFW"), scene + nsfw.log_odds("NSFW")]
    runs = js.sweep(dict(zip("abc", goals, strict=True)), generator, seeds=[3], recipe=recipe)
    both = np.stack([runs.codes, runs.best_codes])
    assert np.abs(both - ends.codes).max(2).min(0).max() < 1e-3
    assert ends.sound.all() and ends.images.shape == (3, 16, 16, 3)


def test_random_codes_are_those_of_a_run_without_steps(models):
    generator = models["generator"]
    runs = js.sweep(js.objectives.Objective(()), generator, seeds=3, recipe=still(generator))
    prior = Prior(generator)
    codes = start_codes(prior, still(generator), range(3))
    np.testing.assert_array_equal(codes, runs.codes)
    shown = generator.preprocess.show(prior.draw(codes))
    assert np.abs(shown.astype(int) - runs.images).max() <= 1


def test_readings_and_their_slopes(models):
    """Against the classifier itself, and differences of its values."""
    subject = make_subject(models["places"], ("abbey", "dam"))
    network = Network(subject.model)
    x = np.random.default_rng(0).normal(0, 40, (5, 16, 16, 3)).astype(np.float32)
    readings = network.read(x)
    apply = jax.jit(subject.model.activations)
    acts = [apply(subject.model.params, one) for one in x]
    for blob in (LOG_ODDS, LOG_PROB, DECISION):
        expected = np.stack([one[blob] for one in acts])
        np.testing.assert_allclose(network.part(readings, blob), expected, rtol=1e-4, atol=1e-4)
    for blob in network.blobs:
        expected = np.stack([one[blob].mean((0, 1)) for one in acts])
        np.testing.assert_allclose(network.part(readings, blob), expected, rtol=1e-4, atol=1e-4)
    w = network.weights(DECISION)
    again, slope, _ = network.slopes(x, w)
    np.testing.assert_allclose(again, readings, rtol=1e-4, atol=1e-4)
    step = 1e-2 * slope / np.sqrt((slope**2).mean())
    gain = (network.read(x + step) - network.read(x - step)) @ w / 2
    np.testing.assert_allclose(gain, (slope * step).sum((1, 2, 3)), rtol=2e-2)
