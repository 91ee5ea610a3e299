"""What every training starts from: devices, precision, first weights.

Several devices split each batch: weights are replicated over a mesh of one axis, and jit adds the
sums that this takes. Activations are float32 on CPU, bfloat16 on accelerators. First weights are
drawn by numpy: XLA takes 20 s of CPU to compile flax's initialisers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxsynth.devices import on_all, runs_mesh, split

ACTIVATIONS = ("float32", "bfloat16")


class Placement(NamedTuple):
    """How to put a batch (leading axis split) and a state (replicated) onto the devices."""

    batch: Callable[[np.ndarray], jax.Array]
    state: Callable[[Any], Any]


def place_on(devices: list[jax.Device], batch: int) -> Placement:
    """Place a batch of this size over devices.

    Raises:
      ValueError: if a batch of this size does not split evenly.
    """
    if batch % len(devices):
        raise ValueError(
            f"a batch of {batch} images does not split over {len(devices)} devices: give a "
            "multiple of that"
        )
    mesh = runs_mesh(devices)
    return Placement(partial(split, mesh), partial(on_all, mesh))


def default_activations() -> str:
    """Return what trains fastest here: bfloat16 on an accelerator."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def cast(tree: Any, activations: str) -> Any:
    """Cast a tree's float32 leaves to the activations' precision; gradients flow back through.

    Weights are stored in float32 and cast where they are used.
    """
    return jax.tree.map(
        lambda leaf: leaf.astype(activations) if leaf.dtype == jnp.float32 else leaf, tree
    )


def initial_variables(module: nn.Module, seed: int, *inputs: Any) -> dict[str, Any]:
    """Draw the module's variables for inputs of these shapes, or lists of shapes.

    Kernels are N(0, 1 / fan-in) (LeCun et al. 1998), spectral normalisation's vectors N(0, 1);
    scales, variances and sigmas are 1, everything else 0.
    """
    x = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        inputs,
        is_leaf=lambda shape: isinstance(shape, tuple) and isinstance(shape[0], int),
    )
    shapes = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *x))
    rng = np.random.default_rng(seed)
    return traverse_util.unflatten_dict(
        {path: jnp.asarray(_draw(rng, path[-1], leaf.shape)) for path, leaf in shapes.items()}
    )


def _draw(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = kind.rpartition("/")[-1]  # spectral normalisation's are called `conv0/kernel/u`
    if kind == "u":
        return rng.normal(size=shape).astype(np.float32)
    if kind == "kernel":
        fan_in = np.prod(shape[:-1])
        return rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
    return np.full(shape, float(kind in ("scale", "var", "sigma")), np.float32)
