"""First weights, drawn by numpy: XLA takes 20 s of CPU to compile flax's initialisers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util


def initial_variables(module: nn.Module, seed: int, *inputs: Any) -> dict[str, Any]:
    """The module's variables for inputs of these shapes, or lists of shapes.

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
