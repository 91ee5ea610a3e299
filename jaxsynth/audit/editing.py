"""Edits of a classifier's maps where its later layers read them, of any function of JAX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxsynth.models.base import Classifier, Params

Edits = Mapping[str, tuple[Any, Any]]  # blob -> factor (C,), added (C,)


class Edited:
    """A classifier's function whose maps can be edited, traced once.

    Attributes:
      maps: The blobs (H, W, C) that later layers read, with their shapes, in the order of layers.
    """

    def __init__(self, model: Classifier, params: Params):
        """Trace it for one input; `params` are its own, or prepared."""
        x = jax.ShapeDtypeStruct((model.size, model.size, 3), jnp.float32)
        self._closed, shapes = jax.make_jaxpr(model.activations, return_shape=True)(params, x)
        names, self._tree = sorted(shapes), jax.tree.structure(shapes)
        outs = dict(zip(names, self._closed.jaxpr.outvars, strict=True))
        read = {id(v) for eqn in self._closed.jaxpr.eqns for v in eqn.invars}
        self._places = {id(v): name for name, v in outs.items() if id(v) in read}
        made = [self._places.get(id(v)) for eqn in self._closed.jaxpr.eqns for v in eqn.outvars]
        self.maps = {name: shapes[name].shape for name in made if name}
        self.maps = {name: shape for name, shape in self.maps.items() if len(shape) == 3}

    def __call__(self, edits: Edits, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        """Compute all blobs of one input, those of `edits` multiplied and added to by channel."""
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

    def deepest(self, most: int = 4) -> tuple[str, ...]:
        """Name the last map of each resolution, of the lowest above 1; the deepest comes last."""
        places = {n: shape[0] for n, shape in self.maps.items() if shape[0] > 1}  # no averages
        last = {side: n for n, side in places.items() if not n.endswith("_pre")}
        return tuple(last[side] for side in sorted(last)[:most][::-1])
