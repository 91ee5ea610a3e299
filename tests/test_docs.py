"""The documents name only commands, flags, files and pictures that exist."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "BUILD_NOTES.md"]
DOCUMENTS += [ROOT / folder / "README.md" for folder in ("ported_params", "benchmarks")]
_PAGES = {"init_image", "show", "devices", "continue_from"}
REFUSED = {  # of the flags of a run
    "benchmark_optimizers": {"recipe", "steps", "balance", "precision", "save_seconds", *_PAGES},
    "compare_balances": {"balance", *_PAGES},
    "compare_precisions": {"precision", *_PAGES},
    "evaluate_prior": {"seeds", "precision", *_PAGES},
    "random_samples": {"recipe", "steps", "prior", "balance", "encoder", "save_seconds"}
    | {"init_image", "continue_from", "extend_steps", "record_codes"},
}
COMMAND = re.compile(r"python -m experiments\.(\w+)((?:[^\n`\\]|\\\n)*)")


def commands() -> list[tuple[str, str, str]]:
    texts = [*DOCUMENTS, *sorted((ROOT / "experiments").glob("*.py"))]
    texts += sorted((ROOT / "benchmarks").glob("*.py"))
    return sorted(
        {
            (path.name, *found.groups())
            for path in texts
            for found in COMMAND.finditer(path.read_text())
        }
    )


@cache
def flags_of(experiment: str) -> set[str]:
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", "--help"],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^  (?:-\w,)?--(\[no\])?([\w]+)", done.stdout, re.MULTILINE)
    return {name for _, name in names} | {f"no{name}" for no, name in names if no}


@pytest.mark.parametrize(("document", "experiment", "rest"), commands())
def test_every_command_exists_with_its_flags(document, experiment, rest):
    places = [ROOT / folder / f"{experiment}.py" for folder in ("experiments", "benchmarks")]
    assert any(path.is_file() for path in places), document
    used = {name.partition("=")[0] for name in re.findall(r"--([\w]+(?==|\s|$|\]))", rest)}
    assert used <= flags_of(experiment), (document, used - flags_of(experiment))


@pytest.mark.parametrize("experiment", REFUSED)
def test_help_lists_no_flag_that_is_refused(experiment):
    listed = flags_of(experiment)
    assert {"out", "resume", "generator"} <= listed
    assert not listed & REFUSED[experiment]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_and_picture_exists(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_no_document_has_an_unfilled_place():
    for document in DOCUMENTS:
        assert not re.findall(r"\b(?:TODO|TBD|[A-Z]+_TABLE)\b", document.read_text()), document
