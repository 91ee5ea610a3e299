"""Stopped, killed and damaged sweeps resume, bit-equal to uninterrupted ones."""

import csv
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from launching import run, run_alone, start
from short import Run, Sweep, Term, execute, plan
from tiny import tiny_networks

from jaxsynth.batch import join
from jaxsynth.recipes import RECIPES, Recipe
from jaxsynth.runs.checkpoint import load_chunk, load_progress, save_progress
from jaxsynth.runs.folder import CONFIG, GONE, RESULTS, UNFINISHED, open_run, write_config
from jaxsynth.runs.processes import lock

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
def test_a_chunk_resumes_at_any_step_bit_equal(name, tmp_path):
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
    begun = list(execute(todo, chunks=(2, 4), under_way=load_progress(tmp_path, 2)))
    resumed = join([*list(execute(todo))[:1], *begun])
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def _command(weights, out, *flags) -> list[str]:
    given = [
        "--scenes=abbey,dam",
        "--nsfw_weights=1",
        "--seeds=5",
        "--steps=30",
        "--batch=3",
        "--record_codes=10",
    ]
    return ["joint", "--noprogress", "--save_seconds=0", *weights, *given, f"--out={out}", *flags]


def _left_behind(out: Path) -> dict[str, bytes]:
    """Every file of a finished run but the report, which has the command's folder in it."""
    own = ("config.json", "index.html", "report.html", "data.js")
    files = [p for p in out.rglob("*") if p.is_file() and p.name not in own]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """What an uninterrupted run leaves behind, and how long it takes once compiled."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(*_command(weights, folder / "first")).returncode == 0
    begun = time.monotonic()
    done = run_alone(*_command(weights, folder / "run"))
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    left = _left_behind(folder / "run")
    assert {"results.safetensors", "metrics.csv", "contact_sheet.png", "traces.png"} <= set(left)
    assert len([name for name in left if name.startswith("images/")]) == 2 * 10
    assert not any(UNFINISHED in name for name in left)
    return left, seconds


@pytest.mark.parametrize("group", range(4))
def test_killed_at_any_moment_it_resumes_bit_equal(weights, tmp_path, whole, group):
    """8 moments in all, spread over the whole run: start-up, compiling, steps, images, pages."""
    left, seconds = whole
    rng = np.random.default_rng(group)
    for i in range(group, 8, 4):
        out = tmp_path / f"run{i}"
        process = start(*_command(weights, out))
        time.sleep((i + rng.uniform()) / 8 * seconds)
        process.kill()
        process.communicate()
        resumed = run(*_command(weights, out, "--resume"))
        assert resumed.returncode == 0, resumed.stderr
        assert _left_behind(out) == left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_says_how_to_resume(weights, tmp_path, whole, number):
    out = tmp_path / "run"
    process = start(*_command(weights, out))
    while not list((out / UNFINISHED).glob("under_way*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.strip().count("\n") == 1 and "stopping after this step" in err
    assert "of 4 chunks finished" in err and "--resume continues" in err
    refused = run(*_command(weights, out))
    assert refused.returncode == 2 and "--resume (resume=True) continues it" in refused.stderr
    assert run(*_command(weights, out, "--resume")).returncode == 0
    assert _left_behind(out) == whole[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_up_is_one_word(weights, tmp_path, number):
    out = tmp_path / "run"
    name, *flags = _command(weights, out)
    process = subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "jaxlib" not in maps.read_text():  # its imports are under way
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    said = process.communicate(timeout=60)
    assert said == ("", "stopped\n") and process.returncode == 128 + number
    assert not out.exists()


def test_two_at_once_are_refused_and_a_killed_one_leaves_no_lock(weights, tmp_path, whole):
    out = tmp_path / "run"
    first = start(*_command(weights, out))
    while not (out / UNFINISHED).is_dir():
        assert first.poll() is None, first.communicate()
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = run(*_command(weights, out, "--resume"))
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert f"is in use by another process (number {first.pid})" in second.stderr
    first.kill()
    first.communicate()
    assert run(*_command(weights, out, "--resume")).returncode == 0
    assert _left_behind(out) == whole[0]


def test_a_lock_is_given_back(tmp_path):
    for _ in range(2):
        with lock(tmp_path), pytest.raises(ValueError, match="in use"), lock(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_without_locks_it_continues_with_one_line(tmp_path, monkeypatch, capsys, code):
    def flock(handle, how):
        raise OSError(code, os.strerror(code))

    if code is None:  # Windows
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", flock)
    with lock(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    said = capsys.readouterr().err
    why = os.strerror(code) if code else sys.platform
    assert f"has no locks ({why})" in said and said.count("\n") == 1
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["file"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 150 kB, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=152k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield (
        folder,
        lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], check=True
        ),
    )
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_no_finished_chunk(weights, whole, small_disk):
    folder, change = small_disk
    out = folder / "run"
    full = run(*_command(weights, out))
    assert full.returncode == 2, full.stderr
    assert full.stderr.count("\n") == 1 and "No space left" in full.stderr
    assert "are saved" in full.stderr and "--resume continues" in full.stderr
    chunks = sorted((out / UNFINISHED).glob("run*.safetensors"))
    assert chunks and load_chunk(out, 0).codes.shape == (3, 12)
    again = run(*_command(weights, out, "--resume"))
    assert again.returncode == 2 and "No space left" in again.stderr
    change("size=8m")
    assert run(*_command(weights, out, "--resume")).returncode == 0
    assert _left_behind(out) == whole[0]


def test_a_read_only_disk_is_one_clear_line(weights, small_disk):
    folder, change = small_disk
    change("ro")
    done = run(*_command(weights, folder / "run"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr


def test_a_run_resumes_with_its_own_settings_only(weights, tmp_path):
    out = tmp_path / "run"
    assert run(*_command(weights, out)).returncode == 0
    done = run(*_command(weights, out, "--resume"))
    assert done.returncode == 0 and "nothing is left to resume" in done.stdout
    other = run(*_command(weights, out, "--resume", "--steps=31"))
    assert other.returncode == 2 and "a run with sweep recipe steps 30, not 31" in other.stderr
    both = run(*_command(weights, out, "--resume", "--overwrite"))
    assert both.returncode == 2 and "give one of them" in both.stderr


def test_checkpoints_that_a_kill_left_of_a_finished_run_go(tmp_path):
    write_config(tmp_path, {"runs": []})
    for name in (RESULTS, f"{GONE}/run00000000.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert open_run(tmp_path, {"runs": []}, resume=True) is None
    assert {path.name for path in tmp_path.iterdir()} == {RESULTS, CONFIG}


def test_a_damaged_chunk_is_named(tmp_path):
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / UNFINISHED / "run00000000.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match=r"run00000000.*cannot be read.*delete it"):
        load_chunk(tmp_path, 0)


def test_a_state_of_another_recipe_is_refused(tmp_path):
    runs = [Run(0, TERMS)]
    snapshots = []

    def remember(first, done, values, snapshot):
        snapshots.append(snapshot())

    list(execute(plan(tiny_networks(), runs, Sweep(Recipe(steps=2), batch=2)), remember))
    other = plan(tiny_networks(), runs, Sweep(Recipe(steps=2), batch=3))
    said = "another recipe, batch, generator, number of devices or version of jaxsynth or jaxlib"
    with pytest.raises(ValueError, match=said):
        list(execute(other, under_way=snapshots[0]))


def test_a_sweep_without_a_sound_run_ends_with_3(weights, tmp_path):
    out = tmp_path / "run"
    done = run(*_command(weights, out, "--scene_weight=3e38"))  # times log P: beyond float32
    assert done.returncode == 3 and "no run stayed finite" in done.stderr
    with open(out / "metrics.csv", newline="") as file:
        assert all(row["status"].startswith("non-finite") for row in csv.DictReader(file))
