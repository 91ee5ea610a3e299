"""Makes the screenshots of howto/look.md: python docs/make_screenshots.py FOLDER.

FOLDER is of `jaxsynth joint --scenes=volcano,iceberg --nsfw_weights=-0.5,0.25,0.5,1 --seeds=3
--record_codes=3,6,10,15,20,30,40,50`. It takes Chromium.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import browser

_VIEWS = {"gallery": "#/", "run": "#/run/12", "grid": "#/grid"}

with browser() as page:
    for name, view in _VIEWS.items():
        page.resize(1100, 900 if name == "run" else 760)
        page.open(Path(sys.argv[1]) / "index.html", view)
        page.settle()
        if name == "run":
            page.wait("document.querySelectorAll('.chart').length === 2")
            page.change("input[type=range]", "6")
        page.picture(Path(__file__).parent / f"explorer_{name}.webp")
