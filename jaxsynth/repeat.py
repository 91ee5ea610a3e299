"""Makes an image again from the text of its PNG, and compares the two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsynth.disk import expand
from jaxsynth.environment import versions
from jaxsynth.image_files import read_image
from jaxsynth.images import write_png
from jaxsynth.maximize import sweep
from jaxsynth.models.registry import load
from jaxsynth.png_text import FILM, KEYWORD, describe, origin_of, read_text, start_of
from jaxsynth.recipes import Recipe
from jaxsynth.results import shown_file
from jaxsynth.runs.folder import first_difference
from jaxsynth.runs.records import model_record, read_objective


class Repeated(NamedTuple):
    """An image made again.

    Attributes:
      path: Where it is.
      equal: Whether all its pixels are those of the first.
      line: That, as a sentence.
    """

    path: Path
    equal: bool
    line: str


def repeat(path: str | Path, out: str | Path | None = None) -> Repeated:
    """Make an image again, from the networks, objective, seed and settings in its text.

    Args:
      path: A PNG of a run.
      out: The new PNG; by default NAME_again.png in the working directory.

    Raises:
      ValueError: If it does not tell how it was made, or cannot be made here: networks that differ
        or are not found by name, an array or a start code that is not in it, an optimizer or
        function of somebody's own.
    """
    path, said = expand(path), read_text(path)
    out = expand(out or f"{path.stem}_again.png")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{str(out)!r} is the image itself: give another name")
    if said["which"] == FILM:
        raise ValueError(
            f"{str(path)!r} is a film: `jaxsynth film` makes it again, from the sweep's folder"
        )
    start, origin = start_of(said), origin_of(said)
    if origin and start is None:
        raise ValueError(
            f"{str(path)!r} started from {origin}, which is not in it: repeat its command, "
            f"{said.get('command')}"
        )
    settings = dict(said["sweep"])
    if settings["precision"] == "float64":
        jax.config.update("jax_enable_x64", True)
    models = _models(path, said, settings["precision"])
    generator = models.pop("generator")
    named = {"generator": generator} | models
    objective = read_objective(said["objective"], path.resolve().parent.parent, named)
    recipe = settings.pop("recipe")
    settings = {name: value for name, value in settings.items() if value and name != "record"}
    how = settings | {"recipe": Recipe(**recipe), "progress": False}
    used = list(models.values())
    how |= {"seeds": [said["seed"]], "init": start, "classifiers": used}
    found = sweep([objective], generator, **how)
    image = shown_file(found.raw_of(0, said["which"]), generator, said)
    text = describe(
        said, {name: said[name] for name in ("run", "seed", "objective")}, said["which"]
    )
    write_png(out, image, {KEYWORD: text})
    return _compared(path, out, image, said)


def _models(path: Path, said: Mapping[str, Any], precision: str) -> dict[str, Any]:
    found = {}
    for name, record in said["networks"].items():
        try:
            model = load(record["name"], precision)
        except ValueError as error:
            if record["file"]:
                raise
            raise ValueError(
                f"{str(path)!r} was made with {name} {record['name']!r}, a model of a Python "
                f"program, which is not in it: there js.register({record['name']!r}, lambda: "
                "model) and jaxsynth.repeat.repeat(path) make it again"
            ) from error
        if (now := model_record(model)["sha256"]) != record["sha256"]:
            raise ValueError(
                f"{str(path)!r} was made with {name} {record['name']} of sha256 "
                f"{record['sha256']}, but here it has {now}"
            )
        found[name] = model if name == "generator" else model.named(name)
    return found


def _compared(path: Path, out: Path, image: np.ndarray, said: Mapping[str, Any]) -> Repeated:
    before = read_image(path)
    if np.array_equal(before, image):
        return Repeated(out, True, f"{out} is bit-equal to {path}")
    line = f"{out} is not bit-equal to {path}"
    if before.shape == image.shape:
        levels = np.abs(before.astype(int) - image)
        line += (
            f": {(levels > 0).mean():.1%} of the values differ, by {levels.max()} levels at most"
        )
    if other := first_difference("version of", said.get("versions"), versions()):
        line += f"; {other[0]} was {other[1]}, here it is {other[2]}"
    return Repeated(out, False, line)
