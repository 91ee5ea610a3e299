r"""Compares gradient and gradient-free optimizers on a learned prior at equal cost.

  python -m experiments.benchmark_optimizers
  python -m experiments.benchmark_optimizers --optimizers='goh,adam,optax:adamw,c*' --budgets=150
  python -m experiments.benchmark_optimizers --optimizers=cma_es+40,xdream_ga+40,random+40 \
    --objectives=mountain,aquarium,bedroom --budgets=3000 --seeds=8 --batch=80 --out=out/without
  python -m experiments.benchmark_optimizers --smoke

Any optimizers x objectives x seeds x budgets. Each optimizer is tuned first, for every objective by
itself: the rate whose median over other seeds is best, further out where that is at an end of the
sweep. Then it runs from the reported seeds. All start from the same codes in the same box. A budget
is in forward passes; a gradient counts by its measured time. The judge, a scene network that no
objective knows, evaluates the images of the best codes. Optimizers are rows of
jaxsynth/optimizers.py: names, globs, optax:NAME, variants such as goh+raw+cosine, or cma_es+40 for
a population of 40. Objectives (names, globs, or terms joined by &) are rows of
benchmarks/study/problems.py.

--batch is codes per evaluation (32 on CPU, 512 on accelerators), at least a population. All of it
with the pocket networks takes some four hours on two cores: an optimizer's reported runs 87 seconds
at 60 forward passes and 230 at 180, and half as much or more for tuning.
Writes table.md, table.tex, results.csv (a row per run), results.safetensors, plots.png, images.png
and report.html into --out. Finished parts are saved: the same command with --resume continues, also
with more --optimizers or --budgets than before (name all that the tables are to show).
Gradient-free rows need evosax: pip install -e '.[bench]'.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.study.problems import NSFW, OBJECTIVES, PLACES, Target, choose_objectives
from benchmarks.study.run import benchmark
from benchmarks.study.setting import Study, check_budgets, choose_optimizers
from experiments.flags import changes_of
from experiments.launch import command_line, resumable, run_experiment
from jaxsynth.ask_tell import PRIOR
from jaxsynth.environment import cache_dir, keep_compiled
from jaxsynth.inputs import option, parse_numbers, parse_seeds
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.registry import load, load_encoder
from jaxsynth.objectives import GENERATOR
from jaxsynth.optimizer_names import OPTIMIZERS, make_optimizer
from jaxsynth.recipes import Recipe
from jaxsynth.runs.processes import lock
from jaxsynth.runs.saving import Stopped
from jaxsynth.system import ENCODER

_LARGEST_FACTOR = 1e6  # of a rate
_CODES = 32  # codes per evaluation on CPU
_ON_ACCELERATORS = 512
_SMOKE = {
    "optimizers": ("goh", "pocket", "lbfgs", "langevin", "sep_cma_es", "ga", "random"),
    "objectives": ("mountain", "iceberg_log_prob"),
    "seeds": "2",
    "tune_seeds": "1000:1002",
    "budgets": ("40",),
    "rates": ("0.3", "1"),
    "further_rates": 1,
    "batch": 16,
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    WITHOUT = tuple(field.name for field in dataclasses.fields(Recipe))
    WHY = "which tunes and compares --optimizers from seeds"

    generator: str = option("pocket_generator", "Generator: a name, or the path of a ported file.")
    nsfw: str = option("open_nsfw", "NSFW classifier: a name, or the path of a ported file.")
    places: str = option("pocket_places", "Scene classifier: a name, or the path of a ported file.")
    encoder: str | None = option(
        None,
        "The generator's encoder: a name or file. By default the one that the generator names; "
        "--places, if it bears that name.",
    )
    judge: str = option("pocket_judge", "Independent scene network: a name or file.")
    optimizers: tuple[str, ...] = option(
        ("*",), f"Names or globs of {', '.join(OPTIMIZERS)}; more."
    )
    objectives: tuple[str, ...] = option(
        ("*",),
        f"Names or globs of {', '.join(OBJECTIVES)}, or terms joined by &; one with a position, "
        "which has a comma, in quotes of its own: '\"places:conv2_pre:7@3,4:1\"'.",
    )
    seeds: str = option(
        "32", "Seeds: a count (8 is 0..7), a range (3:11 is 3..10) or a list (0,4,7)."
    )
    tune_seeds: str = option("1000:1004", "Seeds of the tuning sweep, as --seeds.")
    budgets: tuple[str, ...] = option(("60", "180"), "Cost of a run in forward passes.")
    rates: tuple[str, ...] = option(
        ("0.3", "1", "3", "10"), "Factors of each optimizer's own rate, in its tuning sweep."
    )
    further_rates: int = option(
        4,
        "Where an objective's best rate is at an end of --rates: so many are tried beyond it at "
        "most.",
        low=0,
    )
    gradient_cost: tuple[float, ...] = option(
        (),
        "Forward passes that a gradient counts as and, after a comma, one with the encoder's pass "
        "(by default one more), instead of measured ones: for exact repeats.",
        expected="one or two numbers from 1 up",
    )
    noise: float = option(
        0.0,
        "Optimizers are told objective * (1 + noise * N(0, 1)); gradients and what is reported are "
        "exact. 0.2 and 0.5 are Wang and Ponce's.",
        low=0,
    )
    batch: int | None = option(
        None, "Codes per evaluation: 32 on CPU, 512 on accelerators, at least a population.", low=1
    )
    smoke: bool = option(
        False, "A few optimizers, two objectives, two seeds, a small budget: minutes."
    )
    out: Path = option(Path("out/benchmark_optimizers"), "Output folder.")
    overwrite: bool = option(False, "Replace an earlier study in --out.")
    resume: bool = option(False, "Continue the stopped study in --out, or start it.")
    progress: bool = option(True, "Show a progress bar.")
    changes: dict[str, Any] = changes_of(Recipe)
    typed: frozenset[str] = frozenset()


class _Loaded(NamedTuple):
    models: dict[str, Classifier | Generator]
    judge: Classifier
    encoder: Classifier | None

    @property
    def records(self) -> dict[str, Any]:
        """What identifies the weights of each."""
        named = self.models | {"judge": self.judge}
        named |= {ENCODER: self.encoder} if self.encoder is not None else {}
        return {name: model.info.record for name, model in named.items()}


def main(flags: Flags) -> int:
    """Tune and compare optimizers; write tables, plots and pages."""
    if flags.smoke:
        given = {name: value for name, value in _SMOKE.items() if name not in flags.typed}
        flags = dataclasses.replace(flags, **given)
    if flags.resume and flags.overwrite:
        raise ValueError("--resume continues a study, --overwrite deletes it: give one of them")
    seeds, tune_seeds = _seeds(flags)
    names, factors = choose_optimizers(flags.optimizers), _factors(flags)
    budgets, cost = _positive("budgets", flags.budgets), _gradient_cost(flags)
    keep_compiled(cache_dir())
    loaded = _load(flags, any(make_optimizer(name).asks == PRIOR for name in names))
    targets = choose_objectives(flags.objectives, loaded.models)
    _check_judge(flags, loaded, targets)
    study = Study(
        optimizers=names,
        seeds=seeds,
        tune_seeds=tune_seeds,
        budgets=budgets,
        factors=factors,
        further_rates=flags.further_rates,
        batch=flags.batch or (_CODES if jax.default_backend() == "cpu" else _ON_ACCELERATORS),
        gradient_cost=cost,
        out=flags.out,
        command=command_line("benchmark_optimizers"),
        noise=flags.noise,
        records=loaded.records,
        resume=flags.resume,
        overwrite=flags.overwrite,
    )
    check_budgets(study)
    text = _run(study, loaded, targets, flags.progress)
    print(text + f"\nwrote {study.out / 'report.html'}")
    return 0


def _run(study: Study, loaded: _Loaded, targets: Sequence[Target], progress: bool) -> str:
    with (
        resumable(study.out) as stop,
        lock(study.out),
        tqdm(unit="run-step", disable=not progress) as bar,
    ):

        def on_step(runs: int) -> None:
            bar.update(runs)
            if stop.asked():
                raise Stopped("finished parts are saved")

        told = on_step, bar.reset
        models, judge, encoder = loaded
        return benchmark(study, models, judge, targets, _say(bar), encoder, told)


def _seeds(flags: Flags) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seeds that are reported, and those of the tuning."""
    seeds, tune_seeds = parse_seeds(flags.seeds), parse_seeds(flags.tune_seeds, "tune_seeds")
    if common := set(tune_seeds) & set(seeds):
        raise ValueError(
            f"--tune_seeds={flags.tune_seeds}: {min(common)} is among the reported --seeds: "
            "expected other ones"
        )
    return seeds, tune_seeds


def _factors(flags: Flags) -> tuple[float, ...]:
    factors = _positive("rates", flags.rates)
    if not 1 / _LARGEST_FACTOR <= factors[0] <= factors[-1] <= _LARGEST_FACTOR:
        given = ",".join(flags.rates)
        raise ValueError(
            f"--rates={given}: expected factors of at most {_LARGEST_FACTOR:g}, or one over it"
        )
    return factors


def _positive(flag: str, values: Sequence[str]) -> tuple[float, ...]:
    """Numbers above 0, rising, each once."""
    numbers = parse_numbers(flag, values)
    if min(numbers) <= 0:
        raise ValueError(f"--{flag}={','.join(values)}: expected numbers above 0")
    return tuple(sorted(numbers))


def _gradient_cost(flags: Flags) -> tuple[float, ...]:
    """--gradient_cost as two numbers, () to measure them."""
    given = flags.gradient_cost
    if not given:
        return ()
    if len(given) > 2 or not all(np.isfinite(n) and n >= 1 for n in given):
        text = ",".join(f"{n:g}" for n in given)
        raise ValueError(f"--gradient_cost={text}: expected one or two numbers from 1 up")
    return given[0], given[-1] + (1.0 if len(given) == 1 else 0.0)


def _load(flags: Flags, needs_encoder: bool) -> _Loaded:
    generator = load(flags.generator)
    if not isinstance(generator, Generator):
        raise ValueError(f"--generator={flags.generator} is a classifier: expected a generator")
    models: dict[str, Classifier | Generator] = {GENERATOR: generator}
    for name in (NSFW, PLACES):
        models[name] = _classifier(name, getattr(flags, name)).named(name)
    if models[NSFW].sensitive is None:
        raise ValueError(
            f"--nsfw={flags.nsfw}: its classes are not SFW and NSFW: expected open_nsfw or a port"
        )
    encoder = None
    if needs_encoder:
        own = getattr(generator.encoder, "network", "") == models[PLACES].info.network
        encoder = load_encoder(generator, flags.encoder or (flags.places if own else ""))
    return _Loaded(models, _classifier("judge", flags.judge), encoder)


def _classifier(flag: str, name: str) -> Classifier:
    model = load(name)
    if not isinstance(model, Classifier):
        raise ValueError(f"--{flag}={name} is a generator: expected a classifier")
    return model


def _check_judge(flags: Flags, loaded: _Loaded, targets: Sequence[Target]) -> None:
    """Raise ValueError unless the judge knows the scenes and is not what is maximised."""
    if loaded.judge.info.sha256 == loaded.models[PLACES].info.sha256:
        raise ValueError(
            f"--judge={flags.judge} is --places itself: expected an independent network"
        )
    for target in targets:
        if target.scene:
            loaded.judge.unit_of(target.scene)


def _say(bar: tqdm) -> Callable[[str], None]:
    """Print a line, above the bar if there is one."""
    if bar.disable:
        return lambda line: print(line, flush=True)
    return lambda line: bar.write(line, file=sys.stderr)


if __name__ == "__main__":
    run_experiment(main, Flags)
