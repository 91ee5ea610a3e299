"""Changes of pictures, smallest flips and removed units, each against what is known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsynth as js
from jaxsynth.audit import changes, stages
from jaxsynth.audit.changes import CHANGES, change
from jaxsynth.audit.networks import Network, Prior
from jaxsynth.audit.subjects import make_subject


@given(st.sampled_from(CHANGES), st.integers(4, 40), st.integers(4, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_change_gives_a_picture(name, height, width, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    made = change(rgb, name)
    assert made.dtype == np.uint8 and made.ndim == 3 and made.shape[2] == 3
    if not name.startswith(("crop", "bars")):
        assert made.shape == rgb.shape
    assert np.array_equal(change(rgb, "as it is"), rgb)


def test_changes_are_what_their_names_say():
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[:, :10] = (250, 10, 10)
    assert np.array_equal(change(rgb, "mirror"), rgb[:, ::-1])
    assert np.array_equal(change(rgb, "crop, upper left 80 %"), rgb[:16, :16])
    assert change(rgb, "crop, middle 50 %").shape == (10, 10, 3)
    assert np.ptp(change(rgb, "grey"), axis=-1).max() == 0
    assert np.abs(change(rgb, "hue + 180 degrees")[5, 5] - (10, 250, 250)).max() <= 4
    assert change(rgb, "brightness x 0.6")[5, 5, 0] == 150
    bars = change(rgb, "bars left and right")
    assert bars.shape == (20, 40, 3) and not bars[:, :9].any() and bars[:, 11:19].any()
    grid = change(rgb, "thumbnails 2 x 2")
    assert (grid[0] == 255).all() and np.array_equal(grid[1:9, 1:9], grid[10:18, 10:18])


WEIGHTS = np.random.default_rng(1).normal(0, 1, (4, 4, 3)).astype(np.float32)


def _linear(params, x):
    """The decision of class `yes` is linear in the pixels, and its maps are the pixels."""
    maps = x * 2.0
    value = (maps * params).sum() - 3.0
    return {"maps": maps, "logits": jnp.stack([0 * value, value])}


@pytest.fixture(scope="module")
def linear():
    units = js.Preprocess(mean=(0.5, 0.5, 0.5))
    model = js.Classifier(
        *(_linear, jnp.asarray(WEIGHTS), 4, ("no", "yes"), units), logits="logits", name="linear"
    )
    return Network(make_subject(model, ("yes",)).model)


def _decision(x):
    return 2 * (x * WEIGHTS).sum((1, 2, 3)) - 3


def test_a_linear_decision_flips_at_its_distance(linear):
    x = np.random.default_rng(2).normal(0, 0.02, (11, 4, 4, 3)).astype(np.float32)
    flip = changes.flip_pixels(linear, x, 0.5)
    np.testing.assert_allclose(flip.odds[:, 0], _decision(x), rtol=1e-4)
    assert (np.sign(flip.odds[:, 1]) == -np.sign(flip.odds[:, 0])).all()
    away = np.abs(_decision(x)) / np.linalg.norm(2 * WEIGHTS)  # to the plane, in model units
    rms = 255 * away / np.sqrt(x[0].size)
    np.testing.assert_allclose(changes.distances(flip)["grey levels"], rms, rtol=0.05)


def test_codes_flip_by_way_of_the_generator(linear):
    """An affine generator: the plane's distance is that of the product."""
    basis = np.random.default_rng(3).normal(0, 0.1, (6, 4 * 4 * 3)).astype(np.float32)
    units = js.Preprocess(mean=(0.5, 0.5, 0.5))
    generator = js.Generator(
        lambda params, z: (z @ params).reshape(4, 4, 3), basis, 6, preprocess=units
    )
    codes = np.random.default_rng(4).normal(0, 1, (3, 6)).astype(np.float32)
    flip = changes.flip_codes(linear, Prior(generator), codes, 0.5)
    slope = basis @ (2 * WEIGHTS).ravel()
    away = np.abs(codes @ slope - 3) / np.linalg.norm(slope) / np.sqrt(6)
    np.testing.assert_allclose(flip.code, away, rtol=0.05)


def test_points_stay_within_their_limits_and_say_that_they_did_not_cross():
    def slope(x):
        return x.sum(1) - 10, np.ones_like(x)

    x, odds = changes.cross(slope, np.zeros((2, 3), np.float32), 0.0, 1.0, (0.0, 2.0))
    assert x.max() == 2 and (odds[:, 1] == -4).all()


def _two_maps(params, x):
    """Channel 0 decides, channel 1 hardly, channel 2 is constant."""
    maps = jnp.stack([x[..., 0], x[..., 1], 0 * x[..., 0] + 5], -1)
    pooled = jax.nn.relu(maps).mean((0, 1))
    value = 4 * pooled[0] + 0.5 * pooled[1] + 100 * pooled[2]
    return {"maps": maps, "logits": jnp.stack([0 * value, value])}


def test_the_unit_that_decides_is_found_and_removed_in_earnest():
    model = js.Classifier(_two_maps, {}, 6, ("no", "yes"), logits="logits", name="m")
    network = Network(make_subject(model, ("yes",)).model)
    x = np.random.default_rng(5).uniform(0, 1, (9, 6, 6, 3)).astype(np.float32)
    assert network.blobs == ("maps",)
    first, second, third = stages.important_units(network, x, 3)
    assert (first.channel, second.channel, third.channel) == (0, 1, 2)
    means = x.mean((1, 2))
    np.testing.assert_allclose(first.change, 4 * (means[:, 0].mean() - means[:, 0]), atol=1e-3)
    np.testing.assert_allclose(first.response, means[:, 0], atol=1e-5)
    assert first.estimate == pytest.approx(np.abs(first.change).mean(), rel=1e-3)
    np.testing.assert_allclose(third.change, 0, atol=1e-3)


def test_maps_that_nothing_reads_cannot_be_removed():
    inner = jax.jit(_two_maps)  # its maps are outputs alone
    model = js.Classifier(inner, {}, 6, ("no", "yes"), logits="logits", name="m")
    network = Network(make_subject(model, ("yes",)).model)
    assert network.blobs == () and stages.important_units(network, np.zeros((1, 6, 6, 3)), 1) == []
