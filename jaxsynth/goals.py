"""Objectives as arrays: which numbers of which blobs count how much, for the compiled step.

A linear term is indices into a blob and coefficients, so it costs memory for the units that it
names, whatever the blob's size. Terms that are not linear are static `Function`s with weights.
Objectives of a sweep share one structure; a run that does not weigh a blob has weights 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.system import GENERATOR

if TYPE_CHECKING:
    from jaxsynth.objectives import Objective, Term

RUNS = "runs"  # the axis of every vmap over runs, which diversity gathers along
CODE, IMAGE = "code", "image"
_SMALL = 1e-12  # keeps norms of silent layers from 0

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]  # {network: {blob: shape}}
Values = dict[str, dict[str, jax.Array]]  # {network: {blob: (M,)}} of terms, unweighted


class Picked(NamedTuple):
    """The linear terms on one blob: M terms of K entries each, leaves with a leading axis."""

    index: jax.Array  # (M, K) int32, flat into the blob (HWC)
    value: jax.Array  # (M, K), 0 where it pads
    weight: jax.Array  # (M,), 0 where it pads


class Goal(NamedTuple):
    """An objective as arrays; what its structure depends on is static.

    Attributes:
      linear: network -> blob -> its linear terms.
      weights: () per function, in the order of `System.functions`.
      recorded: (N,) activations that `match` and `cosine` compare with, (0,) of other functions.
      strength: () per part of the gradient, which is a network or a function of several: the sum of
        its weights' absolute values.
    """

    linear: dict[str, dict[str, Picked]]
    weights: tuple[jax.Array, ...]
    recorded: tuple[jax.Array, ...]
    strength: dict[str, jax.Array]


class RunData(NamedTuple):
    """What a step needs of one run; optional fields are None where nothing asks for them.

    Attributes:
      goal: its objective.
      seed: () uint32, which decides its jitter.
      start: its start code (D,), for the distance to it.
      start_image: the image (H, W, 3) of its start code.
      group: () int32, runs that diversity pushes apart; -1 for rows that do not count.
    """

    goal: Goal
    seed: jax.Array | None = None
    start: jax.Array | None = None
    start_image: jax.Array | None = None
    group: jax.Array | None = None


class Function(NamedTuple):
    """A term that is not linear; static.

    Attributes:
      how: `match`, `cosine`, `square`, `diversity` or `function`.
      network, blob: what it is of; `generator` and its name for a Python function.
      function: the Python function, of `Acts`.
      part: the part of the gradient that it belongs to: a network, or its own where it reads
        several classifiers.
      reads: the classifiers that it reads.
    """

    how: str
    network: str
    blob: str
    function: Callable[[Acts], jax.Array] | None
    part: str
    reads: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name among the recorded blobs of its network."""
        return f"{self.how}:{self.blob}"


class Acts(Mapping):
    """Activations as a Python function sees them: by classifier, or its name, then by blob.

    `image` is in the generator's units.
    """

    def __init__(self, activations: Mapping[str, Mapping[str, jax.Array]], image, code):
        """Wrap {network: {blob: array}}, image and code."""
        self._activations, self._image, self._code = activations, image, code
        self.used: set[str] = set()

    @property
    def image(self) -> jax.Array:
        """What the classifiers see, (H, W, 3)."""
        self.used.add(IMAGE)
        return self._image

    @property
    def code(self) -> jax.Array:
        """The code (D,)."""
        self.used.add(CODE)
        return self._code

    def __getitem__(self, model: Any) -> Mapping[str, jax.Array]:
        """Return {blob: array} of a classifier, or of its name."""
        name = model if isinstance(model, str) else getattr(model, "role", model)
        if name not in self._activations:
            raise KeyError(f"{name!r} is none of {', '.join(self._activations)}")
        self.used.add(f"network {name}")
        return self._activations[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the networks' names."""
        return iter(self._activations)

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self._activations)


# --- on the device --------------------------------------------------------------------------------


def weigh(
    activations: Mapping[str, jax.Array], blobs: Mapping[str, Picked]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the weighed sum of a network's linear terms, and their own values {blob: (M,)}."""
    values = {blob: _terms_of(activations[blob], picked) for blob, picked in blobs.items()}
    return sum(jnp.vdot(p.weight, values[blob]) for blob, p in blobs.items()), values


def _terms_of(blob: jax.Array, picked: Picked) -> jax.Array:
    entries = blob.ravel().at[picked.index].get(mode="promise_in_bounds")
    return jnp.sum(picked.value * entries, axis=-1)


def weigh_part(
    functions: Sequence[Function], part: str, run: RunData, acts: Acts
) -> tuple[jax.Array, Values]:
    """Return the weighed sum of all terms of a part, and their values.

    Args:
      functions: Those of the system.
      part: A network, or the part of a function of several.
      run: Its objective.
      acts: The activations that the part's terms need.
    """
    linear = run.goal.linear.get(part, {})
    total, values = weigh(acts[part], linear) if linear else (0, {})
    found: Values = {part: values} if values else {}
    for i, f in enumerate(functions):
        if f.part == part:
            value = _function_value(f, acts, run.goal.recorded[i], run)
            total = total + run.goal.weights[i] * value
            blobs = found.setdefault(f.network, {})
            blobs[f.key] = jnp.append(blobs[f.key], value) if f.key in blobs else value[None]
    return total, found


def _function_value(f: Function, acts: Acts, recorded: jax.Array, run: RunData) -> jax.Array:
    """The value of a term that is not linear, unweighted, ()."""
    if f.how == "function":
        return jnp.asarray(f.function(acts), run_dtype(run)).reshape(())
    blob = acts[f.network][f.blob].astype(run_dtype(run))
    if f.how == "match":
        return -jnp.mean((blob.ravel() - recorded) ** 2)
    if f.how == "cosine":
        norms = (jnp.sum(blob * blob) + _SMALL) * (jnp.sum(recorded * recorded) + _SMALL)
        return jnp.vdot(blob.ravel(), recorded) / jnp.sqrt(norms)
    if f.how == "square":
        return jnp.mean(blob * blob)
    return diversity_value(blob, run.group)


def run_dtype(run: RunData) -> np.dtype:
    """Return the precision of a run's objective."""
    return jax.tree.leaves(run.goal.strength)[0].dtype


def diversity_value(blob: jax.Array, group: jax.Array) -> jax.Array:
    """Return minus the mean cosine of a blob to those of the other runs of its group, ().

    Inside a vmap over runs with the axis `RUNS`; the only place where a run depends on others. The
    others are constants, so its gradient is half that of the sum over all pairs. Spatial blobs
    (H, W, C) are compared by their Gram matrices of channels, vectors as they are.
    """
    if blob.ndim > 1:
        flat = blob.reshape(-1, blob.shape[-1])
        blob = (flat.T @ flat).ravel()
    unit = blob / jnp.sqrt(jnp.sum(blob * blob) + _SMALL)
    units = jax.lax.stop_gradient(jax.lax.all_gather(unit, RUNS))
    groups = jax.lax.all_gather(group, RUNS)
    others = (groups == group) & (groups >= 0)
    others &= jnp.arange(groups.size) != jax.lax.axis_index(RUNS)
    return -jnp.where(others, units @ unit, 0).sum() / jnp.maximum(others.sum(), 1)


# --- on the host ----------------------------------------------------------------------------------


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
        value = jnp.asarray(term.function(acts))
        used.update(acts.used)
        return value

    def like(shape):
        return jax.ShapeDtypeStruct(tuple(shape), jnp.float32)

    given = {name: {b: like(s) for b, s in blobs.items()} for name, blobs in shapes.items()}
    try:
        value = jax.eval_shape(call, given, like(shapes[GENERATOR][image]), like((code_size,)))
    except Exception as error:
        raise ValueError(
            f"objective function {term.blob} cannot be evaluated: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        ) from error
    if value.size != 1:
        raise ValueError(f"objective function {term.blob} gives {value.shape}, expected a scalar")
    return used


class Layout(NamedTuple):
    """How many linear terms, and entries of each, the objectives of a sweep have on every blob."""

    sizes: dict[str, dict[str, tuple[int, int]]]  # network -> blob -> (M, K)


def make_layout(objectives: Sequence[Objective]) -> Layout:
    """Return the layout that holds all these objectives; K is rounded up to a power of two."""
    sizes: dict[str, dict[str, tuple[int, int]]] = {}
    for objective in objectives:
        for (network, blob), terms in _by_blob(objective).items():
            most, entries = sizes.setdefault(network, {}).get(blob, (0, 1))
            longest = max(len(t.index) for t in terms)
            entries = max(entries, 1 << math.ceil(math.log2(max(1, longest))))
            sizes[network][blob] = max(most, len(terms)), entries
    return Layout(sizes)


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
        for network, blobs in layout.sizes.items()
    }
    parts = dict.fromkeys([*layout.sizes, *(f.part for f in functions)] or [GENERATOR])
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
