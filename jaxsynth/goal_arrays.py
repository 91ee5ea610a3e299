"""Objectives made arrays, and their functions checked, on the host: see `jaxsynth.goals`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.goals import CODE, Acts, Function, Goal, NoNetwork, Picked
from jaxsynth.inputs import described, near
from jaxsynth.system import GENERATOR
from jaxsynth.terms import Objective, Term

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # {network: {blob: shape}}
_FEW = 8  # blobs that an error names
# network -> blob -> how many linear terms objectives have there, and entries of each, (M, K)
Layout = dict[str, dict[str, tuple[int, int]]]


def make_function(term: Term, shapes: Shapes, image: str, code_size: int) -> Function:
    """Make the static part of a term that is not linear.

    Args:
      term: Of any kind but linear.
      shapes: Of all networks' blobs.
      image: The generator's blob that is the image.
      code_size: Units of a code.

    Raises:
      ValueError: If a Python function cannot be evaluated, gives no scalar, or reads the code or
        the generator's blobs together with classifiers.
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
        said = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
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

    Args:
      objectives: With exactly these functions, in this order, and any linear terms.
      functions: The terms that are not linear.
      layout: Of all objectives of the sweep.
      dtype: Of weights and values.
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
