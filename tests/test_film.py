"""Films of finished runs."""

import numpy as np
import pytest
from launching import run
from PIL import Image
from tiny import LABELS, save_tiny_networks

import jaxsynth as js
from jaxsynth.png_text import read_text
from jaxsynth.repeat import repeat
from jaxsynth.report import film


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("film")
    save_tiny_networks(base)
    gen, places = (js.load(base / f"{role}.safetensors") for role in ("generator", "places"))
    places = places.named("places")
    goals = {label: places.log_prob(label) for label in LABELS[:2]}
    how = {"recipe": js.recipes.goh(steps=4), "record": (1, 3), "folder": base / "runs"}
    return js.sweep(goals, gen, seeds=2, **how)


def test_a_film_shows_start_recorded_steps_and_end(runs):
    pictures = list(film.run_film(runs, 2))
    assert len(pictures) == 4
    np.testing.assert_array_equal(pictures[-1], runs[2].last)
    gen = runs.generator
    for picture, code in zip(
        pictures[:3], [runs.start_codes[2], *runs.recorded_codes[2]], strict=True
    ):
        own = gen.activations(gen.params, code)[gen.image]
        expected = gen.preprocess.show(np.asarray(own))
        assert np.abs(picture.astype(int) - expected.astype(int)).max() <= 1


def test_a_morph_goes_from_run_to_run(runs):
    pictures = list(film.morph_film(runs, [0, 3]))
    assert len(pictures) == 2 * film._MORPH
    for place, of in ((0, 0), (film._MORPH, 3)):
        assert np.abs(pictures[place].astype(int) - runs[of].image.astype(int)).max() <= 1
    a, b = np.array([3.0, 0, 0]), np.array([0, 4.0, 0])
    np.testing.assert_allclose(film.slerp(a, b, 0.5), 3.5 * np.array([1, 1, 0]) / 2**0.5)
    np.testing.assert_allclose(film.slerp(a, 2 * a, 0.5), 1.5 * a)
    np.testing.assert_allclose(film.slerp(0 * a, b, 0.25), 0.25 * b)


def test_films_stand_side_by_side():
    films = [np.full((2, 4, 4, 3), 10 * i, np.uint8) for i in range(3)]
    first, _ = film.side_by_side(films)
    assert first.shape == (14, 14, 3)
    assert [first[0, 0, 0], first[0, -1, 0], first[-1, 0, 0], first[-1, -1, 0]] == [0, 10, 20, 251]


FFMPEG = """#!/bin/sh
[ -z "$FAIL" ] || { echo "no encoder" >&2; exit 1; }
for last; do :; done
{ echo "$@"; wc -c; } >"$last"
"""


def test_mp4_stands_beside_webp(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(FFMPEG)
    program.chmod(0o755)
    monkeypatch.setattr(film, "_ffmpeg", lambda: str(program))
    pictures = [np.full((300, 255, 3), 10 * i, np.uint8) for i in range(3)]
    webp, mp4 = film.write_film(tmp_path / "a.webp", pictures, seconds=0.25)
    said, size = mp4.read_text().splitlines()
    assert webp.is_file() and mp4 == tmp_path / "a.mp4"
    assert "-s 255x300 -r 4 " in said
    assert int(size) == (3 + 4) * 300 * 255 * 3  # the last one is held
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(ValueError, match=r"a.webp is written, .*a.mp4 is not: .* no encoder"):
        film.write_film(tmp_path / "a.webp", pictures)


def test_a_launcher_films_its_runs(tmp_path):
    out = tmp_path / "run"
    flags = [*save_tiny_networks(tmp_path), "--scenes=abbey", "--seeds=2", "--film"]
    done = run("scene", *flags, "--steps=4", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert f"films          {out / 'film_run00000.webp'} to film_run00001" in done.stdout
    with Image.open(out / "film_run00001.webp") as moving:
        assert moving.n_frames == 5  # the start, steps 1 to 3, the last image
    data = (out / "explorer" / "data.js").read_text()
    assert '"films":["film_run00000.webp","film_run00001.webp"]' in data
    again = run("scene", *flags, "--steps=4", "--record_codes=2", f"--out={out}", "--overwrite")
    assert again.returncode == 0, again.stderr
    with Image.open(out / "film_run00001.webp") as moving:
        assert moving.n_frames == 3
    done = run("scene", *flags, "--steps=1", f"--out={tmp_path / 'other'}")
    assert done.returncode == 2 and "--film shows recorded steps" in done.stderr


def test_the_launcher_writes_animated_pictures(runs, tmp_path):
    done = run("film", runs.folder, "--runs=1,2", f"--out={tmp_path}", "--seconds=0.1")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "film_run00002.webp") in done.stdout
    for name in ("film_run00001.webp", "film_run00002.webp"):
        with Image.open(tmp_path / name) as moving:
            assert moving.n_frames == 4 and moving.size == (256, 256)
    said = read_text(tmp_path / "film_run00002.webp")
    assert (said["which"], said["run"], said["seed"]) == ("film", [2], [0])
    assert said["objective"] == [str(runs.runs[2].objective)]
    with pytest.raises(ValueError, match="is a film: `jaxsynth film` makes it again"):
        repeat(tmp_path / "film_run00002.webp", tmp_path / "x.png")
    for flags, said in (
        (["--runs=9"], "there is no run 9"),
        (["--runs=1", "--morph"], "a morph needs two runs"),
        (["--morph", "--grid"], "--morph and --grid are two films"),
    ):
        done = run("film", runs.folder, *flags, f"--out={tmp_path}")
        assert done.returncode == 2 and said in done.stderr
