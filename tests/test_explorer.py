"""The explorer in a real browser: what it shows, sorts, filters, hides, and how fast."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from browser import browser
from finished import finished_runs

import jaxsynth as js
from jaxsynth.report.explorer import as_script

EVIL = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</script></title></noscript><iframe src=//x>",
    "a/b?c#d%41&e=\u2028f  山",
)
CARD = "document.querySelectorAll('.card')"
NAMES = "[...document.querySelectorAll('.card .lines b')].map(b => b.textContent)"


@pytest.fixture(scope="module")
def page():
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Three labels, two weights, two seeds, and films of four pictures."""
    folder = tmp_path_factory.mktemp("small")
    labels = ("abbey", "bar", "canyon")
    runs = finished_runs(labels, seeds=2, weights=(0.5, 2), steps=9, record=(3, 6))
    js.report(runs, folder, title="Three labels")
    return folder


@pytest.fixture
def shown(page, small):
    """The page of the small sweep, without complaints at the end."""
    page.errors.clear()
    page.requests.clear()
    page.resize(1400, 900)
    page.open(small / "index.html")
    yield page
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "about:"))] == []


def test_a_lone_objective_says_its_seed_once(tmp_path):
    runs = finished_runs(("abbey",), seeds=2)
    plain = [dataclasses.replace(run, row="", column="") for run in runs.runs]
    js.report(dataclasses.replace(runs, runs=plain), tmp_path)
    data = (tmp_path / "explorer" / "data.js").read_text()
    [captions] = re.findall(r'"captions":(\[.*?\])', data)
    assert [text.count("seed") for text in json.loads(captions)] == [1, 1]
    page = (tmp_path / "index.html").read_text()
    found = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert [text.count("seed") for text in found] == [1, 1]


def test_both_names_are_one_page(small):
    assert (small / "index.html").read_bytes() == (small / "report.html").read_bytes()


def test_the_gallery_sorts_filters_and_searches(shown):
    page = shown
    assert page.js("document.title") == "Three labels" and page.js(f"{CARD}.length") == 12
    page.js("document.querySelector('#down').click()")
    page.change(".bar select", "p_1")
    said = page.js("[...document.querySelectorAll('.card')].map(c => c.textContent)")
    found = [float(re.search(r"P\(target 1\) ([\d.]+)", text)[1]) for text in said]
    assert found == sorted(found, reverse=True) and len(set(found)) == 12
    page.change("#search", "bar seed 1")
    assert page.js(NAMES) == ["bar, seed 1"] * 2
    page.change("#search", "")
    page.js("location.hash = '#/places/log_prob/canyon'")
    page.wait("document.querySelector('h2')?.textContent === 'places · log_prob · canyon'")
    assert page.js("document.querySelector('.count').textContent") == "4 of 12 runs"
    assert all(name.startswith("canyon") for name in page.js(NAMES))
    page.js(
        "(s => { s.value = '1'; s.dispatchEvent(new Event('change')) })"
        "(document.querySelectorAll('.filters select')[1])"
    )
    page.wait("document.querySelector('.count').textContent === '2 of 12 runs'")


def test_a_number_between_two_limits(shown):
    shown.js(
        "(s => { s.value = 'nsfw'; s.dispatchEvent(new Event('change')) })"
        "(document.querySelectorAll('.filters select')[2])"
    )
    shown.change(".filters input.short", "0.75")
    assert shown.js("document.querySelector('.count').textContent") == "3 of 12 runs"


def test_pictures_are_blurred_until_they_are_clicked(shown):
    blurred = "document.querySelectorAll('.card .blurred').length"
    assert shown.js(blurred) == 6
    first = "getComputedStyle(document.querySelector('.card .sprite')).filter"
    assert "blur" in shown.js(first)
    shown.click(".card")
    assert shown.js(first) == "none" and shown.js("location.hash") in ("", "#/")
    assert shown.js(blurred) == 5
    shown.click(".card")
    shown.wait("location.hash === '#/run/0'")
    shown.press("Escape")
    shown.wait("location.hash === '#/'")
    shown.press("b")
    assert shown.js(blurred) == 0 and not shown.js("document.querySelector('#blur').checked")
    shown.press("b")
    assert shown.js(blurred) == 6


def test_a_run_opens_with_film_traces_and_neighbours(page, small):
    page.errors.clear()
    page.open(small / "index.html", "#/run/11")
    page.wait("document.querySelectorAll('.chart path').length > 2")
    assert "Run 11" in page.js("document.querySelector('h2').textContent")
    image = "document.querySelector('.large img')"
    page.wait(f"{image}.complete && {image}.naturalWidth === 16")
    assert page.js(f"{image}.getAttribute('src')") == "images/run00011_best.png"
    assert page.js("document.querySelector('a[download]').getAttribute('href')").endswith(
        "best.png"
    )

    names = []
    for place in range(4):
        page.change("input[type=range]", str(place))
        names.append(page.js("document.querySelector('output').textContent"))
        assert "film_000.webp" in page.js("document.querySelector('.large .sprite').style.cssText")
        assert page.js("document.querySelector('.now').getAttribute('d')").startswith("M")
    assert names == ["start", "step 3", "step 6", "end"]
    page.js("document.querySelector('.looks button[value=last]').click()")
    assert page.js(f"{image}.getAttribute('src')") == "images/run00011_last.png"

    page.js("document.activeElement.blur()")
    for key, number in (("k", 10), ("ArrowLeft", 9), ("j", 10), ("ArrowRight", 11), ("j", 11)):
        page.press(key)
        page.wait(f"location.hash === '#/run/{number}'")
    text = page.js("document.querySelector('.number-side').textContent")
    assert "python -m experiments.scene --seeds=2" in text and "p_1_best" in text
    page.press("/")
    page.wait("document.activeElement.id === 'search'")
    assert page.errors == []


def test_cards_are_reached_by_the_keyboard(shown):
    shown.js("document.querySelector('.card').focus()")
    place = "document.activeElement.dataset.place"
    across = shown.js(
        "[...document.querySelectorAll('.place')].filter(p => p.style.top === '0px').length"
    )
    for key, expected in (("ArrowRight", 1), ("ArrowDown", 1 + across), ("ArrowUp", 1), ("k", 0)):
        shown.press(key)
        assert shown.js(place) == str(expected)
    shown.press("Enter")  # shows it
    shown.press("Enter")
    shown.wait("location.hash === '#/run/0'")
    names = "[...document.querySelectorAll('[role=img], img, button, a, input, select')]"
    own = "n.hidden || n.ariaLabel || n.alt || n.textContent.trim() || n.labels?.length"
    bare = f"n => !({own} || n.querySelector('[aria-label]'))"
    assert shown.js(f"{names}.filter({bare}).map(n => n.outerHTML)") == []


def test_grid_scatter_and_two_runs(page, small):
    page.errors.clear()
    page.open(small / "index.html", "#/grid")
    heads = page.js("[...document.querySelectorAll('.grid thead th')].map(t => t.textContent)")
    assert heads == ["", "NSFW x 0.5", "NSFW x 2"]
    page.wait("document.querySelectorAll('.grid .thumb').length === 12")
    page.js("location.hash = '#/scatter'")
    page.wait("document.querySelector('canvas')?.ariaLabel?.includes('on the front')")
    assert page.js("document.querySelector('canvas').ariaLabel") == (
        "12 runs: P(target 1) across, P(NSFW) up; 12 on the front"
    )
    page.js("document.querySelectorAll('.tick input')[2].click()")  # less P(NSFW) is better
    assert page.js("document.querySelector('canvas').ariaLabel").endswith("1 on the front")
    page.js("location.hash = '#/compare/1/11'")
    page.wait("document.querySelectorAll('.beside .panel').length === 2")
    text = page.js("document.querySelector('#app').textContent")
    assert "abbey, seed 1" in text and "canyon, seed 1" in text and "What differs" in text
    assert page.errors == []


def test_hostile_labels_stay_text(page, tmp_path):
    js.report(finished_runs(EVIL, seeds=2), tmp_path, title=EVIL[2])
    page.errors.clear()
    page.requests.clear()
    page.resize(390, 844)
    for view in (
        "",
        "#/objectives",
        "#/grid",
        "#/scatter",
        "#/summary",
        "#/run/5",
        "#/compare/1/6",
    ):
        page.open(tmp_path / "index.html", view)
        page.settle()
        assert page.js("document.querySelectorAll('iframe, #app script, img[src=x]').length") == 0
        width = page.js("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], view  # nothing beside the screen
    page.open(tmp_path / "index.html", "#/objectives")
    assert page.js(NAMES)[:4] == list(EVIL)
    for i, label in enumerate(EVIL):
        page.js(f"document.querySelectorAll('.card')[{i}].click()")
        page.js(f"document.querySelectorAll('.card')[{i}]?.click()")
        page.wait("location.hash.startsWith('#/places/')")
        assert page.js("document.querySelector('h2').textContent").endswith(label)
        assert page.js("document.querySelector('.count').textContent") == "2 of 8 runs"
        page.open(tmp_path / "index.html", page.js("location.hash"))  # its own address
        assert page.js("document.querySelector('.count').textContent") == "2 of 8 runs"
        page.open(tmp_path / "index.html", "#/objectives")
    assert page.errors == [] and all(u.startswith(("file:", "about:")) for u in page.requests)
    text = (tmp_path / "explorer" / "data.js").read_text("ascii")
    assert "<" not in text and json.loads(text[len("jaxsynth.open(") : -2])["runs"] == 8


def test_without_javascript_the_gallery_still_shows(page, small, tmp_path):
    page.open(small / "index.html", script=False)
    root = page.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
    found = page.call("DOM.querySelectorAll", nodeId=root, selector=".gallery figure img")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(found["nodeIds"]) == 24


def test_thousands_of_runs_open_at_once(page, tmp_path):
    """Only what is on the screen is in the page: a count, which no other load can change."""
    runs = finished_runs([f"label {i}" for i in range(100)], seeds=30, steps=2)
    runs.config["images"] = "none"
    js.report(runs, tmp_path)
    page.errors.clear()
    page.resize(1400, 900)
    page.open(tmp_path / "index.html")
    assert page.js("document.querySelector('.count').textContent") == "3000 of 3000 runs"
    page.requests.clear()
    for top in (0, 30_000, 75_000, 1e9):
        page.js(f"window.scrollTo(0, {top})")
        page.settle()
        assert 0 < page.js(f"{CARD}.length") < 120
        assert page.js(
            f"[...{CARD}].some(c => {{ const r = c.getBoundingClientRect();"
            " return r.bottom > 0 && r.top < innerHeight })"
        )
    assert "label 99" in page.js(NAMES)[-1]
    page.change("#search", "label 7 seed 13")
    assert page.js(f"{CARD}.length") > 0
    page.js("location.hash = '#/run/2999'")
    page.wait("document.querySelector('h2')?.textContent.startsWith('Run 2999')")
    page.wait("document.querySelectorAll('.chart').length === 2")
    assert page.errors == []
    assert sum("traces_" in url for url in page.requests) == 1  # of fifteen files
    assert len(list((tmp_path / "explorer").glob("sprite_*.webp"))) == 8


def test_data_are_safe_within_a_script():
    text = as_script({"a": "</script><!--&\u2028\udcff", "b": [1.5, None]})
    assert not set(text) & set("<>&") and text.isascii()
    assert json.loads(text) == {"a": "</script><!--&\u2028\udcff", "b": [1.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        as_script(float("nan"))
