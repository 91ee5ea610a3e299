"""The trainers on a handful of synthetic pictures: data, folding, resuming, exporting."""

import dataclasses
import io
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image

from jaxsynth.maximize import encode
from jaxsynth.models.layers import upsample_conv
from jaxsynth.models.network import make_apply
from jaxsynth.models.pocket import pocket_generator, pocket_places
from jaxsynth.models.weights import load_encoder, load_network
from jaxsynth.training.adversary import critic_step, init_critic
from jaxsynth.training.augment import random_crop_flip, to_input
from jaxsynth.training.batch_norm import fold_batch_norm
from jaxsynth.training.code import measure_code, rescale_code
from jaxsynth.training.convolution import matmul_conv
from jaxsynth.training.data import load_images
from jaxsynth.training.devices import place_on
from jaxsynth.training.inversion import (
    PIXEL_SCALE,
    InversionTraining,
    fold_scales,
    generate,
    init_inversion,
    unfold_scales,
)
from jaxsynth.training.inversion_run import InversionRun, train_inversion
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.pair import (
    CodeScale,
    PairTraining,
    following_loss,
    init_pair,
    lost_variance,
    pair_step,
)
from jaxsynth.training.pair_run import PairRun, train_pair
from jaxsynth.training.scene import SceneState, SceneTraining, init_scene, normed_logits, scene_step
from jaxsynth.training.scene_run import SceneRun, first_state, train_scene

CLASSES = ("blue", "red", "white")
LAYOUT = ("NHWC", "HWIO", "NHWC")
shares_a_pair = pytest.mark.xdist_group("pair")  # its fixtures are trained once, by one worker


def _picture(name: str, seed: int) -> Image.Image:
    colour = {"blue": (20, 40, 220), "red": (220, 40, 20), "white": (230, 230, 230)}[name]
    noise = np.random.default_rng(seed).integers(-20, 20, (40, 40, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def _bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two training zips, one of their members broken, and a folder of validation images."""
    folder = tmp_path_factory.mktemp("data")
    for part in range(2):
        with zipfile.ZipFile(folder / f"tiny-train-{part}.zip", "w") as z:
            for name in CLASSES:
                for i in range(3):
                    z.writestr(f"{name}/{part}{i}.png", _bytes(_picture(name, 10 * part + i)))
            if part:
                z.writestr("red/broken.png", b"no picture at all")
    for name in CLASSES:
        (folder / "val" / name).mkdir(parents=True)
        for i in range(2):
            _picture(name, 100 + i).save(folder / "val" / name / f"{i}.png")
    return folder


def _scene_run(data, tmp_path, out, **loop):
    config = LoopConfig(out=tmp_path / out, **({"batch": 6, "report_steps": 1, "epochs": 4} | loop))
    return SceneRun(
        data=data,
        cache=tmp_path / "cache",
        size=32,
        width=4,
        code=8,
        loop=config,
        training=SceneTraining(rate=0.1),
    )


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A scene network trained for 4 epochs, and what the run said."""
    tmp_path, lines = tmp_path_factory.mktemp("scene"), []
    path, figures = train_scene(_scene_run(data, tmp_path, "run"), say=lines.append)
    return path, figures, lines


def test_zips_and_folders_are_read_and_broken_files_named(data, tmp_path):
    train = load_images(data, "train", 36, tmp_path)
    val = load_images(data, "val", 32, tmp_path, train.classes)
    assert train.classes == CLASSES
    assert (len(train.rows), len(val.rows)) == (18, 6)
    assert len(train.skipped) == 1 and "red/broken.png" in train.skipped[0]
    row = train.rows[np.flatnonzero(train.labels[train.rows] == 0)[0]]
    np.testing.assert_allclose(train.images[row].mean((0, 1)), (20, 40, 220), atol=6)
    again = load_images(data, "train", 36, tmp_path)
    assert isinstance(again.images, np.memmap) and again.skipped == train.skipped


def test_plain_class_folders_hold_out_every_tenth_file(tmp_path):
    for i in range(20):
        (tmp_path / "red").mkdir(exist_ok=True)
        _picture("red", i).save(tmp_path / "red" / f"{i:02}.png")
    train = load_images(tmp_path, "train", 32, tmp_path / "cache")
    val = load_images(tmp_path, "val", 32, tmp_path / "cache", train.classes)
    assert (len(train.rows), len(val.rows)) == (18, 2)


@pytest.mark.parametrize("make, message", [
    (lambda d: d / "absent", "no such folder"),
    (lambda d: d, "expected \\*train\\*.zip"),
])  # fmt: skip
def test_bad_data_is_one_clear_line(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        load_images(make(tmp_path), "train", 32, tmp_path / "cache")


@pytest.mark.parametrize("smooth", [False, True])
def test_upsample_conv_is_upsampling_then_convolution(smooth):
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
    if smooth:
        wide = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        big = jax.image.resize(wide, (2, 18, 20, 3), "linear", antialias=False)[:, 3:15, 3:17]
    else:
        big = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        big = jnp.pad(big, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = lax.conv_general_dilated(big, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)
    for conv in (None, matmul_conv):
        made = jax.jit(partial(upsample_conv, smooth=smooth, conv=conv))(x, kernel)
        np.testing.assert_allclose(made, expected, atol=2e-5)


@pytest.mark.parametrize("side", [8, 32])
def test_matmul_conv_and_its_gradients_are_those_of_lax(side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def total(conv, x, kernel):
        y = conv(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)
        return jnp.sum(jnp.sin(y))

    made = jax.jit(jax.value_and_grad(partial(total, matmul_conv), (0, 1)))(x, kernel)
    expected = jax.jit(jax.value_and_grad(partial(total, lax.conv_general_dilated), (0, 1)))(
        x, kernel
    )
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_augmentation_keeps_the_picture():
    rgb = np.tile(np.arange(72, dtype=np.uint8)[None, None, :, None], (4, 72, 1, 3))
    crop = jax.jit(random_crop_flip, static_argnums=(2, 3))
    whole = crop(jax.random.key(0), rgb, 64, 1.0)
    slope = np.asarray(whole[:, 32, 40, 0] - whole[:, 32, 20, 0]) * 64 / 72 / 20
    np.testing.assert_allclose(abs(slope), 1.0, atol=0.01)  # never stretched
    assert set(np.sign(slope)) == {-1.0, 1.0}  # mirrored or not
    grey = crop(jax.random.key(1), np.full((4, 72, 72, 3), 90, np.uint8), 64, 0.7)
    expected = np.broadcast_to(to_input(np.full(3, 90)), grey.shape)
    np.testing.assert_allclose(grey, expected, atol=1e-4)


def test_folding_batch_norm_and_rescaling_the_code_keep_the_function(data, tmp_path):
    config = pocket_places(size=32, code=8, classes=3, width=4)
    state = init_scene(0, config, SceneTraining())
    rng = np.random.default_rng(1)

    def jitter(v):
        return v * rng.uniform(0.5, 1.5, v.shape).astype(np.float32) + 0.1

    state = SceneState(*(jax.tree.map(jitter, part) for part in state[:2]), state.opt)
    x = 60 * jax.random.normal(jax.random.key(2), (3, 32, 32, 3))
    images = load_images(data, "train", 36, tmp_path)
    apply = make_apply(config)
    plain = fold_batch_norm(state.params, state.batch_stats, "conv1")
    encode = jax.vmap(lambda p, v: apply(p, v)["fc6"], (None, 0))
    scaled = rescale_code(plain, measure_code(encode, plain, images, 32))
    expected = normed_logits(config, state, x)
    logits_fn = jax.jit(jax.vmap(lambda p, v: apply(p, v)["fc8"], (None, 0)))
    for params in (plain, scaled):
        logits = logits_fn(params, x)
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    stats = measure_code(encode, scaled, images, 32)
    assert stats.upper.mean() == pytest.approx(11.85, rel=1e-4)
    np.testing.assert_allclose(stats.upper, stats.mean + 3 * stats.sigma, rtol=1e-5)


def test_folded_generator_scales_keep_the_function():
    config = pocket_generator(size=32, code=8, width=2)
    params = init_inversion(0, config, InversionTraining()).params
    code = jax.random.uniform(jax.random.key(1), (8,), maxval=12.0)
    folded = fold_scales(params, config, 4.0)
    plain = jax.jit(make_apply(config))(folded, code)["conv0"]
    trained = PIXEL_SCALE * jax.jit(partial(generate, config))(params, code[None] / 4.0)[0]
    np.testing.assert_allclose(plain, trained, rtol=1e-3, atol=1e-2)
    back = unfold_scales(folded, config, 4.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), back, params)


def test_the_scene_network_learns_and_loads(trained):
    path, figures, lines = trained
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if "img/s" in line]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert figures["val top-5"] == 1.0
    assert any(line.startswith("skipped") and "red/broken.png" in line for line in lines)
    network = load_network(path)
    assert network.labels == CLASSES and network.info.preprocessing == "resize32"


def test_a_resumed_run_gives_the_same_weights(data, tmp_path, trained):
    say = lambda line: None  # noqa: E731
    train_scene(_scene_run(data, tmp_path, "run", max_steps=5), say=say)
    path, _ = train_scene(_scene_run(data, tmp_path, "run"), say=say)
    resumed, whole = load_network(path), load_network(trained[0])
    for name, value in whole.params.items():
        np.testing.assert_array_equal(value, resumed.params[name], err_msg=name)
    with pytest.raises(ValueError, match="seed=0, not 1"):
        train_scene(_scene_run(data, tmp_path, "run", seed=1), say=say)


def test_two_seeds_differ():
    config = pocket_places(size=32, code=8, classes=3, width=4)
    states = [init_scene(seed, config, SceneTraining()) for seed in (0, 1)]
    kernels = [state.params["conv1"]["kernel"] for state in states]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 1e-3


def test_the_generator_learns_and_loads(data, tmp_path, trained):
    lines = []
    run = InversionRun(
        data=data, cache=tmp_path / "cache", encoder=str(trained[0]), width=2,
        loop=LoopConfig(out=tmp_path / "run", batch=6, epochs=20, report_steps=1),
        training=dataclasses.replace(InversionTraining(), rate=1e-2),
    )  # fmt: skip
    path, figures = train_inversion(run, say=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if "img/s" in line]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert set(figures) == {"agreement", "cosine", "kept", "silent", "rms"}
    network = load_network(path)
    assert network.info.encoder == "pocket_places"
    assert network.code.upper.shape == network.code.mean.shape == (8,)
    assert (tmp_path / "run" / "reconstructions.png").is_file()


@pytest.fixture(scope="module")
def generator(data, tmp_path_factory, trained):
    """A generator that inverts the trained network, not well."""
    tmp_path = tmp_path_factory.mktemp("generator")
    run = InversionRun(
        data=data, cache=tmp_path / "cache", encoder=str(trained[0]), width=2,
        loop=LoopConfig(out=tmp_path / "run", batch=6, epochs=1),
        training=InversionTraining(rate=1e-2, adversary=0),
    )  # fmt: skip
    return train_inversion(run, say=lambda line: None)[0]


PAIR = PairTraining(
    adversary=0.0,
    temperature=1.0,
    mutual=0.0,
    shared=0.0,
    through=0.0,
    noise=0.0,
    photographs=0.0,
    jitter=0,
    grain=0.0,
)


PAIR_BOTH = dataclasses.replace(PAIR, mutual=1.0)


@pytest.fixture(scope="module")
def pair_steps():
    """A function that makes so many steps of a random scene network and a random generator."""
    scene = pocket_places(size=32, code=8, classes=3, width=4)
    painter = pocket_generator(size=32, code=8, width=2)
    fresh = init_scene(0, scene, SceneTraining())
    drawn = init_inversion(0, painter, InversionTraining(adversary=0)).params
    rgb = np.random.default_rng(0).integers(0, 256, (12, 36, 36, 3), dtype=np.uint8)
    scale = CodeScale(jnp.float32(1.0), jnp.full(8, 0.5))

    @partial(jax.jit, static_argnames=("training", "adversarial"))
    def step(state, traced, key, training, adversarial):
        """Compiled once for all weights of the losses, which are data here."""
        training = dataclasses.replace(training, **traced)
        args = rgb, np.arange(12) % 3, key, jnp.float32(0.5)
        return pair_step(scene, painter, training, "float32", adversarial, state, scale, *args)

    weights = [name for name, value in vars(PAIR).items() if isinstance(value, float)]
    weights = sorted({*weights} - {"temperature", "warm_up"})

    def steps(count, **changes):
        training = dataclasses.replace(PAIR, **changes)
        state = init_pair(0, painter, training, fresh.params, fresh.batch_stats, drawn)
        traced = {name: jnp.float32(getattr(training, name)) for name in weights}
        plain = dataclasses.replace(training, **dict.fromkeys(weights, 0.0))
        first, seen = state, []
        for i in range(count):
            state, metrics = step(state, traced, jax.random.key(i), plain, training.adversary > 0)
            seen.append({name: float(value) for name, value in metrics.items()})
        jax.tree.map(np.testing.assert_array_equal, state.batch_stats, first.batch_stats)
        return state, seen

    return steps


def _same(a, b) -> bool:
    """Whether two trees are one up to rounding."""
    return all(
        np.allclose(x, y, rtol=1e-5, atol=1e-6)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_a_pair_learns_to_read_what_it_paints(pair_steps):
    _, seen = pair_steps(60, scene_rate=2e-3, generator_rate=2e-3)
    first = seen[0]
    last = {name: np.mean([step[name] for step in seen[-10:]]) for name in first}  # steps differ
    assert last["code"] < 0.1 * first["code"] and last["feature"] < 0.8 * first["feature"]
    assert last["agreement"] > first["agreement"]


def test_what_is_read_is_photographs_moved_and_with_noise(pair_steps):
    _, (still,) = pair_steps(1, photographs=1.0)
    assert still["code"] < 1e-10 and still["agreement"] == 1
    for disturbed in ({"jitter": 2}, {"grain": 12.0}):
        assert pair_steps(1, photographs=1.0, **disturbed)[1][0]["code"] > 1e-4


def test_which_loss_moves_which_network(pair_steps):
    """Features and shared texture move the generator alone, following E alone; the generator's
    losses reach E by the code, as far as `through`."""
    plain, _ = pair_steps(1)
    changes = {"feature": 0.0, "shared": 1.0, "mutual": 1.0, "through": 1.0}
    made = {name: pair_steps(1, **{name: value})[0] for name, value in changes.items()}
    moved = {
        (name, part): not _same(plain.params[part], state.params[part])
        for name, state in made.items()
        for part in ("scene", "generator")
    }
    assert {of for of, differs in moved.items() if differs} == {
        ("feature", "generator"), ("shared", "generator"), ("mutual", "scene"), ("through", "scene")
    }  # fmt: skip


def test_following_brings_readings_together(pair_steps):
    """Where the prediction of x follows, a generator that stands still is agreed with sooner."""
    (_, (*_, alone)), (_, (*_, both)) = (
        pair_steps(20, generator_rate=0.0, code=0.0, agreement=4.0, mutual=m) for m in (0.0, 1.0)
    )
    assert both["agreement"] > alone["agreement"]


def test_a_smaller_code_is_no_nearer():
    rng = np.random.default_rng(0)
    real, made = ({"fc6": rng.normal(size=(6, 8)), "logits": rng.normal(size=(6, 3))} for _ in "rm")
    half = [{**out, "fc6": 0.5 * out["fc6"]} for out in (real, made)]
    assert np.allclose(
        *(following_loss(PAIR_BOTH, np.ones(8), *pair) for pair in ((real, made), half))
    )


def test_no_unit_makes_up_for_another():
    """Half of the variance is lost, however strong or constant any unit is."""
    rng, units = np.random.default_rng(0), 64
    ones, one = np.ones(units), np.arange(units) == 2
    real = rng.normal(size=(4096, units))
    made = real + np.sqrt(0.55) * rng.normal(size=real.shape)  # a tenth is added to the variance
    strength, constant = np.geomspace(1, 10, units), 100.0 * one
    assert np.allclose(lost_variance(made, real, ones), 0.5, rtol=0.03)
    scaled = [strength * (code + constant) for code in (made, real)]
    assert np.allclose(lost_variance(*scaled, strength), 0.5, rtol=0.03)
    grown = [np.where(one, 30.0, 1.0) * code for code in (made, real)]
    assert 0.4 < lost_variance(*grown, ones) < 0.6  # what all others lose stays in sight


def test_images_of_strong_codes_do_not_rule_what_is_lost():
    """Of a thousand images half come back, those whose codes are three times as strong."""
    real = np.random.default_rng(0).normal(size=(1000, 32))
    strong = np.arange(1000)[:, None] % 2 == 0
    real = np.where(strong, 3.0, 1.0) * real  # the others have a tenth of the squares
    made = np.where(strong, real, 0.0)
    assert 0.3 < lost_variance(made, real, np.ones(32)) < 0.5


def test_silent_units_stay_finite_and_no_scale_of_codes_counts():
    rng = np.random.default_rng(0)
    real, made = np.abs(rng.normal(size=(2, 32, 8)))
    real[:, 2], real[:, 3] = 0.0, 1e-3 * (np.arange(32) == 5)  # silent, and nearly so
    slopes_of = jax.value_and_grad(lost_variance, (0, 1))
    for sigma in (np.ones(8), np.where(np.arange(8) == 2, 0.0, 1.0)):
        value, slopes = slopes_of(made, real, sigma)
        assert value < 2e3 and all(np.abs(slope).max() < 1e3 for slope in slopes)
        along = sum(np.sum(slope * code) for slope, code in zip(slopes, (made, real), strict=True))
        assert abs(along) < 1e-3 * value  # a scale of both changes nothing
    value, slopes = slopes_of(np.ones((32, 8)), np.ones((32, 8)), np.ones(8))  # no unit varies
    assert value == 0 and all(np.isfinite(slope).all() for slope in slopes)


def test_a_scale_of_codes_without_silent_units_changes_nothing():
    real, made = np.abs(np.random.default_rng(0).normal(size=(2, 32, 8)))
    value, slopes = jax.value_and_grad(lost_variance, (0, 1))(made, real, np.ones(8))
    along = sum(np.sum(slope * code) for slope, code in zip(slopes, (made, real), strict=True))
    assert abs(along) < 1e-3 * value


def test_what_is_followed_is_sharpened():
    """Equal predictions rest at temperature 1; below it their margin grows."""
    out = {"fc6": np.random.default_rng(0).normal(size=(6, 8)), "logits": np.eye(3)[[0, 1, 2] * 2]}

    def uphill(temperature):
        training = dataclasses.replace(PAIR_BOTH, temperature=temperature)
        return -jax.grad(partial(following_loss, training, np.ones(8)))(out, out)["logits"]

    assert np.allclose(uphill(1.0), 0.0, atol=1e-6)
    grown = np.asarray(uphill(0.5))
    assert (grown[out["logits"] > 0] > 1e-3).all() and (grown[out["logits"] == 0] < 0).all()


def test_the_adversary_of_a_pair_moves_the_generator(pair_steps):
    (plain, _), (adversarial, seen) = pair_steps(1), pair_steps(1, adversary=0.5)
    assert not _same(plain.params["generator"], adversarial.params["generator"])
    assert 0 < seen[0]["critic"] < 4


def _pair_run(data, tmp_path, trained, painter, **changes):
    run = PairRun(
        data=data, cache=tmp_path / "cache", start=str(trained[0]), generator=str(painter),
        loop=LoopConfig(out=tmp_path / "pair", batch=6, epochs=1), training=PAIR,
    )  # fmt: skip
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def still(data, tmp_path_factory, trained, generator):
    """A run in which no weight moves, the two files that it wrote, and their figures."""
    still = dataclasses.replace(PAIR, scene_rate=0.0, generator_rate=0.0)
    run = _pair_run(data, tmp_path_factory.mktemp("still"), trained, generator, training=still)
    return run, *train_pair(run, say=lambda line: None)


@shares_a_pair
def test_a_pair_that_stands_still_is_exported_as_it_was(still, trained, generator):
    """Batch norm and scales are put back and folded again: the same function in both files."""
    run, (scene_path, generator_path), figures = still
    before = [load_network(trained[0]), load_network(generator)]
    after = [load_network(scene_path), load_network(generator_path)]
    load_encoder(after[1], scene_path)  # the generator names this scene network, by its hash
    x = 60 * jax.random.normal(jax.random.key(2), (32, 32, 3))
    logits, images = [], []
    for scene, painter in (before, after):
        out = jax.jit(scene.apply)(scene.params, x)
        logits.append(out["fc8"])
        images.append(jax.jit(painter.apply)(painter.params, out["fc6"])["conv0"])
    np.testing.assert_allclose(*logits, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(*images, rtol=2e-3, atol=0.1)
    np.testing.assert_allclose(after[1].code.upper, before[1].code.upper, rtol=2e-2)
    assert figures["val top-5"] == 1.0 and 0 <= figures["agreement"] <= 1
    assert (run.loop.out / "reconstructions.png").is_file()


@shares_a_pair
def test_a_trained_pair_is_another_pair(data, tmp_path, trained, generator):
    (path, made), _ = train_pair(_pair_run(data, tmp_path, trained, generator), lambda line: None)
    load_encoder(load_network(made), path)
    with pytest.raises(ValueError, match="inverts the encoder of sha256"):
        load_encoder(load_network(generator), path)


@shares_a_pair
def test_a_pair_that_is_none_is_refused(data, tmp_path, trained, generator):
    other, _ = train_scene(_scene_run(data, tmp_path, "other", epochs=1), say=lambda line: None)
    for change, message in (
        ({"start": str(other)}, "inverts the encoder of sha256"),
        ({"generator": str(trained[0])}, "is no generator that inverts an fc6"),
    ):
        with pytest.raises(ValueError, match=message):
            train_pair(_pair_run(data, tmp_path, trained, generator, **change), lambda line: None)


def test_batch_norm_can_be_put_back(trained, data, tmp_path):
    """Shipped weights are a start: the unfolded network computes what the folded one does."""
    network = load_network(trained[0])
    config = network.info.config
    run = dataclasses.replace(_scene_run(data, tmp_path, "warm"), start=str(trained[0]))
    images = load_images(data, "train", 36, tmp_path / "cache")
    state = first_state(run, config, images)
    x = 60 * jax.random.normal(jax.random.key(2), (3, 32, 32, 3))
    expected = jax.vmap(network.apply, (None, 0))(network.params, x)["fc8"]
    np.testing.assert_allclose(normed_logits(config, state, x), expected, rtol=2e-3, atol=2e-3)
    kernel = state.params["conv2"]["kernel"]
    assert float(kernel[..., 0].size * jnp.mean(kernel**2)) == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(ValueError, match="not of the size, width"):
        first_state(run, pocket_places(size=32, code=9, classes=3, width=4), images)


def test_bfloat16_activations_keep_float32_weights():
    config = pocket_places(size=32, code=8, classes=3, width=4)
    rgb = np.random.default_rng(0).integers(0, 256, (6, 36, 36, 3), dtype=np.uint8)
    args = (None, rgb, np.arange(6) % 3, jax.random.key(0), jnp.float32(0.1))
    new, losses = {}, {}
    for kind in ("float32", "bfloat16"):
        state = init_scene(0, config, SceneTraining())
        new[kind], metrics = scene_step(config, SceneTraining(), kind, state, *args)
        losses[kind] = float(metrics["loss"])
    assert {leaf.dtype for leaf in jax.tree.leaves(new["bfloat16"])} == {jnp.dtype("float32")}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_the_critic_learns_to_tell_and_waits_once_it_wins():
    step = jax.jit(critic_step, static_argnums=(0, 6))
    state, losses = init_critic(0, 16, 4, 4), []
    noise = jax.random.normal(jax.random.key(0), (2, 8, 16, 16, 3))
    code = jnp.ones((8, 4))
    while len(losses) < 400 and (not losses or losses[-1] >= 0.5):
        before = state
        state, seen = step(4, state, noise[0] + 1, noise[1] - 1, code, 5e-3, "float32")
        losses.append(float(seen["critic"]))
    assert losses[0] > 1.5 and losses[-1] < 0.5
    jax.tree.map(np.testing.assert_array_equal, before, state)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (init_critic(0, 16, 4, 4), state)), strict=True)
    )


def test_any_layer_at_any_size_with_another_comparator(data, tmp_path, trained):
    run = InversionRun(
        data=data, cache=tmp_path / "cache", encoder=str(trained[0]), blob="pool5", size=48,
        comparator=str(trained[0]), width=2,
        loop=LoopConfig(out=tmp_path / "run", batch=6, epochs=1),
        training=InversionTraining(layers=("conv2",), adversary=0, jitter=0),
    )  # fmt: skip
    path, _ = train_inversion(run, say=lambda line: None)
    made, encoder = load_network(path), load_network(trained[0])
    assert made.info.encoder_blob == "pool5" and made.info.config.size == 48
    x = 60 * jax.random.normal(jax.random.key(0), (32, 32, 3))
    code = encode(load_encoder(made, trained[0]), made, x)
    expected = jax.jit(encoder.apply)(encoder.params, x)["pool5"].ravel()
    np.testing.assert_allclose(code, expected, rtol=1e-5)
    assert code.shape == made.input_shape == made.code.upper.shape


@pytest.mark.parametrize("change, message", [
    ({"blob": "fc9"}, "blob 'fc9'"),
    ({"blob": "fc8"}, "negative values"),
    ({"size": 40}, "multiple of 16"),
    ({"encoder": "pocket_generator"}, "expected a classifier"),
    ({"comparator": "pocket_generator"}, "expected a classifier"),
    ({"start": "pocket_generator"}, "not a generator of this run"),
    ({"training": InversionTraining(layers=("conv9",))}, "feature layer 'conv9'"),
])  # fmt: skip
def test_an_inversion_that_cannot_be_is_refused(trained, data, tmp_path, change, message):
    loop = LoopConfig(out=tmp_path / "run", batch=6, epochs=1)
    run = InversionRun(data, tmp_path / "cache", str(trained[0]), loop, width=2)
    with pytest.raises(ValueError, match=message):
        train_inversion(dataclasses.replace(run, **change), say=lambda line: None)


def test_a_plain_folder_of_images_is_one_class(tmp_path):
    for i in range(20):
        _picture("red", i).save(tmp_path / f"{i:02}.png")
    train = load_images(tmp_path, "train", 32, tmp_path / "cache")
    assert len(train.rows) == 18 and len(train.classes) == 1
    run = dataclasses.replace(_scene_run(tmp_path, tmp_path, "run"))
    with pytest.raises(ValueError, match="one class"):
        train_scene(run, say=lambda line: None)


_EIGHT = """
import jax, numpy as np, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training import _scene_run
from jaxsynth.training.scene_run import train_scene
jax.config.update("jax_disable_most_optimizations", True)
assert len(jax.devices()) == {devices}
run = _scene_run(Path({data!r}), Path({out!r}), "run{devices}", batch=8, epochs=2)
train_scene(run, say=lambda line: None)
"""


def test_eight_devices_train_what_one_does(data, tmp_path):
    weights = []
    for devices in (1, 8):
        code = _EIGHT.format(
            tests=str(Path(__file__).parent), devices=devices, data=str(data), out=str(tmp_path)
        )
        flags = f"--xla_force_host_platform_device_count={devices}"
        env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        path = tmp_path / f"run{devices}" / "pocket_places.safetensors"
        weights.append(load_network(path).params)
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-2, atol=1e-3, err_msg=name)


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="does not split over 3 devices"):
        place_on(jax.devices() * 3, 32)


@pytest.mark.parametrize("budget", [{}, {"minutes": 1.0, "epochs": 1.0}])
def test_one_budget_is_needed(tmp_path, budget):
    with pytest.raises(ValueError, match="one budget is needed"):
        LoopConfig(out=tmp_path, **budget)


@pytest.mark.parametrize("minutes", [4.0, 0.0])
@pytest.mark.parametrize("quiet", [True, False])
def test_training_that_blows_up_stops_at_the_last_sound_checkpoint(data, tmp_path, minutes, quiet):
    """At the end, or before the checkpoint of that step; also where only the weights say so."""

    def step(state, _frozen, _rgb, _labels, _key, _progress):
        loss = jnp.where((state < 2) | quiet, 1.0, jnp.nan)
        return jnp.where(state < 2, state + 1, jnp.nan), {"loss": loss, "rate": 1.0}

    images = load_images(data, "train", 36, tmp_path)
    loop = LoopConfig(out=tmp_path / "run", batch=6, epochs=3, checkpoint_minutes=minutes)
    said = "weights are not finite" if quiet else "loss is nan"
    left = "no checkpoint was made yet" if minutes else "checkpoint of step 2 is kept"
    at = 9 if minutes else 3
    with pytest.raises(ValueError, match=f"step {at}: {said}, training cannot go on.*{left}"):
        run_loop(step, jnp.float32(0), images, loop, {}, lambda state: {}, lambda line: None)
    kept = [int(path.name) for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*")]
    assert sorted(kept) == ([] if minutes else [1, 2])
