"""How good is the prior? Measures the generator and its networks on photographs never trained on.

  python -m experiments.evaluate_prior --data=DIR --judge=out/judge/linear_judge.safetensors
  python -m experiments.evaluate_prior --figures=scenes --data=DIR --steps=40 --out=out/steps40

DIR is as for the trainers; its validation photographs are used. The judge is a scene network that
no objective knows. Groups of metrics, `all` or some of them:

  network    scene network: top-1 and top-5 on all photographs
  inversion  E(G(E(x))) against E(x), G(E(x)) against x
  frechet    distance of G(E(x)) to x in the judge's features
  spectrum   power of G(E(x)) against x at every frequency; excess at the periods of a grid
  scenes     every category: P(target), what the judge sees, LPIPS between seeds, Frechet distance,
             spectrum, clipped pixels
  nsfw       both ends of the NSFW neuron
  joint      a scene and NSFW together
  random     random codes: NSFW score, Frechet distance, spectrum
  size       shipped weights

Writes table.md, figures.json and the contact sheets into --out after every group; another call on
the same weights adds to them. After a stop or a kill, the same command with --resume continues. On
two cores nsfw and joint take about 0.02 s per run and step.
"""

import dataclasses
import functools
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxsynth.environment import writable_cache
from jaxsynth.evaluation.groups import JUDGE, LPIPS
from jaxsynth.evaluation.run import GROUPS, SWEEPS, EvaluationRun, evaluate_prior, roles_needed
from jaxsynth.inputs import choose_units, option, parse_seeds
from jaxsynth.maximize import Run, Settings
from jaxsynth.models.base import Classifier
from jaxsynth.models.registry import load, load_encoder
from jaxsynth.objectives import Objective
from jaxsynth.starts import still
from jaxsynth.system import ENCODER, GENERATOR

from .common import Models, load_for, load_models, saved_run
from .joint import joint_runs
from .launch import command_line, run_experiment
from .nsfw import class_runs
from .run_flags import NONE, NOT_IN_STUDIES, NSFW, PLACES, TARGETS, RunFlags
from .scene import scene_runs

_JOINT = ("mountain", "iceberg", "desert-sand", "corn_field", "bedroom")


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    WITHOUT = ("seeds", "precision", "model", "preprocess", *NOT_IN_STUDIES)
    WHY = "which has sweeps and pages of its own"

    figures: tuple[str, ...] = option(("all",), f"all, or some of {', '.join(GROUPS)}.")
    data: Path | None = option(None, "Folder of zips or class folders, with a val split.")
    cache: Path | None = option(None, "Folder of decoded images; by default $JAXSYNTH_CACHE.")
    judge: str = option("pocket_judge", "Independent scene network: a name or file.")
    lpips: str = option("alexnet_features", "Network of LPIPS for scenes; none leaves it out.")
    photographs: int = option(
        1024, "Validation photographs of all groups but network; 0 is all.", low=0
    )
    scenes: tuple[str, ...] = option(("all",), "Categories of the scenes group.")
    hashed_scenes: int = option(
        0, "How many of them, chosen by the hash of their names; 0 is all.", low=0
    )
    scene_target: str = option(
        "log_odds", "Which function of the neuron scenes maximises.", among=TARGETS
    )
    joint_scenes: tuple[str, ...] = option(_JOINT, "Categories of the joint group.")
    scene_seeds: str = option("4", "Seeds per category of scenes.")
    nsfw_seeds: str = option("64", "Seeds of either end of nsfw.")
    joint_seeds: str = option("16", "Seeds per scene of joint.")
    random_seeds: str = option("1024", "Seeds of random.")


def main(flags: Flags) -> int:
    """Measure a prior."""
    groups = choose_groups(flags.figures)
    roles = roles_needed(groups, flags.data)
    if NSFW not in roles:
        flags = dataclasses.replace(flags, nsfw=NONE)
    flags, models = load_models(flags, needs=[role for role in (PLACES, NSFW) if role in roles])
    found = _by_role(flags, models, roles)
    run = EvaluationRun(
        groups=groups,
        data=flags.data,
        cache=flags.cache or writable_cache(),
        photographs=flags.photographs,
        command=command_line("evaluate_prior"),
    )
    sweeps = _sweeps(flags, groups, found, models.settings)
    say = functools.partial(print, flush=True)
    with saved_run(flags) as saving:
        say("\n" + evaluate_prior(run, found, sweeps, saving, say))
    print(f"wrote {flags.folder / 'table.md'}")
    return 0


def choose_groups(names: Sequence[str]) -> tuple[str, ...]:
    """Return groups in the order of `GROUPS`; ValueError for an unknown one."""
    unknown = [name for name in names if name not in (*GROUPS, "all")]
    if unknown or not names:
        given, known = ",".join(names), ", ".join(GROUPS)
        raise ValueError(f"--figures={given}: expected all, or some of {known}")
    return tuple(name for name in GROUPS if name in names or "all" in names)


def _by_role(flags: Flags, models: Models, roles: set[str]) -> dict[str, Any]:
    """Role -> model, of the roles that are needed; the encoder also if a prior term needs it."""
    found = {GENERATOR: models.generator, **models.classifiers}
    if JUDGE in roles:
        found[JUDGE] = load_for("judge", flags.judge, Classifier, flags.precision).named(JUDGE)
    if LPIPS in roles and flags.lpips != NONE:
        found[LPIPS] = _lpips(flags.lpips)
    encoder = models.encoder
    if encoder is None and ENCODER in roles:
        name = flags.encoder_name(models.generator, models.classifiers)
        encoder = load_encoder(models.generator, name, flags.precision)
    return found if encoder is None else found | {ENCODER: encoder}


def _lpips(name: str) -> Any:
    try:
        return load(name)
    except ValueError as error:
        raise ValueError(f"--lpips={name}: {error}; --lpips=none leaves it out") from error


def _sweeps(
    flags: Flags, groups: Sequence[str], models: dict[str, Any], settings: Settings
) -> dict[str, tuple[list[Run], Settings]]:
    """Return the sweeps of the chosen groups: runs, and how they are computed."""
    places, names = models[PLACES], models[PLACES].class_names
    seeds = {
        group: parse_seeds(getattr(flags, f"{flag}_seeds"), f"{flag}_seeds")
        for group, flag in (("scenes", "scene"), *((g, g) for g in ("nsfw", "joint", "random")))
    }
    scenes = choose_units(flags.scenes, names)
    if flags.hashed_scenes:
        scenes = sorted(scenes, key=lambda unit: sha256(names[unit].encode()).digest())
        scenes = scenes[: flags.hashed_scenes]
    make = {
        "scenes": lambda: scene_runs(places, scenes, seeds["scenes"], flags.scene_target),
        "nsfw": lambda: class_runs(models[NSFW], "NSFW", seeds["nsfw"]),
        "sfw": lambda: class_runs(models[NSFW], "SFW", seeds["nsfw"]),
        "joint": lambda: joint_runs(
            models, choose_units(flags.joint_scenes, names), seeds["joint"]
        ),
        "random": lambda: [Run(seed, Objective(())) for seed in seeds["random"]],
    }
    still_recipe = still(models[GENERATOR])
    return {
        name: (
            make[name](),
            dataclasses.replace(settings, recipe=still_recipe) if name == "random" else settings,
        )
        for group in groups
        for name in SWEEPS.get(group, ())
    }


if __name__ == "__main__":
    run_experiment(main, Flags)
