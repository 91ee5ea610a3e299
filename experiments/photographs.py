"""Flags and loading of launchers that show photographs of the user."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from jaxsynth.examples import Responses, responses
from jaxsynth.image_search import find_images
from jaxsynth.inputs import check_name, option
from jaxsynth.models.base import Classifier
from jaxsynth.objectives import Objective
from jaxsynth.report.photographs import Photograph, extreme_photographs
from jaxsynth.scoring import sensitive_score

from .common import Models, load_models
from .flags import repeated
from .run_flags import NSFW, PLACES, RunFlags

_F = TypeVar("_F", bound="PhotographFlags")


@dataclasses.dataclass(frozen=True)
class PhotographFlags(RunFlags):
    """The flags of these launchers; their --model is whose layer, and --images are photographs."""

    model: tuple[str, ...] = repeated("Whose layer: places (the default), nsfw, a name, NAME=FILE.")
    blob: str = option("", "The layer, such as conv_head.")
    images: tuple[str, ...] = repeated(  # pyright: ignore[reportIncompatibleVariableOverride]
        "Folder, zip or image file; may be repeated."
    )


def load_one(flags: _F) -> tuple[_F, Models, Classifier]:
    """Load the model whose layer is asked for, and the judge that blurs.

    Returns:
      The flags, the models, and the one that the layer is of.

    Raises:
      ValueError: naming the first flag that cannot work.
    """
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
    """Find the photographs that raise and lower units most, and print what is left out.

    They are ranked where the units are maximised: behind a ReLU many photographs are equal.

    Args:
      models: those that judge.
      model: whose units.
      goals: a unit each of one blob, perhaps before its ReLU.
      paths: folders, zips and image files.
      top: photographs at either end.

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
