"""What bfloat16 changes: the same seeds climbed in float32, in float32 again, and in bfloat16.

  python -m experiments.compare_precisions --scenes=mountain,bedroom --seeds=64

Float32 runs are chaotic: another batch size rounds differently and ends in another image. That
difference (--other_batch) is the yardstick for the one that bfloat16 makes. Every final code is
looked at in float32; scores are P of the objective's class, differences are of the pictures, in
grey levels (0 to 255, root mean square), against the float32 run of the same seed. Writes
precision.md and precision.csv into --out. A scene takes some 7 seconds of a core a seed, nsfw
several times that.
"""

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import run_flags
from experiments.common import load_networks
from experiments.launch import run_main
from experiments.objectives import nsfw_runs, scene_runs
from jaxsynth.engine.objective import ENCODER, GENERATOR
from jaxsynth.engine.sweep import Results, join
from jaxsynth.engine.terms import choose_units
from jaxsynth.experiment import NSFW, PLACES, Run, Sweep, plan
from jaxsynth.files.images import to_rgb
from jaxsynth.files.results import hardware, prepare_folder, versions
from jaxsynth.files.whole import write_whole
from jaxsynth.networks.network import Network
from jaxsynth.report.progress import execute_shown
from jaxsynth.report.tables import format_markdown, write_metrics

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list("scenes", ["mountain", "bedroom"], "Labels, globs or indices.")
_NSFW = flags.DEFINE_bool("with_nsfw", True, "Compare nsfw as well.")
_OTHER = flags.DEFINE_integer(
    "other_batch", 4, "Batch size of the second float32 sweep, other than --batch.", lower_bound=1
)
_NO_USE = ("precision", *run_flags.OF_A_KEPT_RUN)
REACHED = 0.9

Networks = Mapping[str, Network]


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("compare_precisions", _NO_USE, "it keeps every row that is finished")
    settings = run_flags.read_settings("compare_precisions", argv, seeds="64")
    whole = settings.sweep
    if _OTHER.value == whole.batch:
        raise ValueError(f"--other_batch={_OTHER.value} is that of --batch: give another one")
    half = dataclasses.replace(whole, precision="bfloat16")
    networks = {
        sweep.precision: load_networks(dataclasses.replace(settings, sweep=sweep))
        for sweep in (whole, half)
    }
    objectives = dict(_objectives(networks["float32"], settings.seeds))
    folder = prepare_folder(settings.out, settings.overwrite)
    sweeps = (whole, dataclasses.replace(whole, batch=_OTHER.value), half)
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=3 * len(objectives), disable=not settings.progress, file=sys.stderr)
    for name, runs in objectives.items():
        reference = None
        for sweep in sweeps:
            climbed = _climb(networks[sweep.precision], runs, sweep)
            seen = _climb(networks["float32"], runs, _no_steps(whole), climbed.codes)
            pictures = to_rgb(seen.last.image).astype(np.float32)
            reference = pictures if reference is None else reference
            rows.append(
                {"objective": name, "precision": sweep.precision, "batch": sweep.batch}
                | _scores(runs, climbed, seen)
                | _differences(pictures, reference)
            )
            bar.update()
            write_metrics(folder / "precision.csv", rows)
            write_whole(folder / "precision.md", _page(rows).encode())
    print(f"{_page(rows)}\nwrote {folder / 'precision.md'}")
    return 0


def _objectives(networks: Networks, seeds: Sequence[int]) -> Iterator[tuple[str, list[Run]]]:
    """Name -> runs, a seed each."""
    for unit in choose_units(_SCENES.value, networks[PLACES].class_names):
        yield networks[PLACES].class_names[unit], scene_runs(networks, [unit], seeds)
    if _NSFW.value:
        yield NSFW, nsfw_runs(networks, seeds)


def _climb(
    networks: Networks, runs: Sequence[Run], sweep: Sweep, start: np.ndarray | None = None
) -> Results:
    """The runs, by the networks that they need."""
    role = runs[0].terms[0].network
    needed = {r: networks[r] for r in (GENERATOR, role, ENCODER) if r in networks}
    return join(list(execute_shown(plan(needed, runs, sweep, start), shown=False)))


def _no_steps(sweep: Sweep) -> Sweep:
    """Looks at start codes as they are."""
    return dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, steps=0), record=())


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


def _page(rows: Sequence[Mapping[str, Any]]) -> str:
    command = shlex.join(["python", "-m", "experiments.compare_precisions", *sys.argv[1:]])
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"`{command}`\n\n* {hardware()}; {packages}\n\n{format_markdown(rows)}"


if __name__ == "__main__":
    run_main(main)
