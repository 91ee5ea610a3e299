"""What a sweep of many runs keeps in memory of each: nothing that a page does not need."""

import jax
import numpy as np
import pytest
from short import Run, Sweep, Term, plan
from tiny import tiny_networks

from jaxsynth.goal_arrays import make_goals, make_layout
from jaxsynth.maximize import carry_out, config_of
from jaxsynth.models.network import CodeStats
from jaxsynth.objectives import Objective
from jaxsynth.objectives import Term as ModelTerm
from jaxsynth.recipes import Recipe
from jaxsynth.report import plots
from jaxsynth.runs.saving import Saving
from jaxsynth.starts import StartCodes, make_box, start_codes

TERMS = (Term("places", "log_prob", (3,), 1.0), Term("nsfw", "log_odds", (1,), 0.5))


def test_a_sweep_maps_its_arrays_and_keeps_only_curves(tmp_path):
    todo = plan(tiny_networks(), [Run(seed, TERMS) for seed in range(5)], Sweep(Recipe(steps=4)))
    saving = Saving(tmp_path / "run", progress=False)
    found = carry_out(todo, saving, config=config_of(todo), images="none")
    curves = [curve for of_run in found.curves for curve in of_run]
    assert len(curves) == 10
    for array in jax.tree.leaves(found.arrays):
        assert array.base is not None or not array.size  # a map of the file
        assert not any(np.shares_memory(array, curve) for curve in curves)
    for i, (places, nsfw) in enumerate(found.curves):
        np.testing.assert_array_equal(places, found.arrays.watched["places"]["prob"][i, :, 3])
        np.testing.assert_array_equal(nsfw, found.arrays.watched["nsfw"]["prob"][i, :, 1])


def test_seeds_of_one_objective_share_its_arrays():
    todo = plan(tiny_networks(), [Run(seed, TERMS) for seed in range(1000)], Sweep(Recipe(steps=1)))
    [structure] = todo.structures
    assert {len(leaf) for leaf in jax.tree.leaves(structure.goals)} == {1}
    assert todo.batch.which.shape == (1000,) and not todo.batch.which.any()


def test_a_thousand_units_of_a_large_layer_are_indices():
    """Of conv1 of an AlexNet for 256 pixels, 62 x 62 x 96: dense weights would be 1.5 GB."""
    units = np.random.default_rng(0).integers(0, 62 * 62 * 96, 1000)
    whole = np.ones(62 * 62)  # and the mean of a channel

    def term(index, value):
        return ModelTerm(None, "conv1", "", 1.0, index=np.int32(index), value=value)

    objectives = [Objective((term([unit], np.ones(1)),)) for unit in units]
    goals = make_goals(objectives, (), make_layout(objectives), np.float32)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(goals)) < 1e5
    objectives.append(Objective((term(96 * np.arange(62 * 62), whole / 62**2),)))
    goals = make_goals(objectives, (), make_layout(objectives), np.float32)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(goals)) < 50e6


@pytest.mark.parametrize("start", ["clipped_normal", "code", "positive10"])
def test_start_codes_are_drawn_where_they_are_read(start):
    recipe = Recipe(start=start, steps=1)
    code = CodeStats(
        *(np.linspace(a, b, 12, dtype=np.float32) for a, b in ((2, 6), (0, 1), (1, 2)))
    )
    box, root, seeds = (
        make_box(recipe, 12, code.upper, np.float32),
        jax.random.key(0),
        range(7, 207),
    )
    drawn = []

    def draw(some: np.ndarray) -> jax.Array:
        drawn.append(len(some))
        return start_codes(recipe, box, root, some, code)

    codes = StartCodes(draw, np.array(seeds), 12, np.dtype("float32"))
    assert not drawn and codes.shape == (200, 12) and len(codes) == 200
    whole = np.asarray(start_codes(recipe, box, root, np.array(seeds), code))
    for rows in (3, np.int64(150), slice(40, 130), np.array([5, 199, 199]), slice(None)):
        found = codes[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[rows])
    assert set(drawn) == {64} and len(drawn) == 1 + 1 + 2 + 1 + 4


def test_a_plan_holds_no_start_codes():
    todo = plan(tiny_networks(), [Run(seed, TERMS) for seed in range(5)], Sweep(Recipe(steps=1)))
    assert isinstance(todo.batch.codes, StartCodes) and todo.batch.codes.shape == (5, 12)


class _Axes:
    """Notes what is drawn."""

    def __init__(self):
        self.drawn = []

    def plot(self, _steps, values, **options):
        self.drawn.append((values, options.get("label", "")))


def test_many_traces_are_a_few_lines_and_the_median_of_all():
    runs = np.random.default_rng(0).normal(size=(5000, 7))
    axes = _Axes()
    plots._draw_runs(axes, runs, "red", "objective")
    (lines, _), (median, label) = axes.drawn
    assert lines.shape == (7, plots.LINES)
    np.testing.assert_array_equal(lines[:, [0, -1]].T, runs[[0, -1]])
    np.testing.assert_array_equal(median, np.median(runs, axis=0))
    assert label == "objective, median of 5000 runs"
    few = _Axes()
    plots._draw_runs(few, runs[:20], "red", "objective")
    np.testing.assert_array_equal(few.drawn[0][0], runs[:20].T)
