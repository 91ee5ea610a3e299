"""Makes the screenshots of howto/look.md: python docs/make_screenshots.py [explorer] [studio].

It takes Chromium and the extra `studio`, and some five minutes on two cores.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Page, browser

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
SWEEP = (
    "joint --scenes=volcano,iceberg --nsfw_weights=-0.5,0.25,0.5,1 --seeds=2 "
    "--record_codes=3,6,9,12,15,18"
)
_VIEWS = {"gallery": ("#/", 760), "run": ("#/run/12", 900), "grid": ("#/grid", 760)}
_BUTTON = "[...document.querySelectorAll('button')].find(b => /make pictures/i.test(b.innerText))"


def launch(words: str, out: Path) -> list[str]:
    """Return the command of an experiment."""
    return [sys.executable, "-m", *f"experiments.{words} --out={out}".split()]


def explorer(page: Page, folder: Path) -> None:
    """Picture three views of a finished sweep."""
    for name, (view, height) in _VIEWS.items():
        page.resize(1100, height)
        page.open(folder / "index.html", view)
        page.settle()
        if name == "run":
            page.wait("document.querySelectorAll('.chart').length === 2")
            page.change("input[type=range]", "6")
        page.picture(PICTURES / f"explorer_{name}.webp")


def studio(page: Page, out: Path) -> None:
    """Picture the studio with eight finished images."""
    command = launch("studio --port=0", out)
    with subprocess.Popen(command, cwd=DOCS.parent, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = next(word for word in server.stdout.readline().split() if "http" in word)
            page.resize(1100, 820)
            page.open(address)
            page.wait(f"!!{_BUTTON}")
            page.click("[aria-label='Class or unit']")
            page.call("Input.insertText", text="volc")
            page.wait("document.querySelectorAll('.q-menu .q-item').length === 1")
            page.click(".q-menu .q-item")
            page.js(f"{_BUTTON}.click()")
            page.wait("/Saved in/.test(document.body.innerText)", 600)
            page.js("document.activeElement.blur()")
            page.wait("[...document.images].every(image => image.complete)")
            page.picture(PICTURES / "studio.webp")
        finally:
            server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home, browser() as page:
        asked = sys.argv[1:] or ["explorer", "studio"]
        if "explorer" in asked:
            folder = Path(home) / "joint"
            subprocess.run(launch(SWEEP, folder), check=True, cwd=DOCS.parent)
            explorer(page, folder)
        if "studio" in asked:
            studio(page, Path(home) / "studio")
