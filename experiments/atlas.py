"""Draws a labelled page of all units of a layer, in one compiled sweep.

  python -m experiments.atlas --network=places --blob=conv_head
  python -m experiments.atlas --network=nsfw --blob=eltwise_stage2_block3 --units=0:64
  python -m experiments.atlas --network=places --blob=logits --units='b*,mountain'

Networks are `places`, `nsfw`, `generator` and the names of --model; blobs have their original
names. Every unit is a run that maximises its activation. A unit after a ReLU is maximised before it
(`conv_head` at `conv_head_pre`), because a silent unit has no gradient. A spatial blob's units are
taken at its centre, or at `--position=y,x`. The page is contact_sheet.png; more than 400 units make
several, atlas_00.png and so on. With `--images=DIR`, each unit stands next to the photographs there
that raise and lower it most, wherever in the photograph.
"""

import dataclasses
from collections.abc import Sequence

from jaxsynth.inputs import check_name, option
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier
from jaxsynth.objectives import Objective, layer_units
from jaxsynth.report.photographs import example_pages
from jaxsynth.report.sheet import atlas_pages
from jaxsynth.runs.folder import IMAGES

from .common import launch, load_models
from .examples import find_extremes
from .flags import like, repeated
from .launch import run_experiment
from .run_flags import NSFW, PLACES, RunFlags


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    network: str = option(PLACES, "Whose layer: places, nsfw, generator, or one of --model.")
    blob: str | None = option(None, "The layer, such as conv_head.")
    units: tuple[str, ...] = option(("all",), "Numbers, ranges (0:64 is 0..63), labels, or all.")
    position: str = option("", "y,x in a spatial blob; by default its centre.")
    seeds: str = like(RunFlags, "seeds", "1")
    images: tuple[str, ...] = repeated(  # pyright: ignore[reportIncompatibleVariableOverride]
        "Photographs to show with each unit: a folder, zip or image file; may be repeated. Or "
        "which image files are written: all (the default), best or none."
    )
    top: int = option(4, "Photographs shown at either end of a unit.", low=1)


def main(flags: Flags) -> int:
    """Draw all units of a layer."""
    photographs = [path for path in flags.images if path not in IMAGES]
    files = [word for word in flags.images if word in IMAGES]
    flags, models = load_models(dataclasses.replace(flags, images=(files or ["all"])[-1]))
    named = models.named()
    check_name("network", flags.network, named)
    # open_nsfw judges the finished pictures in any case: the report blurs by its score.
    models, model = models.only(NSFW, flags.network), named[flags.network]
    if not flags.blob:
        raise ValueError(f"no --blob given: one of {', '.join(model.shapes)} of {flags.network}")
    goals = layer_units(model, flags.blob, flags.units, flags.position)
    runs = [
        Run(seed, goal, _label(goal), f"seed {seed}" if len(flags.seed_numbers) > 1 else "")
        for goal in goals
        for seed in flags.seed_numbers
    ]
    draw, shown = atlas_pages, []
    if photographs:
        if not isinstance(model, Classifier):
            raise ValueError(f"--images: {flags.network} is a generator: it sees no photographs")
        found, shown = find_extremes(models, model, goals, photographs, flags.top)
        draw = atlas_pages if len(runs) > len(goals) else example_pages(found, shown)
        shown = [own for own in shown for _ in flags.seed_numbers]
    title = _title(goals, flags.blob, model.shapes[flags.blob])
    return launch(flags, models, runs, title, draw, shown)


def _label(goal: Objective) -> str:
    [term] = goal.terms
    label = term.label if term.unit is not None else term.label.partition("@")[0]
    return f"unit {label}" if label.isdecimal() else label


def _title(goals: Sequence[Objective], blob: str, shape: tuple[int, ...]) -> str:
    [first] = goals[0].terms
    count = f"All {shape[-1]}" if len(goals) == shape[-1] else f"{len(goals)} of {shape[-1]}"
    title = f"{count} units of {first.network}:{blob}"
    if len(shape) == 3:
        y, x = divmod(int(first.index[0]) // shape[2], shape[1])
        title += f" at {y},{x} of {shape[0]}x{shape[1]}"
    if first.blob != blob:
        title += f", maximised at {first.blob}: behind its ReLU a silent unit has no gradient"
    return title


if __name__ == "__main__":
    run_experiment(main, Flags)
