"""Runs that do not stay finite are frozen where they last were, told of, and harm no neighbour."""

import csv
import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
from finished import read_arrays
from launching import run
from PIL import Image
from short import Run, Sweep, Term, synthesize
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.recipes import RECIPES, Recipe

SCENE = Term("places", "fc8", (1,), 1.0)
# Its gradient is 2 z weight / D: a positive weight makes codes grow by that factor at every step.
SIZE = Term("generator", "code_l2", (0,), -0.01)
GROWING = Recipe(
    steps=12, normalize=False, lr_start=1.0, schedule="constant", box="none", start="normal"
)


def _same(one, i: int, other, j: int) -> None:
    for name in ("codes", "best_codes", "objective", "ended", "sound"):
        np.testing.assert_array_equal(getattr(one, name)[i], getattr(other, name)[j])
    np.testing.assert_array_equal(one.last.image[i], other.last.image[j])
    np.testing.assert_array_equal(one.best.image[i], other.best.image[j])


@pytest.mark.parametrize("last_image", ["final", "last_forward"])
def test_a_run_that_overflows_midway_is_frozen_at_its_last_finite_code(last_image):
    recipe = dataclasses.replace(GROWING, last_image=last_image)
    settings = Sweep(recipe, balance="sum", batch=3, record=(1, 2, 3, 4, 5, 12))
    good = [Run(seed, (SCENE, SIZE)) for seed in (0, 2)]
    bad = Run(1, (SCENE, dataclasses.replace(SIZE, weight=6e4)))  # ten thousand times a step
    mixed = synthesize(tiny_networks(), [good[0], bad, good[1]], settings)
    alone = synthesize(tiny_networks(), good, settings)
    _same(mixed, 0, alone, 0)
    _same(mixed, 2, alone, 1)
    assert mixed.sound.tolist() == [True, False, True] and alone.sound.all()
    end = mixed.ended[1]
    assert 3 <= end <= 5 and alone.ended.tolist() == [-1, -1]
    assert np.isfinite(mixed.objective[1, :end]).all() and not np.isfinite(mixed.objective[1, end])
    np.testing.assert_array_equal(mixed.codes[1], mixed.recorded_codes[1, end - 2])
    np.testing.assert_array_equal(mixed.recorded_codes[1, -1], mixed.codes[1])
    # frozen: whatever comes later is the objective of the code that was kept
    assert (mixed.objective[1, end + 1 :] == mixed.objective[1, end - 1]).all()
    for look in (mixed.last, mixed.best):
        assert np.isfinite(look.objective).all() and np.isfinite(look.image).all()
        np.testing.assert_allclose(look.objective[1], mixed.objective[1, end - 1], rtol=1e-5)

    # one update fewer: now only the look at the finished image can see it
    recipe = dataclasses.replace(recipe, steps=int(end))
    short = synthesize(tiny_networks(), [good[0], bad], Sweep(recipe, balance="sum", batch=3))
    assert short.ended.tolist() == [-1, end] and short.sound.tolist() == [True, False]
    assert np.isfinite(short.objective).all()
    np.testing.assert_array_equal(short.codes[1], mixed.codes[1])
    np.testing.assert_array_equal(short.last.image[1], mixed.last.image[1])


def test_a_gradient_that_is_not_finite_freezes_the_run_at_its_own_code():
    """The objective is finite, 1e30 times its gradient's steps are not."""
    recipe = dataclasses.replace(RECIPES["goh"], steps=4, normalize=False, lr_start=1e38)
    recipe = dataclasses.replace(recipe, box="none", start="normal")
    run = Run(3, (dataclasses.replace(SCENE, weight=1e30),))
    result = synthesize(tiny_networks(), [run], Sweep(recipe, balance="sum", batch=2))
    start = synthesize(tiny_networks(), [run], Sweep(dataclasses.replace(recipe, steps=0), batch=2))
    assert result.ended.tolist() == [0] and not result.sound[0]
    np.testing.assert_array_equal(result.codes, start.codes)
    assert (
        np.isfinite(result.objective).all() and (result.objective == result.objective[0, 0]).all()
    )


def _launch(weights, out, codes) -> subprocess.CompletedProcess:
    np.save(out.parent / "codes.npy", np.asarray(codes, np.float32))
    flags = [f"--seeds={len(codes)}", "--steps=3", "--batch=2", f"--out={out}"]
    flags += ["--term=places:fc8:bar:1", f"--init_codes={out.parent / 'codes.npy'}"]
    return run("synthesize", "--noprogress", *weights, *flags)


def _red(image: Path) -> int:
    """Pixels of the flag's colour."""
    with Image.open(image) as page:
        return int((np.asarray(page.convert("RGB")) == [0xB3, 0x26, 0x1E]).all(axis=-1).sum())


def test_a_poisoned_start_code_is_marked_counted_and_alone(tmp_path):
    weights = save_tiny_networks(tmp_path)
    codes = np.random.default_rng(0).uniform(0, 2, (3, 12))
    poisoned = codes.copy()
    poisoned[1] = 3e38  # finite, but not its image
    done = _launch(weights, tmp_path / "run", poisoned)
    assert done.returncode == 0, done.stderr
    clean = _launch(weights, tmp_path / "clean", codes)
    assert clean.returncode == 0, clean.stderr
    found, expected = read_arrays(tmp_path / "run"), read_arrays(tmp_path / "clean")
    assert found.sound.tolist() == [True, False, True]
    for i in (0, 2):
        _same(found, i, expected, i)
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "non-finite from its start", "ok"]
    for row in rows:
        assert row["objective_shown"] == row[f"objective_{row['shown']}"]
    [said] = [line for line in done.stderr.splitlines() if "finite" in line]
    assert said.startswith("1 of 3 runs did not stay finite: frozen at step 0, see the column")
    assert "finite" not in clean.stderr
    lines = {line.rsplit("  ", 1)[0].strip(): line.split() for line in done.stdout.splitlines()}
    assert lines["runs that did not stay finite, frozen"][-1] == "1"
    summary = done.stdout.partition("contact sheet")[0]
    assert "nan" not in summary and "frozen" not in clean.stdout
    assert "non-finite from its start" in (tmp_path / "run" / "report.html").read_text()
    assert _red(tmp_path / "run" / "contact_sheet.png") > 500
    assert _red(tmp_path / "clean" / "contact_sheet.png") == 0


def test_a_sweep_whose_runs_are_all_frozen_ends_with_3(tmp_path):
    done = _launch(save_tiny_networks(tmp_path), tmp_path / "run", np.full((2, 12), 3e38))
    assert done.returncode == 3 and "no run stayed finite" in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("name", ["goh", "adam", "dgn_am", "lion"])
def test_a_zero_gradient_is_told_as_one_and_is_sound(name):
    steps = {"optimizer": "lion"} if name == "lion" else {}
    recipe = dataclasses.replace(RECIPES["goh" if steps else name], steps=3, **steps)
    nothing = Run(0, (dataclasses.replace(SCENE, weight=0.0),))
    result = synthesize(tiny_networks(), [nothing, Run(1, (SCENE,))], Sweep(recipe, batch=2))
    assert result.ended.tolist() == [0, -1] and result.sound.tolist() == [True, True]
    assert np.isfinite(result.codes).all() and np.isfinite(result.last.image).all()


def test_a_silent_unit_is_taken_before_its_relu_and_the_files_say_so(tmp_path):
    weights = save_tiny_networks(tmp_path)
    small = ["--noprogress", "--seeds=1", "--steps=2", "--batch=1", f"--out={tmp_path / 'run'}"]
    done = run("synthesize", *weights, *small, "--term=places:conv2:3:1")
    assert done.returncode == 0 and "at conv2_pre, before its ReLU" in done.stderr, done.stderr
    assert "before its ReLU" in (tmp_path / "run" / "metrics.csv").read_text()
    assert "before its ReLU" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_is_silent_throughout_ends_with_0(tmp_path):
    weights = save_tiny_networks(tmp_path)
    small = ["--noprogress", "--seeds=1", "--steps=2", "--batch=1", f"--out={tmp_path / 'run'}"]
    done = run("synthesize", *weights, *small, "--term=places:conv2:3:mean:0")
    assert done.returncode == 0, done.stderr
    assert "zero gradient at step 0" in (tmp_path / "run" / "metrics.csv").read_text()
