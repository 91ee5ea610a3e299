"""The table of objectives: a line for each, as terms of `jaxsynth.terms`; and their arrays.

Objectives that weigh the same classifiers are a group: one compiled evaluation serves all of them,
and only those classifiers are climbed.
"""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxsynth.maximize import PLACES
from jaxsynth.models.network import Network, Params
from jaxsynth.system import ENCODER, GENERATOR, System, make_system, params_of, system_params
from jaxsynth.terms import (
    Term,
    check_name,
    is_class_blob,
    parse_term,
    system_shapes,
    weights_and_watch,
)

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "mountain": ("places:fc8:mountain:1",),
    "aquarium": ("places:fc8:aquarium:1",),
    "bedroom": ("places:fc8:bedroom:1",),
    "corn_field": ("places:fc8:corn_field:1",),
    "volcano": ("places:fc8:volcano:1",),
    "iceberg_log_prob": ("places:log_prob:iceberg:1",),
    "bridge_log_prob": ("places:log_prob:bridge:1",),
    "conv4_unit": ("places:conv4_pre:7:1",),
    "conv5_unit": ("places:conv5_pre:12:1",),
    "nsfw_logit": ("nsfw:fc_nsfw:NSFW:1",),
    "nsfw_prob": ("nsfw:prob:NSFW:1",),
    "iceberg_and_nsfw": ("places:log_prob:iceberg:1", "nsfw:log_prob:NSFW:1"),
}


class Objective(NamedTuple):
    """What is climbed; `scene` is the category that a judge should see, "" for none."""

    name: str
    terms: tuple[Term, ...]
    scene: str


class Group(NamedTuple):
    """Objectives that weigh the same classifiers; the leaves of weights are (objectives, ...)."""

    name: str
    objectives: tuple[Objective, ...]
    system: System
    params: Mapping[str, Params]
    weights: Mapping[str, Mapping[str, np.ndarray]]


def choose_objectives(patterns: Sequence[str], networks: Mapping[str, Network]) -> list[Objective]:
    """Objectives by name or glob, or as terms joined by ` & `, in the order asked for, each once.

    Raises:
      ValueError: naming what is wrong, with the nearest names.
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
    shapes = system_shapes(networks)
    objectives = []
    for name, texts in chosen.items():
        terms = tuple(parse_term(text, networks, shapes) for text in texts)
        weighed = _weighed(terms)
        if same := next((o.name for o in objectives if _weighed(o.terms) == weighed), None):
            raise ValueError(f"objectives {same!r} and {name!r} are the same: give one of them")
        objectives.append(Objective(name, terms, _scene(terms, networks)))
    return objectives


def _weighed(terms: Sequence[Term]) -> Counter:
    """What terms weigh altogether, by neuron."""
    weights: Counter = Counter()
    for term in terms:
        weights[term.network, term.blob, term.index] += term.weight
    return weights


def make_groups(
    objectives: Sequence[Objective], networks: Mapping[str, Network]
) -> tuple[Group, ...]:
    """The objectives by the classifiers that they weigh, each group's arrays made ready."""
    shapes = system_shapes(networks)
    members: dict[tuple[str, ...], list[Objective]] = {}
    for objective in objectives:
        roles = {term.network for term in objective.terms} - {GENERATOR}
        members.setdefault(tuple(sorted(roles)), []).append(objective)
    scorers = {role: n for role, n in networks.items() if role not in (GENERATOR, ENCODER)}
    params = system_params(networks[GENERATOR], scorers, networks.get(ENCODER))  # once for all
    params = jax.tree.map(jax.numpy.asarray, params)
    return tuple(
        _group(roles, tuple(found), networks, params, shapes) for roles, found in members.items()
    )


def part_of(group: Group, which: Sequence[int]) -> Group:
    """Some of a group's objectives."""
    return group._replace(
        objectives=tuple(group.objectives[i] for i in which),
        weights=jax.tree.map(lambda leaf: leaf[np.asarray(which)], group.weights),
    )


def _group(roles, objectives, networks, params, shapes) -> Group:
    classifiers = {role: networks[role] for role in roles}
    system = make_system(networks[GENERATOR], classifiers, networks.get(ENCODER))
    weights, _ = weights_and_watch([o.terms for o in objectives], shapes, [], np.float32)
    return Group(
        name="_".join(roles) or GENERATOR,
        objectives=objectives,
        system=system,
        params=params_of(system, params),
        weights=weights,
    )


def _scene(terms: Sequence[Term], networks: Mapping[str, Network]) -> str:
    """The label of the one scene that is raised, "" if there is none or there are several."""
    raised = [
        term.name
        for term in terms
        if term.network == PLACES and term.weight > 0 and is_class_blob(networks[PLACES], term.blob)
    ]
    return raised[0] if len(raised) == 1 else ""
