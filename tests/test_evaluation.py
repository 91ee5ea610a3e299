"""Figures of a prior against hand-made cases, and the launcher on tiny networks."""

import json

import numpy as np
import pytest
from PIL import Image
from test_launchers import launch
from tiny import LABELS, random_params, tiny_networks

from jaxsynth.evaluation.measures import (
    LUMA,
    compare_spectra,
    feature_distance,
    fixed_pattern,
    frechet_distance,
    grid_excess,
    judge_values,
    mean_power,
    moments,
    radial_power,
    saturated_share,
)
from jaxsynth.evaluation.pictures import inversion_metrics, ranks
from jaxsynth.images import CAFFE
from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.network import NetworkInfo, build_network
from jaxsynth.models.packaged import ConvFeaturesConfig, Layer
from jaxsynth.models.weights import load_network, save_network

SIDE = 64


def grey(pixels: np.ndarray) -> np.ndarray:
    """(..., S, S) -> (N, S, S, 3), the same in all three channels."""
    return np.repeat(pixels.reshape(-1, *pixels.shape[-2:])[..., None], 3, axis=-1)


def noise(count: int, sigma: float) -> np.ndarray:
    return 128 + sigma * np.random.default_rng(0).standard_normal((count, SIDE, SIDE))


def test_frechet_distance_of_known_gaussians():
    m = np.zeros(2)
    a, b = np.diag([4.0, 9.0]), np.diag([1.0, 16.0])
    shift = np.array([3.0, 4.0])
    # Commuting: |m|^2 + sum of (sigma1 - sigma2)^2.
    assert frechet_distance(m, a, shift, b) == pytest.approx(25 + 1 + 1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert frechet_distance(m, turn @ a @ turn.T, m, turn @ b @ turn.T) == pytest.approx(2.0)
    # Not commuting, in 2-D: tr (C1 C2)^(1/2) = sqrt(tr(C1 C2) + 2 sqrt(det C1 det C2)).
    c = np.array([[2.0, 1.0], [1.0, 3.0]])
    root = np.sqrt(np.trace(a @ c) + 2 * np.sqrt(36 * 5))
    assert frechet_distance(m, a, m, c) == pytest.approx(13 + 5 - 2 * root)
    # Singular ones are fine: a point against a Gaussian is the trace.
    assert frechet_distance(m, np.zeros((2, 2)), m, a) == pytest.approx(13)


def test_frechet_distance_of_samples():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40_000, 3))
    y = 2 * rng.standard_normal((40_000, 3)) + 1
    assert feature_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert feature_distance(x, y) == pytest.approx(3 + 3, rel=0.03)
    mean, cov = moments(np.array([[0.0, 1.0], [2.0, 5.0]], np.float32))
    np.testing.assert_allclose(mean, [1, 3])
    np.testing.assert_allclose(cov, [[2, 4], [4, 8]])
    with pytest.raises(ValueError, match="2 or more"):
        moments(np.ones((1, 3)))


def test_white_noise_has_its_variance_at_every_frequency():
    radial = radial_power(mean_power(grey(noise(200, 10.0))))
    assert radial.shape == (SIDE // 2,)
    np.testing.assert_allclose(radial, 100, rtol=0.25)
    np.testing.assert_allclose(radial[5:], 100, rtol=0.08)


@pytest.mark.parametrize("vertical", [False, True])
def test_a_sine_is_one_ring(vertical):
    k, amplitude = 12, 20.0
    wave = np.tile(100 + amplitude * np.sin(2 * np.pi * k * np.arange(SIDE) / SIDE), (SIDE, 1))
    power = mean_power(grey(wave.T if vertical else wave))
    # The Hann window spreads it to its neighbours, 1 : 4 : 1 in power, and keeps its energy.
    assert power.sum() == pytest.approx(SIDE**2 * amplitude**2 / 2, rel=1e-6)
    axis = power[:, 0] if vertical else power[0]
    np.testing.assert_allclose(axis[k - 1 : k + 2] / axis[k], [0.25, 1, 0.25], rtol=1e-6)
    radial = radial_power(power)
    assert radial.argmax() == k - 1
    assert np.delete(radial, [k - 2, k - 1, k]).max() < 1e-9 * radial.max()


def test_luma_weighs_the_channels():
    red, green = np.zeros((1, SIDE, SIDE, 3)), np.zeros((1, SIDE, SIDE, 3))
    red[0, ..., 0], green[0, ..., 1] = noise(1, 10.0)[0], noise(1, 10.0)[0]
    ratio = mean_power(green) / np.maximum(mean_power(red), 1e-12)
    np.testing.assert_allclose(ratio[1:, 1:], (0.587 / 0.299) ** 2, rtol=1e-3)
    with pytest.raises(ValueError, match="expected"):
        mean_power(np.zeros((1, 8, 4, 3)))


def test_a_grid_of_four_pixels_stands_out_at_four_pixels():
    plain = noise(50, 10.0)
    lined = plain.copy()
    lined[:, ::4, :] += 10
    lined[:, :, ::4] += 10
    before, after = (grid_excess(mean_power(grey(x))) for x in (plain, lined))
    assert set(before) == {2, 4, 8, 16}
    assert max(map(abs, before.values())) < 2.5
    assert after[4] > 15 and after[2] > 12  # and its harmonic
    assert max(abs(after[p]) for p in (8, 16)) < 2.5
    diagonal = grid_excess(mean_power(grey(lined)), diagonal=True)
    assert abs(diagonal[8]) < 2.5


def test_a_checkerboard_stands_out_on_the_diagonal_only():
    sign = 1 - 2 * (np.indices((SIDE, SIDE)).sum(0) % 2)
    power = mean_power(grey(noise(50, 10.0) + 8 * sign))
    assert abs(grid_excess(power)[2]) < 2.5
    assert grid_excess(power, diagonal=True)[2] > 15


def test_periods_that_do_not_fit_are_left_out():
    assert set(grid_excess(np.ones((16, 16)))) == {2, 4}
    assert set(grid_excess(np.ones((96, 96)))) == {2, 4, 8, 16}
    assert set(grid_excess(np.ones((30, 30)))) == {2}


def test_spectra_are_compared_in_decibels():
    found = compare_spectra(mean_power(grey(noise(20, 20.0))), mean_power(grey(noise(20, 10.0))))
    np.testing.assert_allclose(found["difference_db"], 20 * np.log10(2), atol=1e-6)
    assert found["largest_db"] == pytest.approx(20 * np.log10(2))
    assert found["cycles_per_pixel"][-1] == 0.5 and len(found["made_db"]) == SIDE // 2
    flat = np.full((1, SIDE, SIDE, 3), 7, np.uint8)  # no power at all is a number too
    assert np.isfinite(
        compare_spectra(mean_power(flat), mean_power(grey(noise(1, 1.0))))["largest_db"]
    )


def test_ranks_rates_and_clipped_pixels():
    logits = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, np.nan]])
    np.testing.assert_array_equal(ranks(logits, np.array([0, 2, 2])), [0, 2, 3])
    made, real = np.array([0, 4, 5, 9]), np.array([0, 1, 2, 3, 7])
    assert judge_values(made, real) == {
        "judge_made": 0.5,
        "judge_real": 0.8,
        "judge_fraction": 0.625,
    }
    assert judge_values(made, np.array([8]))["judge_fraction"] is None
    image = np.zeros((1, 2, 2, 3), np.float32)  # the mean colour
    image[0, 0, 0, 1], image[0, 1, 1, 2] = -200, np.nan
    assert saturated_share(CAFFE.to_rgb(image)) == pytest.approx(0.5)


def test_a_constant_unit_explains_nothing():
    rng = np.random.default_rng(0)
    code = rng.normal(size=(64, 8))
    lost = rng.normal(size=code.shape)  # of the same variance, but what comes back is the rest
    image = np.zeros((64, 4, 4, 3))

    def metrics(shift, share, awake=1.0):
        real = awake * (code + shift)
        made = real + awake * np.sqrt(1 - share) * lost
        batches = [(np.zeros((64, 4, 4, 3), np.uint8), None, 64)]
        return inversion_metrics(lambda x: (real, made, image), batches)

    plain, shifted = metrics(0.0, 0.75), metrics(100.0 * (np.arange(8) == 0), 0.75)
    assert plain["explained"] == pytest.approx(0.75, abs=0.1)
    assert shifted["explained"] == pytest.approx(plain["explained"], rel=1e-6)
    assert metrics(0.0, 1.0)["explained"] == 1
    asleep = metrics(0.0, 0.75, np.arange(8) != 7)
    assert (plain["silent"], asleep["silent"]) == (0, 1)
    assert asleep["explained"] == pytest.approx(plain["explained"], abs=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty validation photographs, four of each of the tiny network's categories."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in LABELS:
        (folder / "val" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "val" / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Role -> weights file; the generator's encoder is the scene network by its name."""
    folder = tmp_path_factory.mktemp("weights")
    networks = tiny_networks()
    generator = networks["generator"]
    info = NetworkInfo(**{**vars(generator.info), "encoder": "tiny_places"})
    networks["generator"] = generator._replace(info=info)
    config = ResNetConfig(size=16, stem=4, stages=((1, 2), (1, 2)), classes=5)
    labels = tuple(reversed(LABELS))  # a judge may count its classes in another order
    info = NetworkInfo("tiny_judge", config, labels, preprocessing="resize16")
    networks["judge"] = build_network(info, random_params(config, 4, 0.5))
    features = ConvFeaturesConfig(size=16, layers=(Layer("conv1", 4),), compared=("conv1",))
    info = NetworkInfo("tiny_features", features)
    networks["lpips"] = build_network(info, random_params(features, 5, 0.5))
    networks["lpips"].params["lpips_conv1"] = np.ones(4, np.float32)
    for role, network in networks.items():
        save_network(folder / f"{role}.safetensors", network)
    return {role: str(folder / f"{role}.safetensors") for role in networks}


def evaluate(weights, data, out, *flags):
    named = [f"--{role}={path}" for role, path in weights.items()]
    small = ["--nsfw_seeds=2", "--joint_seeds=2", "--random_seeds=3", "--scene_seeds=2"]
    small += ["--steps=3", "--joint_scenes=abbey,dam"]
    return launch("evaluate_prior", *named, *small, f"--data={data}", f"--out={out}", *flags)


def test_all_figures_by_command_and_added_to(weights, data, tmp_path):
    out, cache = tmp_path / "run", f"--cache={tmp_path / 'cache'}"
    done = evaluate(weights, data, out, cache, "--figures=scenes,size", "--prior=0.1")
    assert done.returncode == 0, done.stderr
    assert "scenes: P >= 0.9" in done.stdout and "Not measured: network" in done.stdout
    first = json.loads((out / "figures.json").read_text())
    assert set(first) == {"scenes", "size"}
    used = first["scenes"]["made_of"]["networks"]
    assert set(used) == {"generator", "places", "judge", "lpips", "encoder"}  # no open_nsfw
    assert used["encoder"] == used["places"]  # --places bears the encoder's name
    metrics = first["scenes"]["value"]["metrics"]
    assert metrics["runs"] == 10 and metrics["frechet"] > 0
    share = metrics["lpips_seeds"] / metrics["lpips_photographs"]
    assert metrics["lpips_share"] == pytest.approx(share) and 0 < share < 10

    rest = "--figures=network,inversion,frechet,spectrum,nsfw,joint,random"
    done = evaluate(weights, data, out, cache, rest, "--photographs=10")
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "figures.json").read_text())
    assert figures["scenes"] == first["scenes"]
    values = {name: record["value"]["metrics"] for name, record in figures.items()}
    assert values["network"]["photographs"] == 20
    assert 0 <= values["network"]["top1"] <= values["network"]["top5"] == 1  # of five classes
    assert values["frechet"]["distance"] > 0 and values["frechet"]["photographs"] == 10
    assert values["inversion"]["explained"] < 1 and values["inversion"]["photographs"] == 10
    assert values["joint"]["runs"] == 4 and values["random"]["runs"] == 3
    assert values["random"]["frechet"] > 0 and values["random"]["largest_db"] > 0
    assert len(values["spectrum"]["difference_db"]) == 8
    table = (out / "table.md").read_text()
    assert table in done.stdout and "Not measured" not in table
    lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    assert ["", "joint", "runs", "4", ""] in lines and ["", "scenes", "runs", "10", ""] in lines
    assert not [line for line in lines if "difference_db" in line]  # curves are for the plot
    sheets = ("scenes_00", "reconstructions", "nsfw", "sfw", "joint", "random", "spectra")
    assert all((out / f"{name}.png").is_file() for name in sheets)

    other = dict(weights, generator=str(tmp_path / "other.safetensors"))
    network = load_network(weights["generator"])
    network.params["defc6/bias"] = network.params["defc6/bias"] + 1
    save_network(other["generator"], network)
    done = evaluate(other, data, out, cache, "--figures=size")
    assert done.returncode == 2 and "figures of another generator" in done.stderr
    done = evaluate(other, data, out, cache, "--figures=size", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert set(json.loads((out / "figures.json").read_text())) == {"size"}
    assert not (out / "scenes_00.png").exists()


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        ({"places": "judge"}, ["--figures=scenes"], "is the judge and cannot be"),
        ({}, ["--figures=frechet", "--encoder={judge}"], "is the judge and cannot be"),
        ({"judge": "places"}, ["--figures=scenes"], "is the judge and cannot be"),
        ({"judge": "nsfw"}, ["--figures=scenes"], "no pooled features"),
        ({}, ["--figures=pretty"], "pretty"),
        ({}, ["--figures=scenes", "--data="], "--data= names no folder"),
        ({}, ["--figures=scenes", "--data=absent"], "no such folder"),
        ({}, ["--figures=scenes", "--seeds=4"], "--seeds has no effect"),
        ({}, ["--figures=inversion", "--encoder={nsfw}"], "gives codes of 8 units"),
        ({}, ["--figures=size", "--photographs=-1"], "photographs"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(weights, data, tmp_path, change, flags, said):
    files = dict(weights) | {role: weights[other] for role, other in change.items()}
    done = evaluate(files, data, tmp_path / "run", *(flag.format(**weights) for flag in flags))
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "run").exists()


def test_the_fixed_pattern_is_what_images_share():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (400, 32, 32, 3))
    wave = 20 * np.sin(2 * np.pi * np.arange(32) / 8)[None, :, None, None]
    slow = 20 * np.sin(2 * np.pi * np.arange(32) / 32)[None, :, None, None]
    plain = fixed_pattern(noise)
    assert plain == pytest.approx(73.6 * np.sqrt((LUMA**2).sum() / 400), rel=0.15)
    assert fixed_pattern(noise + wave) == pytest.approx(np.hypot(20 / np.sqrt(2), plain), rel=0.02)
    assert fixed_pattern(noise + slow) == pytest.approx(plain, rel=1e-3)


def test_scenes_are_chosen_by_the_hash_of_their_names(weights, data, tmp_path):
    out = tmp_path / "run"
    flags = ["--figures=scenes", "--hashed_scenes=2", f"--cache={tmp_path / 'cache'}"]
    done = evaluate(weights, data, out, *flags, "--lpips=none")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "figures.json").read_text())["scenes"]
    assert record["value"]["metrics"]["categories"] == 2
    assert "lpips" not in record["made_of"]["networks"]
    assert "lpips_share" not in record["value"]["metrics"]
