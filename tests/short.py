"""The tests' shorthand for tiny sweeps: networks by role, terms by index."""

import jax
import pytest

from jaxsynth.chunks import execute, join, optimise_chunks
from jaxsynth.goals import RunData
from jaxsynth.short import Run, Sweep, encode, models, objective_of, plan, synthesize
from jaxsynth.terms import Term

__all__ = [
    "Run", "Sweep", "Term", "encode", "execute", "first_of", "join", "models", "objective_of",
    "plan", "problem_of", "steps_of", "synthesize",
]  # fmt: skip


def problem_of(networks, *terms, balance="image"):
    """What a step sees, parameters and one run's data, of a run of these terms."""
    roles = {t.network for t in terms} | {"generator"}
    used = {role: network for role, network in networks.items() if role in roles}
    precision = str(next(iter(networks["generator"].params.values())).dtype)
    settings = Sweep(balance=balance, precision=precision)
    problem = plan(used, [Run(0, tuple(terms))], settings)
    [structure] = problem.structures
    return structure.look, problem.params, RunData(first_of(structure.goals))


def first_of(tree):
    """The first of arrays (N, ...)."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def steps_of(problem, blocks):
    """Final codes and objectives of a problem's only chunk, in compiled blocks of steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxsynth.chunks._blocks", lambda *_: blocks)
        [found] = optimise_chunks(problem)
    return found.state.code, found.trace.objective
