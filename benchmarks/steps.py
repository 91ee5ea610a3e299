"""How many steps a good picture takes: scores, an independent judge and LPIPS by number of steps.

  python -m benchmarks.steps --judge=linear_judge.safetensors
  python -m benchmarks.steps --task=joint --steps=15,30,60 --coarse=112 --coarse_steps=60

Run from the repository's root. The shipped pair with its own recipe, whose rates fall over the
steps that there are; --rates multiplies them. `scene` maximises scenes, `joint` the same with
open_nsfw, both weights 1. With --coarse=SIDE runs of --coarse_steps see open_nsfw's input at that
side for their first half. LPIPS is to the run of most steps from the same seed; the last row tells
it of another seed. The judge is a scene classifier that takes no part in the objective. Prints a
table; writes OUT.csv, and OUT.npz with the images. Ten minutes on two cores.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import jaxsynth as js
from benchmarks import check_flags_only, parse_counts
from benchmarks.speed.cases import forward_operations
from experiments.launch import command_line, run_main
from jaxsynth.environment import machine_line
from jaxsynth.inputs import choose_units
from jaxsynth.models.base import Classifier
from jaxsynth.models.weights import load_network
from jaxsynth.report.tables import format_markdown, write_csv

_NAMES = {"generator": "pocket_generator", "places": "pocket_places", "nsfw": "open_nsfw"}
_TASK = flags.DEFINE_enum("task", "scene", ["scene", "joint"], "What is maximised.")
_STEPS = flags.DEFINE_list("steps", ["10", "15", "20", "30", "45", "60"], "Numbers of steps.")
_SCENES = flags.DEFINE_list("scenes", ["0", "20", "40", "60", "80"], "Labels, globs or indices.")
_SEEDS = flags.DEFINE_integer("seeds", 8, "Seeds of each scene.", lower_bound=2)
_RATES = flags.DEFINE_list("rates", ["1"], "Factors of the recipe's rates.")
_COARSE = flags.DEFINE_list("coarse", [], "Sides at which open_nsfw sees the first half.")
_COARSE_STEPS = flags.DEFINE_list("coarse_steps", ["60"], "Numbers of steps of those runs.")
_JUDGE = flags.DEFINE_string("judge", "pocket_judge", "A scene classifier that takes no part.")
_OUT = flags.DEFINE_string("out", "out/steps", "Name of the .csv and the .npz of images.")


@dataclasses.dataclass(frozen=True)
class Way:
    """A number of steps, and the side of open_nsfw's input in their first half; 0 for its own."""

    steps: int
    side: int = 0
    rate: float = 1.0

    @property
    def name(self) -> str:
        """The name of a row of the table."""
        said = f", rates x {self.rate:g}" if self.rate != 1 else ""
        return f"{self.steps}{said}" + (f", first half at {self.side}" if self.side else "")


def main(argv: Sequence[str]) -> int:
    check_flags_only("steps", argv)
    numbers = parse_counts("steps", _STEPS.value, "numbers of steps")
    ways = [Way(n, rate=float(rate)) for n in numbers for rate in _RATES.value]
    if _COARSE.value:
        coarse = parse_counts("coarse", _COARSE.value, "sides in pixels")
        some = parse_counts("coarse_steps", _COARSE_STEPS.value, "numbers of steps")
        ways += [Way(steps, side) for steps in some for side in coarse]
    models = {role: js.load(name) for role, name in _NAMES.items()}
    judge = js.load(_JUDGE.value)
    units = choose_units(_SCENES.value, models["places"].class_names)
    most = max(ways, key=lambda way: (way.steps, -way.side, -abs(way.rate - 1)))
    found = {way: _images(models, judge, units, way) for way in ways}
    rows = [_row(way, models, units, *found[way], found[most][0]) for way in ways]
    rows.append({"steps": "another seed", "LPIPS": _other_seed(found[most][0], len(units))})
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(out.with_suffix(".csv"), rows)
    np.savez_compressed(out.with_suffix(".npz"), **{w.name: found[w][0] for w in ways})
    print(f"`{command_line('steps', 'benchmarks')}`\n\n{machine_line()}\n\n{format_markdown(rows)}")
    return 0


def _images(models: dict[str, Any], judge: Classifier, units, way: Way):
    """Images (R, H, W, 3) of all scenes and seeds, and {network: probabilities (R, K)}."""
    images, scores = [], []
    for unit in units:
        done = _sweep(models, judge, unit, way)
        images.append(done.images)
        scores.append({c: done.arrays.last.watched[c.name]["prob"] for c in done.classifiers})
    names = [c.name for c in scores[0]]
    by_name = [{c.name: p for c, p in one.items()} for one in scores]
    return np.concatenate(images), {n: np.concatenate([s[n] for s in by_name]) for n in names}


def _sweep(models: dict[str, Any], judge: Classifier, unit: int, way: Way) -> js.SweepResult:
    generator, places, nsfw = models.values()
    recipe = js.RECIPES[generator.recipe]
    rates = {"lr_start": recipe.lr_start * way.rate, "lr_end": recipe.lr_end * way.rate}
    recipe = dataclasses.replace(recipe, **rates)
    half = way.steps // 2 if way.side else 0
    middle = recipe.lr_start + (recipe.lr_end - recipe.lr_start) * half / way.steps

    def goal(seen: Classifier):
        scene = places.log_odds(unit) if _TASK.value == "scene" else places.log_prob(unit)
        return scene if _TASK.value == "scene" else scene + seen.log_prob("NSFW")

    begin: dict[str, Any] = {"seeds": _SEEDS.value}
    if half:
        first = dataclasses.replace(recipe, steps=half, lr_end=middle)
        coarse = dataclasses.replace(nsfw, size=way.side)
        begin = {"init": js.sweep(goal(coarse), generator, recipe=first, **begin)}
    last = dataclasses.replace(recipe, steps=way.steps - half, lr_start=middle)
    return js.sweep(goal(nsfw), generator, recipe=last, classifiers=[places, nsfw, judge], **begin)


def _row(way: Way, models, units, images, scores, reference) -> dict[str, Any]:
    target = np.repeat(units, _SEEDS.value)
    runs = np.arange(len(target))
    own, nsfw = scores["pocket_places"][runs, target], scores["open_nsfw"][:, 1]
    judged = next(p for name, p in scores.items() if name not in ("pocket_places", "open_nsfw"))
    rank = (judged > judged[runs, target][:, None]).sum(1)
    row = {"steps": way.name, "GFLOP a run": f"{_operations(way) / 1e9:.0f}"}
    row |= {"median P(scene)": f"{np.median(own):.3f}", "P(scene) >= 0.5": _share(own >= 0.5)}
    if _TASK.value == "joint":
        row |= {"both P >= 0.5": _share((own >= 0.5) & (nsfw >= 0.5))}
    row |= {"judge: first": _share(rank == 0), "judge: first five": _share(rank < 5)}
    return row | {"LPIPS": f"{js.lpips(images, reference).mean():.3f}"}


def _operations(way: Way) -> float:
    """Of a run's steps: forward pass and gradient of the networks that take part."""
    seen = ["generator", "places"] + ["nsfw"] * (_TASK.value == "joint")
    work = {role: 2.0 * forward_operations(load_network(_NAMES[role]).info.config) for role in seen}
    saved = 0.0
    if way.side:
        saved = way.steps // 2 * work["nsfw"] * (1 - (way.side / js.load("open_nsfw").size) ** 2)
    return way.steps * sum(work.values()) - saved


def _other_seed(images: np.ndarray, scenes: int) -> str:
    """Mean LPIPS of each image and that of the scene's next seed."""
    by_scene = images.reshape(scenes, -1, *images.shape[1:])
    return f"{js.lpips(images, np.roll(by_scene, 1, axis=1).reshape(images.shape)).mean():.3f}"


def _share(these: np.ndarray) -> str:
    return f"{these.mean():.0%}"


if __name__ == "__main__":
    run_main(main)
