"""The trainers on a handful of synthetic pictures: data, folding, resuming, exporting."""

import io
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
from launching import environment
from PIL import Image

from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.grid_generator import upsample_phases
from jaxsynth.models.layers import interleave
from jaxsynth.models.weights import load_network
from jaxsynth.runs.saving import Stopped
from jaxsynth.training import scene_run
from jaxsynth.training.data import load_images
from jaxsynth.training.loop import LoopConfig, Training, run_loop
from jaxsynth.training.scene import SceneTraining, init_scene, scene_step
from jaxsynth.training.scene_run import SceneRun, train_scene
from jaxsynth.training.setup import matmul_conv, place_on, random_crop_flip, to_input

CLASSES = ("blue", "red", "white")
LAYOUT = ("NHWC", "HWIO", "NHWC")
TRAINING = SceneTraining(rate=0.1)


def judge(size: int = 32, classes: int = 3, width: int = 4) -> ResNetConfig:
    """A judge of fewer blocks, which compiles faster: with and without a projection."""
    return ResNetConfig(size, width, ((1, width), (2, 2 * width)), classes)


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_run, "pocket_judge", judge)
        yield


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
    config = LoopConfig(out=tmp_path / out, **({"batch": 8, "report_steps": 1, "epochs": 6} | loop))
    return SceneRun(
        data=data,
        cache=tmp_path / "cache",
        network="pocket_judge",
        size=32,
        width=4,
        loop=config,
        settings=TRAINING,
    )


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A judge trained for 6 epochs of 2 steps, and what the run said."""
    tmp_path, lines = tmp_path_factory.mktemp("scene"), []
    path, figures = train_scene(_scene_run(data, tmp_path, "run"), say=lines.append)
    return path, figures, lines


@pytest.mark.parametrize("smooth", [False, True])
def test_upsampled_phases_are_upsampling_then_convolution(smooth):
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
        phases = jax.jit(partial(upsample_phases, smooth=smooth, conv=conv))(x, kernel)
        np.testing.assert_allclose(interleave(phases, 0 if smooth else 1), expected, atol=2e-5)


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
    np.testing.assert_allclose(grey, expected, atol=1e-3)


def test_a_judge_learns_and_loads(trained):
    path, figures, lines = trained
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if "img/s" in line]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert figures["val top-5"] == 1.0
    assert any(line.startswith("skipped") and "red/broken.png" in line for line in lines)
    network = load_network(path)
    assert network.labels == CLASSES and network.info.preprocessing == "resize32"


def test_a_resumed_run_gives_the_same_weights(data, tmp_path, trained):
    say = lambda line: None  # noqa: E731
    with pytest.raises(Stopped, match="step 2 is saved"):
        train_scene(_scene_run(data, tmp_path, "run"), say, iter([False, True]).__next__)
    train_scene(_scene_run(data, tmp_path, "run", max_steps=5), say=say)
    path, _ = train_scene(_scene_run(data, tmp_path, "run"), say=say)
    resumed, whole = load_network(path), load_network(trained[0])
    for name, value in whole.params.items():
        np.testing.assert_array_equal(value, resumed.params[name], err_msg=name)
    with pytest.raises(ValueError, match="seed=0, not 1"):
        train_scene(_scene_run(data, tmp_path, "run", seed=1), say=say)


def test_two_seeds_differ():
    config = judge()
    states = [init_scene(seed, config, SceneTraining()) for seed in (0, 1)]
    kernels = [state.params["conv_1"]["kernel"] for state in states]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 1e-3


def test_bfloat16_activations_keep_float32_weights():
    config = judge()
    rgb = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    args = (None, rgb, np.arange(8) % 3, jax.random.key(0), jnp.float32(0.1))
    new, losses = {}, {}
    for kind in ("float32", "bfloat16"):
        state = init_scene(0, config, TRAINING)
        new[kind], metrics = scene_step(config, TRAINING, kind, state, *args)
        losses[kind] = float(metrics["loss"])
    assert {leaf.dtype for leaf in jax.tree.leaves(new["bfloat16"])} == {jnp.dtype("float32")}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


_EIGHT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import jax
import test_training as t
assert len(jax.devices()) == 8
t.scene_run.pocket_judge = t.judge
t.train_scene(t._scene_run(Path({data!r}), Path({out!r}), "eight", epochs=1), say=print)
"""


def test_eight_devices_train_what_one_does(data, tmp_path):
    """Rounding differs and grows with every step, so two are compared: losses, then weights."""
    tests, lines = str(Path(__file__).parent), []
    path, _ = train_scene(_scene_run(data, tmp_path, "one", epochs=1), say=lines.append)
    code = _EIGHT.format(tests=tests, data=str(data), out=str(tmp_path))
    env = environment() | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    env |= {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    losses = [
        [float(line.split("loss ")[1].split()[0]) for line in said if "img/s" in line]
        for said in (lines, done.stdout.splitlines())
    ]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=2e-3)
    eight = load_network(tmp_path / "eight" / path.name).params
    for name, value in load_network(path).params.items():
        most = 0.05 * float(jnp.abs(value).max()) + 1e-3
        np.testing.assert_allclose(eight[name], value, rtol=0, atol=most, err_msg=name)


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
        training = Training(step, {}, lambda state: {})
        run_loop(training, jnp.float32(0), images, loop, lambda line: None)
    kept = [int(path.name) for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*")]
    assert sorted(kept) == ([] if minutes else [1, 2])
