"""The tests' shorthand for tiny sweeps: networks by role, terms by index."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import pytest

from jaxsynth import asked, objectives, problem
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, every_run, join
from jaxsynth.chunks import execute
from jaxsynth.goals import RunData
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.network import Network, is_generator
from jaxsynth.models.registry import to_model
from jaxsynth.objective_text import parse
from jaxsynth.objectives import MEASURES, Objective
from jaxsynth.problem import Settings as Sweep
from jaxsynth.results import Run as ModelRun
from jaxsynth.system import ENCODER, GENERATOR

__all__ = [
    "Run", "Sweep", "Term", "encode", "execute", "first_of", "join", "models", "objective_of",
    "parse_term", "plan", "problem_of", "steps_of", "synthesize",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Term:
    """One weighed unit: `index` is (unit,) of a vector blob, (y, x, channel) of a spatial one."""

    network: str
    blob: str
    index: tuple[int, ...]
    weight: float
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: a seed and its terms."""

    seed: int
    terms: tuple[Term, ...]
    row: str = ""
    column: str = ""
    origin: str = ""


def models(networks: Mapping[str, Network]) -> dict[str, Classifier | Generator]:
    """Role -> model; classifiers go by their roles, the generator by its own name."""
    return {
        role: to_model(network, "" if is_generator(network.info.config) else role)
        for role, network in networks.items()
    }


def objective_of(terms: Sequence[Term], made: Mapping[str, Classifier | Generator]) -> Objective:
    """The objective of terms by index."""
    found = []
    for t in terms:
        measure = t.network == GENERATOR and t.blob in MEASURES
        model = None if measure else made[t.network]
        shape = (1,) if measure else model.shapes[t.blob]
        index = np.array([np.ravel_multi_index(t.index, shape)], np.int32)
        which = t.name or ",".join(map(str, t.index))
        found.append(objectives.Term(model, t.blob, which, t.weight, index=index, value=np.ones(1)))
    return Objective(tuple(found))


def parse_term(text: str, networks: Mapping[str, Network]) -> Term:
    """A term on one unit, from text."""
    made = {role: model for role, model in models(networks).items() if role != ENCODER}
    [term] = parse(text, made).terms
    shape = (1,) if term.model is None else term.model.shapes[term.blob]
    [index] = term.index
    place = tuple(int(i) for i in np.unravel_index(index, shape))
    return Term(term.network, term.blob, place, term.weight, term.label)


def plan(networks, runs: Sequence[Run], settings=Sweep(), start=None) -> Problem:  # noqa: B008
    """`problem.plan` of networks and terms."""
    made = models(networks)
    given = {run.terms: objective_of(run.terms, made) for run in runs}
    new = [ModelRun(r.seed, given[r.terms], r.row, r.column, r.origin) for r in runs]
    classifiers = [model for role, model in made.items() if role not in (GENERATOR, ENCODER)]
    encoder = made.get(ENCODER)
    return problem.plan(new, made[GENERATOR], classifiers, settings, start=start, encoder=encoder)


def synthesize(networks, runs: Sequence[Run], settings: Sweep, start=None) -> ChunkResult:
    """All runs, computed at once."""
    problem = plan(networks, runs, settings, start)
    return every_run(problem, join(list(execute(problem))))


def encode(encoder: Network, generator: Network, image: np.ndarray) -> np.ndarray:
    """The code (D,) of an image (H, W, 3) in the encoder's units and of its size."""
    return asked.encode(to_model(encoder), to_model(generator), image)


def problem_of(networks, *terms, balance="image"):
    """What a step sees, parameters and one run's data, of a run of these terms."""
    roles = {t.network for t in terms} | {"generator"}
    used = {role: network for role, network in networks.items() if role in roles}
    precision = str(next(iter(networks["generator"].params.values())).dtype)
    settings = Sweep(balance=balance, precision=precision)
    made = plan(used, [Run(0, tuple(terms))], settings)
    [structure] = made.structures
    return structure.request, made.params, RunData(first_of(structure.goals))


def first_of(tree):
    """The first of arrays (N, ...)."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def steps_of(problem, blocks):
    """Final codes and objectives of a problem's only chunk, in compiled blocks of steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxsynth.programs.blocks", lambda *_: blocks)
        [found] = execute(problem, evaluate=False)
    return found.state.code, found.trace.objective
