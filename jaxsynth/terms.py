"""Terms and their sums: objectives as data. Pure numpy.

`jaxsynth.objectives` makes them; `jaxsynth.goals` evaluates them. The algebra is after Lucid's
`objectives.py`.
"""

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsynth.inputs import check_name, described
from jaxsynth.system import GENERATOR

FUNCTION = "function"
MEASURES = ("code_l2", "image_l2", "image_tv", "start_code_l2", "start_image_l2")
LABELLED = ("prob", "log_prob", "log_odds")  # blobs of a classifier's classes, like its logits

LARGEST = float(np.finfo(np.float32).max)
_NO_INDEX, _NO_VALUE = np.zeros(0, np.int32), np.zeros(0)


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
      vector: The array of a direction or likeness, where it was no file.
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
        if not abs(self.weight) <= LARGEST:
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
    def name(self) -> str:
        """The term without its weight, as tables name it: `places:logits:volcano`."""
        if self.how == FUNCTION:
            return f"{FUNCTION}:{self.blob}"
        return f"{self.network}:{self.blob}:{self.label}"

    @property
    def label(self) -> str:
        """The term as captions show it: a class by its label, a unit without its centre's place."""
        if self.how == FUNCTION:
            return self.blob
        if self.unit is not None:
            return (labels_of(self.model, self.blob) or {self.unit: self.which})[self.unit]
        unit, _, position = self.which.partition("@")
        if not (unit and position):
            return self.which
        centre = place_of("", None, shape_of(self.model, self.blob))
        return unit if position == place_text(centre) else self.which

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
        return Objective(self.terms + as_objective(other).terms)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Objective":
        return self + -as_objective(other)

    def __neg__(self) -> "Objective":
        return self * -1.0

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, numbers.Real):
            raise ValueError(f"{described(factor)} is no weight of an objective: expected a number")
        terms = (dataclasses.replace(t, weight=t.weight * float(factor)) for t in self.terms)
        return Objective(tuple(terms))

    __rmul__ = __mul__

    def __truediv__(self, factor: float) -> "Objective":
        return self * (1.0 / factor if isinstance(factor, numbers.Real) and factor else math.nan)

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
        return {vector_name("", vector)[1:]: vector for vector in given}


def as_objective(given: Any) -> Objective:
    """Make an objective of an objective, a term, a function, or a sequence of them (their sum)."""
    if isinstance(given, Objective):
        return given
    if isinstance(given, Term):
        return Objective((given,))
    if callable(given):
        return function(given)
    if isinstance(given, list | tuple) and given and not hasattr(given, "_fields"):
        return Objective(tuple(t for one in given for t in as_objective(one).terms))
    parse = "; jaxsynth.parse(text, models) reads text" if isinstance(given, str) else ""
    raise ValueError(
        f"{described(given)} is no objective: expected one such as classifier.logit('cat'), a "
        f"function of the activations, or a sum of them{parse}"
    )


def function(f: Callable, classifiers: Sequence[Any] = ()) -> Objective:
    """A Python function of the activations, such as `lambda acts: acts[mine]["conv4"].mean()`.

    Args:
      f: Takes a mapping from classifier (or its name) to {blob: array}, with `image` and `code`;
        gives a scalar.
      classifiers: The classifiers that it reads.
    """
    if not callable(f):
        raise ValueError(f"{described(f)} is no function of the activations")
    name, several = getattr(f, "__name__", type(f).__name__), isinstance(classifiers, list | tuple)
    classifiers = classifiers if several else (classifiers,)
    return Objective((Term(None, name, "", 1.0, FUNCTION, function=f, reads=tuple(classifiers)),))


def before_relu(objective: Objective) -> tuple[Objective, dict[str, str]]:
    """Move units behind a ReLU before it, to BLOB_pre: a silent unit has no gradient.

    Only single units of positive weight: to lower one below 0 is another aim than to silence it.

    Returns:
      The objective, and for the name of every term that was moved a sentence that says so.
    """
    terms, notes = [], {}
    for term in objective.terms:
        blob, shapes = f"{term.blob}_pre", getattr(term.model, "shapes", {})
        single = term.how == "linear" and len(term.index) == 1 and term.value[0] * term.weight > 0
        if single and shapes.get(blob) == shapes.get(term.blob, ()):
            said = f"{term.name} is maximised at {blob}, before its ReLU"
            term = dataclasses.replace(term, blob=blob)
            notes[term.name] = f"{said}: behind it a silent unit has no gradient"
        terms.append(term)
    return Objective(tuple(terms)) if notes else objective, notes


def logits_blob(model: Any) -> str:
    """Return the name of a classifier's logits; ValueError if the model has none."""
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


def shape_of(model: Any, blob: str) -> tuple[int, ...]:
    """Return the shape of a blob or measure; ValueError for another name."""
    if model is not None and not hasattr(model, "shapes"):
        raise ValueError(f"{described(model)} is no model: expected a classifier or generator")
    measures = dict.fromkeys(MEASURES, (1,))
    role = GENERATOR if model is None else model.role
    shapes = {} if model is None else model.shapes
    shapes = {**shapes, **measures} if role == GENERATOR else shapes
    check_name(f"blob of {role}", blob, shapes)
    return tuple(shapes[blob]) or (1,)


def place_of(what: str, at: Sequence[int] | str | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a place (y, x) of a spatial blob, by default its centre; () of a vector."""
    several = at if isinstance(at, list | tuple | np.ndarray) else () if at is None else (at,)
    sides, text = shape[:-1], at if isinstance(at, str) else place_text(several)
    if not text:
        return tuple(side // 2 for side in sides)
    if not sides:
        raise ValueError(f"{what} is a vector, it has no position {text}")
    place: tuple[int, ...] = ()
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


def place_text(place: Sequence[int]) -> str:
    """Return a place as terms have it: `4,4`."""
    return ",".join(map(str, place))


def vector_name(file: str, array: np.ndarray) -> str:
    """Return `@FILE.npy`; a vector that was given as an array is named by its numbers."""
    return f"@{file or f'array-{hashlib.sha256(array.tobytes()).hexdigest()[:8]}.npy'}"
