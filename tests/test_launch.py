"""How launchers end: readers that go away, errors with their causes, flags that were renamed."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from launching import run

from experiments import flags
from experiments.launch import run_experiment
from jaxsynth.inputs import option
from jaxsynth.runs import saving


@dataclasses.dataclass(frozen=True)
class Flags:
    steps: int = option(3, "A count.", low=0)
    max_steps: int | None = option(None, "Stop there.")
    pixels: float = option(1.0, "A weight.")
    file: Path | None = option(None, "A file.")


pytestmark = pytest.mark.usefixtures("no_flags_left")


def end_of(main, *argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_experiment(main, Flags, ["program", *argv])
    return end.value.code


def wrong(_flags):
    try:
        raise KeyError("the cause")
    except KeyError:
        raise ValueError("one line") from None


def test_an_error_is_one_line_and_debug_shows_its_causes(capsys):
    assert end_of(wrong) == 2
    assert capsys.readouterr().err == "error: one line\n"
    assert end_of(wrong, "--debug") == 2
    said = capsys.readouterr().err
    assert "KeyError: 'the cause'" in said and "Traceback" in said
    assert said.endswith("error: one line\n")


def test_flags_of_the_last_version_work_and_say_their_new_name(capsys):
    seen = []
    assert end_of(lambda given: seen.append(given), "--export_only", "--image_loss=2") == 0
    assert seen == [Flags(max_steps=0, pixels=2.0)]
    assert capsys.readouterr().err.splitlines() == [
        "--export_only is called --max_steps=0 now",
        "--image_loss is called --pixels now",
    ]


def test_every_new_name_is_a_flag_of_a_trainer():
    from jaxsynth.training.prior_run import PriorRun

    flags.define(PriorRun)
    for old, new in flags.RENAMED.items():
        assert new.partition("=")[0] in absl_flags.FLAGS and old not in absl_flags.FLAGS


@pytest.mark.parametrize("typed", ["~/a.png", "$WHERE/a.png", "${WHERE}/a.png"])
def test_paths_are_what_they_are_in_a_shell(typed, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    seen = []
    assert end_of(lambda given: seen.append(given), f"--file={typed}") == 0
    assert seen[0].file == tmp_path / "a.png"


def test_an_empty_path_is_refused(capsys):
    assert end_of(wrong, "--file=") == 2
    assert capsys.readouterr().err == "error: --file= names no folder and no file\n"


def test_work_goes_on_when_nobody_reads(monkeypatch, tmp_path):
    """As in `python -m experiments.NAME | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)

        def main(_flags):
            for _ in range(3):
                print("a line", flush=True)
            (tmp_path / "result").touch()

        assert end_of(main) == 0
    assert (tmp_path / "result").is_file()


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(saving, "_LINE_SECONDS", 0.0)
    with saving._bar(saving.Saving(), "one", total=3, begun=1) as bar:
        for value in (0.5, 0.75):
            bar.set_postfix_str(f"best {value}", refresh=False)
            bar.update(1)
    said = capsys.readouterr().err
    assert "\r" not in said and said.endswith("\n")
    assert said.splitlines()[-1].startswith("one: 3 of 3 steps in 00:00, 00:00 left, best 0.75")


def test_short_work_is_quiet_where_there_is_no_terminal(capsys):
    with saving._bar(saving.Saving(), "one", total=3, begun=0) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("launcher", ["random_samples", "score"])
def test_a_machine_without_the_asked_backend_is_one_line(launcher, tmp_path):
    words = ["photo.jpg"] if launcher == "score" else [f"--out={tmp_path / 'run'}"]
    done = run(launcher, *words, JAX_PLATFORMS="cuda")
    assert done.returncode == 2 and done.stderr.startswith("error: JAX_PLATFORMS=cuda: "), done
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
