"""Reports: escaping, blur, captions that fit, sheet sizes, CSV, plots."""

import csv
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxsynth.images import read_image
from jaxsynth.inputs import printable
from jaxsynth.maximize import Run
from jaxsynth.objectives import Objective
from jaxsynth.report import fonts, sheet
from jaxsynth.report.page import Page, ReportImage, ReportRun, write_page
from jaxsynth.report.plots import WITHOUT_MATPLOTLIB, plot_traces, save_figure
from jaxsynth.report.sheet import Tile, contact_pages, contact_sheet
from jaxsynth.report.tables import format_table, write_csv

EVIL = """<script>alert("x")</script> & 'quoted' </title>"""


def _tile(side: int, *lines: str, colour=(200, 30, 30), **options) -> Tile:
    return Tile(np.full((side, side, 3), colour, np.uint8), lines, **options)


def _red(sheet: Image.Image) -> np.ndarray:
    """Where the sheet shows a tile's colour, (H, W) bool."""
    return np.all(np.abs(np.asarray(sheet).astype(int) - [200, 30, 30]) < 3, axis=-1)


# ---- contact sheet


@pytest.mark.parametrize("side, shown", [(64, 160), (128, 160), (160, 160), (180, 180), (256, 192)])
def test_tiles_are_shown_at_a_legible_size(side, shown):
    columns = np.flatnonzero(_red(contact_sheet([_tile(side)], 1)).any(axis=0))
    assert len(columns) == shown and columns[-1] - columns[0] == shown - 1


def test_row_labels_that_fit_are_shown_in_full(monkeypatch):
    drawn, fit = [], sheet._fit
    monkeypatch.setattr(sheet, "_fit", lambda *how: drawn.append(fit(*how)) or drawn[-1])
    labels = ["unit 0", "unit 17", "iii", "WWW", "x 0.25"]
    for label in labels:
        contact_sheet([_tile(64)], 1, "", [label], ["seed 0"])
    assert [text for text in drawn if text != "seed 0"] == labels


@pytest.mark.parametrize("number", ["0.87", "-0.2134", "9e-06"])
def test_a_line_that_is_shortened_ends_in_its_number(number):
    assert sheet._fit(f"block10:*:diversity {number}", sheet._font(14), 120).endswith(f"… {number}")


def test_a_grid_has_every_tile_in_its_place():
    colours = [(10 * i, 255 - 10 * i, 5 * i) for i in range(24)]
    tiles = [_tile(64, f"seed {i}", "abbey 0.87", colour=c) for i, c in enumerate(colours)]
    rows, columns = [f"row {i}" for i in range(6)], [f"column {i}" for i in range(4)]
    sheet = np.asarray(contact_sheet(tiles, 4, "A title", rows, columns)).astype(int)
    centres = []
    for colour in colours:
        ys, xs = np.nonzero(np.all(sheet == colour, axis=-1))
        assert len(ys) >= 160 * 160
        centres.append((round(ys.mean()), round(xs.mean())))
    assert len({y for y, _ in centres}) == 6 and len({x for _, x in centres}) == 4
    assert centres == sorted(centres)


def test_long_captions_stay_within_their_tile():
    """The space between two tiles is blank, whatever their captions say."""
    tiles = [_tile(64, "swimming pool " * 20 + "0.87", "x" * 300, flag="non-finite " * 9)] * 4
    sheet = np.asarray(contact_sheet(tiles, 4, "title " * 60, column_labels=["long " * 30] * 4))
    red = np.flatnonzero(_red(Image.fromarray(sheet)).any(axis=0))
    left = red[red < sheet.shape[1] // 2].max()
    right = red[red > sheet.shape[1] // 2].min()
    assert right - left > 5
    first_row = np.flatnonzero(_red(Image.fromarray(sheet)).any(axis=1)).min()
    gutter = sheet[first_row - 15 :, left + 1 : right]
    assert np.all(np.abs(gutter.astype(int) - sheet[0, 0]) < 4)  # a glyph's edge may show faintly
    assert np.all(sheet[:, -10:] == sheet[0, 0]) and np.all(sheet[-10:] == sheet[0, 0])


def test_captions_take_room_below_their_tile_only():
    plain, captioned = contact_sheet([_tile(64)], 1), contact_sheet([_tile(64, "a", "b")], 1)
    assert captioned.width == plain.width and captioned.height > plain.height + 20
    assert _red(captioned).sum() == 160 * 160
    assert _red(contact_sheet([_tile(64, flag="non-finite")], 1)).sum() < 160 * 160


def test_blur_hides_detail():
    checks = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((8, 8)))
    checks = np.stack([255 * checks] * 3, axis=-1)
    spread = [
        np.asarray(contact_sheet([Tile(checks.astype(np.uint8), blur=blur)], 1))[60:160, 60:160]
        for blur in (False, True)
    ]
    assert spread[0].std() > 100 and spread[1].std() < 20


def test_impossible_sheets_are_refused():
    with pytest.raises(ValueError, match="0 tiles"):
        contact_sheet([], 3)
    with pytest.raises(ValueError, match="3 row labels for 2 rows"):
        contact_sheet([_tile(8)] * 4, 2, row_labels=["a", "b", "c"])


# ---- report


class _Parsed(HTMLParser):
    """Collects the page's tags and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def _page(path, **options) -> _Parsed:
    write_page(path, Page(**{"title": "a report"} | options))
    return _Parsed(path.read_text(encoding="utf-8"))


def test_nothing_in_a_report_becomes_markup(tmp_path):
    page = _page(
        tmp_path / "report.html",
        title=EVIL,
        summary=[{EVIL: EVIL}],
        runs=[ReportRun((ReportImage(EVIL, EVIL, 0.9), ReportImage(EVIL, EVIL)), (EVIL, EVIL))],
        note=EVIL,
        command=EVIL,
        settings={EVIL: EVIL},
        traces=EVIL,
        links=[EVIL],
    )
    assert not page.all("script") and len(page.all("title")) == 1
    assert page.text.count(EVIL) >= 9
    sources = [unquote(image["src"]) for image in page.all("img")]
    assert sources == [EVIL] * 3
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_only_high_scores_are_blurred(tmp_path):
    scores = [None, 0.1, 0.5, 0.51, 0.99, float("nan")]
    runs = [
        ReportRun((ReportImage(f"images/{i}.png", "last", p),), (f"seed {i}",))
        for i, p in enumerate(scores)
    ]
    pair = ReportImage("images/6.png", "last", 0.2), ReportImage("images/best 6#.png", "best", 0.8)
    runs.append(ReportRun(pair, ("seed 6",)))
    page = _page(tmp_path / "report.html", runs=runs)
    boxes = [box["aria-label"] for box in page.all("input")]
    assert boxes == ["show seed 3, last", "show seed 4, last", "show seed 6, best"]
    images = [image["src"] for image in page.all("img")]
    assert images == [f"images/{i}.png" for i in range(7)] + ["images/best%206%23.png"]


def test_a_report_stands_alone_and_shows_what_it_was_given(tmp_path):
    page = _page(
        tmp_path / "report.html",
        summary=[{"scene": "abbey", "p": 0.12345678, "runs": 8}, {"scene": "bar", "best": 1.0}],
        runs=[ReportRun((ReportImage("a.png"),), ("seed 0", "NSFW 0.2"))],
        note="the first of them",
        command="python -m experiments.joint",
        settings={"steps": 300},
        traces="traces.png",
    )
    references = [a.get("src") or a.get("href") for t, a in page.tags if t in ("img", "a", "link")]
    links = ["contact_sheet.png", "metrics.csv", "config.json", "results.safetensors"]
    assert references == [*links, "traces.png", "a.png"]
    for text in (
        "abbey",
        "0.123457",
        "seed 0",
        "NSFW 0.2",
        "experiments.joint",
        "steps",
        "300",
        "of them",
    ):
        assert text in page.text
    assert "can be suggestive" in page.text


# ---- tables


def test_metrics_keep_columns_and_six_digits(tmp_path):
    rows = [
        {"run": 0, "p": 1 / 3, "label": 'a, "b"\nc'},
        {"run": 1, "p": np.float32(1e-9), "label": "\udcff", "extra": np.int64(12345678)},
        {"run": 2, "p": float("nan"), "label": None, "extra": True},
    ]
    write_csv(tmp_path / "m.csv", rows)
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [
        ["run", "p", "label", "extra"],
        ["0", "0.333333", 'a, "b"\nc', ""],
        ["1", "1e-09", "\\udcff", "12345678"],
        ["2", "nan", "", "True"],
    ]


def test_table_is_aligned_and_on_one_line_a_row():
    rows = [{"file": "a\nb", "p": 0.5}, {"file": "日本", "p": 0.25}, {"file": "x", "p": None}]
    assert format_table(rows).splitlines() == [
        "file     p",
        "a\\nb   0.5",
        "日本  0.25",
        "x",
    ]
    assert format_table(rows, ["p"]).split("\n") == ["   p", " 0.5", "0.25", ""]
    assert printable("a\x1b[0m\u202eb\udcff é") == "a\\x1b[0m\\u202eb\\udcff é"


# ---- plots


@pytest.mark.parametrize("runs, steps", [(1, 1), (3, 50), (32, 20)])
def test_traces_are_drawn(tmp_path, runs, steps):
    objective = np.random.default_rng(0).normal(size=(runs, steps)).cumsum(axis=1)
    objective[0, -1] = np.nan
    names = [f"_seed {i} $x" for i in range(runs)]
    alone, both = tmp_path / "alone.png", tmp_path / "both.png"
    assert plot_traces(alone, objective) == ""
    probs = {"P(NSFW)": 1 / (1 + np.exp(-objective)), "P(abbey)": np.full((runs, steps), np.nan)}
    assert plot_traces(both, objective, names, probs) == ""
    small, large = read_image(alone), read_image(both)
    assert large.shape[1] > 1.5 * small.shape[1]
    assert small.std() > 5


def test_plot_refuses_other_shapes_and_says_when_it_cannot_draw(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"objective has shape \(3,\)"):
        plot_traces(tmp_path / "x.png", np.zeros(3))
    with pytest.raises(ValueError, match="2 names for 3 runs"):
        plot_traces(tmp_path / "x.png", np.zeros((3, 4)), ["a", "b"])

    def fails(figure):
        raise RuntimeError("no latex\nat all")

    said = save_figure(tmp_path / "x.png", (4, 3), fails)
    assert said == "no plot: matplotlib cannot draw it (RuntimeError: no latex)"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert plot_traces(tmp_path / "x.png", np.zeros((3, 4))) == WITHOUT_MATPLOTLIB
    assert not (tmp_path / "x.png").exists()


def test_a_plot_does_not_depend_on_how_matplotlib_is_set(tmp_path, monkeypatch):
    names = ["山", "каньон", "$x_"]
    assert plot_traces(tmp_path / "plain.png", np.arange(12.0).reshape(3, 4), names) == ""
    monkeypatch.setenv("MPLBACKEND", "module://not_here")
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9, "font.size": 40}):
        assert plot_traces(tmp_path / "odd.png", np.arange(12.0).reshape(3, 4), names) == ""
        assert (
            matplotlib.rcParams["text.usetex"] and os.environ["MPLBACKEND"] == "module://not_here"
        )
    assert (tmp_path / "odd.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_matplotlib_is_imported_whatever_its_environment(tmp_path):
    """A notebook's back end and a style that needs LaTeX, before anybody has imported it."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    (tmp_path / "file").write_text("")
    script = (
        "import numpy as np; from jaxsynth.report.plots import plot_traces as plot\n"
        "print(repr(plot('x.png', np.zeros((2, 3)), ['山', 'b'])))"
    )
    odd = {"MPLBACKEND": "module://not_here", "MPLCONFIGDIR": str(tmp_path / "file" / "x")}
    env = os.environ | odd | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("''\n", "")


# ---- the sheet of a sweep


@pytest.mark.parametrize(
    ("scenes", "seeds", "columns", "shown"),
    [(2, 3, 3, 6), (30, 20, 20, 400), (3, 500, 20, 400), (1, 41, 7, 41), (100, 1, 10, 100)],
)
def test_a_sheet_is_a_page_however_many_seeds_there_are(scenes, seeds, columns, shown):
    runs = [
        Run(s, Objective(()), f"scene {r}", f"seed {s}")
        for r in range(scenes)
        for s in range(seeds)
    ]
    rows = [{"seed": r.seed, "row": r.row, "column": r.column, "status": "ok"} for r in runs]
    asked = []

    def tile(run: int, lines: tuple[str, ...]) -> Tile:
        asked.append(run)
        return Tile(np.full((8, 8, 3), 90, np.uint8), lines)

    [(name, page)] = contact_pages("a sweep", runs, rows, tile, lambda run, row: ("",))
    assert name == "contact_sheet.png" and asked == list(range(shown))
    assert columns * 160 < page.width < columns * 160 + 900
    assert page.height < 2 * max(page.width, 480)


@pytest.mark.parametrize("text", ["Äpfel", "каньон", "ελιά", "ﻂﻂ", "עברית"])
def test_letters_of_the_bundled_font_are_drawn_as_they_are(text):
    assert fonts.readable(text) == text
    assert [path for path, _ in fonts._parts(text)] == [str(fonts.FONT)]


def test_letters_that_no_font_has_are_escapes_and_never_boxes(monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", tuple)
    fonts._font_of.cache_clear()
    assert fonts.readable("山 a") == "\\u5c71 a"
    font = fonts.Font(13)
    box = bytes(fonts._font(str(fonts.FONT), 13).getmask("\U000f0000"))
    assert bytes(font.mask("山").im) != box
    assert font.getlength("山") == font.getlength("\\u5c71") > 30
    fonts._font_of.cache_clear()
