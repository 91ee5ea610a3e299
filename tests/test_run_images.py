"""Which image files a sweep writes (--images), the threads that encode them, pages that agree."""

import functools
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from finished import read_arrays
from test_launchers import launch, rows_of

from jaxsynth.image_files import read_image
from jaxsynth.images import to_rgb
from jaxsynth.report.pages import REPORT_RUNS
from jaxsynth.runs import saving
from jaxsynth.runs.folder import image_name
from jaxsynth.runs.saving import image_writer

FLAGS = ("--scenes=abbey,dam", "--seeds=3", "--steps=3", "--batch=4")


def _chunk(seed: int, runs: int = 5):
    pixels = np.random.default_rng(seed).normal(0, 60, (2, runs, 8, 9, 3)).astype(np.float32)
    return SimpleNamespace(
        last=SimpleNamespace(image=pixels[0]), best=SimpleNamespace(image=pixels[1])
    )


@pytest.mark.parametrize("how", ["mean", "dgn_am"])
@pytest.mark.parametrize("images", ["none", "best", "all"])
def test_all_files_are_there_when_the_block_ends(tmp_path, images, how):
    chunks = {first: _chunk(first) for first in (0, 5, 10)}
    with image_writer(tmp_path, images, functools.partial(to_rgb, how=how)) as write:
        for first, chunk in chunks.items():
            write([[first + i] for i in range(5)], chunk)
    expected = {
        image_name(first + i, which): to_rgb(getattr(chunk, which).image[i], how)
        for first, chunk in chunks.items()
        for which in {"none": (), "best": ("best",), "all": ("last", "best")}[images]
        for i in range(5)
    }
    found = {str(p.relative_to(tmp_path)): read_image(p) for p in tmp_path.rglob("*.png")}
    assert found.keys() == expected.keys()
    for name, pixels in expected.items():
        np.testing.assert_array_equal(found[name], pixels)
    assert len(list(tmp_path.iterdir())) == bool(expected)  # nor an empty folder


def test_what_a_thread_raises_comes_out_and_no_chunk_is_handed_on(tmp_path, monkeypatch):
    def full(path, rgb, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(saving, "write_png", full)
    with (
        pytest.raises(OSError, match="No space left"),
        image_writer(tmp_path, "best", to_rgb) as write,
    ):
        numbers = [[i] for i in range(5)]
        write(numbers, _chunk(0))
        with pytest.raises(OSError, match="No space left"):
            write(numbers, _chunk(5))
        write(numbers, _chunk(5))


@pytest.fixture(scope="module")
def runs(weights, tmp_path_factory) -> dict[str, Path]:
    """The same sweep with each choice."""
    folder = tmp_path_factory.mktemp("runs")
    for images in ("none", "best", "all"):
        flags = [*weights, *FLAGS, f"--images={images}", f"--out={folder / images}"]
        done = launch("scene", *flags)
        assert done.returncode == 0, done.stderr
    return {path.name: path for path in folder.iterdir()}


def _references(folder: Path) -> list[str]:
    page = (folder / "report.html").read_text()
    return [unquote(found) for found in re.findall(r'(?:src|href)="([^"]*)"', page)]


@pytest.mark.parametrize(
    ("images", "kinds"), [("none", []), ("best", ["best"]), ("all", ["last", "best"])]
)
def test_pages_go_with_each_choice(runs, images, kinds):
    folder = runs[images]
    expected = {image_name(i, kind) for i in range(6) for kind in kinds}
    files = {str(path.relative_to(folder)) for path in folder.rglob("images/*")}
    assert files == expected
    references = _references(folder)
    assert {name for name in references if name.startswith("images/")} == expected
    assert all((folder / name).is_file() for name in references)
    assert ("No image files were written" in (folder / "report.html").read_text()) == (not kinds)
    for name in ("contact_sheet.png", "traces.png", "metrics.csv", "results.safetensors"):
        assert (folder / name).read_bytes() == (runs["all"] / name).read_bytes(), name


def test_the_best_image_has_its_own_caption_and_score(runs):
    row = rows_of(runs["best"])[4]
    page = (runs["best"] / "report.html").read_text()
    caption = page.split(image_name(4, "best"))[1].split("</figcaption>")[0]
    assert f"NSFW {float(row['nsfw_best']):.3f}" in caption
    assert f"dam {float(row['p_1_best']):.2f}" in caption


def test_a_last_image_is_read_alone(runs):
    whole = read_arrays(runs["none"]).last.image
    np.testing.assert_array_equal(read_arrays(runs["none"]).last.image[4], whole[4])


def test_a_run_resumes_with_its_own_choice_only(weights, runs):
    flags = [*weights, *FLAGS, f"--out={runs['none']}", "--resume"]
    other = launch("scene", *flags)
    assert other.returncode == 2 and 'holds a run with images "none", not "all"' in other.stderr
    assert launch("scene", *flags, "--images=none").returncode == 0


def test_a_long_report_shows_the_first_runs_and_says_so(weights, tmp_path):
    count = REPORT_RUNS + 3
    flags = [f"--seeds={count}", "--batch=64", "--images=best", f"--out={tmp_path / 'run'}"]
    done = launch("random_samples", *weights, *flags)
    assert done.returncode == 0, done.stderr
    shown = [name for name in _references(tmp_path / "run") if name.startswith("images/")]
    assert shown == [image_name(i, "best") for i in range(REPORT_RUNS)]
    assert len(list((tmp_path / "run" / "images").iterdir())) == len(rows_of(tmp_path / "run"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"The first {REPORT_RUNS} of {count} runs" in page
