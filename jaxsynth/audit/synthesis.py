"""The images of an audit: random samples, both ends of neurons, what two classifiers dispute."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.audit.networks import LOG_ODDS, Goal, Prior, added, negative
from jaxsynth.audit.search import Networks, search, start_codes
from jaxsynth.audit.settings import LEAST, MOST
from jaxsynth.audit.subjects import DECISION, Subject
from jaxsynth.recipes import RECIPES, make_recipe
from jaxsynth.starts import still


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


def random_samples(prior: Prior, count: int) -> Made:
    """Draw the images of random codes, by seed."""
    codes = start_codes(prior, still(prior.generator), range(count))
    images = prior.generator.preprocess.show(prior.draw(codes))
    return Made(images, codes, [{"seed": seed} for seed in range(count)])


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


def neuron_goals(networks: Networks, subject: Subject, classes: Sequence[int]) -> dict[str, Goal]:
    """Return the log-odds of classes, and of all that count together, as goals."""
    network, names = networks[subject.name], subject.model.class_names
    goals = {names[i]: network.goal(LOG_ODDS, i) for i in classes}
    if len(subject.classes) > 1:
        goals[subject.decision] = network.goal(DECISION)
    return goals


def dispute_goals(networks: Networks, subjects: Sequence[Subject]) -> dict[tuple[str, str], Goal]:
    """Return, for each ordered pair, what the first is sure of and the second denies.

    Both orders of a pair follow each other, so that few batches need more than two networks.
    """
    pairs = [(a, b) for i, a in enumerate(subjects) for b in subjects[i + 1 :]]
    goals = {subject.name: networks[subject.name].goal(DECISION) for subject in subjects}
    return {
        (a.name, b.name): added(goals[a.name], negative(goals[b.name]))
        for pair in pairs
        for a, b in (pair, pair[::-1])
    }


def maximise(
    prior: Prior,
    networks: Networks,
    goals: Mapping[Any, Goal],
    seeds: Sequence[int],
    steps: int,
    ends: Sequence[str] = (MOST, LEAST),
    start: np.ndarray | None = None,
) -> Made:
    """Maximise goals, and minimise them, by the generator's own recipe.

    Args:
      prior: Makes the images.
      networks: The classifiers.
      goals: By what they are.
      seeds: Of every goal and end.
      steps: How many.
      ends: Whether to maximise, minimise, or both.
      start: Codes (R, D) instead of those of the seeds, in the order of goals, ends, seeds.
    """
    rows = [{"what": key, "end": end, "seed": s} for key in goals for end in ends for s in seeds]
    wanted = [goals[r["what"]] if r["end"] == MOST else negative(goals[r["what"]]) for r in rows]
    recipe = make_recipe(RECIPES[prior.generator.recipe], steps=steps)
    found = search(prior, networks, wanted, [row["seed"] for row in rows], recipe, start)
    for row, sound in zip(rows, found.sound, strict=True):
        row |= {} if sound else {"frozen": "not finite"}
    return Made(found.images, found.codes, rows)
