"""The page of a sweep under way: what it is told, how it ends, and a real browser."""

import base64
import dataclasses
import io
import itertools
import json
import sys
from collections.abc import Callable

import numpy as np
import pytest
from browser import browser
from launching import run
from PIL import Image
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth.report import watch
from jaxsynth.report.explorer import write_call
from jaxsynth.report.page import write_live_page
from jaxsynth.runs import saving

STEPS = 3
EVIL = "</script></title></noscript><img src=x onerror='alert(1)'>"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    base = tmp_path_factory.mktemp("networks")
    save_tiny_networks(base)
    roles = ("generator", "places", "nsfw")
    gen, places, nsfw = (js.load(base / f"{role}.safetensors") for role in roles)
    return gen, places.named("places"), nsfw.named("nsfw")


@pytest.fixture
def told(monkeypatch):
    """What the page is told, at every step."""
    found = []
    monkeypatch.setattr(watch, "_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_SHARE", float("inf"))

    def write(path, name, data):
        found.append(json.loads(json.dumps(data)))
        write_call(path, name, data)

    monkeypatch.setattr(watch, "write_call", write)
    return found


def _sweep(models, folder, **options):
    gen, places, nsfw = models
    goals = {label: places.logit(label) for label in ("abbey", "bar")}
    how = {"recipe": js.recipes.goh(steps=STEPS), "batch": 2, "folder": folder, "watch": True}
    return js.sweep(goals, gen, seeds=2, classifiers=[nsfw], **how | options)


def test_the_page_is_told_of_every_step(models, told, tmp_path):
    runs = _sweep(models, tmp_path / "run")
    assert [one["state"] for one in told] == ["running"] * (len(told) - 1) + ["finished"]
    assert [one["done"] for one in told] == [0, 1, 2, 3, 3, 4, 5, 6, 6, 6]
    assert {one["total"] for one in told} == {2 * STEPS} and {one["runs"] for one in told} == {4}
    assert told[1]["left"] is None and told[2]["left"] >= 0
    assert [entry["run"] for entry in told[2]["now"]] == [0, 1]
    assert told[2]["now"][1]["lines"][0] == "abbey · seed 1"
    np.testing.assert_allclose(told[2]["now"][1]["curve"], runs.objective[1][:2], rtol=1e-3)
    assert [entry["run"] for entry in told[-1]["finished"]] == [3, 2, 1, 0]
    assert told[-1]["best"] == pytest.approx(runs.objective.max(), rel=1e-5)
    assert told[6]["median"] == pytest.approx(np.median(runs.objective[2:, 1]), rel=1e-5)
    p = runs.table[3][f"nsfw_{runs.which[3]}"]
    assert told[-1]["finished"][0]["p"] == pytest.approx(p, rel=1e-2)
    kind, _, data = told[-1]["finished"][0]["image"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert kind == "data:image/webp;base64" and image.size == (160, 160)
        shown = np.asarray(image.resize((16, 16), Image.Resampling.BOX), int)
    assert np.abs(shown - runs[3].image).mean() < 12


def test_the_pictures_take_a_small_share_of_the_time(models, told, monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "_SHARE", 0.05)
    clock = itertools.count()  # every look at the clock takes a second
    monkeypatch.setattr(watch, "monotonic", lambda: float(next(clock)))
    _sweep(models, tmp_path / "run")
    assert sum(bool(one["now"]) for one in told) == 2  # the first one's time is the compiler's
    [_, computed, finished] = told[-3:]
    assert (computed["state"], computed["finished_runs"]) == ("running", 4)
    assert finished["state"] == "finished"


def test_a_stop_is_told_and_resumed_runs_are_the_same(models, told, tmp_path, monkeypatch):
    whole = _sweep(models, tmp_path / "whole")
    asked = iter([False] * 4 + [True] * 9)

    @dataclasses.dataclass(frozen=True)
    class Stopping(saving.Saving):
        asked_to_stop: Callable[[], bool] = lambda: next(asked)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["jaxsynth.maximize"], "Saving", Stopping)
        with pytest.raises(saving.Stopped):
            _sweep(models, tmp_path / "run")
    assert told[-1]["state"] == "stopped" and told[-1]["finished_runs"] == 2
    again = _sweep(models, tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.codes, whole.codes)
    assert told[-1]["state"] == "finished" and told[-1]["finished_runs"] == 4


def test_the_page_needs_a_folder(models):
    with pytest.raises(ValueError, match="watch needs a folder"):
        _sweep(models, None)


def test_the_report_takes_its_place(tmp_path):
    out = tmp_path / "run"
    flags = [*save_tiny_networks(tmp_path), "--scenes=abbey", "--seeds=2", "--steps=2", "--watch"]
    done = run("scene", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert f"watch          {out / 'index.html'}" in done.stdout
    assert not (out / "explorer" / "live.js").exists()
    assert (out / "index.html").read_bytes() == (out / "report.html").read_bytes()


def test_a_browser_follows_until_the_explorer_is_there(models, told, tmp_path):
    folder = tmp_path / "run"
    runs = _sweep(models, folder)
    data = told[6] | {"state": "running"}
    data["now"] = [data["now"][0] | {"p": 0.9, "lines": [EVIL]}, *data["now"][1:]]
    live = folder / "explorer" / "live.js"
    with browser() as page:
        write_live_page(folder / "index.html", EVIL, EVIL)
        write_call(live, "live", data)
        page.open(folder / "index.html")
        page.wait("document.documentElement.dataset.ready === 'yes'")
        assert page.js("document.querySelector('#now b').textContent") == EVIL
        assert page.js("document.title").startswith("83 % ")
        assert page.js("document.querySelectorAll('#now figure').length") == 2
        assert page.js("document.querySelectorAll('#now .blurred').length") == 1
        assert page.js("document.querySelectorAll('#lines path').length") == 3
        page.click("#now .blurred")
        begun = [run | {"curve": run["curve"][:1]} for run in data["now"]]
        write_call(live, "live", data | {"time": 5, "best": 123.25, "now": begun})
        page.wait("document.getElementById('best').textContent === 'best objective 123.3'")
        assert page.js("document.querySelector('#now input').checked")  # the click is not undone
        assert page.js("document.querySelectorAll('#lines path').length") == 3  # of finished runs
        assert "No news for" in page.js("document.getElementById('stale').textContent")
        page.resize(390, 800)
        page.settle()
        assert page.js("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
        js.report(runs, folder, title="finished")
        page.wait("document.title === 'finished' && document.querySelectorAll('.card').length == 4")
