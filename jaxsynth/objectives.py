"""Objectives of runs: weighted terms on the activations of a generator and of classifiers.

    places.log_prob("mountain") + 0.5 * nsfw.log_odds("NSFW") - 0.1 * total_variation()

Constructors are methods of models (`Targets`) and functions of this module. Objectives are added,
subtracted and scaled; `str` prints one, `jaxsynth.objective_text` reads it.

Sources: `diversity` is after Olah et al. 2017
("Feature visualization"), `match` after Mahendran & Vedaldi 2015 ("Understanding deep image
representations by inverting them").
"""

import math
import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.inputs import check_name, choose_units, described, near
from jaxsynth.terms import (
    FUNCTION,
    GENERATOR,
    MEASURES,
    Objective,
    Term,
    as_objective,
    before_relu,
    function,
    is_class_blob,
    labels_of,
    logits_blob,
    place_of,
    place_text,
    shape_of,
    vector_name,
)

__all__ = [
    "FUNCTION", "GENERATOR", "MEASURES", "Objective", "Targets", "Term", "as_objective",
    "before_relu", "code_l2", "distance_to_start", "diversity", "function", "image_l2",
    "is_class_blob", "labels_of", "layer_units", "logits_blob", "total_variation",
]  # fmt: skip

_PLAIN_LABEL = re.compile(r"[\w.\-]+(/[\w.\-]+)*")


class Targets:
    """The objectives of a model: a mixin of classifiers and generators.

    A model has `role` (the word that it goes by) and `shapes` ({blob: shape}); a classifier has
    `labels` and `logits` (the name of that blob, or None).
    """

    role: Any
    shapes: Any

    def logit(self, label: str | int) -> Objective:
        """The logit of a class, by its label or number."""
        return self.unit(logits_blob(self), label)

    def log_prob(self, label: str | int) -> Objective:
        """The log probability of a class."""
        return self.unit("log_prob", label)

    def log_odds(self, label: str | int) -> Objective:
        """The log odds of a class: log p / (1 - p)."""
        return self.unit("log_odds", label)

    def prob(self, label: str | int) -> Objective:
        """The probability of a class."""
        return self.unit("prob", label)

    def unit(self, blob: str, unit: str | int, at: Sequence[int] | str | None = None) -> Objective:
        """One unit of a blob.

        Args:
          blob: Name of the blob.
          unit: Index of the unit, or its label where units are classes.
          at: Place (y, x) in a spatial blob; by default its centre (6 of 13, as in DGN-AM).
        """
        shape, labels = shape_of(self, blob), labels_of(self, blob)
        number = unit_number(f"{self.role}:{blob}", unit, shape[-1], labels)
        place = place_of(f"{self.role}:{blob}", at, shape)
        which = _unit_name(labels, number) + (f"@{place_text(place)}" if place else "")
        return linear(self, blob, which, [np.ravel_multi_index((*place, number), shape)], [1.0])

    def channel(self, blob: str, unit: str | int) -> Objective:
        """One channel of a spatial blob, averaged over positions."""
        shape = shape_of(self, blob)
        if len(shape) == 1:
            raise ValueError(f"{self.role}:{blob} is a vector: it has no positions to average over")
        number, places = (
            unit_number(f"{self.role}:{blob}", unit, shape[-1], ()),
            math.prod(shape[:-1]),
        )
        index = np.arange(places) * shape[-1] + number
        return linear(self, blob, f"{number}:mean", index, np.full(places, 1.0 / places))

    def direction(self, blob: str, vector: Any, at: Sequence[int] | str | None = None) -> Objective:
        """A weighted sum of units.

        Args:
          blob: Name of the blob.
          vector: Array or .npy file: (N,) weights of all N numbers of the blob, or (C,) of the
            channels of a spatial blob, averaged over positions.
          at: Place (y, x) where channels are weighed, instead of the average.
        """
        what, shape = f"{self.role}:{blob}", shape_of(self, blob)
        file, array = _read_vector(what, vector)
        size, channels = math.prod(shape), shape[-1]
        _check_size(what, array, (size, channels) if at is None else (channels,))
        full, which = array, vector_name(file, array)
        if at is not None:
            place, full = place_of(what, at, shape), np.zeros(shape)
            full[place] = array
            which += f"@{place_text(place)}"
        elif array.size != size:
            full = np.broadcast_to(array / (size // channels), shape)
        index = np.flatnonzero(full)
        return linear(self, blob, which, index, full.ravel()[index], None if file else array)

    def match(self, blob: str, recorded: Any, cosine: bool = False) -> Objective:
        """The likeness of a blob to a recorded activation.

        Args:
          blob: Name of the blob.
          recorded: Array or .npy file of the blob's size.
          cosine: Take the cosine, instead of minus the mean squared difference.
        """
        how, what = "cosine" if cosine else "match", f"{self.role}:{blob}"
        size = math.prod(shape_of(self, blob))
        file, array = _read_vector(what, recorded)
        _check_size(what, array, (size,))
        which = f"{vector_name(file, array)}:{how}"
        given = None if file else array
        return Objective((Term(self, blob, which, 1.0, how, value=array, vector=given),))

    def layer(self, blob: str) -> Objective:
        """The mean square of a whole blob."""
        shape_of(self, blob)
        return Objective((Term(self, blob, "*:square", 1.0, "square"),))


def diversity(model: Any, blob: str) -> Objective:
    """The unlikeness of seeds: minus the mean cosine to the other seeds of the same objective.

    Compares Gram matrices of channels of spatial blobs, and vectors as they are. Runs of one
    objective then depend on one another.
    """
    shape_of(model, blob)
    return Objective((Term(model, blob, "*:diversity", 1.0, "diversity"),))


def total_variation() -> Objective:
    """The mean absolute difference of neighbouring pixels; subtract it for smooth images."""
    return linear(None, "image_tv", "0", [0], [1.0])


def image_l2() -> Objective:
    """The mean square of the image, in the generator's units; subtract it."""
    return linear(None, "image_l2", "0", [0], [1.0])


def code_l2() -> Objective:
    """The mean square of the code; subtract it."""
    return linear(None, "code_l2", "0", [0], [1.0])


def distance_to_start(space: str = "code") -> Objective:
    """The mean squared difference to the start, in `code` or `image` space; subtract it."""
    check_name("distance_to_start: space", space, ("code", "image"))
    return linear(None, f"start_{space}_l2", "0", [0], [1.0])


def layer_units(
    model: Any, blob: str, units: Sequence[str] = ("all",), position: str = ""
) -> list[Objective]:
    """Make an objective of each chosen unit of a layer, moved before its ReLU (`before_relu`).

    `units` are as in `choose_units`, `position` is `y,x` in a spatial blob, or nothing for its
    centre.
    """
    shape = shape_of(model, blob)
    at = place_of(f"{model.role}:{blob}", position, shape)
    labels = labels_of(model, blob) or tuple(map(str, range(shape[-1])))
    chosen = choose_units(units, labels, "unit")
    return [before_relu(model.unit(blob, unit, at or None))[0] for unit in chosen]


def linear(model, blob: str, which: str, index, value, vector: np.ndarray | None = None):
    arrays = {"index": np.asarray(index, np.int32), "value": np.asarray(value, np.float64)}
    return Objective((Term(model, blob, which, 1.0, **arrays, vector=vector),))


def unit_number(what: str, unit: str | int, count: int, labels: Sequence[str]) -> int:
    """Return the number of a unit that is given by number or label; `what` begins errors."""
    try:
        text = unit if isinstance(unit, str) else str(operator.index(unit))
    except TypeError:
        text = described(unit)
    if text.isdecimal() and int(text) < count:
        return int(text)
    if text in labels:
        return list(labels).index(text)
    raise ValueError(
        f"{what}: unit {text!r} is not in 0..{count - 1}"
        + (f" and not a label{near(text, labels)}" if labels else "")
    )


def _unit_name(labels: Sequence[str], unit: int) -> str:
    """A label where it is plain and names one unit, else the number."""
    label = labels[unit] if labels else ""
    plain = _PLAIN_LABEL.fullmatch(label) and not label.isdecimal()
    return label if plain and list(labels).count(label) == 1 else str(unit)


def _read_vector(what: str, vector: Any) -> tuple[str, np.ndarray]:
    """A vector's file, or nothing, and its numbers (N,), float64."""
    file = os.fspath(vector) if isinstance(vector, str | Path) else ""
    try:
        array = np.load(file, allow_pickle=False) if file else np.asarray(vector)
        array = np.array(array, np.float64).ravel()
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"{what}: {file or 'the vector'} is no array of numbers: {reason}"
        ) from None
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: {file or 'the vector'} holds numbers that are not finite")
    return file, array


def _check_size(what: str, array: np.ndarray, sizes: tuple[int, ...]) -> None:
    if array.size not in sizes:
        wanted = " or ".join(str(size) for size in dict.fromkeys(sizes))
        raise ValueError(f"{what}: the vector has {array.size} numbers, expected {wanted}")
