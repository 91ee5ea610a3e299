"""An audit and its stages under way."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.audit import synthesis
from jaxsynth.audit.settings import AuditSettings
from jaxsynth.audit.subjects import Photographs, Subject
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.scoring import probabilities

_AT_ONCE = 64  # pictures in memory, as inputs of a network


@dataclasses.dataclass(frozen=True)
class Audit:
    """What is audited.

    Attributes:
      subjects: The classifiers; their names differ.
      generator: The prior.
      settings: How much of everything.
      photographs: The user's; none is an audit of synthetic images alone.
      places: Names the scenes; None leaves them out.
      positive: Labels of photographs that a classifier should flag, beside its own classes.
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
        """Check that names differ.

        Raises:
          ValueError: If two subjects have one name, or there is none.
        """
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


class Work:
    """The audit under way, and its finished stages by name."""

    def __init__(self, audit: Audit):
        """Begin without any stage."""
        self.audit, self.stages = audit, dict[str, Stage]()

    def judged(self, pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Score pictures by every subject: arrays `p0`, `p1` ... (N, classes)."""
        models, waiting = [subject.model for subject in self.audit.subjects], iter(pictures)
        found: list[list[np.ndarray]] = [[] for _ in models]
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            for model, parts in zip(models, found, strict=True):
                parts.append(probabilities(model, some))
        return {f"p{i}": np.concatenate(parts) for i, parts in enumerate(found)}

    def made(self, made: synthesis.Made, places: Classifier | None = None) -> Stage:
        """Score synthesised images, by a scene network too."""
        arrays = {"images": made.images, "codes": np.asarray(made.codes, np.float32)}
        arrays |= {"places": probabilities(places, made.images)} if places else {}
        return Stage(made.rows, arrays | self.judged(made.images))

    def picture(self, photograph: bool, number: int) -> np.ndarray:
        """Return a photograph, or a random sample, (H, W, 3) uint8 RGB."""
        if photograph:
            return self.audit.picture(number)
        return self.stages["samples"].arrays["images"][number]
