"""Whole runs against real Caffe (`golden/trajectories.npz`), at full size.

Float32 trajectories are chaotic, so whole ones are compared in float64 and float32 by single steps
from stored codes. Needs the published code bounds (`act_range/3x/fc6.txt`, not ours to ship).
"""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import relative_l2
from short import Run, Sweep, Term, synthesize

from jaxsynth.models.network import CodeStats
from jaxsynth.porting.port import port
from jaxsynth.recipes import RECIPES

pytestmark = pytest.mark.full_size
TRAJECTORIES = Path(__file__).parent / "golden" / "trajectories.npz"
RECORDED = (1, 2, 5, 10, 30)
GOH = dataclasses.replace(RECIPES["goh"], steps=10, lr_end=1 - (1 - 1e-10) / 3)  # 10 of 30 steps
FC8, JOINT = ("places", "fc8", 8), ("nsfw", "fc_nsfw", 1)


def terms(*rows):
    return [Term(role, blob, (unit,), weight) for (role, blob, unit), weight in rows]


@pytest.fixture(scope="module")
def trajectories():
    with np.load(TRAJECTORIES) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session", autouse=True)  # before the networks, which take a while
def bounds():
    default = Path(__file__).parents[2] / "shared" / "golden" / "fc6_3x.txt"
    path = Path(os.environ.get("JAXSYNTH_FC6_BOUNDS", default))
    if not path.is_file():
        pytest.skip("without the published bounds: JAXSYNTH_FC6_BOUNDS=.../act_range/3x/fc6.txt")
    return np.array(path.read_text().split(), np.float64)


def maximise(networks, runs, codes, bounds, recipe, balance, dtype, record=RECORDED):
    """The engine's own path from start codes (R, D) to results."""
    networks = {
        role: n._replace(params={k: jnp.asarray(v, dtype) for k, v in n.params.items()})
        for role, n in networks.items()
    }
    networks["generator"] = networks["generator"]._replace(code=CodeStats(bounds))
    runs = [Run(0, tuple(terms)) for terms in runs]
    precision = np.dtype(dtype).name
    settings = Sweep(recipe, "", balance, len(codes), precision, record)
    return synthesize(networks, runs, settings, codes)


def check(result, run, golden, name, most=1e-6):
    codes, objective = golden[f"{name}/f64/codes"], golden[f"{name}/f64/objective"]
    for made, expected, step in zip(result.recorded_codes[run], codes[1:], RECORDED, strict=False):
        error = relative_l2(made, expected)
        assert error < most, (name, step, error)
    found = result.objective[run]
    np.testing.assert_allclose(found, objective[: len(found)], rtol=1e-9)


def test_dgn_am_in_float64(big_generator, big_places, trajectories, bounds):
    recipe = dataclasses.replace(RECIPES["dgn_am"], steps=30)
    networks = {"generator": big_generator.network, "places": big_places.network}
    with jax.enable_x64(True):
        result = maximise(
            networks,
            [terms((FC8, 1.0))],
            trajectories["dgn_am/f64/codes"][:1],
            bounds,
            recipe,
            "image",
            np.float64,
        )
    check(result, 0, trajectories, "dgn_am")
    # DGN-AM's image is that of the last forward pass, one update before the final code.
    assert result.last.objective[0] == pytest.approx(trajectories["dgn_am/f64/objective"][-1])


def test_goh_in_float64(big_generator, nsfw_caffemodel, trajectories, bounds):
    networks = {"generator": big_generator.network, "nsfw": port("open_nsfw", nsfw_caffemodel)[0]}
    sfw, nsfw = ("nsfw", "fc_nsfw", 0), ("nsfw", "fc_nsfw", 1)
    runs = {
        "logits_1_3": terms((sfw, 1.0), (nsfw, 3.0)),
        "prob_nsfw": terms((("nsfw", "prob", 1), 1.0)),
    }
    codes = np.stack([trajectories[f"{name}/f64/codes"][0] for name in runs])
    with jax.enable_x64(True):
        goals, record = list(runs.values()), RECORDED[:-1]
        result = maximise(networks, goals, codes, bounds, GOH, "image", np.float64, record)
    for i, name in enumerate(runs):
        check(result, i, trajectories, name, 1e-8)


def test_joint_in_float64(big_generator, big_places, nsfw_caffemodel, trajectories, bounds):
    networks = {
        "generator": big_generator.network,
        "places": big_places.network,
        "nsfw": port("open_nsfw", nsfw_caffemodel)[0],
    }
    with jax.enable_x64(True):
        result = maximise(
            networks,
            [terms((FC8, 1.0), (JOINT, 1.0))],
            trajectories["joint/f64/codes"][:1],
            bounds,
            GOH,
            "code",
            np.float64,
            RECORDED[:-1],
        )
    check(result, 0, trajectories, "joint", 1e-8)


@pytest.mark.parametrize("step", [0, 1, 9, 29])
def test_single_steps_in_float32(big_generator, big_places, trajectories, bounds, step):
    steps = [0, 1, 2, 5, 9, 10, 29, 30]  # of the stored codes
    codes = trajectories["dgn_am/f32/codes"]
    rate = 8 + (1e-10 - 8) * step / 30
    recipe = dataclasses.replace(RECIPES["dgn_am"], steps=1, schedule="constant", lr_start=rate)
    networks = {"generator": big_generator.network, "places": big_places.network}
    result = maximise(
        networks,
        [terms((FC8, 1.0))],
        codes[[steps.index(step)]],
        bounds,
        recipe,
        "image",
        np.float32,
        record=(),
    )
    assert relative_l2(result.codes[0], codes[steps.index(step + 1)]) < 1e-2
    wanted = trajectories["dgn_am/f32/objective"][step]
    assert abs(result.objective[0, 0] - wanted) <= 2e-5 * max(1, abs(wanted))
