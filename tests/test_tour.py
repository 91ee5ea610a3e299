"""The tour: its cells run, and the notebook is the script's."""

import ast
import re
import runpy
from pathlib import Path

from test_docs import shipped  # noqa: F401

EXAMPLES = Path(__file__).parents[1] / "examples"
LENGTH = "STEPS, SEEDS = 30, 4"
TEXT = (EXAMPLES / "tour.py").read_text("utf-8")
made = runpy.run_path(str(EXAMPLES / "make_notebook.py"))
CODE = [source for kind, source in made["cells"](TEXT) if kind == "code"]

_SAYS = ast.Call | ast.DictComp
_NAMES = re.compile(r"({name: )?(places|nsfw|js\.diversity)\b(?!\.\w+\(name\)$)")


def _carry_out() -> list[str]:
    """Run the cells in turn, few steps each; the HTML that a notebook shows."""
    names, shown = {"__name__": "__main__"}, []
    for source in CODE:
        tree = ast.parse(source.replace(LENGTH, "STEPS, SEEDS = 3, 2"))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "tour.py", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "tour.py", "eval"), names)
            shown += [value._repr_html_()] if hasattr(value, "_repr_html_") else []
    return shown


def test_the_cells_run(shipped, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    shown = _carry_out()
    assert len(shown) == 10 and all("data:image/png" in page for page in shown)
    assert (tmp_path / "out" / "tour" / "index.html").is_file()


def test_the_shipped_networks_have_the_classes_and_blobs_that_it_names():
    names = {"__name__": "__main__"}
    exec(CODE[0], names)
    assert names["gen"].name == "pocket_generator" and names["nsfw"].name == "nsfw"
    nodes = [n for n in ast.walk(ast.parse("\n".join(CODE))) if isinstance(n, _SAYS)]
    found = [eval(text, names) for text in map(ast.unparse, nodes) if _NAMES.match(text)]
    assert len(found) >= 12


def test_the_tour_has_fifteen_steps_and_names_its_length():
    assert LENGTH in TEXT and len(CODE) == 15
    assert [f"## {n}." in TEXT for n in range(1, 17)] == [True] * 15 + [False]


def test_the_notebook_is_the_scripts():
    written = (EXAMPLES / "tour.ipynb").read_text("utf-8")
    assert written == made["notebook"](TEXT), "python examples/make_notebook.py"
