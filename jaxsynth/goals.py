"""Objectives as arrays: which numbers of which blobs count how much, for the compiled step.

A linear term is indices into a blob and coefficients, so it costs memory for the units that it
names, whatever the blob's size. Terms that are not linear are static `Function`s with weights.
Objectives of a sweep share one structure; a run that does not weigh a blob has weights 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RUNS = "runs"  # the axis of every vmap over runs, which diversity gathers along
CODE, IMAGE = "code", "image"
_SMALL = 1e-12  # keeps norms of silent layers from 0

Values = dict[str, dict[str, jax.Array]]  # {network: {blob: (M,)}} of terms, unweighted


class Picked(NamedTuple):
    """The linear terms on one blob: M terms of K entries each, leaves with a leading axis."""

    index: jax.Array  # (M, K) int32, flat into the blob (HWC)
    value: jax.Array  # (M, K), 0 where it pads
    weight: jax.Array  # (M,), 0 where it pads


class Goal(NamedTuple):
    """An objective as arrays; everything that decides its structure is static.

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
    """The data of one run in a step; optional fields are None where no objective needs them.

    Attributes:
      goal: its objective.
      seed: () uint32, which decides its transforms.
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
      network, blob: its network and blob; `generator` and its name for a Python function.
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


class NoNetwork(KeyError):
    """A network that takes no part in a run, which a function of activations reads."""


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
        """The image as classifiers see it, (H, W, 3)."""
        self.used.add(IMAGE)
        return self._image

    @property
    def code(self) -> jax.Array:
        """The code (D,)."""
        self.used.add(CODE)
        return self._code

    def __getitem__(self, model: Any) -> Mapping[str, jax.Array]:
        """Return {blob: array} of a classifier, or of its name.

        Raises:
          NoNetwork: If the run has no such classifier.
        """
        name = model if isinstance(model, str) else getattr(model, "role", model)
        if name not in self._activations:
            raise NoNetwork(model)
        self.used.add(f"network {name}")
        return self._activations[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the networks' names."""
        return iter(self._activations)

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self._activations)


def _terms_of(blob: jax.Array, picked: Picked) -> jax.Array:
    entries = blob.ravel().at[picked.index].get(mode="promise_in_bounds")
    return jnp.sum(picked.value * entries, axis=-1)


def weigh_part(
    functions: Sequence[Function], part: str, run: RunData, acts: Acts
) -> tuple[jax.Array, Values]:
    """Return the weighed sum of all terms of a part, and their values.

    A part is a network, or a function of several. `acts` has the activations that its terms need.
    """
    linear = run.goal.linear.get(part, {})
    values = {blob: _terms_of(acts[part][blob], picked) for blob, picked in linear.items()}
    total = sum(jnp.vdot(picked.weight, values[blob]) for blob, picked in linear.items())
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
