"""Shows, for each unit of a layer, your photographs that raise and lower it beside its own image.

  python -m experiments.examples --model=places --blob=log_odds --units=mountain,abbey --images=DIR
  python -m experiments.examples --model=places --blob=conv5 --units=0:16 --images=DIR --top=6

DIR is a folder, an image or a zip; --images may be repeated. A spatial unit counts where it
responds most, and the photograph is cut to what that place sees. The pages show the synthetic
image, a histogram of the unit over all photographs, and the extremes; examples.csv lists them.
"""

import dataclasses
from typing import Any

from jaxsynth.examples import Responses, responses
from jaxsynth.image_search import find_images
from jaxsynth.inputs import check_name, option
from jaxsynth.maximize import Run
from jaxsynth.objectives import layer_units
from jaxsynth.report.photographs import example_pages
from jaxsynth.report.tables import write_csv
from jaxsynth.scoring import sensitive_score

from .common import launch, load_models
from .flags import like, repeated
from .launch import run_experiment
from .run_flags import NSFW, PLACES, RunFlags

TABLE = "examples.csv"


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher; its --model is whose layer, and --images are photographs."""

    model: tuple[str, ...] = repeated("Whose layer: places (the default), nsfw, a name, NAME=FILE.")
    blob: str | None = option(None, "The layer, such as conv5.")
    units: tuple[str, ...] = option(("all",), "Numbers, ranges (0:64 is 0..63), labels, or all.")
    images: tuple[str, ...] = repeated("Folder, zip or image file; may be repeated.")
    top: int = option(4, "Photographs shown at either end of a unit.", low=1)
    seeds: str = like(RunFlags, "seeds", "1")


def main(flags: Flags) -> int:
    """Show photographs beside synthetic images."""
    asked, paths = (*flags.model, PLACES)[0], flags.images
    if len(flags.model) > 1 or len(flags.seed_numbers) > 1:
        raise ValueError("one --model and one seed are shown: give a single one of each")
    if not flags.blob or not paths:
        raise ValueError(f"no --{'images' if flags.blob else 'blob'} given: see --help")
    own = asked in (PLACES, NSFW)
    flags = dataclasses.replace(flags, model=() if own else (asked,), images="all")
    flags, models = load_models(flags)
    name = asked if own else list(models.classifiers)[-1]
    check_name("model", name, models.classifiers)
    models, model = models.only(NSFW, name), models.classifiers[name]
    goals = layer_units(model, flags.blob, flags.units)
    units = [int(goal.terms[0].index[0]) % model.shapes[flags.blob][-1] for goal in goals]
    files = find_images(paths)
    found = responses(model, flags.blob, units, files.files)
    for line in (*files.left_out, *found.unread):
        print(f"left out: {line}")
    labels = [goal.terms[0].label.partition("@")[0] for goal in goals]
    runs = [
        Run(flags.seed_numbers[0], goal, label) for goal, label in zip(goals, labels, strict=True)
    ]
    sensitive = sensitive_score(models.classifiers.values())
    draw = example_pages(found, model, flags.blob, flags.top, sensitive)
    code = launch(flags, models, runs, f"{name}:{flags.blob}, photographs beside", draw)
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
