"""What a run maximises: weighted terms on the activations of a generator and of classifiers.

    places.log_prob("mountain") + 0.5 * nsfw.log_odds("NSFW") - 0.1 * total_variation()

Constructors are methods of models (`Targets`) and functions of this module. Objectives are added,
subtracted and scaled; `str` prints one, `parse` reads it. Pure numpy: `jaxsynth.system` evaluates
them.

Sources: the algebra is after Lucid's `objectives.py`; `diversity` is after Olah et al. 2017
("Feature visualization"), `match` after Mahendran & Vedaldi 2015 ("Understanding deep image
representations by inverting them").
"""

import dataclasses
import hashlib
import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.inputs import check_name, choose_units, near

GENERATOR = "generator"  # the role of the run's generator
FUNCTION = "function"
HOWS = ("mean", "match", "cosine", "square", "diversity")
MEASURES = ("code_l2", "image_l2", "image_tv", "start_code_l2", "start_image_l2")
LABELLED = ("prob", "log_prob", "log_odds")  # blobs of a classifier's classes, beside its logits
SYNTAX = "network:blob:unit[@y,x][:how]:weight"

_LARGEST = float(np.finfo(np.float32).max)
_NO_INDEX, _NO_VALUE = np.zeros(0, np.int32), np.zeros(0)
_PLAIN_LABEL = re.compile(r"[\w.\-]+(/[\w.\-]+)*")
_POSITION = re.compile(r"\d+(,\d+)*")


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """One weighed quantity of one blob.

    Attributes:
      model: The classifier or generator; None for the run's generator (measures) and functions.
      blob: Name of the blob, of the measure, or of the Python function.
      which: Canonical text after the blob: `volcano`, `12@4,4`, `12:mean`, `@v.npy`, `*:square`.
      weight: Its factor.
      how: `linear`, `match`, `cosine`, `square`, `diversity` or `function`.
      index: (k,) int32, flat into the blob (C order, HWC); linear terms only, each place once.
      value: (k,) float64 coefficients of a linear term, or the recorded activation (N,).
      vector: What a direction or likeness was given, where that was no file.
      function: The Python function, of a mapping from classifier to activations.
      reads: Classifiers that the function reads.
    """

    model: Any
    blob: str
    which: str
    weight: float
    how: str = "linear"
    index: np.ndarray = dataclasses.field(default_factory=lambda: _NO_INDEX, repr=False)
    value: np.ndarray = dataclasses.field(default_factory=lambda: _NO_VALUE, repr=False)
    vector: np.ndarray | None = dataclasses.field(default=None, repr=False)
    function: Callable | None = None
    reads: tuple = ()

    def __post_init__(self):
        """Check the weight.

        Raises:
          ValueError: If it is no finite number in float32.
        """
        if not abs(self.weight) <= _LARGEST:
            what = f"{self.network}:{self.blob}: weight {self.weight!r}"
            raise ValueError(f"{what} is not a finite number in float32")

    @property
    def network(self) -> str:
        """The word that the model goes by."""
        return GENERATOR if self.model is None else self.model.role

    @property
    def unit(self) -> int | None:
        """The class of a term on one class of a classifier, else None."""
        single = self.how == "linear" and len(self.index) == 1 and not self.which.startswith("@")
        return int(self.index[0]) if single and is_class_blob(self.model, self.blob) else None

    @property
    def label(self) -> str:
        """The term as captions show it: a class by its label, a unit without its centre's place."""
        if self.how == FUNCTION:
            return self.blob
        if self.unit is not None:
            return (labels_of(self.model, self.blob) or {self.unit: self.which})[self.unit]
        unit, _, position = self.which.partition("@")
        if unit and position and position == _text(_place("", None, _shape(self.model, self.blob))):
            return unit
        return self.which

    def __str__(self) -> str:
        place = [FUNCTION, self.blob] if self.how == FUNCTION else []
        place = place or [self.network, self.blob, self.which]
        return ":".join([*place, repr(self.weight)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        arrays = self.index.tobytes(), self.value.tobytes()
        named = self.network, self.blob, self.which, self.how, self.weight
        return (*named, *arrays, id(self.function))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Objective:
    """A sum of terms, to be maximised."""

    terms: tuple[Term, ...]
    __array_ufunc__ = None  # a NumPy number times an objective is an objective

    def __add__(self, other: Any) -> "Objective":
        if isinstance(other, numbers.Real) and other == 0:  # so that sum() works
            return self
        if isinstance(other, numbers.Real):
            return NotImplemented
        return Objective(self.terms + as_objective(other).terms)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Objective":
        return self + -as_objective(other)

    def __neg__(self) -> "Objective":
        return self * -1.0

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        terms = (dataclasses.replace(t, weight=t.weight * float(factor)) for t in self.terms)
        return Objective(tuple(terms))

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> "Objective":
        return self * (1.0 / factor) if isinstance(factor, numbers.Real) else NotImplemented

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    def __repr__(self) -> str:
        return f"<Objective {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objective) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def models(self) -> tuple:
        """Return the models that the terms name, each once, in order."""
        found = (m for t in self.terms for m in (t.model, *t.reads) if m is not None)
        return tuple({id(model): model for model in found}.values())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the vectors that were given as arrays, by the file name that `str` prints.

        Saved under that name they give the same objective when `parse` reads its text.
        """
        given = [t.vector for t in self.terms if t.vector is not None]
        return {_vector_name("", vector)[1:]: vector for vector in given}


def as_objective(given: Any) -> Objective:
    """Make an objective of an objective, a term, a function, or a sequence of them (their sum).

    Raises:
      ValueError: For anything else, and for an empty sequence.
    """
    if isinstance(given, Objective):
        return given
    if isinstance(given, Term):
        return Objective((given,))
    if callable(given):
        return function(given)
    if isinstance(given, Sequence) and not isinstance(given, str) and given:
        return Objective(tuple(t for one in given for t in as_objective(one).terms))
    raise ValueError(
        f"{given!r} is no objective: expected one such as classifier.logit('cat'), a function of "
        "the activations, or a sum of them"
    )


class Targets:
    """The objectives of a model: a mixin of classifiers and generators.

    A model has `role` (the word that it goes by) and `shapes` ({blob: shape}); a classifier has
    `labels` and `logits` (the name of that blob, or None).
    """

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
        shape, labels = _shape(self, blob), labels_of(self, blob)
        number = _unit(f"{self.role}:{blob}", unit, shape[-1], labels)
        place = _place(f"{self.role}:{blob}", at, shape)
        which = _unit_name(labels, number) + (f"@{_text(place)}" if place else "")
        return _linear(self, blob, which, [np.ravel_multi_index((*place, number), shape)], [1.0])

    def channel(self, blob: str, unit: str | int) -> Objective:
        """One channel of a spatial blob, averaged over positions."""
        shape = _shape(self, blob)
        if len(shape) == 1:
            raise ValueError(f"{self.role}:{blob} is a vector: it has no positions to average over")
        number, places = _unit(f"{self.role}:{blob}", unit, shape[-1], ()), math.prod(shape[:-1])
        index = np.arange(places) * shape[-1] + number
        return _linear(self, blob, f"{number}:mean", index, np.full(places, 1.0 / places))

    def direction(self, blob: str, vector: Any, at: Sequence[int] | str | None = None) -> Objective:
        """A weighted sum of units.

        Args:
          blob: Name of the blob.
          vector: Array or .npy file: (N,) weights of all N numbers of the blob, or (C,) of the
            channels of a spatial blob, averaged over positions.
          at: Place (y, x) where channels are weighed, instead of the average.
        """
        what, shape = f"{self.role}:{blob}", _shape(self, blob)
        file, array = _read_vector(what, vector)
        size, channels = math.prod(shape), shape[-1]
        _check_size(what, array, (size, channels) if at is None else (channels,))
        full, which = array, _vector_name(file, array)
        if at is not None:
            place, full = _place(what, at, shape), np.zeros(shape)
            full[place] = array
            which += f"@{_text(place)}"
        elif array.size != size:
            full = np.broadcast_to(array / (size // channels), shape)
        index = np.flatnonzero(full)
        return _linear(self, blob, which, index, full.ravel()[index], None if file else array)

    def match(self, blob: str, recorded: Any, cosine: bool = False) -> Objective:
        """The likeness of a blob to a recorded activation.

        Args:
          blob: Name of the blob.
          recorded: Array or .npy file of the blob's size.
          cosine: Take the cosine, instead of minus the mean squared difference.
        """
        how, what = "cosine" if cosine else "match", f"{self.role}:{blob}"
        size = math.prod(_shape(self, blob))
        file, array = _read_vector(what, recorded)
        _check_size(what, array, (size,))
        which = f"{_vector_name(file, array)}:{how}"
        given = None if file else array
        return Objective((Term(self, blob, which, 1.0, how, value=array, vector=given),))

    def layer(self, blob: str) -> Objective:
        """The mean square of a whole blob."""
        _shape(self, blob)
        return Objective((Term(self, blob, "*:square", 1.0, "square"),))


def diversity(model: Any, blob: str) -> Objective:
    """The unlikeness of seeds: minus the mean cosine to the other seeds of the same objective.

    Compares Gram matrices of channels of spatial blobs, and vectors as they are. Runs of one
    objective then depend on one another.
    """
    _shape(model, blob)
    return Objective((Term(model, blob, "*:diversity", 1.0, "diversity"),))


def total_variation() -> Objective:
    """The mean absolute difference of neighbouring pixels; subtract it for smooth images."""
    return _linear(None, "image_tv", "0", [0], [1.0])


def image_l2() -> Objective:
    """The mean square of the image, in the generator's units; subtract it."""
    return _linear(None, "image_l2", "0", [0], [1.0])


def code_l2() -> Objective:
    """The mean square of the code; subtract it."""
    return _linear(None, "code_l2", "0", [0], [1.0])


def distance_to_start(space: str = "code") -> Objective:
    """The mean squared difference to the start, in `code` or `image` space; subtract it."""
    check_name("distance_to_start: space", space, ("code", "image"))
    return _linear(None, f"start_{space}_l2", "0", [0], [1.0])


def function(f: Callable, classifiers: Sequence[Any] = ()) -> Objective:
    """A Python function of the activations, such as `lambda acts: acts[mine]["conv4"].mean()`.

    Args:
      f: Takes a mapping from classifier (or its name) to {blob: array}, with `image` and `code`;
        gives a scalar.
      classifiers: The classifiers that it reads.
    """
    name = getattr(f, "__name__", type(f).__name__)
    return Objective((Term(None, name, "", 1.0, FUNCTION, function=f, reads=tuple(classifiers)),))


def layer_units(
    model: Any, blob: str, units: Sequence[str] = ("all",), position: str = ""
) -> list[Objective]:
    """Make an objective of each chosen unit of a layer.

    A blob after its ReLU is replaced by the one before it, `BLOB_pre`, where the model has that: a
    silent unit has no gradient.

    Args:
      model: Classifier or generator.
      blob: Name of the blob.
      units: As in `choose_units`.
      position: `y,x` in a spatial blob, or nothing for its centre.

    Raises:
      ValueError: Naming what is wrong and what would be right.
    """
    shape = _shape(model, blob)
    at = _place(f"{model.role}:{blob}", position, shape)
    labels = labels_of(model, blob) or tuple(map(str, range(shape[-1])))
    blob = f"{blob}_pre" if f"{blob}_pre" in model.shapes else blob
    return [model.unit(blob, unit, at or None) for unit in choose_units(units, labels, "unit")]


def logits_blob(model: Any) -> str:
    """Return the name of a classifier's logits.

    Raises:
      ValueError: If the model has none.
    """
    if not getattr(model, "logits", None):
        raise ValueError(f"{model.role} has no classes: name a blob and a unit instead")
    return model.logits


def is_class_blob(model: Any, blob: str) -> bool:
    """Whether a blob's units are the classes of a classifier."""
    logits = getattr(model, "logits", None)
    return bool(logits) and blob in (logits, *LABELLED)


def labels_of(model: Any, blob: str) -> tuple[str, ...]:
    """Return the labels of a blob's units, or () where they have none."""
    return tuple(model.labels) if is_class_blob(model, blob) else ()


# --- shapes, units, places, vectors ---------------------------------------------------------------


def _linear(model, blob: str, which: str, index, value, vector: np.ndarray | None = None):
    arrays = {"index": np.asarray(index, np.int32), "value": np.asarray(value, np.float64)}
    return Objective((Term(model, blob, which, 1.0, **arrays, vector=vector),))


def _shape(model, blob: str) -> tuple[int, ...]:
    """The shape of a blob or measure; ValueError for another name."""
    measures = dict.fromkeys(MEASURES, (1,))
    role = GENERATOR if model is None else model.role
    shapes = {} if model is None else model.shapes
    shapes = {**shapes, **measures} if role == GENERATOR else shapes
    check_name(f"blob of {role}", blob, shapes)
    return tuple(shapes[blob]) or (1,)


def _unit(what: str, unit: str | int, count: int, labels: Sequence[str]) -> int:
    text = unit if isinstance(unit, str) else str(operator.index(unit))
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


def _place(what: str, at: Sequence[int] | str | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A place (y, x) of a spatial blob, its centre by default; () of a vector."""
    sides, text = shape[:-1], at if isinstance(at, str) else _text(() if at is None else at)
    if not text:
        return tuple(side // 2 for side in sides)
    if not sides:
        raise ValueError(f"{what} is a vector, it has no position {text}")
    try:
        place = tuple(int(v) for v in text.split(","))
        inside = all(0 <= p < side for p, side in zip(place, sides, strict=True))
    except ValueError:
        inside = False
    if not inside:
        axes = "y,x" if len(sides) == 2 else f"{len(sides)} numbers"
        within = "x".join(map(str, sides))
        raise ValueError(f"{what}: position {text!r} is not {axes} within {within}")
    return place


def _text(place: Sequence[int]) -> str:
    return ",".join(map(str, place))


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


def _vector_name(file: str, array: np.ndarray) -> str:
    """`@FILE.npy`; a vector that was given as an array is named by its numbers."""
    return f"@{file or f'array-{hashlib.sha256(array.tobytes()).hexdigest()[:8]}.npy'}"


def _check_size(what: str, array: np.ndarray, sizes: tuple[int, ...]) -> None:
    if array.size not in sizes:
        wanted = " or ".join(str(size) for size in dict.fromkeys(sizes))
        raise ValueError(f"{what}: the vector has {array.size} numbers, expected {wanted}")


# --- text -----------------------------------------------------------------------------------------


def parse(text: str, models: Mapping[str, Any]) -> Objective:
    """Read an objective: MODEL:BLOB:WHICH[:HOW]:WEIGHT, several joined by ` + `.

    | part  | text                                                                             |
    |-------|----------------------------------------------------------------------------------|
    | WHICH | a label or a number; `@y,x` after it for a place of a spatial blob (else centre) |
    |       | `@FILE.npy` for a vector: weights of the blob, or of its channels; `*` for all   |
    | HOW   | `mean`: over positions, WHICH is a channel                                       |
    |       | `match`, `cosine`: likeness to the activation in FILE.npy                        |
    |       | `square`, `diversity`: WHICH is `*`                                              |

    Examples: `places:fc8:volcano:1`, `places:conv5:12@4,4:1`, `places:conv5:12:mean:1`,
    `places:fc6:@vector.npy:1`, `places:fc6:@recorded.npy:match:0.5`,
    `places:conv4:*:diversity:0.3`, `generator:image_tv:0:-0.1`. A number names a unit by its index.

    Args:
      text: What to read; the inverse of `str`.
      models: Classifiers by name; the generator as `generator`.

    Raises:
      ValueError: Naming what is wrong and what would be right, in one line.
    """
    return Objective(tuple(t for part in _split(text, models) for t in _term(part, models).terms))


def _split(text: str, models: Mapping[str, Any]) -> Iterator[str]:
    """The terms of a text: one ends where a number is followed by a model's name."""
    begun, *pieces = text.split(" + ")
    for piece in pieces:
        if _number(begun.rpartition(":")[2]) is not None or piece.partition(":")[0] in models:
            yield begun.strip()
            begun = piece
        else:
            begun = f"{begun} + {piece}"
    yield begun.strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _term(text: str, models: Mapping[str, Any]) -> Objective:
    parts = text.split(":")
    what = f"term {text!r}"
    if parts[0] == FUNCTION and FUNCTION not in models:
        raise ValueError(f"{what} is a Python function: give it to maximize or sweep itself")
    if len(parts) < 4:
        raise ValueError(
            f"{what}: expected {SYNTAX}, such as places:fc8:abbey:1 or "
            "nsfw:conv_stage2_block3:17@6,6:0.5"
        )
    role, blob, which, weight = parts[0], parts[1], ":".join(parts[2:-1]), _number(parts[-1])
    check_name(f"{what}: network", role, {GENERATOR: None, **models})
    if weight is None or not abs(weight) <= _LARGEST:
        raise ValueError(f"{what}: weight {parts[-1]!r} is not a finite number in float32")
    try:
        return _target(role, models.get(role), blob, which) * weight
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _target(role: str, model: Any, blob: str, which: str) -> Objective:
    """What a term is of, from the text of its unit."""
    if role == GENERATOR and (model is None or blob in MEASURES):
        _shape(None, blob)
        _unit(f"{role}:{blob}", which, 1, ())
        return _linear(None, blob, "0", [0], [1.0])
    _shape(model, blob)  # its name comes before what is wrong with the unit
    labels = labels_of(model, blob)
    rest, _, how = which.rpartition(":")
    if which in labels or how not in HOWS or not rest:
        rest, how = which, ""
    if how in ("square", "diversity"):
        if rest != "*":
            raise ValueError(f"{how} is of a whole blob: expected *:{how}, not {which}")
        return model.layer(blob) if how == "square" else diversity(model, blob)
    if how == "mean":
        return model.channel(blob, rest)
    if how:
        if not rest.startswith("@"):
            raise ValueError(f"{how} compares with a file: expected @FILE.npy:{how}")
        return model.match(blob, rest[1:], cosine=how == "cosine")
    if rest.startswith("@") and rest not in labels:
        file, _, position = rest[1:].rpartition("@")
        at = position if file and _POSITION.fullmatch(position) else None
        return model.direction(blob, file if at else rest[1:], at)
    unit, _, position = (rest, "", "") if rest in labels else rest.partition("@")
    return model.unit(blob, unit, position or None)
