"""The studio: what its sweeps are, how it starts and stops, and the page in a real browser."""

import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from browser import browser
from launching import run
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth.studio import work
from jaxsynth.studio.page import make_server
from jaxsynth.studio.work import Studio, Wish, variations

WISH = Wish(["places:log_odds:bar:1", "nsfw:log_odds:SFW:0.5"], "goh", steps=3, seeds=2, first=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    base = tmp_path_factory.mktemp("networks")
    save_tiny_networks(base)
    gen, *judges = (js.load(base / f"{n}.safetensors") for n in ("generator", "places", "nsfw"))
    return gen, [judge.named(name) for judge, name in zip(judges, ("places", "nsfw"), strict=True)]


@pytest.fixture
def studio(models, tmp_path):
    return Studio(*models, tmp_path / "studio")


def test_a_sweep_is_that_of_the_library(studio, models):
    studio.paint(WISH)
    gen, (places, nsfw) = models
    goal = places.log_odds("bar") + 0.5 * nsfw.log_odds("SFW")
    own = js.sweep(goal, gen, seeds=[5, 6], recipe=js.recipes.goh(steps=3), batch=2)
    saved = js.read_results(studio.folder, gen, [places, nsfw])
    np.testing.assert_array_equal(saved.codes, own.codes)
    assert studio.folder == studio.out / "001" and studio.finished and not studio.busy
    assert (studio.done, studio.steps) == (3, 3)
    assert (studio.folder / "index.html").is_file()
    for place, look in enumerate(studio.looks):
        np.testing.assert_array_equal(js.images.read_image(look.file), own[place].image)
        np.testing.assert_array_equal(look.code, own[place].code)
        assert look.lines[0].startswith(f"seed {5 + place}")


def test_the_next_sweep_starts_around_the_chosen_picture(studio):
    studio.paint(WISH)
    chosen = studio.looks[1]
    studio.start_from(chosen)
    studio.paint(WISH)
    saved = js.read_results(studio.folder)
    assert studio.folder.name == "002"
    np.testing.assert_array_equal(saved.start_codes[0], chosen.code)
    away = saved.start_codes[1] - chosen.code
    assert 0 < away.std() < 3 * WISH.spread * chosen.code.std()
    np.testing.assert_array_equal(saved.start_codes, variations(chosen.code, WISH))


def test_variations_spread_as_far_as_asked():
    code = np.linspace(-2, 2, 4000, dtype=np.float32)
    found = variations(code, Wish([], "goh", seeds=3, spread=0.5))
    np.testing.assert_array_equal(found[0], code)
    np.testing.assert_allclose((found[1:] - code).std(axis=1), 0.5 * code.std(), rtol=0.05)
    assert not np.allclose(found[1], found[2])


def test_a_photograph_is_a_start(studio, photo, models):
    studio.start_from_photograph(photo.read_bytes())
    gen, (places, _) = models
    found = js.maximize(places.logit("bar"), gen, init=photo, recipe=js.recipes.goh(steps=0))
    np.testing.assert_allclose(studio.start.code, found.code, rtol=1e-5)
    with pytest.raises(ValueError, match="is not an image"):
        studio.start_from_photograph(b"no picture")


def test_a_stop_keeps_the_pictures_and_no_folder(studio, monkeypatch):
    drawn = studio._drawn

    def stop(codes, lines):
        studio.stop()
        return drawn(codes, lines)

    monkeypatch.setattr(studio, "_drawn", stop)
    studio.paint(WISH)
    assert studio.done == 1 and not studio.busy and not studio.finished
    assert not studio.folder.exists() and [look.file for look in studio.looks] == [None, None]
    assert studio.looks[0].lines[0].startswith("objective ")


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (["places:log_odds:bat:1"], "did you mean bar"),
        (["place:log_odds:bar:1"], "did you mean places"),
        ([], "nothing to maximise: add a term"),
    ],
)
def test_a_wrong_term_is_one_line(studio, terms, said):
    with pytest.raises(ValueError, match=said):
        studio.paint(Wish(terms, "goh"))
    assert not studio.busy and not studio.folder.exists()


def test_networks_are_chosen_by_name(studio):
    studio.start_from(work.Look("", (), np.zeros(12), False))
    studio.use("maco", ["places"])
    assert studio.generator.name == "maco" and [*studio.models] == ["generator", "places"]
    assert studio.start is None
    with pytest.raises(ValueError, match="pocket_place"):
        studio.use("maco", ["pocket_place"])
    with pytest.raises(ValueError, match="fourier is no classifier"):
        studio.use("maco", ["fourier"])
    names = work.model_names()
    assert "pocket_generator" in names["generator"] and "open_nsfw" in names["classifier"]


def test_the_launcher_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(work, "find_spec", lambda name: None)
    done = run("studio")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: studio needs the package nicegui: pip install 'jaxsynth[studio]'"
    ]


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """The studio and its address."""
    studio = Studio(*models, tmp_path_factory.mktemp("served"))
    server, door = make_server(studio, 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    yield studio, f"http://127.0.0.1:{door.getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def test_only_pages_of_this_machine_reach_it(served):
    studio, address = served
    port = int(re.search(r":(\d+)/", address)[1])
    with pytest.raises(ValueError, match=f"--port={port}: Address already in use"):
        make_server(studio, port)
    asked = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(asked, timeout=60)


BUTTON = "[...document.querySelectorAll('button')].filter(b => b.innerText.toLowerCase() === {!r})"


def test_a_browser_makes_pictures_and_goes_on(served, photo, tmp_path):
    studio, address = served
    with browser() as page:
        page.open(address)
        page.wait(f"{BUTTON.format('make pictures')}.length === 1")
        page.click("[aria-label='Class or unit']")
        page.call("Input.insertText", text="can")
        page.wait("document.querySelectorAll('.q-menu .q-item').length === 1")
        page.click(".q-menu .q-item")
        page.wait("document.querySelector(\"[aria-label='Class or unit']\").value === 'canyon'")
        page.js("document.querySelector('[aria-label=Pictures] [tabindex]').focus()")
        for _ in range(6):
            page.press("ArrowLeft")
        page.wait("document.body.innerText.includes('Pictures: 2')")
        page.js(f"{BUTTON.format('make pictures')}[0].click()")
        page.wait("document.querySelectorAll('.look img').length === 2")
        page.wait("document.body.innerText.includes('Saved in ')")
        assert js.read_results(studio.folder).runs[0].objective == "places:log_odds:canyon:1.0"
        assert "canyon" in page.js("document.querySelector('.look figcaption').textContent")
        page.js(f"{BUTTON.format('go on')}[1].click()")
        page.wait("document.body.innerText.includes('next pictures start from here')")
        np.testing.assert_array_equal(studio.start.code, studio.looks[1].code)
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.js(f"{BUTTON.format('save')}[1].click()")
        page.wait("document.querySelectorAll('.look button:disabled').length === 0")
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        box = page.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=box, files=[str(photo)])
        page.wait("document.querySelector('img[alt^=\"the photograph\"]') !== null")
        studio.looks = [look._replace(hide=i == 0) for i, look in enumerate(studio.looks)]
        studio.version += 1
        page.wait("document.querySelectorAll('.hidden-look').length === 1")
        page.click(".hidden-look")
        page.wait("document.querySelectorAll('.hidden-look').length === 0")
        page.resize(390, 800)
        page.settle()
        assert page.js("document.documentElement.scrollWidth <= innerWidth")
        ours = (address, "data:", "about:", "blob:")
        assert [url for url in page.requests if not url.startswith(ours)] == []
        assert page.errors == []
        saved = tmp_path / f"001_{studio.looks[1].file.name}"
        assert saved.read_bytes() == studio.looks[1].file.read_bytes()
        page.open(f"{address}out/001/index.html")
        page.wait("document.querySelectorAll('.card').length === 2")
