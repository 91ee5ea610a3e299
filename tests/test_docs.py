"""The documents are true: their Python runs, their commands, flags, links and names exist."""

import dataclasses
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from in_process import run_cases
from launching import run
from onnx import helper
from onnx_models import save
from PIL import Image
from tiny import random_params, tiny_networks

import jaxsynth as js
from jaxsynth.__main__ import _QUESTIONS
from jaxsynth.models import registry
from jaxsynth.models.network import CodeStats, NetworkInfo, build_network
from jaxsynth.models.packaged import EfficientNetConfig, Stage
from jaxsynth.models.weights import read_info
from jaxsynth.recipes import RECIPES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOTES = [ROOT / f"{name}.md" for name in ("BUILD_NOTES", "CHANGELOG", "CONTRIBUTING")]
NOTES += [ROOT / folder / "README.md" for folder in ("ported_params", "benchmarks")]
DOCUMENTS = [*GUIDES, *NOTES]
LARGEST = {"README.md": 6_000, "BUILD_NOTES.md": 12_000}  # bytes
LARGEST |= {"CHANGELOG.md": 1_024, "CONTRIBUTING.md": 1_024}
COMMAND = re.compile(
    r"(?:python -m experiments\.|(?<!from )(?<!import )\bjaxsynth[ ])(\w+)((?:[^\n`\\#|]|\\\n)*)"
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PAGES = {"init_image", "show", "devices", "continue_from"}
REFUSED = {  # of the flags of a run
    "benchmark_optimizers": {"recipe", "steps", "balance", "precision", "save_seconds", *_PAGES},
    "compare_balances": {"balance", *_PAGES},
    "compare_precisions": {"precision", *_PAGES},
    "evaluate_prior": {"seeds", "precision", *_PAGES},
    "random_samples": {"recipe", "steps", "prior", "balance", "encoder", "save_seconds"}
    | {"init_image", "continue_from", "extend_steps", "record_codes"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- Python


def python_blocks(path: Path) -> list[str]:
    return [text for kind, text in BLOCK.findall(path.read_text()) if kind == "python"]


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """Tiny networks under the names of the shipped ones, recipes of two steps, a folder of files.

    Blobs and labels are those of the shipped networks.
    """
    tiny = tiny_networks()
    config = EfficientNetConfig(
        size=16,
        classes=len(read_info("pocket_places").labels),
        stem=4,
        stages=(Stage(1, 3, 2, 1, 4), Stage(10, 3, 1, 1, 4)),
        head=16,
    )
    info = NetworkInfo("pocket_places", config, read_info("pocket_places").labels)
    places = build_network(info, random_params(config, 5, 0.3))
    upper = np.linspace(2, 6, 12).astype(np.float32)
    code = CodeStats(upper, upper / 3, upper / 6)
    info = dataclasses.replace(tiny["generator"].info, network="pocket_generator")
    generator = registry.to_model(tiny["generator"]._replace(info=info, code=code))
    generator = dataclasses.replace(generator, encoder=registry.to_model(tiny["places"]))
    made = {
        "pocket_generator": lambda: generator,
        "pocket_places": lambda: registry.to_model(places),
        "open_nsfw": lambda: registry.to_model(tiny["nsfw"], "open_nsfw"),
    }
    monkeypatch.setattr(registry, "_made", made)
    for name, recipe in list(RECIPES.items()):
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(recipe, steps=2))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save("photo.jpg")


@pytest.mark.parametrize("path", [p for p in GUIDES if python_blocks(p)], ids=name_of)
def test_python_runs(path, shipped):
    names = {"__name__": "__main__"}
    for text in python_blocks(path):
        exec(compile(text, name_of(path), "exec"), names)  # one page is one session


def test_the_commands_for_an_onnx_file_run(shipped, tmp_path):
    """The README's, with a small file whose tensors have the names of torchvision's ResNet-18."""
    blob, rng = "relu_8", np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["conv"], strides=(4, 4)),
        helper.make_node("Relu", ["conv"], [blob]),
        helper.make_node("GlobalAveragePool", [blob], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc"], ["output"]),
    ]
    weights = {"w": (6, 3, 3, 3), "fc": (6, 1000)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    image = {"input": (np.float32, (1, 3, 32, 32))}
    save(tmp_path / "resnet18.onnx", nodes, image, ["output"], arrays)
    readme = (ROOT / "README.md").read_text()
    [block] = [text for _, text in BLOCK.findall(readme) if "resnet18.onnx" in text]
    for line in block.splitlines():
        program, launcher, *flags = shlex.split(line)
        done = run(launcher, *flags, cwd=tmp_path)
        assert program == "jaxsynth" and done.returncode == 0, done.stderr
    labels = [f"unit {i}" for i in range(8)]
    for folder, count in (("classes", 8), ("layer", 6), ("synthesize", 8)):
        assert (tmp_path / "out" / folder / "contact_sheet.png").is_file()
        rows = js.read_results(tmp_path / "out" / folder).table
        assert len(rows) == count and {row["status"] for row in rows} == {"ok"}
        if count != 8 or folder == "classes":
            assert [row["row"] for row in rows] == labels[:count]
    [objective] = {run.objective for run in js.read_results(tmp_path / "out/synthesize").runs}
    assert objective == "mine:log_prob:207:1.0 + nsfw:log_odds:NSFW:0.5"


def test_every_name_of_the_api_exists():
    text = (DOCS / "api.md").read_text()
    for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        assert pkgutil.resolve_name(name).__doc__, name
    for members in re.findall(r"^::: (\S+)\n    options:\n      members: \[(.*)\]$", text, re.M):
        for name in members[1].split(", "):
            assert hasattr(importlib.import_module(members[0]), name), name


# ---- commands


def commands() -> dict[str, list[tuple[str, str]]]:
    """Experiment -> (document, rest of the command) of all that documents and modules name."""
    found: dict[str, list[tuple[str, str]]] = {}
    modules = (
        path for name in ("experiments", "benchmarks") for path in (ROOT / name).glob("*.py")
    )
    for path in [*DOCUMENTS, *sorted(modules)]:
        text = path.read_text()
        if path.suffix == ".md":  # its code: prose may say that jaxsynth shows something
            code = [block for kind, block in BLOCK.findall(text) if kind != "python"]
            code += re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.*)$", text, re.MULTILINE)
            text = "\n".join(code)
        for experiment, rest in COMMAND.findall(text):
            found.setdefault(experiment, []).append((path.name, rest))
    return found


@cache
def flags_of(experiment: str) -> set[str]:
    done = run(experiment, "--help")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^  (?:-\w,)?--(\[no\])?([\w]+)", done.stdout, re.MULTILINE)
    return {name for _, name in names} | {f"no{name}" for no, name in names if no}


@pytest.mark.parametrize("experiment", sorted({*commands(), *REFUSED} - {*_QUESTIONS, "NAME"}))
def test_every_command_exists_with_its_flags(experiment):
    listed = flags_of(experiment)
    for document, rest in commands().get(experiment, []):
        used = {name.partition("=")[0] for name in re.findall(r"--([\w]+(?==|\s|$|\]))", rest)}
        assert used - {"help"} <= listed, (document, used - listed)
    if experiment in REFUSED:
        assert {"out", "resume", "generator"} <= listed
        assert not listed & REFUSED[experiment]


@pytest.mark.parametrize("experiment", ["atlas", "joint", "scene", "synthesize"])
def test_commands_of_the_guides_begin(experiment, tmp_path):
    """Their labels, units and values exist: each comes to the point where it compiles."""
    pages = {path.name for path in GUIDES} - {"originals.md", "train_prior.md"}
    needs = re.compile(r"=\$|=mine|\.npy|HOST|distributed|continue_from|photo|OUT|run0")
    lines = [rest for page, rest in commands().get(experiment, []) if page in pages]
    cases = [shlex.split(rest.replace("\\\n", " ")) for rest in lines if not needs.search(rest)]
    cases = [[*case, f"--out={n}"] for n, case in enumerate(cases) if "=" in " ".join(case)]
    assert len(cases) >= 3
    for case, found in zip(cases, run_cases(experiment, cases, tmp_path / "run"), strict=True):
        assert found.code in (None, 0), (case, found.err)


def test_a_launcher_starts_by_python_m():
    command = [sys.executable, "-m", "experiments.scene", "--help"]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0 and "--scenes" in done.stdout, done.stderr


def test_make_has_the_targets_that_documents_name():
    rules = (ROOT / "Makefile").read_text()
    for path in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make (\w+)", path.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", rules, re.MULTILINE), (path.name, target)


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for path in DOCUMENTS:
        for names in re.findall(r"install -e '\.\[([\w,]+)\]'", path.read_text()):
            assert set(names.split(",")) <= set(extras["optional-dependencies"]), path


def test_the_wheel_has_every_package_and_file():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package, patterns = ROOT / "jaxsynth", tool["package-data"]["jaxsynth"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in package.rglob("__init__.py")}
    assert set(tool["packages"]) == found | {"jaxsynth.experiments", "jaxsynth.ported_params"}
    for path in package.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            name = path.relative_to(package)
            assert any(name.match(pattern) for pattern in patterns), name


# ---- links, sizes


def slugs(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and mkdocs make them."""
    text = BLOCK.sub("", path.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_and_anchor_exists(path):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", path.read_text()):
        other = (path.parent / target).resolve() if target else path
        assert other.exists(), target
        if DOCS in path.parents:
            assert other == DOCS or DOCS in other.parents, f"{target} is not part of the site"
        if anchor:
            assert anchor in slugs(other), (target, anchor)


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert sorted(re.findall(r"[\w/]+\.md", nav)) == sorted(
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    )


def test_documents_are_short():
    for name, most in LARGEST.items():
        assert len((ROOT / name).read_bytes()) <= most, name


def test_no_document_has_an_unfilled_place():
    for path in DOCUMENTS:
        assert not re.findall(r"\b(?:TODO|TBD|[A-Z]+_TABLE)\b", path.read_text()), path
