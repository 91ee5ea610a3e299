"""Batch norm into plain weights, and back: what a trained scene network is shipped as, and how
shipped weights become the start of further training.

y = (Wx + b - m) / s * g + c with s = sqrt(v + eps) is the plain layer W g / s, (b - m) g / s + c.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def unfold_batch_norm(
    params: Mapping[str, jax.Array],
    outputs: Callable[[jax.Array], Mapping[str, jax.Array]],
    inputs: Iterable[jax.Array],
    normed: Sequence[str],
) -> tuple[Any, Any]:
    """Inverse of `fold_batch_norm`: trees (params, batch_stats) of the same function.

    Each layer's batch norm takes the statistics of its outputs over `inputs` and puts them back.
    Kernels get the size of fresh ones (variance 1 / fan-in), so that a step size means the same.

    Args:
      params: flat parameters of the plain network.
      outputs: x (B, H, W, 3) -> the normed layers' outputs `{name}_pre`, (B, ..., C).
      inputs: batches of raw inputs, one at least.
      normed: the layers that have batch norm in training; the first one sees the image.
    """
    out = dict(params)
    out[f"{normed[0]}/kernel"] = params[f"{normed[0]}/kernel"] * INPUT_SCALE
    stats: dict[str, jax.Array] = {}
    moments = [_moments(outputs(x)) for x in inputs]
    for name in normed:
        mean = jnp.stack([m[name][0] for m in moments]).mean(0)
        var = jnp.stack([m[name][1] for m in moments]).mean(0) - mean**2
        kernel = out[f"{name}/kernel"]
        size = jnp.sqrt(kernel[..., 0].size * jnp.mean(kernel**2))
        out[f"{name}/kernel"], out[f"{name}/bias"] = kernel / size, params[f"{name}/bias"] / size
        out[f"{name}_bn/scale"], out[f"{name}_bn/bias"] = jnp.sqrt(var + NORM_EPSILON), mean
        stats[f"{name}_bn/mean"], stats[f"{name}_bn/var"] = mean / size, var / size**2
    return tuple(traverse_util.unflatten_dict(tree, sep="/") for tree in (out, stats))


@jax.jit
def _moments(outputs: Mapping[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Name -> mean and mean square of each channel."""
    rows = {k.removesuffix("_pre"): v.reshape(-1, v.shape[-1]) for k, v in outputs.items()}
    return {name: (v.mean(0), (v**2).mean(0)) for name, v in rows.items()}
