"""What benchmark_speed counts and compares; no test here looks at how long anything takes."""

import csv
import math
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_process import run_cases
from launching import ROOT, run, start
from tiny import tiny_networks

from benchmarks import accelerator
from benchmarks.speed.cases import (
    forward_operations,
    inputs,
    network_case,
    random_network,
    step_operations,
    trio_case,
)
from benchmarks.speed.compare import (
    OURS,
    Limits,
    Measured,
    check_agreement,
    ratio,
    summarise,
    time_in_turn,
)
from benchmarks.speed.table import commit_rows, second_rows, speed_rows
from benchmarks.speed_cases import in_own_process
from benchmarks.whole import exclusive
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.network import KNOWN_CONFIGS


def _networks():
    networks = {}
    for role, network in tiny_networks().items():
        params = {k: jnp.asarray(v) for k, v in network.params.items()}
        networks[role] = network._replace(params=params)
    return networks


def test_operations_of_a_layer_table():
    """open_nsfw by hand: its first convolution, and the whole of the tiny generator."""
    tiny = tiny_networks()["generator"].info.config
    dense = 12 * 20 + 20 * 64
    deconv = 4 * 4 * 16 * 4 * 6 + 8 * 8 * 16 * 6 * 3  # pixels in x taps x channels
    assert forward_operations(tiny) == 2 * (dense + deconv)
    grid = GridGeneratorConfig((2, 2, 4), size=8, width=2)
    first = 16 * 16 + 2 * 4 * 9 * 4 * 8  # colour; conv_in and conv2
    last = 16 * 9 * 4 * 4 + 64 * (9 * 2 * 16 + 16 * 3)  # up4; paint and rgb
    assert forward_operations(grid) == 2 * (first + last)
    lite0 = forward_operations(KNOWN_CONFIGS["efficientnet_lite0"])
    assert lite0 == pytest.approx(2 * 407e6, rel=0.06)  # Google's table: 407 M multiply-adds
    # the figure of the layer tables: about 11 GFLOP for the trio's step
    full = [forward_operations(KNOWN_CONFIGS[n]) for n in ("dgn_fc6", "open_nsfw", "places205")]
    assert 2 * sum(full) == pytest.approx(11.2e9, rel=0.02)


def test_a_trio_climbs_the_sum_of_both_first_logits():
    networks = _networks()
    case = trio_case("tiny", networks)
    code = jnp.asarray(inputs(case.first.info.config, 3))
    values, gradients = case.step(case.params, code)
    assert values.shape == (3,) and gradients.shape == code.shape
    step = 1e-2 * gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
    rises = case.step(case.params, code + step)[0] - case.step(case.params, code - step)[0]
    expected = 2e-2 * jnp.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(rises, expected, rtol=0.15)
    assert step_operations(networks) == 2 * sum(
        forward_operations(n.info.config) for n in networks.values()
    )


@pytest.mark.parametrize("role", ["generator", "places", "nsfw"])
def test_a_network_by_itself(role):
    case = network_case(_networks()[role])
    x = jnp.asarray(inputs(case.first.info.config, 2))
    values, gradients = case.step(case.params, x)
    assert values.shape == (2,) and gradients.shape == x.shape
    assert float(jnp.abs(gradients).max()) > 0


def test_random_networks_neither_vanish_nor_burst():
    network = random_network("places205")
    x = jnp.asarray(inputs(network.info.config, 1))[0]
    logits = jax.jit(lambda p, x: network.apply(p, x)["fc8"])(network.params, x)
    assert 0.1 < float(jnp.std(logits)) < 1e4


def test_calls_are_timed_in_turn(monkeypatch):
    """By a clock that only calls move: one of each compiles, then 50 ms of each go unclocked."""
    order, now, seconds = [], [0.0], {"a": 1.0, "b": 0.02}

    def call(name):
        order.append(name)
        now[0] += seconds[name]

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    calls = {name: partial(call, name) for name in "ab"}
    timings = time_in_turn(calls, repeats=4, budget=60.0)
    assert "".join(order) == "ab" + 4 * ("aa" + "bbb" + "b")
    assert timings["a"].seconds == pytest.approx([1.0] * 4)
    assert timings["b"].seconds == pytest.approx([0.02] * 4)
    assert len(time_in_turn(calls, repeats=99, budget=0.0)["a"].seconds) == 3


def test_the_table_says_what_was_measured():
    ours, theirs = summarise(np.array([0.1, 0.2, 0.4])), summarise(np.array([0.2, 0.2, 1.2]))
    assert ratio(ours, theirs) == 2.0
    one = Measured("trio", 8, "float32", 40e9, 2e9, 3e6, 9.0, {OURS: ours, "torch": theirs}, 2e-15)
    (row,) = speed_rows([one], {"float32": Limits(400e9, 20e9)})
    assert row["ours, ms"].startswith("200.0 (") and row["torch / ours"] == "2.00"
    assert (row["GFLOP/s"], row["of the peak"], row["runs x steps / s"]) == ("200", "50%", "40")
    assert row["rounds"] == 3
    assert (row["floor: arithmetic, ms"], row["floor: bytes, ms"]) == ("100", "100")
    assert [r["seconds"] for r in second_rows([one])] == [0.1, 0.2, 0.4, 0.2, 0.2, 1.2]


def test_commits_are_compared_by_their_lowest_medians():
    first, second = commit_rows(
        {("trio", "8"): {"a": 0.3, "b": 0.2}, ("pocket", "1"): {"a": 0.05}}, ["a", "b"]
    )
    assert first == {
        "case": "trio",
        "batch": "8",
        "a, ms": "300.0",
        "b, ms": "200.0",
        "a / b": "1.50",
    }
    assert (second["a, ms"], second["b, ms"], second["a / b"]) == ("50.0", "", "")


def _refused(name: str, folder: Path, wrong: dict[str, str]) -> None:
    found = run_cases(name, [flags.split() for flags in wrong], folder)
    for outcome, (flags, said) in zip(found, wrong.items(), strict=True):
        assert outcome.code == 2 and said in outcome.err, (flags, outcome)
        assert outcome.err.count("\n") == 1 and not outcome.wrote, (flags, outcome)


@pytest.mark.skipif(shutil.which("git") is None, reason="commits are git's")
def test_wrong_commits_are_refused():
    _refused("commits", ROOT, {
        "--commits=no-such-commit": "'no-such-commit' is no commit of this clone",
        "--commits=HEAD --batches=0": "--batches=0: expected numbers such as 8,1",
        "--commits=HEAD --cases=duo": "duo",
        "": "--commits: expected some of this clone's",
    })  # fmt: skip


def test_the_peer_computes_the_same_gradient():
    pytest.importorskip("torch", reason="PyTorch is not installed: no peer to compare with")
    networks = _networks()
    assert check_agreement(trio_case("tiny", networks)) < 1e-9
    for network in networks.values():
        assert check_agreement(network_case(network)) < 1e-9


def test_a_process_of_its_own_answers_or_its_end_is_told():
    with pytest.raises(ValueError, match="math domain"):
        in_own_process(math.sqrt, -1)
    with pytest.raises(ValueError, match=r"process of _exit \(9,\) ended .* \(exit code 9\)"):
        in_own_process(os._exit, 9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_benchmark_leaves_no_process_behind(tmp_path, number):
    flags = ("--cases=pocket_places", "--seconds=600", "--repeats=999999")
    process = start("benchmark_speed", *flags, f"--out={tmp_path / 'speed'}")
    children = _wait(lambda: _children(process.pid), process)
    process.send_signal(number)
    _, err = process.communicate(60)
    assert (process.returncode, err) == (128 + number, "stopped\n")
    _wait(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def _children(pid: int) -> list[int]:
    """Processes that `pid` has started, by Linux's own list of them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("this system does not list a process's children")
    return [int(child) for child in listed.read_text().split()]


def _wait(for_what, process=None):
    for _ in range(600):
        if found := for_what():
            return found
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("waited a minute")


def test_the_launcher_writes_a_table_and_every_time(tmp_path):
    out = tmp_path / "speed"
    args = ("--cases=pocket_places,pocket_places", "--batches=2,2", "--repeats=3", f"--out={out}")
    done = run("benchmark_speed", *args)
    assert done.returncode == 0, done.stderr
    text = (out / "speed.md").read_text()
    assert "python -m experiments.benchmark_speed --cases=pocket_places,pocket_places" in text
    assert text.count("| pocket_places | ") == 1
    with (out / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(float(r["seconds"]) > 0 for r in rows)
    again = run("benchmark_speed", *args)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "--overwrite" in again.stderr


def test_wrong_values_are_refused(tmp_path):
    _refused("benchmark_speed", tmp_path, {
        "--out=run --cases=trio,quartet": "expected some of trio",
        "--out=run --batches=0": "--batches=0",
        "--out=run --precisions=float16": "expected some of float32",
        "--out=run --seconds=nan": "--seconds=nan",
    })  # fmt: skip


def test_the_innermost_phase_owns_a_moment():
    spans = [("steps", 1.0, 5.0), ("compiling", 2.0, 3.0), ("tracing", 2.25, 2.75)]
    found = exclusive([("other", 0.0, 6.0), *spans])
    assert found == {"other": 2.0, "steps": 3.0, "compiling": 0.5, "tracing": 0.5}


def test_a_part_that_fails_or_takes_too_long_ends_no_other(tmp_path):
    codes = accelerator.Part("codes", ("timeit", "-n", "1", "-r", "1", "-s", "1 / 0"), 1.0)
    slow = accelerator.Part("slow", ("timeit", "-n", "1", "import time; time.sleep(60)"), 1.0)
    assert accelerator.run(codes, tmp_path, 20)["ended"] == "exit code 1"
    assert "ZeroDivisionError" in (tmp_path / "codes.txt").read_text()
    assert accelerator.run(slow, tmp_path, 0.5)["ended"] == "stopped after 0 s"
    names = [part.name for part in accelerator.parts(tmp_path, False, True, "photographs")]
    assert names == ["speed", "sweep", "tests", "training"]
    assert sum(p.share for p in accelerator.parts(tmp_path, False, True, "photographs")) == 1.0
