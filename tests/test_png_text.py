"""An image tells how it was made, and is made again from that, equal to the bit."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from launching import run
from PIL import Image
from tiny import save_tiny_networks, tiny_networks

from jaxsynth import __version__, png_text
from jaxsynth.__main__ import main
from jaxsynth.image_files import read_image
from jaxsynth.models.weights import save_network
from jaxsynth.png_text import read_text, show
from jaxsynth.repeat import repeat
from jaxsynth.runs.records import read_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds the weights and `run`, a finished sweep."""
    folder = tmp_path_factory.mktemp("text")
    how = ["--scenes=abbey,dam", "--nsfw_weights=1", "--seeds=3", "--steps=4", "--batch=4"]
    weights = save_tiny_networks(folder)
    done = run("joint", *weights, *how, "--noprogress", f"--out={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder


def test_every_image_of_a_run_tells_how_it_was_made(folder):
    config = json.loads((folder / "run" / "config.json").read_text())
    for number, made in enumerate(config["runs"]):
        for which in ("last", "best"):
            said = read_text(folder / "run" / "images" / f"run{number:05d}_{which}.png")
            assert (said["run"], said["which"]) == (number, which)
            assert {name: said[name] for name in made} == made
            for name in ("sweep", "networks", "arithmetic"):
                assert said[name] == config[name]
            assert "--scenes=abbey,dam" in said["command"] and "--out" not in said["command"]
            assert said["versions"]["jaxsynth"] == __version__
    lines = dict(
        line.split(None, 1) for line in show(folder / "run/images/run00001_last.png").split("\n")
    )
    assert lines["objective"].startswith("places:") and lines["seed"] == "1"


def test_a_recipe_is_shown_without_what_an_own_optimizer_replaces():
    recipe = {"steps": 4, "optimizer": "sgd", "lr_start": 1.0, "decay": 0.9}
    own = {"recipe": recipe, "optimizer": "cma_es"}
    assert png_text.deciding({"sweep": own})["sweep"] == own | {"recipe": {"steps": 4}}
    optax = png_text.deciding({"sweep": own | {"optimizer": "optax"}})["sweep"]["recipe"]
    assert optax == {"steps": 4, "decay": 0.9}
    assert png_text.deciding({"sweep": {"recipe": recipe}})["sweep"]["recipe"] == recipe


@pytest.mark.parametrize("name", ["run00001_last", "run00005_best"])
def test_it_is_made_again_equal_to_the_bit(folder, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = folder / "run" / "images" / f"{name}.png"
    assert main(["repeat", str(first)]) == 0
    second = tmp_path / f"{name}_again.png"
    assert "is bit-equal to" in capsys.readouterr().out
    np.testing.assert_array_equal(read_image(second), read_image(first))
    assert read_text(second) == read_text(first)
    assert repeat(second, tmp_path / "third.png").equal


def test_a_saved_result_is_made_again(folder, tmp_path):
    read_results(folder / "run")[2].save(tmp_path / "x.png")
    assert repeat(tmp_path / "x.png", tmp_path / "y.png").equal


@pytest.mark.parametrize("start", ["--continue_from={}/run:1", "--init_image={}/photo.png"])
def test_a_start_from_elsewhere_travels_in_the_image(folder, photo, tmp_path, start, monkeypatch):
    shutil.copy(photo, folder / "photo.png")
    weights = [f"--{role}={folder / role}.safetensors" for role in ("generator", "places", "nsfw")]
    given = [*weights, start.format(folder), "--scenes=bar", "--steps=2", "--noprogress"]
    done = run("scene", *given, f"--out={tmp_path / 'more'}")
    assert done.returncode == 0, done.stderr
    image = tmp_path / "more" / "images" / "run00000_last.png"
    assert "start_code    12 numbers" in re.sub("  +", "    ", show(image))
    assert repeat(image, tmp_path / "x.png").equal
    read_results(tmp_path / "more")[0].save(tmp_path / "y.png")
    assert repeat(tmp_path / "y.png", tmp_path / "z.png").equal
    monkeypatch.setattr(png_text, "_LARGEST", 40)
    read_results(tmp_path / "more")[0].save(tmp_path / "y.png")
    with pytest.raises(ValueError, match=r"started from .*, which is not in it: repeat its com"):
        repeat(tmp_path / "y.png", tmp_path / "z.png")


def test_what_cannot_be_repeated_is_one_line(folder, tmp_path):
    image = folder / "run" / "images" / "run00001_last.png"
    Image.open(image).convert("RGB").save(tmp_path / "again.png")
    (tmp_path / "text.png").write_text("text")
    for path, said in (
        (tmp_path / "again.png", "does not tell how it was made"),
        (tmp_path / "text.png", "is a text, expected a PNG"),
        (tmp_path / "absent.png", "No such file"),
        (image, "is the image itself"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            repeat(path, image)
        assert "\n" not in str(caught.value)


def test_other_weights_are_refused(folder, tmp_path):
    network, path = tiny_networks()["places"], folder / "places.safetensors"
    params = {name: np.asarray(value) * 1.01 for name, value in network.params.items()}
    before = {file: file.read_bytes() for file in (path, folder / "manifest.jsonl")}
    save_network(path, network._replace(params=params))
    try:
        with pytest.raises(ValueError, match=r"was made with places .* but here it has"):
            repeat(folder / "run" / "images" / "run00001_last.png", tmp_path / "x.png")
    finally:
        for file, data in before.items():
            file.write_bytes(data)
