"""How good is the prior? Measures the generator and its networks on photographs never trained on.

  python -m experiments.evaluate_prior --data=DIR --judge=pocket_judge
  python -m experiments.evaluate_prior --figures=scenes --data=DIR --steps=40 --out=out/steps40

DIR is as for the trainers; its validation photographs are used. The judge is a scene network that
no objective ever saw. Groups of figures, `all` or some of them:

  network    scene network: top-1, top-5, whether it names a moved or noisy photograph alike
  inversion  E(G(E(x))) against E(x): category, cosine; G(E(x)) against x
  frechet    distance of G(E(x)) to x in the judge's features; of --baseline_generator beside it
  spectrum   power of G(E(x)) against x at every frequency; excess at the periods of a grid
  scenes     every category: P(target), what the judge sees, spectrum, clipped pixels
  nsfw       both ends of the NSFW neuron
  joint      a scene and NSFW together
  random     random codes under the NSFW network
  size       shipped weights

Writes table.md, figures.json and the sheets into --out, after every group; another call on the same
weights adds to them. Stopped or killed, the same command with --resume goes on. On two cores nsfw
and joint take about 0.02 s per run and step.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxsynth.environment import cache_dir, keep_compiled
from jaxsynth.evaluation.groups import JUDGE
from jaxsynth.evaluation.looks import Pair
from jaxsynth.evaluation.run import GROUPS, SWEEPS, EvaluationRun, evaluate_prior, roles_needed
from jaxsynth.inputs import choose_units, option, parse_seeds
from jaxsynth.models.base import Generator
from jaxsynth.models.network import Network
from jaxsynth.models.registry import to_model
from jaxsynth.models.weights import file_record, load_encoder, load_network, read_info
from jaxsynth.short import Run, Sweep
from jaxsynth.system import ENCODER, GENERATOR

from .common import PLACES, TARGETS, encoder_name
from .launch import command_line, resumable, run_experiment
from .objectives import (
    BALANCE_SCENES,
    SCENE_TARGET,
    joint_runs,
    nsfw_runs,
    scene_runs,
    sfw_runs,
)
from .random_samples import still
from .run_flags import OF_A_KEPT_RUN, RunFlags, check_together, make_settings


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    WITHOUT = ("seeds", "precision", "model", *OF_A_KEPT_RUN)
    WHY = "which has sweeps and pages of its own"

    figures: tuple[str, ...] = option(("all",), f"all, or some of {', '.join(GROUPS)}.")
    data: Path | None = option(None, "Folder of zips or class folders, with a val split.")
    cache: Path | None = option(None, "Decoded images; default $JAXSYNTH_CACHE.")
    judge: str = option("pocket_judge", "Independent scene network: a name or file.")
    baseline_generator: str | None = option(None, "Another generator, for frechet.")
    baseline_encoder: str | None = option(None, "Its encoder; by default the one that it names.")
    scenes: tuple[str, ...] = option(("all",), "Categories of the scenes group.")
    scene_target: str = option(
        SCENE_TARGET, "Which function of the neuron scenes maximises.", among=TARGETS
    )
    joint_scenes: tuple[str, ...] = option(BALANCE_SCENES, "Those of joint.")
    scene_seeds: str = option("4", "Seeds per category of scenes.")
    nsfw_seeds: str = option("64", "Seeds of either end of nsfw.")
    joint_seeds: str = option("16", "Seeds per scene of joint.")
    random_seeds: str = option("1024", "Seeds of random.")


def main(flags: Flags) -> int:
    """Measure a generator and its networks."""
    flags, groups = check_together(flags), choose_groups(flags.figures)
    keep_compiled(cache_dir())
    generator = to_model(load_network(flags.generator))
    if not isinstance(generator, Generator):
        raise ValueError(f"--generator={flags.generator} is a classifier, expected a generator")
    settings = dataclasses.replace(make_settings(flags, generator), batch=flags.batch or 8)
    files = _files(flags, roles_needed(groups), settings, generator)
    networks = {role: load_network(name) for role, name in files.items() if role != ENCODER}
    if ENCODER in files:
        networks[ENCODER] = load_encoder(networks[GENERATOR], files[ENCODER])
    baseline = _baseline_files(flags, groups)
    run = EvaluationRun(
        out=flags.folder,
        groups=groups,
        data=flags.data,
        cache=flags.cache or cache_dir(),
        records={role: file_record(name) for role, name in files.items()},
        baseline=tuple(file_record(name) for name in baseline),
        command=command_line("evaluate_prior"),
        overwrite=flags.overwrite,
        resume=flags.resume,
        save_seconds=flags.save_seconds,
        progress=flags.progress,
    )
    pair = Pair(*(load_network(name) for name in baseline)) if baseline else None
    sweeps = _sweeps(flags, groups, networks, settings)
    say = functools.partial(print, flush=True)
    with resumable(flags.folder) as stop:
        say("\n" + evaluate_prior(run, networks, sweeps, pair, say, stop.asked))
    print(f"wrote {flags.folder / 'table.md'}")
    return 0


def choose_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Return the groups in the order of `GROUPS`; ValueError for an unknown one."""
    unknown = [name for name in names if name not in (*GROUPS, "all")]
    if unknown or not names:
        given, known = ",".join(names), ", ".join(GROUPS)
        raise ValueError(f"--figures={given}: expected all, or some of {known}")
    return tuple(name for name in GROUPS if name in names or "all" in names)


def _files(flags: Flags, roles: set[str], settings: Sweep, generator: Generator) -> dict[str, str]:
    """Role -> name or file of its network."""
    files = {GENERATOR: flags.generator, "nsfw": flags.nsfw, PLACES: flags.places}
    files |= {JUDGE: flags.judge}
    files = {role: name for role, name in files.items() if role in roles}
    if ENCODER in roles or settings.recipe.prior:
        own = getattr(generator.encoder, "network", "")
        files[ENCODER] = encoder_name(flags, generator) or own
    return files


def _baseline_files(flags: Flags, groups: Sequence[str]) -> tuple[str, ...]:
    if not flags.baseline_generator:
        if flags.baseline_encoder:
            raise ValueError("--baseline_encoder needs --baseline_generator")
        return ()
    if "frechet" not in groups:
        raise ValueError("--baseline_generator is for frechet, which --figures leaves out")
    own = read_info(flags.baseline_generator).encoder
    return flags.baseline_generator, flags.baseline_encoder or own


def _sweeps(
    flags: Flags, groups: Sequence[str], networks: Mapping[str, Network], sweep: Sweep
) -> dict[str, tuple[list[Run], Sweep]]:
    """The sweeps of the chosen groups: runs, and their settings."""
    names = networks[PLACES].class_names
    counts = {"scenes": "scene_seeds", "nsfw": "nsfw_seeds", "joint": "joint_seeds"}
    counts |= {"random": "random_seeds"}
    seeds = {group: parse_seeds(getattr(flags, flag), flag) for group, flag in counts.items()}
    random = dataclasses.replace(sweep, recipe=still(to_model(networks[GENERATOR])))
    make = {
        "scenes": lambda: scene_runs(
            networks, choose_units(flags.scenes, names), seeds["scenes"], flags.scene_target
        ),
        "nsfw": lambda: nsfw_runs(networks, seeds["nsfw"]),
        "sfw": lambda: sfw_runs(networks, seeds["nsfw"]),
        "joint": lambda: joint_runs(
            networks, choose_units(flags.joint_scenes, names), seeds["joint"]
        ),
        "random": lambda: [Run(seed, ()) for seed in seeds["random"]],
    }
    return {
        name: (make[name](), random if name == "random" else sweep)
        for group in groups
        for name in SWEEPS.get(group, ())
    }


if __name__ == "__main__":
    run_experiment(main, Flags)
