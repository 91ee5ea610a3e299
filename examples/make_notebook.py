"""Makes tour.ipynb of tour.py: python examples/make_notebook.py.

tour.py is in jupytext's percent format, so `jupytext --to notebook examples/tour.py` does likewise.
"""

import json
import re
from pathlib import Path

TOUR = Path(__file__).with_name("tour.py")


def cells(text: str) -> list[tuple[str, str]]:
    """Return the cells of a percent script: `markdown` or `code`, and the source of each."""
    found = []
    for kind, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, re.MULTILINE):
        source = body.strip("\n")
        if "[markdown]" in kind:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        found.append(("markdown" if "[markdown]" in kind else "code", source))
    return found


def notebook(text: str) -> str:
    """Return a percent script as a notebook (nbformat 4.5) without outputs."""
    made = []
    for number, (kind, source) in enumerate(cells(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TOUR.with_suffix(".ipynb").write_text(notebook(TOUR.read_text("utf-8")), "utf-8")
