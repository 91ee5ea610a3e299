"""Photographs that raise and lower units: by hand on a small network, and the launcher."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launching import run
from PIL import Image
from tiny import save_tiny_networks

import jaxsynth as js
from experiments import examples
from jaxsynth.examples import crop, responses, seen_part
from jaxsynth.image_search import find_images

KERNEL = np.zeros((3, 3, 3, 2), np.float32)
KERNEL[1, 1, 0, 0] = KERNEL[1, 1, 2, 1] = 1.0  # red, blue


def _apply(params, x):
    maps = jax.lax.conv_general_dilated(
        x[None], params, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    return {"conv": maps, "logits": maps.mean((0, 1))}


@pytest.fixture(scope="module")
def net():
    return js.Classifier(_apply, jnp.asarray(KERNEL), size=17, labels=("red", "blue"), name="net")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey pictures with one coloured dot each, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, colour, strength in (("a", 0, 255), ("b", 0, 180), ("c", 2, 255), ("d", 2, 150)):
        rgb = np.full((17, 17, 3), 60, np.uint8)
        rgb[5, 11, colour] = strength
        Image.fromarray(rgb).save(folder / f"{name}.png")
    (folder / "notes.png").write_text("no image")
    return folder


def test_extremes_and_the_places_that_respond(net, folder):
    found = responses(net, "conv", [0, 1], find_images([folder]).files)
    names = [file.path.stem for file in found.files]
    assert names == ["a", "b", "c", "d"] and len(found.unread) == 1
    most, least = found.extremes(0, 2)
    assert [names[i] for i in most] == ["a", "b"] and set(names[i] for i in least) == {"c", "d"}
    np.testing.assert_allclose(found.values[:, 1], np.array([60, 60, 255, 150]) / 255, rtol=1e-5)
    assert found.places[0, 0].tolist() == [2, 5]
    part = seen_part(net, "conv", (2, 5))
    assert part == (5, 11, 6, 12)  # the kernel has one tap that is not 0
    assert crop(net, found.files[0], part).tolist() == [[[255, 60, 60]]]
    assert seen_part(net, "logits", (0, 0)) == (0, 0, 17, 17)


def test_what_cannot_be_looked_at_is_refused(net, folder):
    with pytest.raises(ValueError, match="no blob 'conv9'"):
        responses(net, "conv9", [0], find_images([folder]).files)
    with pytest.raises(ValueError, match="no image can be read"):
        responses(net, "conv", [0], find_images([folder / "notes.png"]).files)


def test_the_launcher_writes_pages_and_a_table(folder, tmp_path, monkeypatch):
    asked, find = [], examples.responses
    monkeypatch.setattr(examples, "responses", lambda *a: asked.append(a[1]) or find(*a))
    out = tmp_path / "run"
    flags = [*save_tiny_networks(tmp_path), "--blob=conv2", "--units=0:2", f"--images={folder}"]
    flags += ["--top=2", "--steps=2"]
    done = run("examples", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stdout and (out / "contact_sheet.png").is_file()
    rows = list(csv.DictReader((out / "examples.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2 and {row["end"] for row in rows} == {"most", "least"}
    first = [float(row["activation"]) for row in rows if row["unit"] == rows[0]["unit"]]
    assert first[0] >= first[1] >= first[3] >= first[2]
    assert asked == ["conv2_pre"]  # where the unit's own image is maximised
    done = run("examples", *flags, "--model=places", "--model=nsfw", f"--out={out}")
    assert done.returncode == 2 and "one --model" in done.stderr
