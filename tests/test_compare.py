"""Two finished sweeps side by side."""

import re

import pytest
from test_report import _Parsed
from tiny import LABELS, save_tiny_networks

import jaxsynth as js
from jaxsynth.__main__ import main
from jaxsynth.report.compare import compare


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sweeps that differ in steps and share two objectives of three."""
    base = tmp_path_factory.mktemp("sweeps")
    save_tiny_networks(base)
    gen, places, nsfw = (
        js.load(base / f"{role}.safetensors") for role in ("generator", "places", "nsfw")
    )
    places, nsfw = places.named("places"), nsfw.named("nsfw")
    for name, labels, steps in (("one", LABELS[:2], 2), ("two", LABELS[:3], 3)):
        goals = {label: places.log_prob(label) for label in labels}
        how = {"recipe": js.recipes.goh(steps=steps), "classifiers": [nsfw], "seeds": 2}
        js.sweep(goals, gen, folder=base / name, **how)
    return base


def test_shared_runs_stand_side_by_side(folders, tmp_path):
    path = compare(folders / "one", folders / "two", tmp_path / "page")
    page = _Parsed(path.read_text("utf-8"))
    images = [image["src"] for image in page.all("img")]
    assert images == [f"images/run{i:05d}_{which}.png" for i in range(4) for which in "ab"]
    assert all((path.parent / image).is_file() for image in images)
    assert "4 runs are in both: one has 4, two 6." in page.text
    assert re.search(r"sweep recipe steps\s*2\s*3", page.text)
    assert f"P({LABELS[1]}), median" in page.text
    with pytest.raises(ValueError, match="not empty"):
        compare(folders / "one", folders / "two", tmp_path / "page")
    assert compare(folders / "one", folders / "two", tmp_path / "page", overwrite=True) == path


def test_what_cannot_be_compared_is_one_line(folders, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        compare(folders / "one", tmp_path, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_the_command_compares_two_folders(folders, tmp_path, capsys):
    page = tmp_path / "page"
    assert main(["compare", str(folders / "one"), str(folders / "two"), str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page / "index.html")
    assert (page / "index.html").is_file()
    assert main(["compare", str(folders / "one")]) == 2
    assert "takes two output folders" in capsys.readouterr().err
