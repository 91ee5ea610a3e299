"""Inputs of an audit: classifiers with the classes that count, labelled photographs, settings."""

import csv
import dataclasses
import hashlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxsynth.image_files import read_image
from jaxsynth.image_search import ImageFile, find_images
from jaxsynth.inputs import option
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.functions import Activations
from jaxsynth.models.labels import SENSITIVE_LABELS, read_text

DECISION = "decision"  # a blob: the log-odds of the classes that count
SAMPLE, PHOTOGRAPH = "random sample", "photograph"  # kinds of pictures
PIXELS, PRIOR = "pixels", "prior"  # ways to a flip
MOST, LEAST = "most", "least"  # ends of a neuron

THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_LONGEST_SIDE = 512  # of a photograph whose changes are tested


@dataclasses.dataclass(frozen=True)
class _Decided:
    """A classifier's function with the blob `decision`; equal for equal functions, as jit needs."""

    function: Activations
    classes: tuple[int, ...]
    others: tuple[int, ...]

    def __call__(self, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        out = self.function(params, x)
        parts = (out["log_prob"][np.array(part)] for part in (self.classes, self.others))
        inside, outside = map(jax.nn.logsumexp, parts)
        return out | {DECISION: (inside - outside)[None]}


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A classifier under audit.

    Attributes:
      model: With the blob `decision`, the log-odds of the classes that count together.
      classes: Their numbers.
    """

    model: Classifier
    classes: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name that it goes by."""
        return self.model.name

    @property
    def decision(self) -> str:
        """The classes that count, `Hentai + Porn + Sexy`."""
        return " + ".join(self.model.class_names[i] for i in self.classes)

    def score(self, p: np.ndarray) -> np.ndarray:
        """Return the probability of the classes that count, of all probabilities (..., N)."""
        return p[..., list(self.classes)].sum(-1).clip(0.0, 1.0)


def make_subject(classifier: Classifier, labels: Sequence[str] = ()) -> Subject:
    """Make a subject of a classifier.

    Args:
      classifier: Any with classes.
      labels: The classes that count; by default its sensitive ones.

    Raises:
      ValueError: If no class counts, or all do.
    """
    if not classifier.logits:
        raise ValueError(f"{classifier.name!r} has no classes to audit")
    classes = tuple(dict.fromkeys(map(classifier.unit_of, labels))) or classifier.sensitive_classes
    if not classes:
        raise ValueError(
            f"{classifier.name!r} has no class that is known as sensitive: say which classes "
            f"count, --decide={classifier.name}=LABEL+LABEL"
        )
    others = tuple(i for i in range(classifier.classes) if i not in classes)
    if not others:
        raise ValueError(f"all classes of {classifier.name!r} count: no decision is left")
    apply = _Decided(classifier.activations, classes, others)
    model = dataclasses.replace(classifier, apply=apply)
    model.__dict__["shapes"] = classifier.shapes | {DECISION: (1,)}
    return Subject(model, classes)


class Photographs(NamedTuple):
    """The user's photographs.

    Attributes:
      files: Those that could be read.
      names: Of each, below the folder that was named.
      labels: Of each, or "".
      sha256: Of each, its bytes.
      unread: A line for each file that was not.
    """

    files: tuple[ImageFile, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def pictures(self, places: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Read them one by one, (H, W, 3) uint8 RGB."""
        for i in range(len(self.files)) if places is None else places:
            yield read_image(self.files[i])

    def reduced(self, places: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Read them, no side longer than 512 pixels."""
        for rgb in self.pictures(places):
            image = Image.fromarray(rgb)
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BILINEAR)
            yield np.asarray(image)


def chosen(count: int, most: int) -> list[int]:
    """Choose so many numbers of 0 to count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def probabilities_of(
    subject: Subject, subjects: Sequence[Subject], arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return a subject's probabilities (N, classes) of a stage's arrays `p0`, `p1`, ..."""
    return arrays[f"p{subjects.index(subject)}"]


def find_photographs(
    paths: Sequence[str | Path], most: int = 0, table: Path | None = None
) -> Photographs:
    """Find photographs and their labels.

    Args:
      paths: Folders, zips and files.
      most: How many to take, evenly spread; 0 is all.
      table: CSV file of lines `file,label`; a file is named by its path below the folder, or by
        its last part. By default the names of class folders are labels, if there are several.

    Raises:
      ValueError: If no file can be read, or the table does not fit.
    """
    files = find_images(paths).files if paths else []
    if most and len(files) > most:
        files = [files[i] for i in chosen(len(files), most)]
    read, hashes, unread = [], [], []
    for file in files:
        try:
            data = file.read()
            read_image(data)
        except ValueError as error:
            name = repr(_name(file, paths))
            for called in ("the given data", repr(str(file))):
                error = str(error).replace(called, name)
            unread.append(error)
            continue
        read.append(file)
        hashes.append(hashlib.sha256(data).hexdigest())
    if paths and not read:
        raise ValueError(f"no image can be read: {unread[0] if unread else 'the folder is empty'}")
    names = tuple(_name(file, paths) for file in read)
    if table is not None:
        labels = _labels_of(table, names)
    else:
        folders = [file.folder for file in read]
        labels = tuple(folders) if len(set(folders)) > 1 else ("",) * len(read)
    return Photographs(tuple(read), names, labels, tuple(hashes), tuple(unread))


def truth_of(
    subject: Subject, labels: Sequence[str], positive: Collection[str] = ()
) -> np.ndarray | None:
    """Return which labels say that a subject should flag; None unless some do and some do not.

    Its own labels count, all that are known as sensitive, and the `positive` words.
    """
    own = {subject.model.class_names[i].lower() for i in subject.classes}
    words = own | {word.lower() for word in positive}
    if subject.classes == subject.model.sensitive_classes:
        words |= set(SENSITIVE_LABELS)
    truth = np.array([label.lower() in words for label in labels], bool)
    return truth if truth.any() and not truth.all() else None


def _name(file: ImageFile, paths: Sequence[str | Path]) -> str:
    """A file's path below what was named, so that the report tells nothing of the machine."""
    text = str(file)
    for path in map(str, paths):
        if text.startswith(path.rstrip("/") + "/"):
            return text[len(path.rstrip("/")) + 1 :]
    return Path(text).name


def _labels_of(table: Path, names: Sequence[str]) -> tuple[str, ...]:
    rows = [row for row in csv.reader(io.StringIO(read_text(table, "a CSV file"))) if row]
    if any(len(row) < 2 for row in rows) or not rows:
        raise ValueError(f"{table}: expected lines of file,label")
    given = {row[0].strip(): row[1].strip() for row in rows}
    labels = tuple(given.get(name, given.get(Path(name).name, "")) for name in names)
    if not any(labels):
        raise ValueError(f"{table} names none of the photographs, such as {names[0]!r}")
    return labels


# --- settings -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """The settings of an audit; every field decides its numbers."""

    samples: int = option(256, "Random samples of the prior.", low=8)
    seeds: int = option(8, "Seeds of either end of a neuron, and of a dispute.", low=1)
    steps: int = option(16, "Steps of a synthesised image.", low=1)
    neurons: int = option(8, "Classes of a classifier whose two ends are shown, at most.", low=1)
    threshold: float = option(
        0.5, "Probability of the classes that count from which a picture is flagged.", above=0,
        high=0.999,
    )  # fmt: skip
    changed: int = option(
        32, "Random samples, and photographs, whose changes are scored; 0 leaves them out.", low=0
    )
    flips: int = option(
        12, "Random samples, and photographs, whose decision is flipped; 0 leaves them out.", low=0
    )
    units: int = option(6, "Hidden units that are removed; 0 leaves them out.", low=0)
    unit_pictures: int = option(
        24, "Random samples, and photographs, on which units are removed.", low=1
    )
    scenes: int = option(40, "Scenes that are synthesised, evenly spread; 0 for none.", low=0)
    scene_seeds: int = option(2, "Seeds of each scene.", low=1)


# What --quick changes.
QUICK = {"samples": 32, "seeds": 1, "steps": 8, "neurons": 3, "changed": 2, "flips": 2}
QUICK |= {"units": 2, "unit_pictures": 6, "scenes": 8, "scene_seeds": 1}
QUICK_PHOTOGRAPHS = 40


@dataclasses.dataclass(frozen=True)
class Audit:
    """An audit's subjects and settings.

    Attributes:
      subjects: The classifiers; their names differ.
      generator: The prior.
      settings: How much of everything.
      photographs: The user's; none is an audit of synthetic images alone.
      places: Names the scenes; None leaves them out.
      positive: Labels of photographs that a classifier should flag, apart from its own classes.
      embed: Show photographs in the report; else it has their names and scores alone.
    """

    subjects: tuple[Subject, ...]
    generator: Generator
    settings: AuditSettings = dataclasses.field(default_factory=AuditSettings)
    photographs: Photographs = dataclasses.field(default_factory=Photographs)
    places: Classifier | None = None
    positive: tuple[str, ...] = ()
    embed: bool = False

    def __post_init__(self):
        """Raise ValueError if two subjects have one name, or there is none."""
        names = [subject.name for subject in self.subjects]
        if not names:
            raise ValueError("no classifier to audit: name one or more")
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two classifiers are called {twice!r}: call one other=NAME")

    def picture(self, number: int) -> np.ndarray:
        """Read a photograph by its number, (H, W, 3) uint8 RGB."""
        return next(self.photographs.reduced([number]))


class Stage(NamedTuple):
    """A finished stage: JSON, and arrays."""

    value: Any
    arrays: dict[str, np.ndarray]


def picture_numbers(audit: Audit, most: int) -> list[tuple[str, int]]:
    """Choose so many random samples, then so many photographs."""
    samples = [(SAMPLE, i) for i in range(min(most, audit.settings.samples))]
    return samples + [(PHOTOGRAPH, i) for i in chosen(len(audit.photographs.files), most)]
