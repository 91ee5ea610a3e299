"""Activation atlases: the map by hand, and the launcher with its pages in a browser."""

import csv
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from browser import browser
from launching import run
from PIL import Image
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth.activation_map import Samples, map_cells, sample
from jaxsynth.image_search import find_images


def _samples(values, classes=None):
    count = len(values)
    classes = np.zeros(count, int) if classes is None else classes
    return Samples((), np.asarray(values), np.arange(count), np.zeros((count, 2), int), classes, ())


def _clusters(rng, channels=6):
    """Four clouds: axis 0 tells them apart most, axis 1 less; the rest is noise."""
    values, classes = [], []
    for label, (x, y) in enumerate([(-30, -9), (-30, 9), (30, -9), (30, 9)]):
        cloud = rng.normal(0, 0.3, (20, channels))
        cloud[:, 0] += x
        cloud[:, 1] += y
        values.append(cloud)
        classes += [label] * 20
    return np.concatenate(values).astype(np.float32), np.array(classes)


@pytest.mark.parametrize("channels", [6, 100])  # fewer and more than the 80 samples
def test_clouds_come_into_cells_of_their_own(channels):
    values, classes = _clusters(np.random.default_rng(0), channels)
    cells = map_cells(_samples(values, classes), labels="abcd", side=2)
    assert sorted(cell.label for cell in cells) == list("abcd")
    mean, corners = values.mean(0), {}
    for cell in cells:
        assert len(cell.members) == 20 and len(set(classes[cell.members])) == 1
        own = values[cell.members].mean(0)
        distances = np.linalg.norm(values[cell.members] - own, axis=1)
        assert (np.diff(distances) >= 0).all()
        assert np.linalg.norm(cell.direction) == pytest.approx(1)
        towards = (values[cell.members] - mean) @ cell.direction
        assert towards.min() > ((values[classes != classes[cell.members[0]]] - mean)
                                @ cell.direction).max()  # fmt: skip
        corners[cell.label] = cell.row, cell.column
    assert corners["a"][1] == corners["b"][1] != corners["c"][1] == corners["d"][1]
    assert corners["a"][0] == corners["c"][0] != corners["b"][0] == corners["d"][0]


def test_directions_are_over_the_covariance():
    values, _ = _clusters(np.random.default_rng(0))
    few = np.concatenate([values, np.zeros((80, 200), np.float32)], axis=1)  # samples < channels
    plain, wide = (map_cells(_samples(v), side=2) for v in (values, few))
    centred = values - values.mean(0)
    for own, other in zip(plain, wide, strict=True):
        ridge = 0.1 * (centred**2).mean()
        matrix = centred.T.astype(float) @ centred / len(centred) + ridge * np.eye(6)
        expected = np.linalg.solve(matrix, values[own.members].mean(0) - values.mean(0))
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(own.direction, expected, rtol=1e-4, atol=1e-6)
        assert other.direction[6:] == pytest.approx(0, abs=1e-9)


def test_what_is_no_map_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="three different activations"):
        map_cells(_samples(np.ones((9, 4), np.float32)))
    values, _ = _clusters(np.random.default_rng(0))
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match="pip install umap-learn"):
        map_cells(_samples(values), layout="umap")
    assert map_cells(_samples(values), side=2, least=21) == []
    broken = np.concatenate([values, np.full((1, 6), np.nan, np.float32)])
    assert sum(len(cell.members) for cell in map_cells(_samples(broken), side=2)) == 80


def test_umap_lays_out(monkeypatch):
    class Umap:
        def __init__(self, random_state):
            assert random_state == 0

        def fit_transform(self, values):
            return values[:, 1:3]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    values, classes = _clusters(np.random.default_rng(0))
    cells = map_cells(_samples(values, classes), side=2, layout="umap", labels="abcd")
    assert len(cells) == 4 and len({cell.row for cell in cells}) == 2


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    for i in range(12):
        rgb = rng.integers(0, 90, (20, 20, 3))
        rgb[..., i % 3] += 150
        Image.fromarray(rgb.astype(np.uint8)).save(folder / f"p{i:02d}.png")
    (folder / "notes.png").write_text("no image")
    return folder


def test_places_of_photographs_are_sampled(photographs):
    def apply(params, x):
        return {"conv": x[::4, ::4] * params, "logits": x.mean((0, 1))}

    labels = ("red", "green", "blue")
    net = js.Classifier(apply, jnp.float32(2), size=16, labels=labels, name="net")
    files = find_images([photographs]).files
    found = sample(net, "conv", files, places=3)
    assert len(found.values) == 12 * 3 and len(found.unread) == 1
    np.testing.assert_array_equal(found.number, np.repeat(np.arange(12), 3))
    np.testing.assert_array_equal(found.classes, found.number % 3)
    for n in (0, 7, 35):
        seen = net.input_of(np.asarray(Image.open(found.files[found.number[n]].path)))
        row, column = found.places[n]
        np.testing.assert_allclose(found.values[n], 2 * seen[4 * row, 4 * column], rtol=1e-5)
    of_one = found.places[:3].tolist()
    assert len({tuple(place) for place in of_one}) == 3  # no place twice
    assert len(sample(net, "logits", files).values) == 12
    with pytest.raises(ValueError, match="blob"):
        sample(net, "conv9", files)


def test_the_launcher_writes_a_map(photographs, tmp_path):
    out = tmp_path / "run"
    networks = save_tiny_networks(tmp_path)
    flags = [*networks, "--blob=conv2", "--side=3", "--steps=2", "--top=2"]
    done = run("map", *flags, f"--images={photographs}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stdout and (out / "contact_sheet.png").is_file()
    rows = list(csv.DictReader((out / "map.csv").read_text().splitlines()))
    cells = {(row["cell_y"], row["cell_x"]) for row in rows}
    runs = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert len(runs) == len(cells) > 3
    with browser() as page:
        page.open(out / "index.html", "#/run/0")
        page.wait("document.querySelectorAll('.photograph').length > 0")
        assert "places in this cell" in page.js("document.querySelector('.photographs').innerText")
        assert page.js("document.querySelector('.photograph figcaption').innerText").startswith("p")
        page.open(out / "index.html", "#/grid")
        page.wait("document.querySelectorAll('.grid td a').length > 3")
        assert page.js("document.querySelectorAll('.grid td a').length") == len(cells)
        assert page.errors == []
    done = run("map", *networks, "--blob=conv2", f"--out={tmp_path / 'other'}")
    assert done.returncode == 2 and "no --images given" in done.stderr
    done = run("map", *flags, "--least=999", f"--images={photographs}", f"--out={tmp_path / 'x'}")
    assert done.returncode == 2 and "--least=999" in done.stderr


def test_an_atlas_shows_photographs_beside(photographs, tmp_path):
    out = tmp_path / "run"
    flags = [*save_tiny_networks(tmp_path), "--blob=fc8", "--units=0:2", "--seeds=2", "--steps=1"]
    done = run("atlas", *flags, f"--images={photographs}", "--top=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    with browser() as page:
        page.open(out / "index.html")
        page.wait("document.querySelectorAll('.card').length == 4")
        href = "document.querySelector('.filters select option:nth-child(2)').value"
        page.open(out / "index.html", page.js(href))
        page.wait("document.querySelectorAll('.photograph').length == 4")
        heads = page.js("[...document.querySelectorAll('.photographs h3')].map(h => h.innerText)")
        assert heads == ["Photographs that raise it most", "Photographs that lower it most"]
        page.resize(390, 800)
        page.settle()
        assert page.js("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
    with Image.open(out / "explorer" / "photo_000.webp") as sheet:
        assert sheet.size == (20 * 128, 128)
    none = run("atlas", *flags, "--images=none", f"--out={tmp_path / 'other'}")
    assert none.returncode == 0 and not (tmp_path / "other" / "images").exists(), none.stderr
    bad = run("atlas", *flags, "--network=generator", "--blob=defc6", f"--images={photographs}",
              f"--out={tmp_path / 'third'}")  # fmt: skip
    assert bad.returncode == 2 and "it sees no photographs" in bad.stderr
