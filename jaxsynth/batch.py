"""Runs as data: their objectives and start codes, and how they fall into chunks."""

import dataclasses
import itertools
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.ascent import ChunkResult, Progress, State, Trace
from jaxsynth.ask_tell import Box, Optimizer
from jaxsynth.environment import is_out_of_memory
from jaxsynth.goal_arrays import Shared
from jaxsynth.goals import Goal, RunData
from jaxsynth.inputs import described
from jaxsynth.starts import StartCodes
from jaxsynth.system import Params, Request, System
from jaxsynth.terms import Objective, as_objective

# Called with (first run of the chunk, steps done, objective values (R,), snapshot).
OnStep = Callable[[int, int, np.ndarray, Callable[[], Progress]], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: a seed of one objective.

    Attributes:
      seed: decides its start code and everything random in its steps.
      objective: what it maximises; its text where a folder was read without the models.
      row, column: its place on the contact sheet.
      origin: FOLDER:RUN of the run that it continues, if any.
    """

    seed: int
    objective: Objective
    row: str = ""
    column: str = ""
    origin: str = ""

    def __post_init__(self):
        """Check the seed, and turn the given value into an objective.

        Raises:
          ValueError: If either is none.
        """
        if isinstance(self.seed, bool) or not isinstance(self.seed, numbers.Integral):
            raise ValueError(f"run: seed is {described(self.seed)}, expected a whole number")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"run: seed is {self.seed}, expected 0 to 2**32 - 1")
        if not isinstance(self.objective, str):
            object.__setattr__(self, "objective", as_objective(self.objective))


class Batch(NamedTuple):
    """Runs as data, every leaf with a leading run axis R."""

    codes: np.ndarray | StartCodes  # (R, D) start codes
    structure: np.ndarray  # (R,) int, which of the problem's structures
    which: np.ndarray  # (R,) int, which of the structure's objectives
    seeds: np.ndarray  # (R,) uint32, of transforms and the optimizer's draws
    rates: np.ndarray | None = None  # (R,) of the optimizer's steps; None for a recipe's own


class Structure(NamedTuple):
    """Objectives that one compiled program serves.

    Attributes:
      request: the evaluation that the optimizer needs.
      judge: the system that judges finished images; it may hold more classifiers.
      goals: objectives as host arrays, leaves (O, ...).
    """

    request: Request
    judge: System
    goals: Goal

    @property
    def joint(self) -> bool:
        """Whether the runs of an objective depend on one another, as diversity has it."""
        return any(f.how == "diversity" for f in self.judge.functions)


class Problem(NamedTuple):
    """Everything that decides the runs: made by `jaxsynth.maximize.plan`.

    Attributes:
      structures: what chunks are made of; the runs of a chunk share one.
      optimizer: how codes move.
      params: of all networks, {name: params}; never donated.
      batch: the runs.
      box: the code box.
      settings: `maximize.Settings`; its recipe, batch and record are read here.
      runs, generator, classifiers: what all this was made of; every classifier judges.
      shared: which runs share a row of the batch; None where every run has its own.
      notes: a sentence on each term that was changed, by its name.
    """

    structures: tuple[Structure, ...]
    optimizer: Optimizer
    params: Mapping[str, Params]
    batch: Batch
    box: Box
    settings: Any
    runs: Sequence[Any] = ()
    generator: Any = None
    classifiers: tuple = ()
    shared: Shared | None = None
    notes: Mapping[str, str] = MappingProxyType({})

    def row_of(self, run: int) -> int:
        """Return the row of the batch that computes a run."""
        return run if self.shared is None else int(self.shared.place[run])

    def start_of(self, run: int) -> np.ndarray | None:
        """Return the code (D,) that a run was given to start from; None where its seed decides."""
        codes = self.batch.codes
        return codes[self.row_of(run)] if isinstance(codes, np.ndarray) else None

    def runs_of(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Return the runs that each of these rows of the batch computes."""
        if self.shared is None:
            return [(row,) for row in rows]
        order = np.argsort(self.shared.place, kind="stable")
        first = np.asarray(rows)
        ends = [np.searchsorted(self.shared.place, v, sorter=order) for v in (first, first + 1)]
        return [order[begin:end].tolist() for begin, end in zip(*ends, strict=True)]

    @property
    def judge(self) -> System:
        """The networks that judge finished images, without terms that are not linear."""
        return self.structures[0].judge._replace(functions=())


class Optimised(NamedTuple):
    """Runs that have made all their steps, as host arrays with a leading run axis R."""

    state: State
    trace: Trace  # leaves (R, T, ...)
    recorded: np.ndarray  # (R, k, D)


def chunk_sizes(problem: Problem, shares: int = 1) -> dict[int, int]:
    """Return the first run of every chunk on so many devices, with its number of runs.

    A chunk's runs share a structure; with diversity they are all runs of one objective.
    """
    batch, sizes = problem.batch, {}
    step = shares * max(1, problem.settings.batch // problem.optimizer.population)
    total, joint = len(batch.structure), np.array([s.joint for s in problem.structures])
    groups = np.stack([batch.structure, np.where(joint[batch.structure], batch.which, 0)])
    ends = [*np.flatnonzero((groups[:, 1:] != groups[:, :-1]).any(axis=0)) + 1, total]
    for begin, end in itertools.pairwise([0, *map(int, ends)]):
        size = end - begin if joint[batch.structure[begin]] else step
        sizes |= {first: min(size, end - first) for first in range(begin, end, size)}
    return sizes


def fewer_at_once(problem: Problem, first: int, at_once: int, error: Exception) -> int:
    """How many codes go at once where those did not fit, or the error."""
    if at_once <= problem.optimizer.population or not is_out_of_memory(error):
        raise error
    if problem.structures[problem.batch.structure[first]].joint:
        raise ValueError(
            "out of memory: diversity needs all seeds of an objective at once: give fewer seeds"
        ) from None
    return max(-(-at_once // 2), problem.optimizer.population)


def one_run(problem: Problem, run: int) -> tuple[Structure, RunData]:
    """Return a run's structure, and its data for one code, without the distance to its start."""
    batch, row = problem.batch, problem.row_of(run)
    structure = problem.structures[batch.structure[row]]
    goal = jax.tree.map(lambda leaf: jnp.asarray(leaf[batch.which[row]]), structure.goals)
    return structure, RunData(goal)


def check_record(record: Sequence[int], steps: int) -> None:
    """Raise ValueError unless every recorded step is an integer in 1..steps."""
    wrong = [s for s in record if not isinstance(s, numbers.Integral) or not 1 <= s <= steps]
    if wrong:
        raise ValueError(f"recorded steps {wrong} lie outside 1..{steps}")


def join(chunks: Sequence[ChunkResult]) -> ChunkResult:
    """Join chunks, in order, into one result."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)


def every_run(problem: Problem, computed: ChunkResult) -> ChunkResult:
    """Return the results of every run, of those of the batch."""
    if problem.shared is None:
        return computed
    place, factor = problem.shared
    found = jax.tree.map(lambda leaf: leaf[place], computed)

    def scaled(values: np.ndarray) -> np.ndarray:
        return values * factor.astype(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))

    ends = {
        name: end._replace(objective=scaled(end.objective))
        for name, end in (("last", found.last), ("best", found.best))
    }
    return found._replace(objective=scaled(found.objective), **ends)


def check_problem(problem: Problem, devices: Sequence[jax.Device]) -> None:
    """Raise ValueError for terms that these devices, or this optimizer, cannot compute."""
    for structure in problem.structures:
        if structure.joint and len(devices) > 1:
            raise ValueError("diversity compares all seeds of an objective: give one device")
        if structure.joint and problem.optimizer.population > 1:
            raise ValueError(
                f"diversity compares codes of seeds, but optimizer {problem.optimizer.name} has "
                f"{problem.optimizer.population} a seed: choose one with a single code"
            )


def with_all_functions(problem: Problem, result: ChunkResult) -> ChunkResult:
    """Fill in NaN for terms of other structures, so that chunks can be joined."""
    counts: dict[tuple[str, str], int] = {}
    for structure in problem.structures:
        keys = [(f.network, f.key) for f in structure.judge.functions]
        counts |= {key: max(counts.get(key, 0), keys.count(key)) for key in keys}

    def fill(watched, like):
        watched = {network: dict(blobs) for network, blobs in watched.items()}
        for (network, key), count in counts.items():
            blobs = watched.setdefault(network, {})
            found = blobs.get(key, np.zeros((*like.shape, 0), like.dtype))
            missing = np.full((*like.shape, count - found.shape[-1]), np.nan, like.dtype)
            blobs[key] = np.concatenate([found, missing], axis=-1)
        return watched

    ends = {
        name: end._replace(watched=fill(end.watched, end.objective))
        for name, end in (("last", result.last), ("best", result.best))
    }
    return result._replace(watched=fill(result.watched, result.objective), **ends)
