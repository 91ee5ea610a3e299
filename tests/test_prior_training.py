"""The generator's trainer and fine-tuning, on tiny networks and a handful of synthetic pictures."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_training import CLASSES, data  # noqa: F401

from jaxsynth.models.network import NetworkInfo, build_network, make_apply, param_shapes
from jaxsynth.models.packaged import ConvFeaturesConfig, EfficientNetConfig, Layer, Stage
from jaxsynth.models.weights import file_record, load_network, save_network
from jaxsynth.porting.state_dicts import convert_efficientnet
from jaxsynth.runs.saving import Stopped
from jaxsynth.training.data import ImageSet
from jaxsynth.training.finetune import FineTuning, LinearTraining, balanced_rows, fit_linear
from jaxsynth.training.loop import LoopConfig
from jaxsynth.training.prior import (
    PriorParts,
    PriorTraining,
    Searches,
    advance_searches,
    other_codes,
)
from jaxsynth.training.prior_encoder import measure_whitening
from jaxsynth.training.prior_run import PriorRun, train_prior
from jaxsynth.training.scene_run import SceneRun, train_scene
from jaxsynth.training.setup import shifted

LITE = EfficientNetConfig(
    size=32,
    classes=5,
    stem=4,
    stages=(Stage(1, 3, 2, 1, 6), Stage(2, 5, 2, 2, 8)),
    head=10,
)


def _state_dict(rng) -> dict[str, np.ndarray]:
    """Random weights of `LITE` under PyTorch's names, batch norm apart."""
    arrays = {}

    def conv(name, norm, out, into, k):
        arrays[f"{name}.weight"] = rng.normal(size=(out, into, k, k)) / (k * into**0.5)
        arrays[f"{norm}.weight"] = rng.uniform(1.5, 2.5, out)
        arrays[f"{norm}.bias"] = 0.3 * rng.normal(size=out)
        arrays[f"{norm}.running_mean"] = 0.1 * rng.normal(size=out)
        arrays[f"{norm}.running_var"] = rng.uniform(0.5, 2, out)

    conv("_conv_stem", "_bn0", 4, 3, 3)
    for n, (into, wide, out, k) in enumerate([(4, 4, 6, 3), (6, 12, 8, 5), (8, 16, 8, 5)]):
        block = f"_blocks.{n}"
        if wide != into:
            conv(f"{block}._expand_conv", f"{block}._bn0", wide, into, 1)
        conv(f"{block}._depthwise_conv", f"{block}._bn1", wide, 1, k)
        conv(f"{block}._project_conv", f"{block}._bn2", out, wide, 1)
    conv("_conv_head", "_bn1", 10, 8, 1)
    arrays["_fc.weight"], arrays["_fc.bias"] = rng.normal(size=(5, 10)), rng.normal(size=5)
    return arrays


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
    """A file of a tiny EfficientNet."""
    path = tmp_path_factory.mktemp("trunk") / "lite.safetensors"
    params = convert_efficientnet(LITE, _state_dict(np.random.default_rng(0)))
    save_network(path, build_network(NetworkInfo("lite", LITE), params))
    return path


def _same_conv(x, kernel, stride, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip


def test_a_state_dict_computes_what_its_layers_do():
    """Batch norm apart, as PyTorch has it, against the folded network."""
    arrays = {k: np.float32(v) for k, v in _state_dict(np.random.default_rng(1)).items()}
    rgb = np.random.default_rng(2).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)

    def conv(x, name, norm, stride=1, groups=1):
        y = _same_conv(x, arrays[f"{name}.weight"].transpose(2, 3, 1, 0), stride, groups)
        a = {k: arrays[f"{norm}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
        scale = a["weight"] / np.sqrt(a["running_var"] + 1e-3)
        return (y - a["running_mean"]) * scale + a["bias"]

    relu6 = lambda x: jnp.clip(x, 0, 6)  # noqa: E731

    @jax.jit
    def by_hand(x):
        x = relu6(conv((x - 127) / 128, "_conv_stem", "_bn0", 2))
        for n, (stride, skip) in enumerate([(2, False), (2, False), (1, True)]):
            block, before = f"_blocks.{n}", x
            if f"{block}._expand_conv.weight" in arrays:
                x = relu6(conv(x, f"{block}._expand_conv", f"{block}._bn0"))
            x = relu6(conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, x.shape[-1]))
            x = conv(x, f"{block}._project_conv", f"{block}._bn2")
            x = before + x if skip else x
        pooled = relu6(conv(x, "_conv_head", "_bn1")).mean((1, 2))
        return pooled @ arrays["_fc.weight"].T + arrays["_fc.bias"]

    image = jnp.asarray(rgb[0, ..., ::-1] - np.array([104, 117, 123], np.float32))
    made = jax.jit(make_apply(LITE))(convert_efficientnet(LITE, arrays), image)
    np.testing.assert_allclose(made["logits"], by_hand(rgb)[0], rtol=2e-4, atol=2e-4)
    with pytest.raises(ValueError, match=r"_fc\.bias is missing"):
        convert_efficientnet(LITE, {k: v for k, v in arrays.items() if k != "_fc.bias"})


def test_a_whitened_code_has_no_correlations_and_goes_back():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(2 * 2 * 6, 2 * 2 * 6))
    features = (rng.normal(size=(4000, 2 * 2 * 6)) @ mix).reshape(-1, 2, 2, 6) + 3
    batches = lambda: [(features[i : i + 500], None, 500) for i in range(0, 4000, 500)]  # noqa: E731
    made = measure_whitening(lambda x: jnp.asarray(x), batches, channels=4)
    components = features @ made.project[0] + made.project[1]
    code = components.reshape(4000, -1) @ made.whiten[0] + made.whiten[1]
    np.testing.assert_allclose(code.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(code.T), np.eye(16), atol=2e-2)
    back = code @ made.colour[0] + made.colour[1]
    np.testing.assert_allclose(back, components.reshape(4000, -1), atol=1e-2)
    assert 0.5 < made.explained < 1
    with pytest.raises(ValueError, match="fewer than the code's 9"):
        measure_whitening(lambda x: jnp.asarray(x), batches, channels=9)


def test_other_codes_are_no_photographs_and_depend_on_the_key():
    z = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    others = jax.jit(other_codes, static_argnums=2)
    made = np.asarray(others(jax.random.key(1), z, 4))
    assert made.shape == (4, 40)
    nearest = np.abs(made[:, None] - z[None]).mean(-1).min(-1)
    assert nearest.min() > 0.05
    mixed = made[1::2]  # each lies in the plane of two photographs' codes
    for one in mixed:
        fits = [
            np.linalg.lstsq(z[[i, j]].T, one, rcond=None)[1].sum()
            for i in range(6)
            for j in range(i)
        ]
        assert min(fits) < 1e-6
    assert not np.array_equal(made, others(jax.random.key(2), z, 4))


def test_searches_raise_their_goals_and_begin_afresh():
    def encode(params, image):
        return {"code": image @ params}

    def generate(params, colour, codes):
        return jnp.tanh(codes @ params + colour)

    parts = PriorParts(generate, encode, (), places=2)
    rng = np.random.default_rng(0)
    params, encoder = (jnp.asarray(rng.normal(size=(6, 6)) / 3) for _ in range(2))
    networks = params, {"encoder": encoder, "colour": jnp.full(6, 0.2)}
    z = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    begun = Searches(jnp.zeros((500, 6)), jnp.zeros((500, 6)))  # no goals yet
    advance = jax.jit(partial(advance_searches, parts))
    searches = advance(networks, begun, z, jax.random.key(0))
    means = np.asarray(z).reshape(8, 2, 3).mean(1)
    for goal in np.asarray(searches.goals):
        np.testing.assert_array_equal(goal[:3], goal[3:])
        assert np.abs(means - goal[:3]).max(1).min() < 1e-6
    later = advance(networks, searches, z, jax.random.key(1))
    same = np.asarray((later.goals == searches.goals).all(1))
    assert 450 < same.sum() < 500  # one in forty begins afresh

    def score(codes):
        made = jnp.tanh(codes @ params + 0.2) @ encoder
        return np.asarray((made * searches.goals).sum(1))

    raised = score(later.codes) - score(searches.codes)
    assert (raised[same] > 0).mean() > 0.9 and np.abs(later.codes).max() <= 3


def test_shifted_images_move_and_mirror_their_borders():
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    offsets = jnp.array([[0, 0], [3, -2], [-8, 8]])
    made = np.asarray(shifted(jnp.asarray(images), offsets))
    around = np.pad(images, ((0, 0), (8, 8), (8, 8), (0, 0)), mode="reflect")
    for one, whole, (down, right) in zip(made, around, np.asarray(offsets) + 8, strict=True):
        np.testing.assert_array_equal(one, whole[down : down + 16, right : right + 16])


def test_more_searches_than_other_codes_are_refused():
    with pytest.raises(ValueError, match="expected at most others"):
        PriorTraining(searches=0.7)


def _run(data, trunk, tmp_path, **loop):  # noqa: F811
    config = LoopConfig(
        out=tmp_path / "run", **({"batch": 6, "report_steps": 1, "images": 60} | loop)
    )
    return PriorRun(
        data=data,
        cache=tmp_path / "cache",
        loop=config,
        encoder=str(trunk),
        blob="block2",
        layers=("block1", "block2"),
        channels=4,
        size=32,
        width=4,
        training=PriorTraining(adversary_start=24, searches_start=24, warmup=1),
    )


@pytest.fixture(scope="module")
def prior(data, trunk, tmp_path_factory):  # noqa: F811
    """A generator trained for ten steps, the metrics, and what the run said."""
    tmp_path, lines = tmp_path_factory.mktemp("prior"), []
    path, metrics = train_prior(_run(data, trunk, tmp_path), lines.append)
    return path, metrics, lines


def test_the_generator_learns_and_its_files_load(prior):
    path, metrics, lines = prior
    steps = [line for line in lines if "img/s" in line]
    features = [float(line.split("features ")[1].split()[0]) for line in steps]
    assert np.mean(features[-3:]) < np.mean(features[:3])
    assert "adversary" not in steps[2] and "adversary" in steps[5]
    assert np.isfinite(list(metrics.values())).all()
    generator, encoder = (
        load_network(path),
        load_network(path.with_name("pocket_encoder.safetensors")),
    )
    with np.load(path.with_name("whitening.npz")) as measured:  # which training leaves alone
        colour = generator.params["colour/kernel"]
        np.testing.assert_array_equal(colour, measured["colour_0"].astype(np.float16))
    code = jax.jit(encoder.apply)(encoder.params, jnp.zeros((32, 32, 3)))["code"]
    image = jax.jit(generator.apply)(generator.params, code)["image"]
    assert code.shape == (64,) and image.shape == (32, 32, 3)
    rgb = np.asarray(image) + np.array([104, 117, 123])
    assert rgb.min() >= 0 and rgb.max() <= 255
    assert generator.info.encoder_blob == "code" and generator.code.lower[0] == -3
    assert (path.parent / "samples.png").is_file()


def test_a_resumed_generator_has_the_same_weights(data, trunk, tmp_path, prior):  # noqa: F811
    """Stopped where the adversary and searches join."""
    say = lambda line: None  # noqa: E731
    train_prior(_run(data, trunk, tmp_path, max_steps=4), say)
    path, _ = train_prior(_run(data, trunk, tmp_path), say)
    resumed, whole = load_network(path), load_network(prior[0])
    for name, value in whole.params.items():
        np.testing.assert_array_equal(value, resumed.params[name], err_msg=name)


def test_a_generator_starts_from_a_trained_one(data, trunk, tmp_path, prior):  # noqa: F811
    """It has the same encoder, to the byte, and weights near those that it starts from."""
    say, run = (lambda line: None), _run(data, trunk, tmp_path, max_steps=1)
    run = dataclasses.replace(run, start=str(prior[0]))
    path, _ = train_prior(run, say)
    encoder = "pocket_encoder.safetensors"
    assert path.with_name(encoder).read_bytes() == prior[0].with_name(encoder).read_bytes()
    started, made = load_network(prior[0]), load_network(path)
    assert started.info.notes.startswith("start none, ")
    assert made.info.notes.startswith(f"start {file_record(prior[0])['sha256']}, seed 0, ")
    before, after = started.params, made.params
    moved = [np.abs(before[name] - after[name]).max() for name in before]
    assert 0 < max(moved) < 2e-3 and set(before) == set(after)
    np.testing.assert_array_equal(before["colour/kernel"], after["colour/kernel"])
    with pytest.raises(ValueError, match="of other settings: its pocket_generator"):
        train_prior(dataclasses.replace(run, width=8), say)
    other = load_network(prior[0])
    other = other._replace(info=dataclasses.replace(other.info, encoder_sha256="0"))
    save_network(path, other)
    with pytest.raises(ValueError, match="not trained for"):
        train_prior(dataclasses.replace(run, start=str(path)), say)


def test_a_comparator_of_lpips_joins_the_losses(data, trunk, tmp_path):  # noqa: F811
    """Its line shows the distance, and the weights differ from those without."""
    config = ConvFeaturesConfig(size=64, layers=(Layer("conv1", 3),), compared=("conv1",))
    rng, file = np.random.default_rng(0), tmp_path / "features.safetensors"
    params = {k: rng.normal(size=s).astype("f4") for k, s in param_shapes(config).items()}
    params["lpips_conv1"] = np.abs(params["lpips_conv1"])
    save_network(file, build_network(NetworkInfo(network="features", config=config), params))
    run, lines, made = _run(data, trunk, tmp_path, max_steps=1), [], []
    for name, comparator in (("with", str(file)), ("without", "none")):
        loop = dataclasses.replace(run.loop, out=tmp_path / name)
        heavy = dataclasses.replace(run.training, lpips=100.0)
        changed = dataclasses.replace(run, comparator=comparator, loop=loop, training=heavy)
        made.append(load_network(train_prior(changed, lines.append)[0]).params)
    first = [line for line in lines if "img/s" in line]
    assert "lpips" in first[0] and "lpips" not in first[1]
    assert any((made[0][k] != made[1][k]).any() for k in made[0])


@pytest.mark.parametrize("change, message", [
    ({"blob": "block9"}, "no blob 'block9'"),
    ({"comparator": "pocket_judge"}, "'pocket_judge' has no blobs of LPIPS: choose alexnet_feat"),
    ({"layers": ("conv9",)}, "no blob 'conv9'"),
    ({"size": 36}, "expected that side doubled any number of times"),
    ({"channels": 40}, "fewer than the code's 40"),
])  # fmt: skip
def test_a_generator_that_cannot_be_is_refused(data, trunk, tmp_path, change, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        train_prior(dataclasses.replace(_run(data, trunk, tmp_path), **change), lambda line: None)


def test_fine_tuning_learns_and_freezes(data, trunk, tmp_path):  # noqa: F811
    run = SceneRun(
        data=data,
        cache=tmp_path / "cache",
        loop=LoopConfig(out=tmp_path / "run", batch=6, epochs=20, report_steps=1),
        trunk=str(trunk),
        size=32,
        settings=FineTuning(
            rate=0.003, colour=0, smoothing=0, freeze=("conv_stem/*", "*wise/kernel"), fitted=0
        ),
    )
    lines = []
    path, _ = train_scene(run, lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if "img/s" in line]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    made, before = load_network(path), load_network(trunk)
    assert made.labels == CLASSES and set(made.params) == set(param_shapes(made.info.config))
    frozen = [name for name in made.params if name.startswith("conv_stem") or "wise/kernel" in name]
    assert len(frozen) == 5
    for name in frozen:
        np.testing.assert_allclose(made.params[name], before.params[name], rtol=1e-3, atol=1e-4)
    assert not np.array_equal(made.params["conv_head/kernel"], before.params["conv_head/kernel"])


def test_fine_tuning_starts_at_the_best_last_layer(data, trunk, tmp_path):  # noqa: F811
    lines = []
    loop = LoopConfig(out=tmp_path / "run", batch=6, images=1, report_steps=1)
    settings = FineTuning(rate=1e-6, fitted=15)
    run = SceneRun(
        data=data, cache=tmp_path / "cache", loop=loop, trunk=str(trunk), size=32, settings=settings
    )
    _, metrics = train_scene(run, lines.append)
    assert metrics["val top-1"] == 1.0 and any("last layer fitted" in line for line in lines)
    again = []
    longer = dataclasses.replace(run, loop=dataclasses.replace(loop, images=7))
    train_scene(longer, again.append)  # goes on from the checkpoint: nothing is fitted again
    assert not any("fitted" in line for line in again)


def test_a_trunk_of_another_size_is_refused(data, tmp_path):  # noqa: F811
    from tiny import save_tiny_networks  # the tiny AlexNet's dense layer fits one size only

    save_tiny_networks(tmp_path)
    run = SceneRun(
        data=data, cache=tmp_path / "cache", trunk=str(tmp_path / "places.safetensors"),
        loop=LoopConfig(out=tmp_path / "run", batch=6, epochs=1), size=32,
    )  # fmt: skip
    with pytest.raises(ValueError, match="does not take images of side 32"):
        train_scene(run, lambda line: None)


def test_a_linear_judge_reads_the_classes_from_frozen_features(data, trunk, tmp_path):  # noqa: F811
    run = SceneRun(
        data=data,
        cache=tmp_path / "cache",
        network="linear_judge",
        loop=LoopConfig(out=tmp_path / "run", batch=4, images=15),
        trunk=str(trunk),
        size=32,
    )
    with pytest.raises(Stopped, match="features of 8 of 15 photographs, not saved"):
        train_scene(run, lambda line: None, iter([False, True]).__next__)
    path, metrics = train_scene(run, lambda line: None)
    made, before = load_network(path), load_network(trunk)
    assert metrics["val top-1"] == 1.0
    for name in set(made.params) - {"logits/kernel", "logits/bias"}:
        np.testing.assert_allclose(made.params[name], before.params[name], rtol=1e-3, atol=1e-4)


def test_photographs_of_a_linear_judge_are_balanced():
    labels = np.repeat([0, 1, 2], [10, 3, 7]).astype(np.int32)
    images = ImageSet(np.zeros((20, 1, 1, 3), np.uint8), labels, np.arange(20), ("a", "b", "c"), ())
    chosen = labels[balanced_rows(images, 11, seed=0)]
    assert np.bincount(chosen).tolist() == [4, 3, 4]
    assert len(set(balanced_rows(images, None, seed=1).tolist())) == 20


def test_the_linear_fit_is_the_minimum():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)) * [1, 10, 0.1, 1] + [0, 5, 0, -1]
    labels = rng.integers(0, 3, 60)
    training = LinearTraining(decay=0.1)
    fitted = fit_linear(features, labels, 3, training)

    def loss(kernel, bias):
        scaled = kernel * features.std(0)[:, None]
        logits = features @ kernel + bias
        entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), labels]
        return entropy.mean() + 0.05 * (scaled**2).sum()

    least = loss(**fitted)
    for _ in range(20):
        moved = {k: v + 0.01 * rng.normal(size=v.shape) for k, v in fitted.items()}
        assert loss(**moved) > least
