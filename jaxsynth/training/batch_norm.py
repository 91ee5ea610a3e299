"""Batch norm into plain weights: what a trained judge is shipped as.

y = (Wx + b - m) / s * g + c with s = sqrt(v + eps) is the plain layer W g / s, (b - m) g / s + c.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

NORM_EPSILON = 1e-5
INPUT_SCALE = 64.0  # while training, the first layer sees grey levels in units of this


def fold_batch_norm(params: Any, batch_stats: Any, first: str) -> dict[str, jax.Array]:
    """The plain network's flat parameters that compute the same function of raw inputs.

    Args:
      params, batch_stats: trees in which layer `x` has its batch norm as `x_bn`.
      first: name of the layer that sees the image; the input scale goes into it.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    stats = traverse_util.flatten_dict(batch_stats, sep="/")
    out = {path: value for path, value in flat.items() if "_bn/" not in path}
    for path in [p for p in flat if p.endswith("_bn/scale")]:
        name = path.removesuffix("_bn/scale")
        factor = flat[path] / jnp.sqrt(stats[f"{name}_bn/var"] + NORM_EPSILON)
        out[f"{name}/kernel"] = out[f"{name}/kernel"] * factor
        shifted = (out[f"{name}/bias"] - stats[f"{name}_bn/mean"]) * factor
        out[f"{name}/bias"] = shifted + flat[f"{name}_bn/bias"]
    out[f"{first}/kernel"] = out[f"{first}/kernel"] / INPUT_SCALE
    return out
