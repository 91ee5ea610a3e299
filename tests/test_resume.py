"""Runs that survive: stopped, killed and damaged sweeps go on, bit-equal to uninterrupted ones."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.engine.recipes import RECIPES, Recipe
from jaxsynth.engine.sweep import join
from jaxsynth.engine.terms import Term
from jaxsynth.experiment import Run, Sweep, execute, plan
from jaxsynth.files.chunks import load_progress, save_progress
from jaxsynth.files.results import UNFINISHED

ROOT = Path(__file__).parents[1]
TERMS = (Term("places", "fc8", (1,), 1.0), Term("nsfw", "log_odds", (0,), 0.5))
RESUMED = {
    "goh": RECIPES["goh"],
    "last_forward": RECIPES["dgn_am"],
    "adam": RECIPES["adam"],
    "momentum": RECIPES["cnnpref"],
    "jitter and prior": Recipe(prior=0.1, jitter=2),
}


class _Enough(Exception):
    pass


@pytest.mark.parametrize("name", RESUMED)
def test_a_chunk_goes_on_from_any_step_bit_equal(name, tmp_path):
    networks = tiny_networks() | {"encoder": tiny_networks()["places"]}
    recipe = dataclasses.replace(RESUMED[name], steps=7)
    runs = [Run(seed, TERMS) for seed in range(5)]
    todo = plan(networks, runs, Sweep(recipe, batch=2, record=(2, 6)))
    whole = join(list(execute(todo)))
    (tmp_path / UNFINISHED).mkdir()

    def stop(first, done, values, snapshot):
        if (first, done) == (2, 4):
            save_progress(tmp_path, first, snapshot())
            raise _Enough

    finished = []
    with pytest.raises(_Enough):
        finished += execute(todo, stop)
    begun = list(execute(todo, first=2, under_way=load_progress(tmp_path, 2)))
    resumed = join([*list(execute(todo))[:1], *begun])
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[str]:
    return save_tiny_networks(tmp_path_factory.mktemp("weights"))


def _command(weights, out, *flags) -> list[str]:
    given = [
        "--scenes=abbey,dam",
        "--nsfw_weights=1",
        "--seeds=5",
        "--steps=30",
        "--batch=3",
        "--record_codes=10",
    ]
    return [
        *(sys.executable, "-m", "experiments.joint", "--noprogress", "--save_seconds=0"),
        *(*weights, *given, f"--out={out}", *flags),
    ]


def _start(command: list[str]) -> subprocess.Popen:
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=env, **pipes)


def _finish(command: list[str]) -> subprocess.CompletedProcess:
    process = _start(command)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _left_behind(out: Path) -> dict[str, bytes]:
    """Every file of a finished run but the report, which has the command's folder in it."""
    files = [
        p for p in out.rglob("*") if p.is_file() and p.name not in ("config.json", "report.html")
    ]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """What an uninterrupted run leaves behind, and how long it takes once compiled."""
    folder = tmp_path_factory.mktemp("whole")
    assert _finish(_command(weights, folder / "first")).returncode == 0
    begun = time.monotonic()
    done = _finish(_command(weights, folder / "run"))
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    left = _left_behind(folder / "run")
    assert {"results.safetensors", "metrics.csv", "contact_sheet.png", "traces.png"} <= set(left)
    assert len(left) == 4 + 2 * 10 and not any(UNFINISHED in name for name in left)
    return left, seconds


@pytest.mark.parametrize("group", range(4))
def test_killed_at_any_moment_it_resumes_bit_equal(weights, tmp_path, whole, group):
    """20 moments in all, spread over the whole run: start-up, compiling, steps, images, pages."""
    left, seconds = whole
    rng = np.random.default_rng(group)
    for i in range(group, 20, 4):
        out = tmp_path / f"run{i}"
        process = _start(_command(weights, out))
        time.sleep((i + rng.uniform()) / 20 * seconds)
        process.kill()
        process.communicate()
        resumed = _finish(_command(weights, out, "--resume"))
        assert resumed.returncode == 0, resumed.stderr
        assert _left_behind(out) == left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_says_how_to_go_on(weights, tmp_path, whole, number):
    out = tmp_path / "run"
    process = _start(_command(weights, out))
    state = out / UNFINISHED / "under_way.safetensors"
    while not state.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.strip().count("\n") == 0
    assert "of 10 runs finished" in err and "--resume goes on" in err
    refused = _finish(_command(weights, out))
    assert refused.returncode == 2 and "--resume goes on with it" in refused.stderr
    assert _finish(_command(weights, out, "--resume")).returncode == 0
    assert _left_behind(out) == whole[0]
