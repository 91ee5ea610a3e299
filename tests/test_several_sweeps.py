"""Launchers of several sweeps: stopped or killed in one, they resume it and no other."""

import json
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from launching import Launched, run, start
from short import Run, Sweep, Term, execute, plan
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.batch import join
from jaxsynth.recipes import Recipe
from jaxsynth.runs.folder import UNFINISHED
from jaxsynth.runs.parts import Parts, close_sweep, finished_sweep, open_sweep
from jaxsynth.runs.records import config_of
from jaxsynth.runs.saving import Saving, Stopped

SMALL = ("--steps=12", "--batch=3", "--noprogress")
COMMANDS = {
    "compare_balances": [
        *("--scenes=bar,dam", "--seeds=4", "--balances=image,sum", "--targets=logit,log_prob"),
        *SMALL,
    ],
    "compare_precisions": ["--scenes=bar,dam", "--nowith_nsfw", "--seeds=4", *SMALL],
    "evaluate_prior": [
        *("--figures=nsfw,joint,random", "--nsfw_seeds=2", "--joint_seeds=4", "--random_seeds=4"),
        *("--joint_scenes=bar,dam", *SMALL),
    ],
}
FINISHED = {
    "compare_balances": "balances.json",
    "compare_precisions": "precision.json",
    "evaluate_prior": "figures.json",
}
SECOND = {
    "compare_balances": "image-log_prob",
    "compare_precisions": "dam-float32-1",
    "evaluate_prior": "joint",
}


def test_a_sweep_resumes_at_the_step_where_it_was_stopped(tmp_path):
    runs = [Run(seed, (Term("places", "fc8", (1,), 1.0),)) for seed in range(5)]
    todo = plan(tiny_networks(), runs, Sweep(Recipe(steps=4), batch=2))
    config = {"command": "a command"} | config_of(todo)
    asked = []

    def compute(last: int):
        saving = Saving(
            tmp_path,
            save_seconds=99.0,
            asked_to_stop=lambda: asked.append(0) or len(asked) >= last,
            progress=False,
        )
        return finished_sweep(saving, "one", todo, config)

    with pytest.raises(Stopped, match=r"one: runs 2 to 3 of 5 at step 3 of 4, 1 of 3 chunks"):
        compute(8)  # 4 steps, the end of the chunk, 3 steps
    asked.clear()
    found = compute(99)
    assert len(asked) == 1 + 1 + 4  # one step is left of this chunk, its end, the last chunk
    jax.tree.map(np.testing.assert_array_equal, found, join(list(execute(todo))))
    asked.clear()
    jax.tree.map(np.testing.assert_array_equal, compute(1), found)
    assert not asked  # nothing was left

    other = config_of(plan(tiny_networks(), runs, Sweep(Recipe(steps=5), batch=2)))
    saving = Saving(tmp_path)
    with pytest.raises(ValueError, match=r"recipe steps 4, not 5.*\(a command\)"):
        open_sweep(saving, "one", other)
    close_sweep(tmp_path, "one")
    assert not list(tmp_path.iterdir())


def test_a_part_is_known_by_what_it_was_made_of(tmp_path):
    made_of = {"steps": 3, "scenes": ("bar", "dam")}
    parts = Parts(tmp_path / "run", "a command")
    assert not parts.done("one", made_of)
    codes = np.arange(6.0).reshape(2, 3)
    parts.save("one", made_of, value=[{"P": 0.5}], arrays={"codes": codes})
    with pytest.raises(ValueError, match="is not empty"):
        Parts(tmp_path / "run", "another")
    again = Parts(tmp_path / "run", "another", resume=True)
    assert again.done("one", made_of) and not again.done("two", made_of)
    assert again.value("one") == [{"P": 0.5}]
    np.testing.assert_array_equal(again.arrays("one")["codes"], codes)
    with pytest.raises(ValueError, match=r"one steps 3, not 4: .*\(a command\)"):
        again.done("one", made_of | {"steps": 4})
    (tmp_path / "run" / "mine.txt").touch()
    assert not Parts(tmp_path / "run", "another", overwrite=True).done("one", made_of)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]
    (tmp_path / "run" / "parts.json").write_text('{"one": 3}')
    with pytest.raises(ValueError, match=r"parts\.json cannot be read .*delete it"):
        Parts(tmp_path / "run", "another", resume=True)


def begin(name: str, *flags: object) -> Launched:
    return start(name, *COMMANDS[name], *flags)


def finish(name: str, *flags: object) -> tuple[int, str, str]:
    done = run(name, *COMMANDS[name], *flags)
    return done.returncode, done.stdout, done.stderr


def stop_in_the_second(name: str, process: Launched, out: Path, number: int) -> str:
    """Sends the signal while the second sweep that has figures of its own is computed."""
    under_way = out / UNFINISHED / SECOND[name] / UNFINISHED
    while not list(under_way.glob("under_way*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    return process.communicate()[1]


def figures_of(name: str, out: Path) -> dict:
    """What it has found, by row or group."""
    found = json.loads((out / FINISHED[name]).read_text())
    return {key: one.get("value", one.get("values")) for key, one in found.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_and_killed_it_resumes_to_the_same_figures(name, tmp_path):
    weights = save_tiny_networks(tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert finish(name, *weights, f"--out={whole}")[0] == 0
    process = begin(name, *weights, f"--out={out}", "--save_seconds=0")
    err = stop_in_the_second(name, process, out, signal.SIGTERM)
    assert process.returncode == 143, err
    assert f"stopped: {SECOND[name]}: runs" in err and "--resume continues" in err
    [finished] = json.loads((out / FINISHED[name]).read_text())

    code, _, err = finish(name, *weights, f"--out={out}")
    assert code == 2 and "holds a run that was stopped" in err and err.count("\n") == 1
    code, _, err = finish(name, *weights, f"--out={out}", "--resume", "--steps=13")
    assert code == 2 and err.count("\n") == 1 and "own command" in err, err

    process = begin(name, *weights, f"--out={out}", "--resume", "--save_seconds=0")
    stop_in_the_second(name, process, out, signal.SIGKILL)
    code, said, err = finish(name, *weights, f"--out={out}", "--resume")
    assert code == 0, err
    assert figures_of(name, out) == figures_of(name, whole)
    records = json.loads((out / FINISHED[name]).read_text())
    assert len(records) >= 2
    assert {key for key, one in records.items() if "--resume" not in one["command"]} == {finished}
    left = {p.name for p in out.iterdir()}
    assert left == {p.name for p in whole.iterdir()} and UNFINISHED not in left

    code, again, _ = finish(name, *weights, f"--out={out}", "--resume")
    assert code == 0 and again.splitlines()[-5:] == said.splitlines()[-5:]
    assert json.loads((out / FINISHED[name]).read_text()) == records
