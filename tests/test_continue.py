"""Runs of a finished sweep continue: --continue_from and --extend_steps."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from finished import read_arrays
from in_process import Outcome, run_cases
from launching import run, start
from test_launchers import rows_of
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.models.weights import save_network
from jaxsynth.runs.folder import UNFINISHED


def _run(name: str, *flags: object) -> None:
    done = run(name, "--noprogress", *flags)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds the weights and `first`, a finished sweep of two scenes and three seeds."""
    folder = tmp_path_factory.mktemp("continue")
    weights = save_tiny_networks(folder)
    how = ["--scenes=abbey,dam", "--seeds=3", "--steps=4", "--schedule=constant", "--batch=4"]
    _run("scene", *weights, *how, "--lr_start=0.5", f"--out={folder / 'first'}")
    return folder


def test_chosen_runs_go_on_with_another_objective(folder):
    out = folder / "second"
    given = ["--scenes=bar,canyon", "--steps=3", f"--continue_from={folder / 'first'}:1,4"]
    _run("scene", *given, f"--out={out}")
    first = safetensors.numpy.load_file(folder / "first" / "results.safetensors")
    second = safetensors.numpy.load_file(out / "results.safetensors")
    np.testing.assert_array_equal(second["start_codes"], first["codes"][[1, 4, 1, 4]])
    assert second["objective"].shape == (4, 3) and second["sound"].all()
    rows = rows_of(out)
    assert [row["from"] for row in rows] == [f"{folder / 'first'}:{n}" for n in (1, 4, 1, 4)]
    assert [row["seed"] for row in rows] == ["1"] * 4  # both runs began with this seed
    assert [row["column"] for row in rows] == ["run 1", "run 4"] * 2
    assert [row["target_1"] for row in rows[::2]] == [
        "places:log_odds:bar",
        "places:log_odds:canyon",
    ]
    config = json.loads((out / "config.json").read_text())
    assert [run["origin"] for run in config["runs"]] == [row["from"] for row in rows]
    assert str(folder / "first" / "results.safetensors") in config["inputs"]
    assert config["networks"]["places"]["name"] == str(folder / "places.safetensors")
    assert "continued from first" in (out / "report.html").read_text()
    assert "from" not in rows_of(folder / "first")[0]


def test_more_steps_of_a_constant_schedule_are_those_of_a_longer_run(folder):
    """Where nothing starts anew, bit for bit."""
    _run(
        "scene", f"--continue_from={folder / 'first'}", "--extend_steps=3", f"--out={folder / 'b'}"
    )
    how = ["--scenes=abbey,dam", "--seeds=3", "--steps=7", "--schedule=constant", "--batch=4"]
    weights = [f"--{role}={folder / role}.safetensors" for role in tiny_networks()]
    _run("scene", *weights, *how, "--lr_start=0.5", f"--out={folder / 'long'}")
    first, more, long = (read_arrays(folder / name) for name in ("first", "b", "long"))
    np.testing.assert_array_equal(more.codes, long.codes)
    np.testing.assert_array_equal(more.last.image, long.last.image)
    traces = np.concatenate([first.objective, more.objective], axis=1)
    np.testing.assert_array_equal(traces, long.objective)
    before, after = rows_of(folder / "first"), rows_of(folder / "b")
    for name in ("seed", "row", "column", "target_1"):
        assert [row[name] for row in after] == [row[name] for row in before]
    assert [row["from"] for row in after] == [f"{folder / 'first'}:{n}" for n in range(6)]
    # and an extension can be extended, some of its runs
    again = f"--continue_from={folder / 'b'}:4"
    _run("scene", again, "--extend_steps=2", "--lr_start=0.1", f"--out={folder / 'c'}")
    np.testing.assert_array_equal(
        safetensors.numpy.load_file(folder / "c" / "results.safetensors")["start_codes"],
        more.codes[[4]],
    )
    config = json.loads((folder / "c" / "config.json").read_text())
    assert config["sweep"]["recipe"]["lr_start"] == 0.1 and config["sweep"]["recipe"]["steps"] == 2
    assert config["sweep"]["recipe"]["schedule"] == "constant" and config["sweep"]["batch"] == 4


def test_an_extension_that_was_killed_resumes_to_the_same_bytes(folder):
    out = folder / "extended"
    flags = [f"--continue_from={folder / 'first'}", "--extend_steps=9", f"--out={out}", "--resume"]
    _run("scene", *flags)
    whole = (out / "results.safetensors").read_bytes()
    shutil.rmtree(out)
    process = start("scene", "--noprogress", *flags, "--save_seconds=0")
    while not list((out / UNFINISHED).glob("under_way*.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert (out / UNFINISHED).is_dir()
    _run("scene", *flags)
    assert (out / "results.safetensors").read_bytes() == whole
    assert [row["from"] for row in rows_of(out)] == [f"{folder / 'first'}:{n}" for n in range(6)]


WRONG = [
    ("--continue_from={folder}/absent", "no results.safetensors"),
    ("--continue_from={folder}/first:6", "no run 6 in"),
    ("--continue_from={folder}/first:1,x", "no results.safetensors"),
    ("--continue_from={folder}/cut", "cannot be read"),
    ("--continue_from={folder}/odd", "is of no sweep"),
    ("--continue_from={folder}/deep", "cannot be read"),
    ("--continue_from={folder}/pipe", "pipe or socket"),
    ("--continue_from={folder}/mixed --scenes=bar", "has 6 runs, its config.json 5"),
    ("--continue_from={folder}/damaged --scenes=bar", "damaged"),
    ("--continue_from={folder}/stopped", "is not finished; --resume it"),
    ("--continue_from={folder}/first --seeds=3", "leave --seeds alone"),
    ("--continue_from={folder}/first --init_codes=x.npy", "two starts"),
    ("--continue_from={folder}/first --init_image=x.png", "two starts"),
    ("--continue_from={folder}/first --out={folder}/first", "choose another --out"),
    (
        "--continue_from={folder}/first --generator={folder}/other.safetensors",
        "made with generator",
    ),
    ("--continue_from={folder}/first --scenes=volcano", "'volcano' is none of the 5 labels"),
    ("--extend_steps=5", "--continue_from=FOLDER"),
    ("--extend_steps=0 --continue_from={folder}/first", "--extend_steps=0"),
    ("--extend_steps=5 --continue_from={folder}/first --steps=5", "two numbers of steps"),
    ("--extend_steps=5 --continue_from={folder}/first --scenes=bar", "--scenes: --extend_steps"),
    ("--extend_steps=5 --continue_from={folder}/first --target=logit", "--target: --extend_steps"),
    (
        "--extend_steps=5 --continue_from={folder}/first --places={folder}/others.safetensors",
        "made with places",
    ),
]


@pytest.fixture(scope="module")
def refused(folder) -> dict[str, Outcome]:
    networks, first = tiny_networks(), folder / "first"
    for name, role in (("other", "generator"), ("others", "places")):
        network = networks[role]
        params = {path: np.asarray(value) * 1.01 for path, value in network.params.items()}
        save_network(folder / f"{name}.safetensors", network._replace(params=params))
    for name in ("cut", "odd", "mixed", "damaged", "stopped", "deep", "pipe"):
        (folder / name).mkdir()
        for file in ("results.safetensors", "config.json"):
            shutil.copy(first / file, folder / name)
    config = json.loads((first / "config.json").read_text())
    (folder / "cut" / "config.json").write_text("{")
    (folder / "odd" / "config.json").write_text('{"runs": 3}')
    (folder / "deep" / "config.json").write_text("[" * 100_000)
    (folder / "pipe" / "config.json").unlink()
    os.mkfifo(folder / "pipe" / "config.json")
    config["runs"].pop()
    (folder / "mixed" / "config.json").write_text(json.dumps(config))
    (folder / "damaged" / "results.safetensors").write_bytes(b"\x00" * 40)
    (folder / "stopped" / UNFINISHED).mkdir()
    cases = [["--out=run", *text.format(folder=folder).split(" ")] for text, _ in WRONG]
    found = run_cases("scene", cases, folder / "work")
    return dict(zip([text for text, _ in WRONG], found, strict=True))


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_cannot_go_on_is_one_line(refused, text, said):
    found = refused[text]
    assert found.code == 2 and not found.wrote and not found.out, found
    assert found.err.startswith("error: ") and found.err.count("\n") == 1
    assert said in found.err, found.err


def test_another_experiment_goes_on_but_does_not_extend(folder):
    start = f"--continue_from={folder / 'first'}:2"
    extended, climbed = run_cases(
        "nsfw", [["--out=run", start, "--extend_steps=2"], ["--out=run", start]], folder / "nsfw"
    )
    assert extended.code == 2 and "python -m experiments.scene" in extended.err
    assert climbed.code is None  # it has begun to compute
    _run("synthesize", "--term=nsfw:prob:NSFW:1", start, "--steps=1", f"--out={folder / 's'}")
    _run(
        "synthesize", f"--continue_from={folder / 's'}", "--extend_steps=1", f"--out={folder / 't'}"
    )
    assert rows_of(folder / "t")[0]["target_1"] == "nsfw:prob:NSFW"
