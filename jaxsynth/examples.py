"""Photographs that raise and lower a unit, to compare with the synthetic image.

People predict a unit's responses better from photographs than from synthetic images (Zimmermann et
al. 2021, "How well do feature visualizations support causal understanding of CNN activations?").
A spatial unit counts at the place where it responds most, and is shown by the part of the
photograph that this place sees.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.devices import padded
from jaxsynth.image_files import read_image
from jaxsynth.image_search import ImageFile
from jaxsynth.images import resize_to
from jaxsynth.models.base import Classifier
from jaxsynth.models.compiled import network_jit

BATCH = 16
_SEES = 1e-6  # share of the largest gradient from which a pixel counts as seen


class Responses(NamedTuple):
    """The responses of the units of a blob to image files.

    Attributes:
      files: Those that were read, N.
      values: (N, U) float32: the activation; of a spatial unit its maximum over places.
      places: (N, U, 2): row and column of that maximum; zeros of a vector.
      unread: A line for every file that was not.
    """

    files: tuple[ImageFile, ...]
    values: np.ndarray
    places: np.ndarray
    unread: tuple[str, ...]

    def extremes(self, unit: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the files that raise a column most, and least, best first."""
        order = np.argsort(-self.values[:, unit], kind="stable")
        return order[:count], order[::-1][:count]


def responses(
    classifier: Classifier, blob: str, units: Sequence[int], files: Sequence[ImageFile]
) -> Responses:
    """Run a classifier on image files.

    Args:
      classifier: Whose blob.
      blob: A vector, or a map (H, W, C) of which `units` are channels.
      units: The columns of the result.
      files: As `jaxsynth.image_search.find_images` lists them.

    Raises:
      ValueError: If the classifier has no such blob, or no file can be read.
    """
    if blob not in classifier.shapes:
        raise ValueError(f"{classifier.name!r} has no blob {blob!r}: see `jaxsynth blobs`")
    columns = jnp.asarray(units)
    read, unread, values, places = [], [], [], []
    static = (classifier.activations, blob)
    for group, inputs in readable_batches(classifier, files, unread):
        most, where = _look(static, classifier.params, inputs, columns)
        values.append(np.asarray(most)[: len(group)])
        places.append(np.asarray(where)[: len(group)])
        read += group
    return Responses(tuple(read), np.concatenate(values), np.concatenate(places), tuple(unread))


def readable_batches(
    classifier: Classifier, files: Sequence[ImageFile], unread: list[str]
) -> Iterator[tuple[list[ImageFile], np.ndarray]]:
    """Yield readable files with a batch (BATCH, H, W, 3) of their inputs, the last one padded.

    `unread` gets a line for every file that cannot be read; ValueError if none can.
    """
    group, inputs, found = [], [], False
    for number, file in enumerate(files, 1):
        try:
            inputs.append(classifier.input_of(read_image(file)))
            group.append(file)
        except ValueError as error:
            unread.append(str(error))
        if len(group) == BATCH or (group and number == len(files)):
            yield group, padded(np.stack(inputs), BATCH)
            group, inputs, found = [], [], True
    if not found:
        reason = unread[0] if unread else "the folder is empty"
        raise ValueError(f"no image can be read; the first: {reason}")


@partial(network_jit, static_argnums=0)
def _look(static: tuple, params: Any, x: jax.Array, units: jax.Array):
    """(B, H, W, 3) -> maxima (B, U), and their rows and columns (B, U, 2)."""
    activations, blob = static

    def one(image):
        found = activations(params, image)[blob]
        maps = jnp.take(found, units, axis=-1)  # (..., U)
        flat = maps.reshape(-1, len(units))
        at = jnp.argmax(flat, axis=0)
        width = maps.shape[1] if maps.ndim == 3 else 1
        return flat.max(0), jnp.stack([at // width, at % width], axis=-1)

    return jax.vmap(one)(x)


def seen_part(classifier: Classifier, blob: str, place: tuple[int, int]) -> tuple[int, ...]:
    """Find the field of view of a place (row, column) in a map: the pixels with a gradient there.

    Returns top, left, bottom, right in pixels of the classifier's input; all of it for a vector.
    """
    side = classifier.size
    if len(classifier.shapes[blob]) != 3:
        return 0, 0, side, side
    image = np.random.default_rng(0).normal(0, 50, (side, side, 3)).astype(np.float32)
    static = (classifier.activations, blob)
    gradient = np.asarray(_place_gradient(static, classifier.params, image, jnp.asarray(place)))
    seen = gradient > _SEES * gradient.max() if gradient.any() else np.ones((side, side), bool)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@partial(network_jit, static_argnums=0)
def _place_gradient(static: tuple, params: Any, image: jax.Array, place: jax.Array) -> jax.Array:
    """Sum over colours of |gradient| of all units at a place: (H, W)."""
    activations, blob = static
    gradient = jax.grad(lambda x: activations(params, x)[blob][place[0], place[1]].sum())(image)
    return jnp.abs(gradient).sum(-1)


def crop(classifier: Classifier, file: ImageFile, part: tuple[int, ...]) -> np.ndarray:
    """Cut a part out of a file as the classifier sees it: (h, w, 3) uint8, RGB."""
    top, left, bottom, right = part
    seen = resize_to(read_image(file), classifier.preprocess.resize, classifier.size)
    return seen[top:bottom, left:right]
