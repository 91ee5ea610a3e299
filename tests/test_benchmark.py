"""benchmark_optimizers: its statistics by hand, every optimizer of the table, its launcher."""

import csv
import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from in_process import run_cases
from launching import run, start
from safetensors.numpy import load_file
from short import models
from tiny import random_params, save_tiny_networks, tiny_networks

from benchmarks.study import cells, setting, statistics, summary, tuning
from benchmarks.study import run as benchmark_run
from benchmarks.study.cells import Found, optimise, steps_within
from benchmarks.study.problems import OBJECTIVES, choose_objectives, make_groups
from benchmarks.study.run import benchmark
from benchmarks.study.setting import Study, choose_optimizers
from jaxsynth.ask_tell import GRADIENT, PRIOR, VALUE
from jaxsynth.batch import Batch
from jaxsynth.models.weights import save_network
from jaxsynth.optimizer_names import OPTIMIZERS, by_name, make_optimizer
from jaxsynth.recipes import RECIPES
from jaxsynth.runs.parts import Parts
from jaxsynth.starts import make_box, start_codes

COSTS = {VALUE: 1.0, GRADIENT: 2.0, PRIOR: 3.0}
RNG = np.random.default_rng(0)
MODELS = models(tiny_networks())


# --- statistics -----------------------------------------------------------------------------------


def test_gains_are_shares_of_the_best_known_gain():
    start, best = np.array([[0.0, 1.0]]), np.array([[10.0, 1.0]])  # nobody gained from the second
    values = np.array([[[5.0, 1.0]], [[10.0, 1.0]]])
    assert statistics.gains(values, start, best).tolist() == [[[0.5, 1.0]], [[1.0, 1.0]]]


def test_profiles_and_costs_by_hand():
    curve = np.array([[[[0.2, 0.92, 1.0], [0.1, 0.1, 0.95]]], [[[0.0, 0.0, 0.89], [0.9, 1, 1]]]])
    marks = np.array([10.0, 20.0, 30.0])
    assert statistics.profile(curve, 0.1).tolist() == [[0.0, 0.5, 1.0], [0.5, 0.5, 0.5]]
    costs = statistics.cost_to(curve, marks, 0.9)
    assert costs.tolist() == [[[20.0, 30.0]], [[np.inf, 10.0]]]


def test_equal_values_share_a_rank():
    assert statistics.ranks(np.array([[3.0], [1.0], [3.0]])).ravel().tolist() == [1.5, 3, 1.5]


def test_friedman_by_hand_and_as_scipy():
    from scipy.stats import friedmanchisquare

    # three methods ranked alike on four blocks: 12 / (4 * 3 * 4) * (16 + 64 + 144) - 3 * 4 * 4 = 8
    found = statistics.friedman(np.array([[9, 9, 9, 9], [5, 5, 5, 5], [1, 1, 1, 1.0]]))
    assert found.ranks.tolist() == [1, 2, 3] and found.statistic == pytest.approx(8)
    assert found.p == pytest.approx(np.exp(-4))
    with_ties = np.round(RNG.normal(size=(4, 10)) + np.arange(4)[:, None])
    expected = friedmanchisquare(*with_ties)
    found = statistics.friedman(with_ties)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert statistics.friedman(np.ones((3, 5))).p == 1.0
    with pytest.raises(ValueError, match="two of each"):
        statistics.friedman(np.ones((1, 5)))


@pytest.mark.parametrize("methods, q", [(2, 1.960), (4, 2.569), (10, 3.164)])
def test_the_critical_distance_is_that_of_demsars_table(methods, q):
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 30))
    assert statistics.nemenyi_distance(methods, 30) == pytest.approx(expected, rel=1e-3)


def test_bootstrap_intervals_hold_the_figure_and_shrink():
    few, many = RNG.normal(size=(2, 8)), RNG.normal(size=(2, 800))
    wide, narrow = (statistics.median_interval(v, np.random.default_rng(1)) for v in (few, many))
    assert wide.low <= wide.value <= wide.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert statistics.median_interval(np.full((3, 5), 2.0), RNG) == (2.0, 2.0, 2.0)
    assert statistics.mean_interval(np.array([[True, True], [False, False]]), RNG).value == 0.5
    one_seed = statistics.median_interval(np.array([[1.0], [3.0]]), RNG)
    assert one_seed.value == 2.0 and np.isnan(one_seed.low) and np.isnan(one_seed.high)


def test_ranks_are_certain_only_where_seeds_agree():
    clear = np.stack([np.full((2, 6), 3.0), np.full((2, 6), 2.0), np.full((2, 6), 1.0)])
    assert [tuple(i) for i in statistics.bootstrap_ranks(clear, RNG)] == [
        (1, 1, 1), (2, 2, 2), (3, 3, 3)
    ]  # fmt: skip
    assert statistics.rank_agreement(clear) == 1.0
    noise = RNG.normal(size=(3, 2, 6))
    assert any(i.low < i.high for i in statistics.bootstrap_ranks(noise, RNG))
    assert statistics.rank_agreement(RNG.normal(size=(5, 3, 400))) < 0.05


def test_agreement_counts_equal_ranks_as_agreement_and_is_none_of_one():
    saturated = np.stack([np.full((2, 6), 3.0), np.full((2, 6), 3.0), np.full((2, 6), 1.0)])
    assert statistics.rank_agreement(saturated) == pytest.approx(1.0)
    assert statistics.rank_agreement(np.ones((3, 2, 6))) == 1.0
    # ranks 1, 2, 3 and 1.5, 1.5, 3: 12 * (1.5^2 + 0.5^2 + 2^2) / (4 * 24 - 2 * 6)
    by_hand = np.array([[[3.0, 2.0]], [[2.0, 2.0]], [[1.0, 1.0]]])
    assert statistics.rank_agreement(by_hand) == pytest.approx(12 * 6.5 / 84)
    assert statistics.rank_agreement(saturated[:, :, :1]) is None
    assert statistics.rank_agreement(saturated[:1]) is None


# --- objectives ---------------------------------------------------------------------------------


def test_a_new_row_is_one_line(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "mine", OPTIMIZERS["goh"])
    monkeypatch.setitem(OBJECTIVES, "mine", ("places:fc8:dam:1",))
    assert choose_optimizers(["mi*"]) == ("mine",)
    (objective,) = choose_objectives(["mine"], MODELS)
    assert objective.scene == "dam"


# --- cells ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    texts = ["places:fc8:abbey:1", "places:log_prob:bar:1", "nsfw:fc8:NSFW:1"]
    groups = make_groups(choose_objectives(texts, MODELS), MODELS, None, 32)
    upper = MODELS["generator"].code.upper
    box = make_box(RECIPES["goh"], len(upper), upper, np.float32)
    return groups, box


def _runs(group, box, seeds, which, rate):
    starts = start_codes(RECIPES["goh"], box, jax.random.key(0), np.asarray(seeds))
    template, which = group.problem.batch, np.asarray(which)
    rates = np.full(len(seeds), rate, np.float32)
    structure, place = template.structure[which], template.which[which]
    return Batch(np.asarray(starts), structure, place, np.asarray(seeds, np.uint32), rates)


def test_objectives_of_the_same_classifiers_are_a_group(tiny):
    groups, _ = tiny
    assert [g.name for g in groups] == ["places", "nsfw"]
    assert [len(g.targets) for g in groups] == [2, 1]
    assert [o.scene for o in groups[0].targets] == ["abbey", "bar"]
    assert [o.scene for o in groups[1].targets] == [""]


@pytest.mark.parametrize("name", ["goh", "ga"])
def test_a_run_does_not_depend_on_its_neighbours_and_curves_only_rise(tiny, name):
    (group, _), box = tiny
    optimizer = make_optimizer(name)
    work = cells.Work(box)
    both, alone = (
        optimise(work, optimizer, group, _runs(group, box, *runs, 0.5), COSTS, 64.0)
        for runs in (([5, 6, 7], [0, 1, 1]), ([7], [1]))
    )
    np.testing.assert_array_equal(both.codes[2:], alone.codes)
    np.testing.assert_array_equal(both.curve[2:], alone.curve)
    assert (np.diff(both.curve) >= 0).all() and (both.best > both.start).all()
    np.testing.assert_array_equal(both.curve[:, -1], both.best)
    assert (both.codes >= box.lower).all() and (both.codes <= box.upper).all()


def test_noise_changes_what_is_told_but_not_what_is_reported(tiny):
    (group, _), box = tiny
    runs = _runs(group, box, [5, 6], [0, 1], 0.5)
    optimizers = [make_optimizer("ga"), make_optimizer("goh")]
    found = {
        (o.name, noise): optimise(cells.Work(box, noise=noise), o, group, runs, COSTS, 64.0)
        for o in optimizers
        for noise in (0.0, 0.5)
    }
    assert (found["ga", 0.5].codes != found["ga", 0.0].codes).any()
    np.testing.assert_array_equal(found["goh", 0.5].codes, found["goh", 0.0].codes)  # a gradient
    noisy = found["ga", 0.5]
    exact = cells.start_values(group, runs._replace(codes=noisy.codes))
    np.testing.assert_allclose(noisy.best, exact, rtol=1e-5)
    assert cells.with_noise(optimizers[0], 0.0) is optimizers[0]


def test_a_budget_pays_for_steps():
    assert steps_within(make_optimizer("goh"), COSTS, 41.0) == 20
    assert steps_within(make_optimizer("ppgn"), COSTS, 41.0) == 13
    assert steps_within(make_optimizer("ga"), COSTS, 41.0) == 2
    with pytest.raises(ValueError, match="does not pay for one step, which costs 16"):
        steps_within(make_optimizer("ga"), COSTS, 15.0)


def test_a_sweep_goes_on_where_the_best_rate_is_at_its_end(tiny):
    (group, _), box = tiny
    told = []
    work = cells.Work(box, told.append)
    args = (work, make_optimizer("goh"), group, COSTS, 8.0, (1e-4, 3e-4), (3, 4))
    short = tuning.tune(*args, further=0)
    assert short.rates.tolist() == [1e-4, 3e-4] and tuning.edges(short, 9.0).tolist() == [1, 1]
    planned = sum(told)
    long = tuning.tune(*args, further=2)
    assert sum(told) == 2 * planned and told[-1] == 0  # the further ones are no part of the plan
    np.testing.assert_allclose(long.rates, [1e-4, 3e-4, 9e-4, 27e-4])
    np.testing.assert_array_equal(long.best[:2], short.best)
    np.testing.assert_array_equal(tuning.choose_rates(long), long.rates[[3, 3]])
    runs = _runs(group, box, [3], [1], long.rates[3])
    again = optimise(cells.Work(box), make_optimizer("goh"), group, runs, COSTS, 8.0)
    np.testing.assert_array_equal(again.best, long.best[3, 1, :1])


def test_every_objective_is_swept_to_its_own_best_rate(tiny, monkeypatch):
    (group, _), box = tiny
    best = {"places:fc8:abbey:1": 0.01, "places:log_prob:bar:1": 20.0}

    def optimise_all(work, optimizer, group, costs, budget, rates, seeds):
        peaks = np.array([best[o.name] for o in group.targets])
        values = -np.abs(np.log(rates / peaks))
        return Found(None, np.repeat(values[..., None], len(seeds), axis=-1), None, None)

    monkeypatch.setattr(tuning, "optimise_all", optimise_all)
    args = (cells.Work(box), make_optimizer("goh"), group, COSTS, 8.0, (0.3, 1.0, 3.0), (3,))
    tuned = tuning.tune(*args, further=9)
    np.testing.assert_allclose(np.sort(tuned.rates)[[0, -1]], [0.3**5, 81.0])
    assert tuning.edges(tuned, np.inf).tolist() == [0, 0]
    np.testing.assert_allclose(tuning.choose_rates(tuned), [0.3**4, 27.0])
    assert np.isinf(tuned.best[3:]).any() and np.isfinite(tuned.best[:3]).all()
    assert tuning.edges(tuning.tune(*args, further=1), np.inf).tolist() == [-1, 1]
    bounded = args[1]._replace(largest=5.0)
    tuned = tuning.tune(args[0], bounded, *args[2:], further=9)
    assert tuned.rates.max() == 5.0 and tuning.choose_rates(tuned)[1] == 5.0
    assert tuning.edges(tuned, 5.0).tolist() == [0, 0]
    assert bounded._replace(rate=1.0).rates((1.0, 7.0, 9.0)) == (1.0, 5.0)


def test_a_rate_is_at_the_edge_of_what_was_tried_on_its_own_objective():
    none = -np.inf
    best = np.array([[[1.0], [2.0], [5.0]], [[3.0], [4.0], [5.0]], [[none], [3.0], [none]]])
    tuned = tuning.Tuned(np.array([1.0, 3.0, 9.0]), best)
    assert tuning.choose_rates(tuned).tolist() == [3.0, 3.0, 1.0]  # of equal ones the first
    assert tuning.edges(tuned, 9.5).tolist() == [1, 0, -1]
    assert tuning.edges(tuned, 3.0).tolist() == [0, 0, -1]


def test_the_table_ranks_and_judges():
    names = summary.Names(("a", "b"), (GRADIENT, VALUE), ("x", "y"), (1,))
    best = np.array([[[4.0, 4.0], [2.0, 2.0]], [[2.0, 2.0], [1.0, 1.0]]])
    outcome = summary.Outcome(
        budget=10.0, marks=np.array([5.0, 10.0]), start=np.zeros((2, 2)), best=best,
        curve=np.stack([best / 2, best], axis=-1), rates=np.ones((2, 2)),
        edge=np.array([[1, -1], [0, 0]]), steps=np.ones((2, 2), int),
        spent=np.array([[10.0, 10.0], [8.0, 8.0]]),
        seconds=np.array([0.5, 2.0]), judged=np.array([[[9, 9]], [[0, 7]]]),
        clipped=np.array([[0.25], [0.0]]),
    )  # fmt: skip
    compared = summary.compare(outcome, summary.best_known([outcome]))
    first, second = summary.table_rows(names, outcome, compared)
    assert (first["optimizer"], first["median gain"]) == ("a", "1.00 (1.00 to 1.00)")
    assert (first["within 1%"], second["within 1%"], second["cost of 90%"]) == ("100%", "0%", "-")
    assert (second["judge's first"], first["clipped pixels"]) == ("50%", "25.0%")
    assert second["judge's top 5"].startswith("50%")
    assert first["rate at the edge"] == "1 upper, 1 lower"
    assert (first["passes spent"], second["passes spent"]) == ("10", "8")
    assert any("recognised by the judge: b (50%)" in s for s in
               summary.sentences(names, outcome, compared))  # fmt: skip
    rows = summary.run_rows(names, [3, 4], [outcome])
    assert len(rows) == 8 and rows[0]["judge_rank"] is None and rows[3]["judge_rank"] == 9
    assert (rows[0]["spent"], rows[7]["spent"]) == (10.0, 8.0)
    cut = {k: getattr(outcome, k)[..., :1] for k in ("start", "best", "judged")}
    alone = outcome._replace(**cut, curve=outcome.curve[:, :, :1])
    compared = summary.compare(alone, summary.best_known([alone]))
    assert summary.table_rows(names, alone, compared)[0]["median gain"] == "1.00"
    assert not any("Kendall" in s for s in summary.sentences(names, alone, compared))
    assert r"a\_b \& 5\%" in summary.latex_table([{"x": "a_b & 5%"}], "c")


# --- the launcher ---------------------------------------------------------------------------------


def _command(out: Path, *args: str) -> list[str]:
    return ["benchmark_optimizers", f"--out={out}", *args]


@pytest.fixture(scope="module")
def tiny_flags(tmp_path_factory):
    """Flags of a benchmark of two optimizers on tiny networks, with a judge of their labels."""
    folder = tmp_path_factory.mktemp("networks")
    judge = tiny_networks()["places"]
    judge = judge._replace(params=random_params(judge.info.config, 9, 0.3))
    save_network(folder / "judge.safetensors", judge)
    return [
        *save_tiny_networks(folder),
        f"--judge={folder / 'judge.safetensors'}",
        "--smoke",
        "--noprogress",
        "--optimizers=goh,random",
        "--objectives=places:fc8:abbey:1,places:log_prob:bar:1 & nsfw:log_prob:NSFW:1",
        "--gradient_cost=2",
    ]


def _table(out: Path) -> str:
    """table.md without its alignment."""
    return " ".join((out / "table.md").read_text().split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_flags):
    out = tmp_path_factory.mktemp("benchmark") / "run"
    done = run(*_command(out, *tiny_flags))
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_smoke_leaves_tables_plots_and_images(finished):
    out, done = finished
    assert "Budget 40 forward passes" in done.stdout and "report.html" in done.stdout
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2  # optimizers, objectives, seeds
    assert {row["steps"] for row in rows if row["optimizer"] == "goh"} == {"20"}
    assert all(float(row["best"]) >= float(row["start"]) for row in rows)
    assert max(float(row["gain"]) for row in rows) == 1.0
    assert all(0 <= int(row["judge_rank"]) <= 5 for row in rows)
    arrays = load_file(out / "results.safetensors")
    assert arrays["40/goh/codes"].shape == (2, 2, 12)
    table = _table(out)
    assert "python -m experiments.benchmark_optimizers" in table and "| goh | gradient |" in table
    assert r"\toprule" in (out / "table.tex").read_text()
    assert "plots.png" in (out / "report.html").read_text()
    assert (out / "images.png").is_file() and len(list((out / "images").iterdir())) == 4


def test_killed_it_resumes_with_the_same_numbers(finished, tiny_flags, tmp_path):
    whole, out = finished[0], tmp_path / "killed"
    process = start(*_command(out, *tiny_flags))
    while process.poll() is None and len(list(out.glob("cells/*.safetensors"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (out / "results.csv").exists()
    refused = run(*_command(out, *tiny_flags))
    assert refused.returncode == 2 and "--resume continues" in refused.stderr
    other = run(*_command(out, *tiny_flags, "--resume", "--rates=0.5,2"))
    assert other.returncode == 2 and "resume it with its own command" in other.stderr
    done = run(*_command(out, *tiny_flags, "--resume"))
    assert done.returncode == 0, done.stderr
    for name in ("results.csv", "results.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    parts = {path: path.stat().st_mtime_ns for path in out.glob("cells/*")}
    more = run(*_command(out, *tiny_flags, "--resume", "--optimizers=goh,random,adam"))
    assert more.returncode == 0, more.stderr
    assert all(path.stat().st_mtime_ns == before for path, before in parts.items())
    found, first = (load_file(at / "results.safetensors") for at in (out, whole))
    assert all(np.array_equal(found[name], first[name]) for name in first)
    assert "40/adam/best" in found and "| adam |" in _table(out)


def test_wrong_values_are_one_line(tiny_flags, tmp_path):
    cases = {
        "--optimizers=adm": "did you mean adam",
        "--objectives=mountian": "did you mean mountain",
        "--budgets=0": "--budgets=0: expected numbers above 0",
        "--budgets=10": "does not pay for one step",
        "--budgets=40,40.00001": "two agree in six digits",
        "--rates=1e200,1": "--rates=1e200,1: expected factors of at most 1e+06",
        "--objectives=places:fc8:abbey:1,places:fc8:0:1.0": "'places:fc8:0:1.0' are the same",
        "--objectives=places:fc8:abbey:1e39": "not a finite number in float32",
        "--tune_seeds=1": "0 is among the reported --seeds",
        "--gradient_cost=0.5": "--gradient_cost=0.5: expected one or two numbers",
        "--steps=5": "--steps has no effect in benchmark_optimizers",
        "--batch=8": "batch is 8, but a population has 16 codes",
        "--judge=pocket_generator": "is a generator",
    }
    run_case = ["benchmark_optimizers", [[*tiny_flags, case, "--out=run"] for case in cases]]
    for outcome, (flag, said) in zip(run_cases(*run_case, tmp_path), cases.items(), strict=True):
        assert outcome.code == 2 and said in outcome.err, (flag, outcome)
        assert outcome.err.count("\n") == 1 and not outcome.wrote, (flag, outcome)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A function that makes or goes on with a benchmark of random search in one folder: its plan,
    what it then did, and config.json."""
    out = tmp_path_factory.mktemp("begun") / "run"
    targets = choose_objectives(["places:fc8:abbey:1"], MODELS)

    def go(targets=targets, **changes):
        study = Study(
            optimizers=("random",), seeds=(0, 1, 2), tune_seeds=(1000,), budgets=(20.0,),
            factors=(0.5, 1.0), further_rates=1, batch=32, gradient_cost=(), out=out, command="x",
            records={"places": {"sha256": "0"}}, resume=True, overwrite=False, noise=0.0,
        )  # fmt: skip
        planned, done = [], []
        benchmark(
            dataclasses.replace(study, **changes), MODELS, MODELS["places"], targets,
            lambda line: None, progress=(done.append, planned.append),
        )  # fmt: skip
        return planned, sum(done), json.loads((out / "config.json").read_text())

    return go


def test_the_plan_is_what_is_then_done_and_nothing_twice(begun):
    planned, done, first = begun()
    assert planned == [done] and done > 0
    assert begun()[:2] == ([0], 0)
    planned, done, _ = begun(budgets=(20.0, 40.0))
    assert planned == [done] and done > 0
    planned, done, config = begun(optimizers=("random", "goh"))
    assert planned == [done] and done > 0
    [before], [now] = first["costs"].values(), config["costs"].values()
    assert set(now) - set(before) == {GRADIENT} and now[VALUE] == before[VALUE]
    assert not begun(factors=(0.5, 1.0))[1]


def test_a_network_that_changed_is_refused_by_the_cells_that_need_it(begun):
    begun(records={"places": {"sha256": "0"}, "encoder": {"sha256": "1"}})
    begun()
    assert not begun(records={"places": {"sha256": "0"}, "encoder": {"sha256": "2"}})[1]
    with pytest.raises(ValueError, match="networks places sha256"):
        begun(records={"places": {"sha256": "1"}})


def test_another_device_or_objective_of_the_same_name_is_refused(begun, monkeypatch):
    begun()
    monkeypatch.setattr(setting, "this_device", lambda: {"platform": "tpu", "kind": "new"})
    with pytest.raises(ValueError, match=r"device platform .* not .*tpu"):
        begun()
    monkeypatch.undo()
    renamed = choose_objectives(["places:fc8:dam:1"], MODELS)[0]
    with pytest.raises(ValueError, match=r"objectives places:fc8:abbey:1 .*dam"):
        begun(targets=[renamed._replace(name="places:fc8:abbey:1")])


def test_a_row_that_changed_is_refused(begun, monkeypatch):
    begun()
    before = OPTIMIZERS["random"]
    monkeypatch.setitem(OPTIMIZERS, "random", lambda *args: before(*args)._replace(rate=7.0))
    by_name.cache_clear()
    with pytest.raises(ValueError, match=r"random@.* population and rates 1 0.5, not 3.5"):
        begun(optimizers=("goh", "random"))
    monkeypatch.setitem(OPTIMIZERS, "random", lambda *args: before(*args)._replace(population=8))
    by_name.cache_clear()
    with pytest.raises(ValueError, match=r"random@.* population and rates 0 16.0, not 8.0"):
        begun(factors=(0.5, 1.0))
    monkeypatch.undo()
    by_name.cache_clear()
    assert not begun()[1]


def test_objectives_are_the_same_if_they_weigh_the_same():
    for same in ("places:fc8:0:1.0", "places:fc8:abbey:0.5 & places:fc8:abbey:0.5"):
        with pytest.raises(ValueError, match="are the same: give one of them"):
            choose_objectives(["places:fc8:abbey:1", same], MODELS)
    other = ["places:fc8:abbey:1", "places:fc8:abbey:1 & places:fc8:abbey:1", "places:fc8:dam:1"]
    assert len(choose_objectives(other, MODELS)) == 3


def test_what_cannot_begin_leaves_a_finished_benchmark_alone(begun, monkeypatch):
    _, _, before = begun()
    monkeypatch.setattr(benchmark_run, "measured_costs", lambda *_: {VALUE: 1.0, GRADIENT: 9.0})
    with pytest.raises(ValueError, match="goh: budget 2 does not pay for one step"):
        begun(optimizers=("goh",), budgets=(2.0,), resume=False, overwrite=True)
    monkeypatch.undo()
    planned, done, now = begun()
    assert (planned, done) == ([0], 0) and now["costs"] == before["costs"]


def test_an_objective_that_is_not_finite_at_a_start_is_refused(tiny):
    (group, _), box = tiny
    problem = group.problem
    [structure] = problem.structures
    goals = jax.tree.map(lambda v: v * 3e38 if v.dtype.kind == "f" else v, structure.goals)
    huge = problem._replace(structures=(structure._replace(goals=goals),))
    with pytest.raises(ValueError, match=r"objective 'places:.*' is .* at the start of seed [345]"):
        cells.check_starts(cells.Work(box), group._replace(problem=huge), (3, 4, 5))
    cells.check_starts(cells.Work(box), group, (3, 4, 5))


def test_what_a_kill_left_of_the_first_file_is_no_benchmark(tmp_path):
    (tmp_path / ".cells.json.part").write_text("{")
    assert not Parts(tmp_path, "x", resume=True, stem="cells").done("a", {})
    assert not list(tmp_path.glob(".*"))
