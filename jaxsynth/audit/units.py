"""Hidden units: the channels whose removal changes a decision most.

A channel is removed by holding it at its mean over all pictures and places. Gradients rank all
channels of several blobs at once, to first order; those that come first are removed in earnest.
Sources: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient
inference" (the first-order estimate); Bau et al. 2020, "Understanding the role of individual units
in a deep neural network" (removal of units).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxsynth.audit.subjects import DECISION, Subject
from jaxsynth.devices import batches
from jaxsynth.models.cpu_convolution import network_jit

_BATCH = 8
Edits = Mapping[str, tuple[jax.Array, jax.Array]]  # blob -> factor (C,), added (C,)


class Unit(NamedTuple):
    """A channel and what its removal does.

    Attributes:
      blob, channel: Which one.
      change: (N,) of the decision on each picture when it is removed.
      estimate: The mean size of that change to first order.
      response: (N,) its mean over places.
    """

    blob: str
    channel: int
    change: np.ndarray
    estimate: float
    response: np.ndarray


class _Edited:
    """A classifier's function whose blobs can be edited where later layers read them."""

    def __init__(self, activations: Any, params: Any, x: jax.Array | jax.ShapeDtypeStruct):
        """Trace it for one input."""
        self._closed, shapes = jax.make_jaxpr(activations, return_shape=True)(params, x)
        names, self._tree = sorted(shapes), jax.tree.structure(shapes)
        outs = dict(zip(names, self._closed.jaxpr.outvars, strict=True))
        read = {id(v) for eqn in self._closed.jaxpr.eqns for v in eqn.invars}
        self._places = {id(v): name for name, v in outs.items() if id(v) in read}
        self.editable = set(self._places.values())

    def __call__(self, edits: Edits, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        """Compute all blobs with those of `edits` multiplied and added to, channel by channel."""
        jaxpr, values = self._closed.jaxpr, {}

        def read(v: Any) -> Any:
            return v.val if isinstance(v, core.Literal) else values[id(v)]

        given = jax.tree.leaves((params, x))
        for v, value in zip(jaxpr.constvars, self._closed.consts, strict=True):
            values[id(v)] = value
        for v, value in zip(jaxpr.invars, given, strict=True):
            values[id(v)] = value
        for eqn in jaxpr.eqns:
            named = eqn.primitive.get_bind_params(eqn.params)
            functions, named = named if isinstance(named, tuple) else ((), named)  # before jax 0.10
            out = eqn.primitive.bind(*functions, *map(read, eqn.invars), **named)
            out = out if eqn.primitive.multiple_results else [out]
            for v, value in zip(eqn.outvars, out, strict=True):
                name = self._places.get(id(v), "")
                if name in edits:
                    factor, added = edits[name]
                    value = value * factor + added
                values[id(v)] = value
        return jax.tree.unflatten(self._tree, map(read, jaxpr.outvars))


def chosen_blobs(subject: Subject, most: int = 4) -> list[str]:
    """Name the last map of each resolution that later layers read, of the deepest ones."""
    model = subject.model
    x = jax.ShapeDtypeStruct((model.size, model.size, 3), jnp.float32)
    editable = _Edited(model.activations, model.params, x).editable
    last = {
        shape[0]: blob
        for blob, shape in model.shapes.items()
        if len(shape) == 3 and blob in editable and not blob.endswith("_pre")
    }
    return list(last.values())[-most:]


def important_units(subject: Subject, inputs: np.ndarray, count: int) -> list[Unit]:
    """Find the channels whose removal changes the decision most, on average over inputs.

    Args:
      subject: The classifier.
      inputs: (N, size, size, 3) in its units.
      count: How many to find.
    """
    blobs, model = tuple(chosen_blobs(subject)), subject.model
    if not blobs:
        return []
    static = model.activations, blobs
    parts = []
    for x, n in batches(inputs, _BATCH):
        found = _sensitivity(static, model.params, x)
        parts.append(jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], found))
    decision, mean, by_factor, by_sum = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *some)
        for some in zip(*parts, strict=True)
    )
    middle = {blob: mean[blob].mean(0) for blob in blobs}
    effect = {b: np.abs(by_factor[b] - middle[b] * by_sum[b]).mean(0) for b in blobs}
    ranked = sorted(
        ((float(effect[b][c]), b, c) for b in blobs for c in range(len(effect[b]))), reverse=True
    )
    none = {
        b: (jnp.ones(len(m), jnp.float32), jnp.zeros(len(m), jnp.float32))
        for b, m in middle.items()
    }
    found = []
    for estimate, blob, channel in ranked[:count]:
        factor, added = none[blob]
        removed = factor.at[channel].set(0), added.at[channel].set(middle[blob][channel])
        edits = none | {blob: removed}  # all blobs, so that one program serves
        without = np.concatenate(
            [np.asarray(_removed(static, model.params, edits, x))[:n]
             for x, n in batches(inputs, _BATCH)]
        )  # fmt: skip
        change = without - decision
        found.append(Unit(blob, channel, change, estimate, mean[blob][:, channel]))
    return sorted(found, key=lambda unit: -float(np.abs(unit.change).mean()))


def _edited(static: tuple, edits: Edits, params: Any, x: jax.Array) -> dict[str, jax.Array]:
    return _Edited(static[0], params, x)(edits, params, x)


@partial(network_jit, static_argnums=0)
def _sensitivity(static: tuple, params: Any, x: jax.Array):
    """(B, H, W, 3) -> decisions, and of each blob its means and gradients by factor and sum."""

    def one(image: jax.Array):
        shapes = jax.eval_shape(static[0], params, image)
        edits = {
            b: (jnp.ones(shapes[b].shape[-1]), jnp.zeros(shapes[b].shape[-1])) for b in static[1]
        }

        def decision(edits: Edits):
            out = _edited(static, edits, params, image)
            return out[DECISION][0], {b: out[b].mean((0, 1)) for b in static[1]}

        (value, means), slopes = jax.value_and_grad(decision, has_aux=True)(edits)
        return value, means, *({b: slopes[b][i] for b in static[1]} for i in (0, 1))

    return jax.vmap(one)(x)


@partial(network_jit, static_argnums=0)
def _removed(static: tuple, params: Any, edits: Any, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda image: _edited(static, edits, params, image)[DECISION][0])(x)


def names_of(units: Sequence[Unit]) -> list[str]:
    """Name units, `conv5 12`."""
    return [f"{unit.blob} {unit.channel}" for unit in units]
