"""The strip from a photograph to the end image, and the atlas of a layer."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from finished import read_arrays
from launching import run_alone
from PIL import Image
from test_launchers import launch, rows_of
from tiny import LABELS, tiny_models, tiny_networks

from jaxsynth.batch import join
from jaxsynth.chunks import execute
from jaxsynth.images import preprocess, to_rgb
from jaxsynth.maximize import Run, Settings, plan
from jaxsynth.objectives import Objective, layer_units
from jaxsynth.recipes import Recipe
from jaxsynth.report import sheet
from jaxsynth.report.fonts import Font
from jaxsynth.report.page import Page, write_page
from jaxsynth.report.pages import write_strip
from jaxsynth.report.photographs import Picture, path_pictures, path_steps
from jaxsynth.report.sheet import Tile, atlas_pages

NETWORKS = tiny_networks()
GENERATOR, _places, _nsfw = tiny_models().values()
CLASSIFIERS = {"nsfw": _nsfw, "places": _places}
SHOWN, PITCH = sheet.MIN_TILE, sheet.MIN_TILE + sheet.GAP  # of the tiny networks' tiles


def shown(rgb: np.ndarray) -> np.ndarray:
    """A tiny picture as a sheet shows it."""
    size = (SHOWN, SHOWN)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC)).astype(int)


def find(page: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Where the page shows the tile, exactly: (y, x) of its corners."""
    ys, xs = np.nonzero((page == tile[0, 0]).all(axis=-1))
    h, w = tile.shape[:2]
    return [
        (int(y), int(x))
        for y, x in zip(ys, xs, strict=True)
        if np.array_equal(page[y : y + h, x : x + w], tile)
    ]


# ---- the strip


def test_the_strip_shows_photograph_reconstruction_path_and_end(weights, photo, tmp_path):
    out = tmp_path / "run"
    flags = ["--scenes=bar,dam", f"--init_image={photo}", f"--out={out}"]
    done = launch("scene", *weights, *flags)
    assert done.returncode == 0, done.stderr
    assert str(out / "strip.png") in done.stdout
    assert 'src="strip.png"' in (out / "report.html").read_text()
    sweep = json.loads((out / "config.json").read_text())["sweep"]
    assert sweep["record"] == [5, 10, 15, 20, 25] and sweep["recipe"]["steps"] == 30

    with Image.open(photo) as file:
        small = np.asarray(file.resize((16, 16), Image.Resampling.BILINEAR))
    page = np.asarray(Image.open(out / "strip.png")).astype(int)
    corners = find(page, shown(small))
    assert len(corners) == 2 and len({x for _, x in corners}) == 1  # the first tile of both rows
    assert page.shape[1] == corners[0][1] + 8 * PITCH - sheet.GAP + sheet.MARGIN

    generator, results = NETWORKS["generator"], read_arrays(out)
    encoder = NETWORKS["places"]
    code = encoder.apply(encoder.params, jnp.asarray(to_network(small)))["fc6"]
    for run, (y, x) in enumerate(corners):
        codes = [code, *results.recorded_codes[run]]
        images = [generator.apply(generator.params, jnp.asarray(c))["deconv0"] for c in codes]
        for place, image in enumerate([*images, results.last.image[run]], 1):
            left = x + place * PITCH
            tile = page[y : y + SHOWN, left : left + SHOWN]
            assert np.abs(tile - shown(to_rgb(np.asarray(image)))).max() <= 3, (run, place)
    assert not np.array_equal(*results.recorded_codes[:, -1])


def to_network(rgb: np.ndarray) -> np.ndarray:
    return preprocess(rgb, "simple", len(rgb))


@pytest.mark.parametrize(
    ("name", "flags", "rows"),
    [
        ("nsfw", [], 1),
        ("sfw", [], 1),
        ("pareidolia", ["--alphas=1,2", "--betas=1", "--record_codes=1,2,3,4"], 2),
        ("joint", ["--scenes=bar", "--nsfw_weights=0.5,1"], 2),
        ("synthesize", ["--term=places:conv2_pre:3@1,2:1", "--term=generator:deconv1:2:0.5"], 1),
        ("atlas", ["--blob=conv1", "--units=0,2,4"], 3),
    ],
)
def test_every_launcher_that_starts_from_a_photograph_draws_a_strip(
    weights, photo, tmp_path, name, flags, rows
):
    out = tmp_path / "run"
    flags = [*flags, "--steps=4", f"--init_image={photo}", f"--out={out}", "--blur_sheet"]
    done = launch(name, *weights, *flags)
    assert done.returncode == 0, done.stderr
    with Image.open(photo) as file:
        small = np.asarray(file.resize((16, 16), Image.Resampling.BILINEAR))
    page = np.asarray(Image.open(out / "strip.png")).astype(int)
    corners = find(page, shown(small))
    assert len(corners) == rows == len(rows_of(out))
    # Photograph, reconstruction, steps 1 and 2 (recipe dgn_am_image ends one update early), end.
    assert page.shape[1] == corners[0][1] + 5 * PITCH - sheet.GAP + sheet.MARGIN


def test_a_path_tells_what_every_network_sees():
    photo = np.random.default_rng(2).uniform(-100, 100, (16, 16, 3)).astype(np.float32)
    generator, places = NETWORKS["generator"], NETWORKS["places"]
    code = np.asarray(places.apply(places.params, jnp.asarray(photo))["fc6"])
    objective = CLASSIFIERS["places"].unit("conv2", 3, at=(1, 2))
    objective += GENERATOR.unit("deconv1", 1, at=(0, 0))
    settings = Settings(Recipe(steps=14, lr_start=0.1), batch=2, record=(14, 3, 1))
    judges = list(CLASSIFIERS.values())
    todo = plan([Run(0, objective)], GENERATOR, judges, settings, start=code[None])
    results = join(list(execute(todo)))
    pictures = path_pictures(todo, results, 0, photo)
    names = ["photograph", "reconstruction", "step 1", "step 3", "end, step 14"]
    assert [picture.name for picture in pictures] == names
    np.testing.assert_array_equal(pictures[0].image, photo)
    assert "generator" not in pictures[0].watched

    codes = [code, results.recorded_codes[0, 2], results.recorded_codes[0, 1], results.codes[0]]
    for picture, expected in zip(pictures[1:], codes, strict=True):
        own = generator.apply(generator.params, jnp.asarray(expected))
        np.testing.assert_allclose(picture.image, own["deconv0"], rtol=1e-4, atol=1e-3)
        value = picture.watched["generator"]["deconv1"]
        np.testing.assert_allclose(value, [own["deconv1"][0, 0, 1]], rtol=1e-4, atol=1e-4)
    for picture in pictures:
        seen = places.apply(places.params, jnp.asarray(picture.image))
        np.testing.assert_allclose(picture.watched["places"]["prob"], seen["prob"], rtol=1e-3)
        value = picture.watched["places"]["conv2_pre"]  # a unit is maximised before its ReLU
        np.testing.assert_allclose(value, [seen["conv2_pre"][1, 2, 3]], rtol=1e-3, atol=1e-4)
        assert 0 < picture.watched["nsfw"]["prob"][1] < 1


@pytest.mark.parametrize(
    ("steps", "recorded"),
    [(0, ()), (1, ()), (3, (1, 2)), (30, (5, 10, 15, 20, 25)), (60, (10, 20, 30, 40, 50))],
)
def test_steps_of_a_path_are_evenly_spaced(steps, recorded):
    assert path_steps(steps) == recorded


@pytest.mark.parametrize("blur", [False, True])
def test_a_strip_with_one_suggestive_picture_waits_for_a_click(tmp_path, blur):
    checks = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((4, 4)))
    image = np.stack([255 * checks - 120] * 3, axis=-1)
    prob = {"fc8": np.zeros(2), "prob": np.zeros(2)}
    path = [
        Picture(name, image, {"nsfw": prob | {"prob": np.array([1 - p, p])}})
        for name, p in (("photograph", 0.1), ("reconstruction", 0.7), ("end", 0.4))
    ]
    runs = [Run(0, Objective(()), "bar", "seed 0"), Run(0, Objective(()), "dam", "seed 0")]
    sweep = SimpleNamespace(
        runs=runs,
        table=[{"status": "ok"}] * 2,
        classifiers=[CLASSIFIERS["nsfw"]],
        generator=GENERATOR,
        config={"show": "mean"},
    )
    assert write_strip(sweep, [path] * 2, tmp_path, "A strip", blur) == 0.7
    page = np.asarray(Image.open(tmp_path / "strip.png")).astype(int)
    sharp = find(page, shown(to_rgb(image)))
    assert len(sharp) == (4 if blur else 6)  # of 2 rows x 3 pictures

    for nsfw, labels in ((0.7, 1), (0.5, 0), (None, 0)):
        write_page(tmp_path / "report.html", Page("a", strip="strip.png", strip_nsfw=nsfw))
        text = (tmp_path / "report.html").read_text()
        assert text.count('<label class="picture blurred">') == labels
        assert text.count('src="strip.png"') == 1


# ---- the atlas


def test_an_atlas_is_one_compilation_for_all_units(weights, tmp_path):
    out = tmp_path / "run"
    flags = ["--blob=conv2", "--position=1,2", "--steps=3", "--batch=3", f"--out={out}"]
    done = run_alone("atlas", *weights, *flags, JAX_LOG_COMPILES="1")
    assert done.returncode == 0, done.stderr
    compiled = [line for line in done.stderr.splitlines() if "Compiling jit(respond_rows)" in line]
    assert len(compiled) == 1, done.stderr  # for three chunks

    rows = rows_of(out)
    assert [row["row"] for row in rows] == [f"unit {unit}" for unit in range(8)]
    targets = [f"places:conv2_pre:{unit}@1,2" for unit in range(8)]
    assert [row["target_1"] for row in rows] == targets
    assert all(row["status"] == "ok" for row in rows)
    config = json.loads((out / "config.json").read_text())
    assert [run["objective"] for run in config["runs"]] == [f"{target}:1.0" for target in targets]
    page = (out / "report.html").read_text()
    assert "All 8 units of places:conv2 at 1,2 of 8x8, maximised at conv2_pre" in page
    assert (out / "contact_sheet.png").is_file() and len(list((out / "images").iterdir())) == 16
    results = read_arrays(out)
    assert (results.last.objective > results.objective[:, 0]).all()
    assert not list(out.glob("atlas_*"))


@pytest.mark.parametrize(
    ("flags", "labels", "networks", "title"),
    [
        (["--blob=fc8", "--units=b*,dam"], ["bar", "dam"], {"places"}, "2 of 5 units of places"),
        (["--network=nsfw", "--blob=fc8"], ["SFW", "NSFW"], set(), "All 2 units of nsfw:fc8"),
        (
            ["--network=generator", "--blob=deconv1", "--units=4:6", "--seeds=2"],
            ["unit 4", "unit 4", "unit 5", "unit 5"],
            set(),
            "2 of 6 units of generator:deconv1 at 4,4 of 8x8",
        ),
    ],
)
def test_an_atlas_of_each_network(weights, tmp_path, flags, labels, networks, title):
    out = tmp_path / "run"
    done = launch("atlas", *weights, *flags, "--steps=2", "--batch=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert [row["row"] for row in rows] == labels
    assert all(row["status"] == "ok" for row in rows)
    config = json.loads((out / "config.json").read_text())
    assert set(config["networks"]) == {"generator", "nsfw"} | networks
    assert title in (out / "report.html").read_text()


def test_every_unit_and_its_label_are_on_a_page():
    count, side = 450, 112
    runs = [Run(0, Objective(()), f"unit {i}") for i in range(count)]
    rows = [{"run": i, "activation_1_last": float(i), "status": "ok"} for i in range(count)]
    colours = [(i % 256, 100 + i // 256, 40) for i in range(count)]

    def tile(i: int, lines: tuple[str, ...]) -> Tile:
        return Tile(np.full((4, 4, 3), colours[i], np.uint8), lines)

    drawn = dict(atlas_pages("All 450 units", runs, rows, tile))
    assert list(drawn) == ["atlas_00.png", "atlas_01.png"]
    pages = [np.asarray(page).astype(int) for page in drawn.values()]
    for page, first, last in ((pages[0], 0, 400), (pages[1], 400, 450)):
        ys, xs = np.nonzero((page == colours[first]).all(axis=-1))
        for i in range(first, last):
            row, column = divmod(i - first, 20)
            y = ys.min() + row * (side + 3 * 18 + 8 + sheet.GAP)
            x = xs.min() + column * (side + sheet.GAP)
            assert (page[y : y + side, x : x + side] == colours[i]).all()
            label = Image.new("RGB", (side, 18), sheet.PAPER)
            Font(sheet.TEXT_SIZE).draw(label, (0, 0), f"unit {i}", sheet.INK)
            below = page[y + side + 6 : y + side + 24, x : x + side]
            assert np.array_equal(below[:16], np.asarray(label)[:16]), i


def test_layers_as_terms():
    def terms(*how):
        return [term for goal in layer_units(*how) for term in goal.terms]

    places = CLASSIFIERS["places"]
    chosen = terms(places, "fc6", ["0:3", "5"])
    assert [term.blob for term in chosen] == ["fc6_pre"] * 4
    assert [list(term.index) for term in chosen] == [[0], [1], [2], [5]]
    labelled = terms(places, "log_odds")
    assert [(t.blob, t.label) for t in labelled] == [("log_odds", label) for label in LABELS]
    shape = places.shapes["norm1"]
    centred = [int(term.index[0]) for term in terms(places, "norm1")]
    assert [tuple(map(int, np.unravel_index(i, shape))) for i in centred] == [
        (4, 4, unit) for unit in range(6)
    ]


@pytest.mark.parametrize(
    ("role", "blob", "units", "position", "said"),
    [
        ("places", "conv2", ["0:9"], "", "unit '0:9' is none of the 8 labels"),
        ("places", "conv2", ["5:5"], "", "a range such as 0:8"),
        ("places", "fc8", ["abey"], "", "did you mean abbey"),
        ("places", "conv2", ["all"], "8,0", "places:conv2: position '8,0' is not y,x within 8x8"),
        ("places", "fc6", ["all"], "1,1", "places:fc6 is a vector, it has no position 1,1"),
    ],
)
def test_wrong_layers_say_what_is_right(role, blob, units, position, said):
    with pytest.raises(ValueError) as error:
        layer_units(CLASSIFIERS[role], blob, units, position)
    assert said in str(error.value) and "\n" not in str(error.value)
