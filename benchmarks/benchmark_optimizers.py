r"""Which step climbs best at equal cost: gradient and gradient-free optimizers on a learned prior.

  python -m experiments.benchmark_optimizers
  python -m experiments.benchmark_optimizers --optimizers='goh,adam,optax:adamw,c*' --budgets=150
  python -m experiments.benchmark_optimizers --optimizers=cma_es+40,xdream_ga+40,random+40 \
    --objectives=mountain,aquarium,bedroom --budgets=3000 --seeds=8 --batch=80 --out=out/without
  python -m experiments.benchmark_optimizers --smoke

Any optimizers x objectives x seeds x budgets. Each optimizer is tuned first, by the median of what
it finds from seeds that are not reported, for every objective by itself, further out where the best
rate is at an end of the sweep; then it runs from the reported seeds. All start from the same codes
in the same box. A budget is in forward passes; a gradient counts by its measured time. The judge, a
scene network that no objective knows, looks at the images of the best codes. Optimizers (names,
globs, optax:NAME, variants such as goh+raw+cosine, or cma_es+40 for a population of 40) are rows of
jaxsynth/optimizers.py, objectives (names, globs, or terms joined by &) of
benchmarks/study/problems.py.

--batch is codes per evaluation (32 on CPU, 512 on accelerators), at least a population. All of it
with the pocket networks takes some four hours on two cores: an optimizer's reported runs 87 seconds
at 60 forward passes and 230 at 180, and half as much or more for tuning.
Writes table.md, table.tex, results.csv (a row per run), results.safetensors, plots.png, images.png
and report.html into --out. Finished parts are kept: the same command with --resume goes on, also
with more --optimizers or --budgets than before (name all that the tables are to show).
Gradient-free rows need evosax: pip install -e '.[bench]'.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks.study.problems import OBJECTIVES, Objective, choose_objectives
from benchmarks.study.run import benchmark
from benchmarks.study.setting import BenchmarkRun, check_budgets, choose_optimizers
from experiments import run_flags
from experiments.common import encoder_name, load_networks
from experiments.launch import command_line, run_main
from experiments.stopping import keeps_going_on
from jaxsynth.evaluation.looks import label_units
from jaxsynth.maximize import PLACES
from jaxsynth.models.network import Network, is_generator
from jaxsynth.models.weights import file_record, load_network
from jaxsynth.optimizers import OPTIMIZERS, PRIOR, make_optimizer
from jaxsynth.runs.folder import lock
from jaxsynth.runs.keep import Stopped
from jaxsynth.system import ENCODER

_NO_USE = (*run_flags.OF_A_RECIPE, "balance", "precision", *run_flags.OF_A_KEPT_RUN, "save_seconds")
for _name in run_flags.names_without(_NO_USE):
    flags.declare_key_flag(_name)
_NAMES = flags.DEFINE_list("optimizers", ["*"], f"Names or globs of {', '.join(OPTIMIZERS)}; more.")
_OBJECTIVES = flags.DEFINE_list(
    "objectives",
    ["*"],
    f"Names or globs of {', '.join(OBJECTIVES)}, or terms joined by &; one with a position, which "
    "has a comma, in quotes of its own: '\"places:conv2_pre:7@3,4:1\"'.",
)
_TUNE = flags.DEFINE_string("tune_seeds", "1000:1004", "Seeds of the tuning sweep, as --seeds.")
_BUDGETS = flags.DEFINE_list("budgets", ["60", "180"], "Cost of a run in forward passes.")
_RATES = flags.DEFINE_list(
    "rates", ["0.3", "1", "3", "10"], "Factors of each optimizer's own rate, in its tuning sweep."
)
_FURTHER = flags.DEFINE_integer(
    "further_rates",
    4,
    "Where an objective's best rate is at an end of --rates: so many are tried beyond it at most.",
    lower_bound=0,
)
_GRADIENT_COST = flags.DEFINE_list(
    "gradient_cost",
    [],
    "Forward passes that a gradient counts as and, after a comma, one with the encoder's pass (by "
    "default one more), instead of measured ones: for exact repeats.",
)
_JUDGE = flags.DEFINE_string("judge", "pocket_judge", "Independent scene network: a name or file.")
_SMOKE = flags.DEFINE_bool(
    "smoke", False, "A few optimizers, two objectives, two seeds, a small budget: minutes."
)
_LARGEST_FACTOR = 1e6  # of a rate
_CODES = 32  # codes per evaluation on CPU
_ON_ACCELERATORS = 512
_SMOKE_FLAGS = {
    "optimizers": "goh,pocket,lbfgs,langevin,sep_cma_es,ga,random",
    "objectives": "mountain,iceberg_log_prob",
    "seeds": "2",
    "tune_seeds": "1000:1002",
    "budgets": "40",
    "rates": "0.3,1",
    "further_rates": "1",
    "batch": "16",
}


def main(argv: Sequence[str]) -> int:
    if _SMOKE.value:
        _smoke()
    instead = "which tunes and compares --optimizers from seeds"
    run_flags.refuse("benchmark_optimizers", _NO_USE, instead)
    settings = run_flags.read_settings("benchmark_optimizers", argv, seeds="32")
    names = choose_optimizers(_NAMES.value)
    budgets = _positive("budgets", _BUDGETS.value)
    factors = _positive("rates", _RATES.value)
    if not 1 / _LARGEST_FACTOR <= factors[0] <= factors[-1] <= _LARGEST_FACTOR:
        given = ",".join(_RATES.value)
        raise ValueError(
            f"--rates={given}: expected factors of at most {_LARGEST_FACTOR:g}, or one over it"
        )
    cost = _gradient_cost()
    tune_seeds = run_flags.parse_seeds(_TUNE.value, "tune_seeds")
    if common := set(tune_seeds) & set(settings.seeds):
        raise ValueError(
            f"--tune_seeds={_TUNE.value}: {min(common)} is among the reported --seeds: expected "
            "other ones"
        )
    needs_encoder = any(make_optimizer(name).asks == PRIOR for name in names)
    networks = load_networks(settings, needs_encoder)
    objectives = choose_objectives(_OBJECTIVES.value, networks)
    judge = load_network(_JUDGE.value)
    _check_judge(judge, settings.networks, objectives)
    files = dict(settings.networks) | {"judge": _JUDGE.value}
    if needs_encoder:
        files[ENCODER] = encoder_name(settings)
    run = BenchmarkRun(
        optimizers=names,
        seeds=settings.seeds,
        tune_seeds=tune_seeds,
        budgets=budgets,
        factors=factors,
        further_rates=_FURTHER.value,
        batch=_batch(),
        gradient_cost=cost,
        out=settings.out,
        command=command_line("benchmark_optimizers"),
        records={role: file_record(name) for role, name in files.items()},
        resume=settings.resume,
        overwrite=settings.overwrite,
    )
    check_budgets(run)
    with (
        keeps_going_on(run.out) as stop,
        lock(run.out),
        tqdm(unit="run-step", disable=not settings.progress) as bar,
    ):

        def on_step(runs: int) -> None:
            bar.update(runs)
            if stop.asked():
                raise Stopped("finished parts are kept")

        text = benchmark(run, networks, judge, objectives, _say(bar), on_step, bar.reset)
    print(text + f"\nwrote {run.out / 'report.html'}")
    return 0


def _smoke() -> None:
    """What the smoke version sets unless it is given."""
    for name, value in _SMOKE_FLAGS.items():
        if not flags.FLAGS[name].present:
            flags.FLAGS[name].parse(value)


def _batch() -> int:
    if flags.FLAGS.batch:
        return flags.FLAGS.batch
    return _CODES if jax.default_backend() == "cpu" else _ON_ACCELERATORS


def _positive(flag: str, values: Sequence[str]) -> tuple[float, ...]:
    """Numbers above 0, rising, each once."""
    numbers = run_flags.parse_numbers(flag, values)
    if min(numbers) <= 0:
        raise ValueError(f"--{flag}={','.join(values)}: expected numbers above 0")
    return tuple(sorted(numbers))


def _gradient_cost() -> tuple[float, ...]:
    """--gradient_cost as two numbers, () to measure them."""
    if not _GRADIENT_COST.value:
        return ()
    text = ",".join(_GRADIENT_COST.value)
    try:
        numbers = [float(value) for value in _GRADIENT_COST.value]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(np.isfinite(n) and n >= 1 for n in numbers):
        raise ValueError(f"--gradient_cost={text}: expected one or two numbers from 1 up")
    return numbers[0], numbers[-1] + (1.0 if len(numbers) == 1 else 0.0)


def _check_judge(judge: Network, files: Mapping[str, str], objectives: Sequence[Objective]) -> None:
    """Raises ValueError unless the judge is a classifier of the scenes that nobody climbs."""
    name = _JUDGE.value
    if is_generator(judge.info.config):
        raise ValueError(f"--judge={name} is a generator: expected a scene network")
    if file_record(name)["sha256"] == file_record(files[PLACES])["sha256"]:
        raise ValueError(f"--judge={name} is --places itself: expected an independent network")
    label_units([o.scene for o in objectives if o.scene], judge)


def _say(bar: tqdm) -> Callable[[str], None]:
    """Prints a line, above the bar if there is one."""
    if bar.disable:
        return lambda line: print(line, flush=True)
    return lambda line: bar.write(line, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
