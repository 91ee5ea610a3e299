"""The shipped pocket pair with the real open_nsfw: what a user meets out of the box."""

import dataclasses

import jax
import numpy as np
import pytest
from short import Run, Sweep, models, parse_term, synthesize

from jaxsynth import RECIPES, load_network
from jaxsynth.arithmetic import has_bfloat16
from jaxsynth.devices import share_rows
from jaxsynth.models import compiled
from jaxsynth.models.weights import file_record
from jaxsynth.starts import still
from jaxsynth.system import view

pytestmark = pytest.mark.full_size  # open_nsfw is one of them


@pytest.fixture(scope="module")
def networks():
    roles = {"generator": "pocket_generator", "places": "pocket_places", "nsfw": "open_nsfw"}
    return {role: load_network(name) for role, name in roles.items()}


def _pair(networks, classifier):
    return {role: networks[role] for role in ("generator", classifier)}


def term(text, networks):
    return parse_term(text, networks)


def test_the_pair_fits_together(networks):
    generator, places = networks["generator"], networks["places"]
    assert generator.info.encoder == "pocket_encoder" and places.name == "pocket_places"
    assert len(places.labels) == 100 and "iceberg" in places.labels
    assert "non-commercial" in generator.info.licence and "non-commercial" in places.info.licence
    size = generator.input_shape[0]
    code = generator.code
    assert code.upper.shape == code.mean.shape == code.sigma.shape == (size,)
    assert (code.mean == 0).all() and (code.sigma == 1).all()  # whitened: N(0, 1) is natural
    assert (code.upper == 3).all() and (code.lower == -3).all()


def test_the_encoder_is_the_very_file_that_is_shipped(networks):
    wanted = networks["generator"].info.encoder_sha256
    assert wanted and wanted == file_record("pocket_encoder")["sha256"]


def test_the_judge_is_another_network_with_the_same_categories(networks):
    judge, places = load_network("pocket_judge"), networks["places"]
    assert type(judge.info.config) is not type(places.info.config)
    assert judge.labels == places.labels


def test_scenes_are_reached_and_the_judge_sees_them(networks):
    scenes = ("desert-sand", "iceberg", "corn_field", "bamboo_forest")
    runs = [Run(0, (term(f"places:log_odds:{scene}:1", networks),)) for scene in scenes]
    last = synthesize(_pair(networks, "places"), runs, Sweep(RECIPES["pocket"], batch=4)).last
    labels = networks["places"].labels
    p = [last.watched["places"]["prob"][i, labels.index(s)] for i, s in enumerate(scenes)]
    assert min(p) >= 0.5 and np.median(p) >= 0.99
    judge = load_network("pocket_judge")
    seen = jax.jit(jax.vmap(judge.apply, (None, 0)))(judge.params, view(last.image, 64))["prob"]
    top5 = np.argsort(-np.asarray(seen), axis=1)[:, :5]
    seen = [labels.index(s) in row for s, row in zip(scenes, top5, strict=True)]
    assert sum(seen) >= 3


def test_random_codes_score_low_and_not_zero(networks):
    pair, runs = _pair(networks, "nsfw"), [Run(seed, ()) for seed in range(16)]
    result = synthesize(pair, runs, Sweep(still(models(pair)["generator"]), batch=16))
    nsfw = result.last.watched["nsfw"]["prob"][:, 1]
    assert 0.001 <= nsfw.mean() <= 0.2  # the target is 0.01 to 0.2 over many more seeds
    assert nsfw.min() > 0


def test_both_ends_of_the_nsfw_neuron_are_reached(networks):
    up, down = (term(f"nsfw:log_odds:NSFW:{w}", networks) for w in (1, -1))
    runs = [Run(0, (t,)) for t in (up, down)]
    last = synthesize(_pair(networks, "nsfw"), runs, Sweep(RECIPES["pocket"], batch=2)).last
    high, low = last.watched["nsfw"]["prob"][:, 1]
    assert high >= 0.9 and low <= 0.005  # processors round differently: not the shares' targets


@pytest.mark.parametrize(("batch", "precision"), [(8, "float32"), (4, "bfloat16")])
def test_a_run_does_not_depend_on_its_place_in_the_chunk(networks, batch, precision):
    if precision == "bfloat16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16")  # launchers take float32 there
    last, alone = maximise_mountain(networks, batch, (batch, 1), precision)
    np.testing.assert_array_equal(last.codes[-1], alone.codes[0])
    np.testing.assert_array_equal(last.last.image[-1], alone.last.image[0])


def test_where_convolutions_are_left_to_ynnpack_a_spare_row_takes_the_last_place(
    networks, monkeypatch
):
    """It rounds the last row of a batch differently; runs must not show it."""
    monkeypatch.setattr(compiled, "_known_options", lambda: None)
    assert (share_rows(4), share_rows(1)) == (5, 1)
    last, alone = maximise_mountain(networks, 4, (4, 1))
    np.testing.assert_array_equal(last.codes[-1], alone.codes[0])


def test_nor_does_one_of_nsfw_with_the_prior(networks):
    networks = _pair(networks, "nsfw") | {"encoder": load_network("pocket_encoder")}
    recipe = dataclasses.replace(RECIPES["pocket"], steps=2, prior=0.05)
    runs = [Run(seed, (term("nsfw:log_odds:NSFW:1", networks),)) for seed in range(2)]
    last, alone = (synthesize(networks, some, Sweep(recipe, batch=2)) for some in (runs, runs[1:]))
    np.testing.assert_array_equal(last.codes[1], alone.codes[0])


def maximise_mountain(networks, batch, counts, precision="float32"):
    """Sweeps of the last `counts` seeds of 1 to 8, seed 1 the last of all."""
    pair = {
        role: load_network(networks[role].name, dtype=precision) for role in ("generator", "places")
    }
    mountain = term("places:logits:mountain:1", networks)
    recipe = dataclasses.replace(RECIPES["goh"], steps=2)
    settings = Sweep(recipe, batch=batch, precision=precision)
    runs = [Run(seed, (mountain,)) for seed in (*range(2, 9), 1)]
    return [synthesize(pair, runs[-count:], settings) for count in counts]
