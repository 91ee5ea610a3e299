"""Objectives made arrays, and their functions checked, on the host: see `jaxsynth.goals`.

Runs that must be equal are computed once, and the others are copies. Under normalised steps only
the ratio of an objective's weights counts; from one start code seeds count only where something is
drawn.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.goals import CODE, Acts, Function, Goal, NoNetwork, Picked
from jaxsynth.inputs import described, near, reason
from jaxsynth.system import GENERATOR
from jaxsynth.terms import Objective, Term

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # {network: {blob: shape}}
_FEW = 8  # blobs that an error names
_FAR = 1e12  # ratio of weights above which none is divided by another
# network -> blob -> how many linear terms objectives have there, and entries of each, (M, K)
Layout = dict[str, dict[str, tuple[int, int]]]


def make_function(term: Term, shapes: Shapes, image: str, code_size: int) -> Function:
    """Make the static part of a term that is not linear; `image` is the generator's image blob.

    ValueError if a Python function cannot be evaluated, gives no scalar, or reads the code or the
    generator's blobs together with classifiers.
    """
    if term.how != "function":
        return Function(term.how, term.network, term.blob, None, term.network, (term.network,))
    used = _used_by(term, shapes, image, code_size)
    networks = sorted(u.removeprefix("network ") for u in used if u.startswith("network "))
    classifiers = [name for name in networks if name != GENERATOR]
    if classifiers and (CODE in used or GENERATOR in networks):
        raise ValueError(
            f"objective function {term.blob} reads {', '.join(classifiers)} and the code or blobs "
            "of the generator: split it into one function of each"
        )
    part = classifiers[0] if len(classifiers) == 1 else GENERATOR
    part = f"function {'+'.join(classifiers)}" if len(classifiers) > 1 else part
    return Function("function", GENERATOR, term.blob, term.function, part, tuple(classifiers))


def _used_by(term: Term, shapes: Shapes, image: str, code_size: int) -> set[str]:
    used: set[str] = set()

    def call(activations, pixels, code):
        acts = Acts(activations, pixels, code)
        acts.used = used
        return jnp.asarray(term.function(acts))

    def like(shape):
        return jax.ShapeDtypeStruct(tuple(shape), jnp.float32)

    given = {name: {b: like(s) for b, s in blobs.items()} for name, blobs in shapes.items()}
    try:
        value = jax.eval_shape(call, given, like(shapes[GENERATOR][image]), like((code_size,)))
    except Exception as error:  # a user's function can raise anything
        said = reason(error)
        said = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
        read = [name for name in shapes if f"network {name}" in used]
        if isinstance(error, NoNetwork):
            said = _no_network(error.args[0], shapes)
        elif isinstance(error, KeyError) and error.args and read:
            said = _no_blob(str(error.args[0]), read[-1], shapes[read[-1]])
        raise ValueError(f"objective function {term.blob} cannot be evaluated: {said}") from error
    if value.size != 1:
        raise ValueError(f"objective function {term.blob} gives {value.shape}, expected a scalar")
    return used


def _no_network(model: Any, known: Mapping[str, Any]) -> str:
    """Say that a run has no such network, with the near ones, or how to add it."""
    name = getattr(model, "role", model)
    way = f": give the run classifiers=[{name if isinstance(name, str) else 'mine'}]"
    hint = near(model, known) if isinstance(model, str) else ""
    return f"{described(name)} is none of {', '.join(sorted(known))}{hint or way}"


def _no_blob(blob: str, network: str, known: Mapping[str, Any]) -> str:
    """Say that a network has no such blob, with the near ones, or the last."""
    hint = near(blob, known) or f"; it has {', '.join(list(known)[-_FEW:])}"
    return f"{blob!r} is no blob of {network}{hint}"


def make_layout(objectives: Sequence[Objective]) -> Layout:
    """Return the layout that holds all these objectives; K is rounded up to a power of two."""
    sizes: Layout = {}
    for objective in objectives:
        for (network, blob), terms in _by_blob(objective).items():
            most, entries = sizes.setdefault(network, {}).get(blob, (0, 1))
            longest = max(len(t.index) for t in terms)
            entries = max(entries, 1 << math.ceil(math.log2(max(1, longest))))
            sizes[network][blob] = max(most, len(terms)), entries
    return sizes


def make_goals(
    objectives: Sequence[Objective], functions: Sequence[Function], layout: Layout, dtype: Any
) -> Goal:
    """Turn objectives of one structure into host arrays with a leading axis O.

    They have exactly these functions, in this order, and any linear terms. The layout is of all
    objectives of the sweep.
    """
    count = len(objectives)
    linear = {
        network: {
            blob: Picked(
                np.zeros((count, m, k), np.int32),
                np.zeros((count, m, k), dtype),
                np.zeros((count, m), dtype),
            )
            for blob, (m, k) in blobs.items()
        }
        for network, blobs in layout.items()
    }
    parts = dict.fromkeys([*layout, *(f.part for f in functions)] or [GENERATOR])
    strength = {part: np.zeros(count, dtype) for part in parts}
    bent = [[t for t in objective.terms if t.how != "linear"] for objective in objectives]
    for row, objective in enumerate(objectives):
        for (network, blob), terms in _by_blob(objective).items():
            picked = linear[network][blob]
            for place, term in enumerate(terms):
                size = len(term.index)
                picked.index[row, place, :size] = term.index
                picked.index[row, place, size:] = term.index[-1] if size else 0
                picked.value[row, place, :size] = term.value
                picked.weight[row, place] = term.weight
            strength[network][row] += _strength(terms)
        for f, term in zip(functions, bent[row], strict=True):
            strength[f.part][row] += abs(term.weight)
    weights = tuple(
        np.array([terms[i].weight for terms in bent], dtype) for i in range(len(functions))
    )
    recorded = tuple(
        np.array([terms[i].value for terms in bent], dtype).reshape(count, -1)
        for i in range(len(functions))
    )
    return Goal(linear, weights, recorded, strength)


def _by_blob(objective: Objective) -> dict[tuple[str, str], list[Term]]:
    """The linear terms of an objective by network and blob, in order."""
    found: dict[tuple[str, str], list[Term]] = {}
    for term in objective.terms:
        if term.how == "linear":
            found.setdefault((term.network, term.blob), []).append(term)
    return found


def _strength(terms: Sequence[Term]) -> float:
    """The sum of |weights|, equal terms added up first."""
    merged: dict[tuple[bytes, bytes], float] = {}
    for term in terms:
        key = term.index.tobytes(), term.value.tobytes()
        merged[key] = merged.get(key, 0.0) + term.weight
    return sum(map(abs, merged.values()))


# --- runs that are one computation ----------------------------------------------------------------


class Shared(NamedTuple):
    """Which runs are one computation: under normalised steps, multiples of an objective.

    Attributes:
      place: (R,) of every run in the batch.
      factor: (R,) from the objective that is computed to the run's own.
    """

    place: np.ndarray
    factor: np.ndarray

    @property
    def row_factor(self) -> np.ndarray:
        """Of every row of the batch, the factor of the first run that it computes."""
        return self.factor[np.unique(self.place, return_index=True)[1]]

    @property
    def equals(self) -> dict[int, int]:
        """Every run that is a copy, with the first run that it equals."""
        first = np.unique(self.place, return_index=True)[1][self.place]
        return {i: int(j) for i, j in enumerate(first) if i != j}


def without_scale(objective: Objective) -> tuple[Objective, float]:
    """Scale an objective so that its first weight is 1 or -1; positive multiples become equal.

    Returns:
      The objective, and the factor that gives it back.
    """
    sizes = [abs(term.weight) for term in objective.terms if term.weight] or [1.0]
    if max(sizes) > _FAR * min(sizes):
        return objective, 1.0
    factor = sizes[0]
    weights = (float(f"{term.weight / factor:.15g}") for term in objective.terms)
    pairs = zip(objective.terms, weights, strict=True)
    return Objective(tuple(dataclasses.replace(t, weight=w) for t, w in pairs)), factor


def distinct(
    runs: Sequence[Any], scale_free: bool
) -> tuple[list[Objective], np.ndarray, np.ndarray]:
    """Find the objectives that are computed, and of each run which one and its factor, (R,).

    Where steps are normalised, positive multiples are one objective. It is computed with a first
    weight that is a power of two, which changes no bits: a run does not depend on the others.
    """
    seen: dict[int, tuple[int, float]] = {}  # by identity: many seeds share one object
    places: dict[Objective, int] = {}
    found: list[tuple[Objective, float]] = []
    which, factor = np.zeros(len(runs), np.int32), np.ones(len(runs))
    for i, run in enumerate(runs):
        objective = run.objective
        if id(objective) not in seen:
            bare, own = without_scale(objective) if scale_free else (objective, 1.0)
            place = places.setdefault(bare, len(found))
            if place == len(found):
                power = 2.0 ** (math.frexp(own)[1] - 1)  # at most `own`, more than half of it
                found.append((bare if power == 1.0 else bare * power, power))
            seen[id(objective)] = place, own / found[place][1]
        which[i], factor[i] = seen[id(objective)]
    return [objective for objective, _ in found], which, factor


def places_of(
    which: np.ndarray, seeds: np.ndarray, start: np.ndarray | None, alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the row of the batch that computes each run (R,), and the first run of each row.

    Runs of one objective, seed and start code are one row, unless they are `alone`.
    """
    count = len(which)
    if alone or (start is None and len(set(seeds.tolist())) == count):
        return np.arange(count), np.arange(count)
    codes = np.zeros(count, np.int64)
    if start is not None:
        codes = np.unique(start, axis=0, return_inverse=True)[1].reshape(-1)
    rows: dict[tuple[int, int, int], int] = {}
    keys = zip(which.tolist(), seeds.tolist(), codes.tolist(), strict=True)
    place = np.array([rows.setdefault(key, len(rows)) for key in keys])
    return place, np.unique(place, return_index=True)[1]
