"""Networks by role and terms by index, as 0.1 had them, turned into models and objectives.

For callers that have not moved to `jaxsynth.maximize` yet.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsynth import objectives
from jaxsynth import problem as maximize
from jaxsynth.ascent import ChunkResult as Results
from jaxsynth.chunks import Problem as Plan
from jaxsynth.chunks import execute, join
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.network import Network, is_generator, logits_blob
from jaxsynth.models.registry import to_model
from jaxsynth.objectives import MEASURES, Objective
from jaxsynth.problem import PRECISIONS
from jaxsynth.problem import Settings as Sweep
from jaxsynth.system import ENCODER, GENERATOR
from jaxsynth.terms import Term

__all__ = ["PRECISIONS", "Plan", "Results", "Run", "Sweep", "execute", "plan", "synthesize"]
NSFW, PLACES = "nsfw", "places"  # roles of the two classifiers, as terms and flags call them
NSFW_UNIT = 1  # of open_nsfw's two: 0 is SFW


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: a seed and a weighting. `row` and `column` are its place on the contact sheet.

    `origin` says what its start code was the final code of, FOLDER:RUN, if it goes on.
    """

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


def plan(
    networks: Mapping[str, Network],
    runs: Sequence[Run],
    settings: Sweep,
    start: np.ndarray | None = None,
) -> Plan:
    """`maximize.plan` of networks and terms."""
    check_roles(networks)
    made = models(networks)
    given: dict[tuple[Term, ...], Objective] = {}
    new = []
    for run in runs:
        if run.terms not in given:
            given[run.terms] = objective_of(run.terms, made)
        new.append(maximize.Run(run.seed, given[run.terms], run.row, run.column, run.origin))
    classifiers = [m for role, m in made.items() if role not in (GENERATOR, ENCODER)]
    return maximize.plan(
        new, made[GENERATOR], classifiers, settings, start=start, encoder=made.get(ENCODER)
    )


def synthesize(
    networks: Mapping[str, Network],
    runs: Sequence[Run],
    settings: Sweep,
    start: np.ndarray | None = None,
) -> Results:
    """All runs, computed at once."""
    return join(list(execute(plan(networks, runs, settings, start))))


def check_roles(networks: Mapping[str, Network]) -> None:
    """Raises ValueError where a network stands in a role that it cannot fill.

    Class 1 of `nsfw` is reported as P(NSFW), so it must be of the two classes SFW and NSFW.
    """
    for role, network in networks.items():
        if is_generator(network.info.config) != (role == GENERATOR):
            kind = "a generator" if role == GENERATOR else "a classifier"
            raise ValueError(f"network {network.name!r} stands for {role!r}: expected {kind}")
    if NSFW in networks:
        network = networks[NSFW]
        if network.labels != ("SFW", "NSFW"):
            raise ValueError(
                f"network {network.name!r} stands for {NSFW!r}, but its classes are not SFW and "
                "NSFW: expected open_nsfw or a port of it"
            )


def watched_blobs(classifiers: Mapping[str, Network]) -> list[tuple[str, str]]:
    """What is recorded of every classifier whatever the objective: its logits and probabilities."""
    return [
        (role, blob)
        for role, network in classifiers.items()
        for blob in (logits_blob(network.info.config), "prob")
    ]


def encode(encoder: Network, generator: Network, image: np.ndarray) -> np.ndarray:
    """The code (D,) of an image (H, W, 3) in the encoder's units and of its size."""
    return maximize.encode(to_model(encoder), to_model(generator), image)
