"""Shows your photographs that raise and lower the units of a layer, with each unit's own image.

  python -m experiments.examples --model=places --blob=log_odds --units=mountain,abbey --images=DIR
  python -m experiments.examples --model=places --blob=conv_head --units=0:16 --images=DIR --top=6

DIR is a folder, an image or a zip; --images may be repeated. A spatial unit counts where it
responds most, and the photograph is cut to what that place sees. The pages show the synthetic
image, a histogram of the unit over all photographs, and the extremes; examples.csv lists them.
"""

import dataclasses
from typing import Any

from jaxsynth.examples import Responses
from jaxsynth.inputs import option
from jaxsynth.maximize import Run
from jaxsynth.objectives import layer_units
from jaxsynth.report.photographs import example_pages
from jaxsynth.report.tables import write_csv

from .common import launch
from .flags import like
from .launch import run_experiment
from .photographs import PhotographFlags, find_extremes, load_one
from .run_flags import RunFlags

TABLE = "examples.csv"


@dataclasses.dataclass(frozen=True)
class Flags(PhotographFlags):
    """The flags of this launcher."""

    units: tuple[str, ...] = option(("all",), "Numbers, ranges (0:64 is 0..63), labels, or all.")
    top: int = option(4, "Photographs shown at either end of a unit.", low=1)
    seeds: str = like(RunFlags, "seeds", "1")


def main(flags: Flags) -> int:
    """Show photographs next to synthetic images."""
    flags, models, model = load_one(flags)
    goals = layer_units(model, flags.blob, flags.units)
    found, shown = find_extremes(models, model, goals, flags.images, flags.top)
    labels = [goal.terms[0].label.partition("@")[0] for goal in goals]
    runs = [
        Run(flags.seed_numbers[0], goal, label) for goal, label in zip(goals, labels, strict=True)
    ]
    title, draw = f"{model.name}:{flags.blob}, with photographs", example_pages(found, shown)
    flags = dataclasses.replace(flags, images="all")
    code = launch(flags, models, runs, title, draw, shown)
    write_csv(flags.folder / TABLE, _rows(found, labels, flags.top))
    print(f"examples       {flags.folder / TABLE}")
    return code


def _rows(found: Responses, labels: list[str], count: int) -> list[dict[str, Any]]:
    """Return a row for every photograph that is shown."""
    rows = []
    for i, label in enumerate(labels):
        for end, numbers in zip(("most", "least"), found.extremes(i, count), strict=True):
            for rank, n in enumerate(numbers, 1):
                row, column = map(int, found.places[n, i])
                file, value = str(found.files[n]), float(found.values[n, i])
                shown = {"unit": label, "end": end, "rank": rank, "file": file}
                rows.append(shown | {"activation": value, "row": row, "column": column})
    return rows


if __name__ == "__main__":
    run_experiment(main, Flags)
