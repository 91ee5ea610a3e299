"""What bfloat16 changes: the same seeds climbed in float32, in float32 again, and in bfloat16.

  python -m experiments.compare_precisions --scenes=mountain,bedroom --seeds=64

Runs are chaotic: rounded otherwise, as in another batch size, they end in another image. That
difference (--other_batch) is the yardstick for the one that bfloat16 makes; on a CPU of two cores
only a batch of one is rounded otherwise. Every final code is looked at in float32; scores are P of
the objective's class, differences are of the pictures, in grey levels (0 to 255, root mean square),
against the float32 run of the same seed. Writes precision.md, precision.csv and precision.json into
--out. Stopped or killed, the same command with --resume goes on. Seven minutes on two cores.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from experiments.table import Part, Row, config_maker, launch_table

from experiments import run_flags
from experiments.common import load_networks
from experiments.launch import command_line, run_main
from experiments.objectives import nsfw_runs, scene_runs
from jaxsynth.chunks import Results, join
from jaxsynth.environment import machine_line
from jaxsynth.images import to_rgb
from jaxsynth.models.network import Network
from jaxsynth.short import NSFW, PLACES, Run, Sweep, execute, plan
from jaxsynth.system import ENCODER, GENERATOR
from jaxsynth.terms import choose_units

_NO_USE = ("precision", *run_flags.OF_A_KEPT_RUN)
for _name in run_flags.names_without(_NO_USE):
    flags.declare_key_flag(_name)
_SCENES = flags.DEFINE_list("scenes", ["mountain", "bedroom"], "Labels, globs or indices.")
_NSFW = flags.DEFINE_bool("with_nsfw", True, "Compare nsfw as well.")
_OTHER = flags.DEFINE_integer(
    "other_batch",
    None,
    "Batch size of the second float32 sweep, other than --batch; by default 1, or 2 for --batch=1. "
    "On a CPU of few cores any two from 2 up give the same.",
    lower_bound=1,
)
STEM = "precision"
REACHED = 0.9

Networks = Mapping[str, Network]


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("compare_precisions", _NO_USE, "which climbs from seeds and draws no pages")
    settings = run_flags.read_settings("compare_precisions", argv, seeds="64")
    whole = settings.sweep
    other = _OTHER.value or (2 if whole.batch == 1 else 1)
    if other == whole.batch:
        raise ValueError(f"--other_batch={other} is that of --batch: give another one")
    half = dataclasses.replace(whole, precision="bfloat16")
    networks = {
        sweep.precision: load_networks(dataclasses.replace(settings, sweep=sweep))
        for sweep in (whole, half)
    }
    sweeps = (whole, dataclasses.replace(whole, batch=other), half)
    objectives = _objectives(networks["float32"], settings.seeds)
    config = config_maker(settings)
    parts = [_part(config, networks, name, runs, sweeps) for name, runs in objectives]
    head = f"`{command_line(settings.name)}`\n\n{machine_line()}\n\n"
    return launch_table(settings, parts, STEM, head)


def _part(
    config: Callable[[Sweep, Sequence[Run]], Mapping[str, Any]],
    networks: Mapping[str, Networks],
    name: str,
    runs: Sequence[Run],
    sweeps: Sequence[Sweep],
) -> Part:
    """An objective: a row for each sweep, the first of which the others are compared with."""
    plans, configs = {}, {}
    for sweep in sweeps:
        key = f"{name}-{sweep.precision}-{sweep.batch}"
        plans[key] = plan(_needed(networks[sweep.precision], runs), runs, sweep)
        configs[key] = config(sweep, runs)

    def rows(found: Mapping[str, Results]) -> list[Row]:
        made: list[Row] = []
        reference = None
        for sweep, climbed in zip(sweeps, found.values(), strict=True):
            seen = _look(networks["float32"], runs, sweeps[0], climbed.codes)
            pictures = to_rgb(seen.last.image).astype(np.float32)
            reference = pictures if reference is None else reference
            row = {"objective": name, "precision": sweep.precision, "batch": sweep.batch}
            made.append(row | _scores(runs, climbed, seen) | _differences(pictures, reference))
        return made

    return Part(name, plans, configs, rows)


def _objectives(networks: Networks, seeds: Sequence[int]) -> Iterator[tuple[str, list[Run]]]:
    """Name -> runs, a seed each."""
    for unit in choose_units(_SCENES.value, networks[PLACES].class_names):
        yield networks[PLACES].class_names[unit], scene_runs(networks, [unit], seeds)
    if _NSFW.value:
        yield NSFW, nsfw_runs(networks, seeds)


def _needed(networks: Networks, runs: Sequence[Run]) -> Networks:
    role = runs[0].terms[0].network
    return {r: networks[r] for r in (GENERATOR, role, ENCODER) if r in networks}


def _look(networks: Networks, runs: Sequence[Run], sweep: Sweep, codes: np.ndarray) -> Results:
    """What the networks see in these codes: a sweep without steps."""
    still = dataclasses.replace(sweep.recipe, steps=0)
    todo = plan(
        _needed(networks, runs), runs, dataclasses.replace(sweep, recipe=still, record=()), codes
    )
    return join(list(execute(todo)))


def _scores(runs: Sequence[Run], climbed: Results, seen: Results) -> dict[str, Any]:
    """Final P: as float32 sees it, and its median as the run itself saw it."""
    term = runs[0].terms[0]
    own, p = (r.last.watched[term.network]["prob"][:, term.index[0]] for r in (climbed, seen))
    low, middle, high = np.quantile(p, (0.1, 0.5, 0.9))
    return {
        "runs": len(runs),
        "median P": f"{middle:.4f}",
        "P, 10 % to 90 %": f"{low:.4f} to {high:.4f}",
        f"P >= {REACHED}": f"{np.mean(p >= REACHED):.1%}",
        "median P, own eyes": f"{np.median(own):.4f}",
        "not finite": int((~climbed.sound).sum()),
    }


def _differences(pictures: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Of each seed's picture (R, H, W, 3) from its reference; and of one seed's from the next."""
    same, other = _rms(pictures - reference), _rms(pictures - np.roll(pictures, 1, axis=0))
    low, middle, high = np.quantile(same, (0.1, 0.5, 0.9))
    return {
        "rms from float32, median": f"{middle:.1f}",
        "10 % to 90 %": f"{low:.1f} to {high:.1f}",
        "rms between seeds, median": f"{np.median(other):.1f}",
    }


def _rms(difference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(difference**2, axis=(1, 2, 3)))  # (R,)


if __name__ == "__main__":
    run_main(main)
