"""Shows your photographs that raise and lower the units of a layer, with each unit's own image.

  python -m experiments.examples --model=places --blob=log_odds --units=mountain,abbey --images=DIR
  python -m experiments.examples --model=places --blob=conv_head --units=0:16 --images=DIR --top=6

DIR is a folder, an image or a zip; --images may be repeated. A spatial unit counts where it
responds most, and the photograph is cut to what that place sees. The pages show the synthetic
image, a histogram of the unit over all photographs, and the extremes; examples.csv lists them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from jaxsynth.examples import Responses, responses
from jaxsynth.image_search import find_images
from jaxsynth.inputs import check_name, option
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier
from jaxsynth.objectives import Objective, layer_units
from jaxsynth.report.photographs import Photograph, example_pages, extreme_photographs
from jaxsynth.report.tables import write_csv
from jaxsynth.scoring import sensitive_score

from .common import Models, launch, load_models
from .flags import like, repeated
from .launch import run_experiment
from .run_flags import NSFW, PLACES, RunFlags

TABLE = "examples.csv"
_F = TypeVar("_F", bound="PhotographFlags")


@dataclasses.dataclass(frozen=True)
class PhotographFlags(RunFlags):
    """Flags of launchers that show photographs: --model is whose layer, --images are the files."""

    model: tuple[str, ...] = repeated("Whose layer: places (the default), nsfw, a name, NAME=FILE.")
    blob: str = option("", "The layer, such as conv_head.")
    images: tuple[str, ...] = repeated(  # pyright: ignore[reportIncompatibleVariableOverride]
        "Folder, zip or image file; may be repeated."
    )


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


def load_one(flags: _F) -> tuple[_F, Models, Classifier]:
    """Load the model of the chosen layer, and the judge: flags, models, that model."""
    asked, paths = (*flags.model, PLACES)[0], flags.images
    if len(flags.model) > 1 or len(flags.seed_numbers) > 1:
        raise ValueError("one --model and one seed are shown: give a single one of each")
    if not flags.blob or not paths:
        raise ValueError(f"no --{'images' if flags.blob else 'blob'} given: see --help")
    own = asked in (PLACES, NSFW)
    loaded, models = load_models(dataclasses.replace(flags, model=() if own else (asked,)))
    name = asked if own else list(models.classifiers)[-1]
    check_name("model", name, models.classifiers)
    model = models.classifiers[name]
    check_name("blob", flags.blob, model.shapes)
    return dataclasses.replace(loaded, images=paths), models.only(NSFW, name), model


def find_extremes(
    models: Models,
    model: Classifier,
    goals: Sequence[Objective],
    paths: Sequence[str],
    top: int,
) -> tuple[Responses, list[list[Photograph]]]:
    """Find the photographs that raise and lower units most, and print the files left out.

    They are ranked where the units are maximised: behind a ReLU many photographs are equal. `goals`
    are a unit each of one blob, perhaps before its ReLU; `top` photographs are taken at either end.

    Returns:
      The responses, a column for each unit, and the photographs of each.
    """
    blob = goals[0].terms[0].blob
    units = [int(goal.terms[0].index[0]) % model.shapes[blob][-1] for goal in goals]
    files = find_images(paths)
    found = responses(model, blob, units, files.files)
    for line in (*files.left_out, *found.unread):
        print(f"left out: {line}")
    sensitive = sensitive_score(models.classifiers.values())
    return found, extreme_photographs(found, model, blob, top, sensitive)


if __name__ == "__main__":
    run_experiment(main, Flags)
