"""Random transformations of the classifiers' view at each step.

They keep a search from patterns that only one alignment of pixels shows (Olah et al. 2017, "Feature
visualization"): moves, enlarged crops (Fel et al. 2023), turns.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxsynth.arithmetic import root_key

_ROOT = 1  # of the draws of transformations; not the root of start codes


class Transforms(NamedTuple):
    """How far the transformations of a step reach; static.

    Attributes:
      jitter: Largest move in pixels of the image.
      zoom: Largest factor by which a random crop is enlarged; 1 for none.
      rotate: Largest turn in degrees, either way.
    """

    jitter: int = 0
    zoom: float = 1.0
    rotate: float = 0.0

    @property
    def draws(self) -> bool:
        """Whether anything is random."""
        return self != Transforms()

    def view(self, seed: jax.Array | None, step: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """Return how classifiers see the image (H, W, 3) at a step of a run's seed."""
        if seed is None or not self.draws:
            return lambda image: image
        key = jax.random.fold_in(root_key(_ROOT), seed)
        key = jax.random.fold_in(key, step)
        reach = self.jitter
        offset = jax.random.randint(key, (2,), -reach, reach + 1, jnp.int32)

        def seen(image: jax.Array) -> jax.Array:
            moved = shift(image, offset, reach) if reach else image
            if self.zoom == 1 and not self.rotate:
                return moved
            return _resampled(self, jax.random.fold_in(key, 1), moved)

        return seen


def shift(image: jax.Array, offset: jax.Array, reach: int) -> jax.Array:
    """Move an image (H, W, 3) down and right by offset (2,), int32 in [-reach, reach].

    New pixels at a border repeat the border's.
    """
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    start = (*(reach - offset), jnp.zeros((), offset.dtype))
    return jax.lax.dynamic_slice(padded, start, image.shape)


def _resampled(transforms: Transforms, key: jax.Array, image: jax.Array) -> jax.Array:
    """Enlarge a random crop and turn it; beyond the border its pixels repeat."""
    dtype, size = image.dtype, jnp.asarray(image.shape[:2], image.dtype)
    draws = jax.random.uniform(key, (4,), jnp.float32, -1, 1).astype(dtype)
    share = 1 / (1 + (transforms.zoom - 1) * (draws[0] + 1) / 2)  # of the side that is seen
    angle = transforms.rotate * jnp.pi / 180 * draws[1]
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    centre = (size - 1) / 2 + (1 - share) * (size - 1) / 2 * draws[2:]
    rows, columns = (jnp.arange(n, dtype=dtype) - (n - 1) / 2 for n in image.shape[:2])
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"))  # (2, H, W)
    places = jnp.einsum("ij,jhw->ihw", share * turn.astype(dtype), grid) + centre[:, None, None]
    sample = lambda channel: map_coordinates(channel, list(places), 1, mode="nearest")  # noqa: E731
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)
