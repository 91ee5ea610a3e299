"""The table of objectives: a line for each, as terms; and the problems that they make.

Objectives that weigh the same classifiers are a group: one compiled evaluation serves all of them,
and only those classifiers are evaluated.
"""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxsynth.ask_tell import PRIOR, Optimizer
from jaxsynth.batch import Problem
from jaxsynth.inputs import check_name
from jaxsynth.maximize import Run, Settings, plan
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.objective_text import parse
from jaxsynth.objectives import GENERATOR, Objective
from jaxsynth.optimizer_names import by_name
from jaxsynth.recipes import RECIPES
from jaxsynth.system import START_IMAGE

PLACES, NSFW = "places", "nsfw"  # names of the two classifiers, as terms and flags have them
START = RECIPES["goh"]  # every optimizer starts from N(0, 1) clipped to the box

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "mountain": ("places:logits:mountain:1",),
    "aquarium": ("places:logits:aquarium:1",),
    "bedroom": ("places:logits:bedroom:1",),
    "corn_field": ("places:logits:corn_field:1",),
    "volcano": ("places:logits:volcano:1",),
    "iceberg_log_prob": ("places:log_prob:iceberg:1",),
    "bridge_log_prob": ("places:log_prob:bridge:1",),
    "block_unit": ("places:block10:7:1",),
    "head_unit": ("places:conv_head_pre:12:1",),
    "nsfw_logit": ("nsfw:fc_nsfw:NSFW:1",),
    "nsfw_prob": ("nsfw:prob:NSFW:1",),
    "iceberg_and_nsfw": ("places:log_prob:iceberg:1", "nsfw:log_prob:NSFW:1"),
}

Models = Mapping[str, Classifier | Generator]  # classifiers by name, the generator as GENERATOR


class Target(NamedTuple):
    """A named objective; `scene` is the category that a judge should see, "" for none."""

    name: str
    objective: Objective
    scene: str


class Group(NamedTuple):
    """Objectives that weigh the same classifiers.

    Attributes:
      name: The classifiers' names.
      targets: The objectives.
      places: Of each target, its run in `problem`.
      problem: A run of every target of the group, from any start: what all cells are made of.
    """

    name: str
    targets: tuple[Target, ...]
    places: tuple[int, ...]
    problem: Problem


def choose_objectives(patterns: Sequence[str], models: Models) -> list[Target]:
    """Find objectives by name or glob, or as terms joined by ` & `, in order, each once.

    Raises:
      ValueError: Naming what is wrong, with the nearest names.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for pattern in patterns:
        if ":" in pattern:
            chosen[pattern] = tuple(part.strip() for part in pattern.split("&"))
            continue
        found = {k: v for k, v in OBJECTIVES.items() if fnmatch.fnmatchcase(k, pattern)}
        if not found:
            check_name("objective", pattern, OBJECTIVES)
        chosen |= found
    if not chosen:
        raise ValueError("no objective named: give names, globs or terms")
    targets: list[Target] = []
    for name, texts in chosen.items():
        objective = sum(parse(text, models) for text in texts)
        weighed = _weighed(objective)
        if START_IMAGE in {term.blob for term in objective.terms}:
            raise ValueError(f"objective {name!r}: {START_IMAGE} is not measured here")
        if same := next((t.name for t in targets if _weighed(t.objective) == weighed), None):
            raise ValueError(f"objectives {same!r} and {name!r} are the same: give one of them")
        targets.append(Target(name, objective, _scene(objective)))
    return targets


def _weighed(objective: Objective) -> Counter:
    """The total weight of an objective, by number of a blob."""
    weights: Counter = Counter()
    for term in objective.terms:
        if term.how != "linear":
            weights[term.network, term.blob, term.which] += term.weight
        for index, value in zip(term.index, term.value, strict=False):
            weights[term.network, term.blob, int(index)] += term.weight * float(value)
    return weights


def _scene(objective: Objective) -> str:
    """The label of the one scene that is raised, "" if there is none or there are several."""
    raised = [
        term.label
        for term in objective.terms
        if term.network == PLACES and term.weight > 0 and term.unit is not None
    ]
    return raised[0] if len(raised) == 1 else ""


def make_groups(
    targets: Sequence[Target], models: Models, encoder: Classifier | None, batch: int
) -> tuple[Group, ...]:
    """Group objectives by the classifiers that they weigh, and make each group's problem.

    Args:
      targets: The objectives.
      models: Classifiers and the generator.
      encoder: The generator's, if an optimizer asks for it.
      batch: Codes per evaluation.
    """
    members: dict[tuple[str, ...], list[Target]] = {}
    for target in targets:
        names = {model.role for model in target.objective.models()} - {GENERATOR}
        members.setdefault(tuple(sorted(names)), []).append(target)
    asks = "ppgn" if encoder is not None else "goh"
    recipe = dataclasses.replace(START, steps=1)
    optimizer = by_name(asks)._replace(scale_free=False)  # objectives are taken as they are
    settings = Settings(recipe=recipe, optimizer=optimizer, balance="sum", batch=batch)
    shared: dict[str, Any] = {}  # parameters, once for all groups
    groups = []
    for names, found in members.items():
        runs = [Run(0, target.objective) for target in found]
        problem = plan(runs, models[GENERATOR], (), settings, encoder=encoder)
        params = {name: shared.setdefault(name, p) for name, p in problem.params.items()}
        name, places = "_".join(names) or GENERATOR, tuple(range(len(found)))
        groups.append(Group(name, tuple(found), places, problem._replace(params=params)))
    return tuple(groups)


def part_of(group: Group, which: Sequence[int]) -> Group:
    """Return a group of some of its objectives."""
    targets, places = (tuple(one[i] for i in which) for one in (group.targets, group.places))
    return group._replace(targets=targets, places=places)


def problem_for(group: Group, optimizer: Optimizer, steps: int) -> Problem:
    """Return a group's problem for an optimizer, whose runs are still to be given."""
    problem = asking(group.problem, optimizer.asks)
    recipe = dataclasses.replace(problem.settings.recipe, steps=steps)
    settings = dataclasses.replace(problem.settings, recipe=recipe, optimizer=optimizer)
    return problem._replace(optimizer=optimizer, settings=settings)


def asking(problem: Problem, asks: str) -> Problem:
    """Return a problem whose evaluations give what an optimizer asks, and record only terms."""
    structures = []
    for structure in problem.structures:
        request = structure.request
        system = request.system if asks == PRIOR else request.system._replace(encoder=None)
        request = request._replace(system=system, asks=asks, record=())
        structures.append(structure._replace(request=request))
    return problem._replace(structures=tuple(structures))
