"""The command `jaxsynth`: experiments, models, blobs, labels; pages without a launcher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment
from PIL import Image
from tiny import LABELS, save_tiny_networks

import jaxsynth as js
from jaxsynth.__main__ import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    save_tiny_networks(folder)
    return folder


def test_the_command_lists_experiments_and_models(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name in ("scene", "joint", "score", "train_generator"):
        assert f"\n  {name} " in listed
    assert "common" not in listed and "benchmark_speed" not in listed
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "pocket_places" in listed and "from a file of yours: caffenet, dgn_fc6" in listed


def test_the_cache_is_told_and_emptied(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXSYNTH_CACHE", str(tmp_path))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "a").write_bytes(bytes(2_000_000))
    (tmp_path / "images-64-abc").mkdir()
    (tmp_path / "images-64-abc" / "images.npy").write_bytes(bytes(1_000_000))
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path) in said and "2.0 MB" in said and "3.0 MB" in said and "cache clear" in said
    assert main(["cache", "clear"]) == 0
    assert "freed 3.0 MB" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_blobs_and_labels_of_a_model(folder, capsys):
    assert main(["blobs", f"{folder}/places.safetensors"]) == 0
    assert "conv2_pre  8 x 8 x 8" in capsys.readouterr().out
    assert main(["labels", f"{folder}/places.safetensors"]) == 0
    assert tuple(capsys.readouterr().out.split()) == LABELS


@pytest.mark.parametrize(
    "name", ["show", "repeat", "blobs", "labels", "models", "compare", "cache"]
)
def test_every_question_has_help(capsys, name):
    assert main([name, "--help"]) == 0
    usage, what = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"usage: jaxsynth {name}") and what


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scen"], "did you mean scene"),
        (["blobs"], "takes a model"),
        (["models", "x"], "takes no word"),
        (["cache", "clean"], "'clean'"),
        (["blobs", "nothing"], "'nothing'"),
        (["labels", "{folder}/generator.safetensors"], "is a generator"),
    ],
)
def test_a_wrong_word_is_one_line(folder, capsys, words, said):
    assert main([word.format(folder=folder) for word in words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and said in line


def test_an_experiment_runs_from_anywhere(folder, tmp_path):
    """Folders of the working directory hide nothing."""
    for name in ("experiments", "ported_params"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('hidden')")
    env = environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}

    def jaxsynth(*words: str) -> str:
        command = [sys.executable, "-m", "jaxsynth", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "abbey" in jaxsynth("labels", "pocket_places")
    models = [f"--{role}={folder}/{role}.safetensors" for role in ("generator", "places", "nsfw")]
    jaxsynth("scene", *models, "--scenes=abbey", "--seeds=1", "--steps=1", "--noprogress")
    config = json.loads((tmp_path / "out" / "scene" / "config.json").read_text())
    assert config["command"].startswith("jaxsynth scene --generator=")


def test_pages_of_runs_in_memory_and_in_a_folder(folder, tmp_path):
    generator = js.load(folder / "generator.safetensors")
    nsfw = js.load(folder / "nsfw.safetensors").named("nsfw")
    places = js.load(folder / "places.safetensors").named("places")
    recipe = js.recipes.goh(steps=2)
    goals = {name: places.log_prob(name) for name in LABELS[:2]}
    runs = js.sweep(goals, generator, seeds=2, recipe=recipe, classifiers=[nsfw])
    pages = js.report(runs, tmp_path / "memory", title="Two scenes")
    assert pages.pictures == ["contact_sheet.png"] and len(pages.rows) == 4
    text = (tmp_path / "memory" / "report.html").read_text()
    assert text.count("<figure") == 4 and "Two scenes" in text and "config.json" not in text
    assert len(list((tmp_path / "memory" / "images").iterdir())) == 8

    where = {"folder": tmp_path / "saved", "recipe": recipe, "classifiers": [nsfw]}
    js.sweep(goals, generator, seeds=2, **where)
    js.report(tmp_path / "saved", tmp_path / "saved")
    for name in ("contact_sheet.png", "images/run00003_best.png"):
        with (
            Image.open(tmp_path / "memory" / name) as one,
            Image.open(tmp_path / "saved" / name) as other,
        ):
            one.load(), other.load()
    assert "config.json" in (tmp_path / "saved" / "report.html").read_text()
