"""The command and the Python lines that a page gives for a run do what they say."""

import shlex

import numpy as np
import pytest
from tiny import LABELS, save_tiny_networks

import jaxsynth as js
from jaxsynth.report.summary import OBJECTIVE, RUN, SEED, lines_that_repeat


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("it's here")
    save_tiny_networks(base)
    gen, places, nsfw = (
        js.load(base / f"{role}.safetensors") for role in ("generator", "places", "nsfw")
    )
    places, nsfw = places.named("places"), nsfw.named("2 nsfw's")
    goals = {label: places.log_prob(label) - 0.5 * nsfw.logit(1) for label in LABELS[:2]}
    how = {"classifiers": [nsfw], "seeds": 2, "batch": 2, "folder": base / "runs"}
    return js.sweep(goals, gen, recipe=js.recipes.goh(steps=3, lr_start=0.7), **how)


def _filled(lines, runs, place):
    run = runs.runs[place]
    pairs = ((RUN, str(place)), (SEED, str(run.seed)), (OBJECTIVE, repr(str(run.objective))))
    for token, value in pairs:
        lines = lines.replace(token, value)
    return lines


def test_python_lines_repeat_a_run_and_continue_it(runs):
    said = lines_that_repeat(runs.config, runs.folder)
    found = {}
    exec(_filled(said["python"], runs, 3), found)
    np.testing.assert_allclose(found["result"].sweep.codes[0], runs.codes[3], rtol=1e-5)
    assert found["result"].run.objective == runs.runs[3].objective
    exec(_filled(said["python_continue"], runs, 3), found)
    np.testing.assert_array_equal(found["more"].start_codes[0], runs.codes[3])


def test_the_command_continues_one_run():
    config = {"experiment": "scene", "command": "jaxsynth scene --seeds=2"}
    config |= {"sweep": {"recipe": {"steps": 60}}}
    said = lines_that_repeat(config, "out/it's a; folder")
    words = shlex.split(said["continue"].replace(RUN, "12"))
    given = ["--continue_from=out/it's a; folder:12", "--extend_steps=60"]
    assert words == ["jaxsynth", "scene", *given, "--out=out/it's a; folder-12"]
    assert said["python"] == "" and lines_that_repeat({}, None)["continue"] == ""
