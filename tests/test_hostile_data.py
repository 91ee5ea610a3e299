"""Labels and names that try to be something else, from a weights file to every page of a run."""

import csv
import dataclasses
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

from launching import run
from PIL import Image
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.models.weights import save_network
from jaxsynth.report import pages

LABELS = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></code></figcaption><iframe src=//x>",
    "line\nbreak\x1b[31m\u202ered $x$ _",
    "=HYPERLINK(\"http://x\") \\udcff & javascript:alert(1)",
)  # fmt: skip


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_hostile_labels_are_text_on_every_page(tmp_path):
    weights = save_tiny_networks(tmp_path)
    places = tiny_networks()["places"]
    info = dataclasses.replace(places.info, labels=LABELS, source="<b>x</b>", licence="<i>")
    save_network(tmp_path / "places.safetensors", places._replace(info=info))
    photo = tmp_path / "'><script>x\n\udcff.png"
    Image.new("RGB", (20, 20), "orange").save(os.fsencode(photo))
    out = tmp_path / "<svg onload=alert(2)>"
    given = ["--scenes=all", f"--init_image={photo}", f"--out={out}"]
    done = run("scene", "--noprogress", *weights, "--steps=3", *given)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines()), done.stdout

    page = Page()
    text = (out / "report.html").read_text("utf-8")
    page.feed(text)
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "pre", "code", "a"),
        *("section", "div", "table", "thead", "tbody", "tr", "th", "td", "img", "figure", "span"),
        *("figcaption", "b", "i", "em", "br", "label", "input", "details", "summary"),
        *("script", "noscript", "main"),
    }
    names = {name for name, _ in page.attributes}
    assert names <= {
        *("lang", "charset", "name", "content", "class", "href", "src", "alt", "loading", "type"),
        *("aria-label", "id", "role"),
    }
    files = {value for name, value in page.attributes if name in ("href", "src")}
    assert all((out / file).is_file() for file in files), files  # nothing remote, no javascript:
    script = Path(pages.__file__).with_name("explorer.js").read_text("utf-8")
    found = re.findall("<script>(.*?)</script>", text, re.S)
    assert [part.strip() for part in found[1:]] == [script.strip()]
    for label in LABELS:
        assert label.splitlines()[0] in page.text
    with open(out / "metrics.csv", newline="", encoding="utf-8") as file:
        assert tuple(row["row"] for row in csv.DictReader(file)) == LABELS
    runs = json.loads((out / "config.json").read_text())["runs"]
    assert tuple(run["row"] for run in runs) == LABELS
    for name in ("contact_sheet.png", "strip.png", "traces.png"):
        with Image.open(out / name) as image:
            image.load()
