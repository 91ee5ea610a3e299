"""The subjects of an audit, and the amount of everything."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.audit.subjects import Photographs, Subject, chosen
from jaxsynth.inputs import option
from jaxsynth.models.base import Classifier, Generator

SAMPLE, PHOTOGRAPH = "random sample", "photograph"  # kinds of pictures
PIXELS, PRIOR = "pixels", "prior"  # ways to a flip
MOST, LEAST = "most", "least"  # ends of a neuron

THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


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


def picture_numbers(audit: Audit, most: int) -> list[tuple[str, int]]:
    """Choose so many random samples, then so many photographs."""
    samples = [(SAMPLE, i) for i in range(min(most, audit.settings.samples))]
    return samples + [(PHOTOGRAPH, i) for i in chosen(len(audit.photographs.files), most)]
