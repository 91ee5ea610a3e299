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

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, encoder_name, load_networks, needs_encoder
from experiments.launch import command_line, run_main
from experiments.objectives import (
    BALANCE_SCENES,
    SCENE_TARGET,
    joint_runs,
    nsfw_runs,
    random_codes,
    scene_runs,
    sfw_runs,
)
from experiments.stopping import keeps_going_on
from jaxsynth.environment import cache_dir
from jaxsynth.evaluation.groups import JUDGE
from jaxsynth.evaluation.looks import Pair
from jaxsynth.evaluation.run import GROUPS, SWEEPS, EvaluationRun, evaluate_prior, roles_needed
from jaxsynth.models.network import Network
from jaxsynth.models.weights import file_record, load_network, read_info
from jaxsynth.short import PLACES, Run, Sweep
from jaxsynth.system import ENCODER
from jaxsynth.terms import choose_units

_NO_USE = ("seeds", "precision", *run_flags.OF_A_KEPT_RUN)
for _name in run_flags.names_without(_NO_USE):
    flags.declare_key_flag(_name)
_FIGURES = flags.DEFINE_list("figures", ["all"], f"all, or some of {', '.join(GROUPS)}.")
_DATA = flags.DEFINE_string("data", None, "Folder of zips or class folders, with a val split.")
_CACHE = flags.DEFINE_string("cache", None, "Decoded images; default $JAXSYNTH_CACHE.")
_JUDGE = flags.DEFINE_string("judge", "pocket_judge", "Independent scene network: a name or file.")
_BASELINE = flags.DEFINE_string("baseline_generator", None, "Another generator, for frechet.")
_BASELINE_ENCODER = flags.DEFINE_string(
    "baseline_encoder", None, "Its encoder; by default the one that it names."
)
_SCENES = flags.DEFINE_list("scenes", ["all"], "Categories of the scenes group.")
_SCENE_TARGET = flags.DEFINE_enum(
    "scene_target", SCENE_TARGET, TARGETS, "Which function of the neuron scenes climbs."
)
_JOINT_SCENES = flags.DEFINE_list("joint_scenes", list(BALANCE_SCENES), "Those of joint.")
_COUNTS = {
    "scenes": flags.DEFINE_string("scene_seeds", "4", "Seeds per category of scenes."),
    "nsfw": flags.DEFINE_string("nsfw_seeds", "64", "Seeds of either end of nsfw."),
    "joint": flags.DEFINE_string("joint_seeds", "16", "Seeds per scene of joint."),
    "random": flags.DEFINE_string("random_seeds", "1024", "Seeds of random."),
}


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("evaluate_prior", _NO_USE, "which has sweeps and pages of its own")
    settings = run_flags.read_settings("evaluate_prior", argv)
    groups = choose_groups(_FIGURES.value)
    files = _files(settings, roles_needed(groups))
    wanted = {role: name for role, name in files.items() if role != ENCODER}
    networks = load_networks(dataclasses.replace(settings, networks=wanted), ENCODER in files)
    baseline = _baseline_files(groups)
    run = EvaluationRun(
        out=settings.out,
        groups=groups,
        data=Path(_DATA.value) if _DATA.value else None,
        cache=Path(_CACHE.value) if _CACHE.value else cache_dir(),
        records={role: file_record(name) for role, name in files.items()},
        baseline=tuple(file_record(name) for name in baseline),
        command=command_line("evaluate_prior"),
        overwrite=settings.overwrite,
        resume=settings.resume,
        save_seconds=settings.save_seconds,
        progress=settings.progress,
    )
    pair = Pair(*(load_network(name) for name in baseline)) if baseline else None
    sweeps = _sweeps(groups, networks, settings.sweep)
    say = functools.partial(print, flush=True)
    with keeps_going_on(settings.out) as stop:
        say("\n" + evaluate_prior(run, networks, sweeps, pair, say, stop.asked))
    print(f"wrote {settings.out / 'table.md'}")
    return 0


def choose_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Groups in the order of `GROUPS`; ValueError for an unknown one."""
    unknown = [name for name in names if name not in (*GROUPS, "all")]
    if unknown or not names:
        given, known = ",".join(names), ", ".join(GROUPS)
        raise ValueError(f"--figures={given}: expected all, or some of {known}")
    return tuple(name for name in GROUPS if name in names or "all" in names)


def _files(settings: run_flags.Settings, roles: set[str]) -> dict[str, str]:
    """Role -> name or file of its network."""
    files = dict(settings.networks) | {JUDGE: _JUDGE.value}
    files = {role: name for role, name in files.items() if role in roles}
    if ENCODER in roles or needs_encoder(settings):
        files[ENCODER] = encoder_name(settings)
    return files


def _baseline_files(groups: Sequence[str]) -> tuple[str, ...]:
    if not _BASELINE.value:
        if _BASELINE_ENCODER.value:
            raise ValueError("--baseline_encoder needs --baseline_generator")
        return ()
    if "frechet" not in groups:
        raise ValueError("--baseline_generator is for frechet, which --figures leaves out")
    return _BASELINE.value, _BASELINE_ENCODER.value or read_info(_BASELINE.value).encoder


def _sweeps(
    groups: Sequence[str], networks: Mapping[str, Network], sweep: Sweep
) -> dict[str, tuple[list[Run], Sweep]]:
    """The sweeps of the chosen groups: runs, and how they climb."""
    names = networks[PLACES].class_names
    seeds = {group: run_flags.parse_seeds(flag.value, flag.name) for group, flag in _COUNTS.items()}
    still = dataclasses.replace(sweep.recipe, **random_codes(run_flags.is_pocket()))
    make = {
        "scenes": lambda: scene_runs(
            networks, choose_units(_SCENES.value, names), seeds["scenes"], _SCENE_TARGET.value
        ),
        "nsfw": lambda: nsfw_runs(networks, seeds["nsfw"]),
        "sfw": lambda: sfw_runs(networks, seeds["nsfw"]),
        "joint": lambda: joint_runs(
            networks, choose_units(_JOINT_SCENES.value, names), seeds["joint"]
        ),
        "random": lambda: [Run(seed, ()) for seed in seeds["random"]],
    }
    return {
        name: (
            make[name](),
            dataclasses.replace(sweep, recipe=still) if name == "random" else sweep,
        )
        for group in groups
        for name in SWEEPS.get(group, ())
    }


if __name__ == "__main__":
    run_main(main)
