"""The images of an audit: random samples, both ends of neurons, what two classifiers dispute."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.audit.settings import LEAST, MOST
from jaxsynth.audit.subjects import DECISION, Subject
from jaxsynth.maximize import sweep
from jaxsynth.models.base import Generator
from jaxsynth.objectives import Objective
from jaxsynth.recipes import RECIPES, make_recipe
from jaxsynth.starts import still
from jaxsynth.table import is_non_finite


class Made(NamedTuple):
    """Synthesised images.

    Attributes:
      images: (R, H, W, 3) uint8, RGB.
      codes: (R, D) that made them.
      rows: (R,) what each is: `what`, `end`, `seed`, and `frozen` where it did not stay finite.
    """

    images: np.ndarray
    codes: np.ndarray
    rows: list[dict[str, Any]]


def random_samples(generator: Generator, count: int) -> Made:
    """Draw the images of random codes, by seed."""
    seeds = range(count)
    runs = sweep(Objective(()), generator, seeds=seeds, recipe=still(generator), batch=16)
    return Made(runs.images, np.array(runs.codes), [{"seed": seed} for seed in seeds])


def neurons_of(subject: Subject, most: int, p: np.ndarray) -> list[int]:
    """Choose the classes of a subject that are shown.

    Of two classes one is enough: the other end of its scale is the other class. Of many, those
    that count come first, then the likeliest.

    Args:
      subject: The classifier.
      most: How many to choose.
      p: Probabilities (N, classes) of random samples.
    """
    classes = range(subject.model.classes)
    if len(classes) == 2:
        return list(subject.classes)
    order = np.argsort(-p.mean(0), kind="stable").tolist()
    chosen = [*subject.classes, *(i for i in order if i not in subject.classes)][:most]
    return sorted(chosen)


def neuron_ends(
    subject: Subject, classes: Sequence[int], generator: Generator, seeds: int, steps: int
) -> Made:
    """Maximise and minimise the log-odds of classes, and of all that count together."""
    model = subject.model
    goals = {model.class_names[i]: model.log_odds(i) for i in classes}
    if len(subject.classes) > 1:
        goals[subject.decision] = model.unit(DECISION, 0)
    return maximise(goals, generator, seeds, steps)


def disputes(subjects: Sequence[Subject], generator: Generator, seeds: int, steps: int) -> Made:
    """Maximise, for each ordered pair, what the first is sure of and the second denies."""
    pairs = [(a, b) for a in subjects for b in subjects if a is not b]
    goals = {
        (a.name, b.name): a.model.unit(DECISION, 0) - b.model.unit(DECISION, 0) for a, b in pairs
    }
    made = maximise(goals, generator, seeds, steps, ends=(MOST,))
    for row in made.rows:
        row["sure"], row["denies"] = row.pop("what")
    return made


def maximise(
    goals: Mapping[Any, Objective],
    generator: Generator,
    seeds: int,
    steps: int,
    ends: Sequence[str] = (MOST, LEAST),
) -> Made:
    """Maximise objectives, and minimise them, by the generator's own recipe in so many steps."""
    keys = [(key, end) for key in goals for end in ends]
    named = {
        str(i): goals[key] if end == MOST else -goals[key] for i, (key, end) in enumerate(keys)
    }
    recipe = make_recipe(RECIPES[generator.recipe], steps=steps)
    runs = sweep(named, generator, seeds=seeds, recipe=recipe)
    rows = []
    for run, told in zip(runs.runs, runs.table, strict=True):
        key, end = keys[int(run.row)]
        row = {"what": key, "end": end, "seed": run.seed}
        rows.append(row | ({"frozen": told["status"]} if is_non_finite(told) else {}))
    codes = [runs.codes if which == "last" else runs.best_codes for which in runs.which]
    codes = np.stack([code[i] for i, code in enumerate(codes)])
    return Made(runs.images, codes, rows)
