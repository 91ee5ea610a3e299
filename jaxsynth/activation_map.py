"""An activation atlas: a map of a layer's responses to photographs.

After Carter et al. 2019 ("Exploring Neural Networks with Activation Atlases"). Activations of
photographs are laid out in the plane. Those of a cell of a grid are averaged, and an image is made
for each cell's direction.
"""

import importlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.examples import BATCH, readable_batches
from jaxsynth.image_search import ImageFile
from jaxsynth.inputs import check_name
from jaxsynth.models.base import Classifier
from jaxsynth.models.compiled import network_jit

LAYOUTS = ("pca", "umap")
_SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity


class Samples(NamedTuple):
    """Activations of a blob at places of image files.

    Attributes:
      files: those that were read.
      values: (N, C) float32.
      number: (N,) of the file that each is of.
      places: (N, 2): row and column; zeros of a vector.
      classes: (N,) the likeliest class of the file; -1 of a network without classes.
      unread: a line for every file that was not.
    """

    files: tuple[ImageFile, ...]
    values: np.ndarray
    number: np.ndarray
    places: np.ndarray
    classes: np.ndarray
    unread: tuple[str, ...]


class Cell(NamedTuple):
    """A cell of the map.

    Attributes:
      row, column: its place, from the top left.
      members: the samples (M,) in it, the nearest to their mean first.
      direction: (C,) float64, towards which its image is made.
      label: the class that most of its photographs are given.
    """

    row: int
    column: int
    members: np.ndarray
    direction: np.ndarray
    label: str


def sample(
    classifier: Classifier, blob: str, files: Sequence[ImageFile], places: int = 4, seed: int = 0
) -> Samples:
    """Run a classifier on image files.

    Args:
      classifier: whose blob.
      blob: a vector, or a map (H, W, C).
      files: as `jaxsynth.image_search.find_images` lists them.
      places: random places of a map that are looked at in each file; all, if it has fewer.
      seed: decides which.

    Raises:
      ValueError: if the classifier has no such blob, or no file can be read.
    """
    check_name("blob", blob, classifier.shapes)
    shape = classifier.shapes[blob]
    height, width = shape[:2] if len(shape) == 3 else (1, 1)
    per, rng = min(places, height * width), np.random.default_rng(seed)
    static = (classifier.activations, blob, classifier.logits or "")
    read, unread, values, spots, classes = [], [], [], [], []
    for group, inputs in readable_batches(classifier, files, unread):
        at = np.stack([rng.permutation(height * width)[:per] for _ in range(BATCH)])
        found, likeliest = _look(static, classifier.params, inputs, at.astype(np.int32))
        values.append(np.asarray(found, np.float32)[: len(group)])
        classes.append(np.asarray(likeliest)[: len(group)])
        spots.append(at[: len(group)])
        read += group
    flat = np.concatenate(spots).reshape(-1)
    return Samples(
        tuple(read),
        np.concatenate(values).reshape(len(flat), shape[-1]),
        np.repeat(np.arange(len(read)), per),
        np.stack([flat // width, flat % width], axis=-1),
        np.repeat(np.concatenate(classes), per),
        tuple(unread),
    )


@partial(network_jit, static_argnums=0)
def _look(static: tuple, params: Any, x: jax.Array, at: jax.Array):
    """(B, H, W, 3) and places (B, K) -> activations (B, K, C), the likeliest class (B,)."""
    activations, blob, logits = static

    def one(image, at):
        found = activations(params, image)
        likeliest = jnp.argmax(found[logits]) if logits else jnp.int32(-1)
        return found[blob].reshape(-1, found[blob].shape[-1])[at], likeliest

    return jax.vmap(one)(x, at)


def map_cells(
    samples: Samples,
    labels: Sequence[str] = (),
    side: int = 8,
    layout: str = "pca",
    least: int = 2,
) -> list[Cell]:
    """Lay samples out in the plane and gather them in the cells of a square grid.

    A cell's direction is its mean, as seen from the mean of all, over their covariance: what tells
    the cell apart, not what all photographs share.

    Args:
      samples: made by `sample`.
      labels: of the classes.
      side: cells of a row and of a column.
      layout: `pca`, or `umap` with the package umap-learn.
      least: samples of a cell; one of fewer stays empty.

    Raises:
      ValueError: if there are fewer than three samples, all are alike, or the layout's package is
        missing.
    """
    values = samples.values.astype(np.float64)
    finite = np.isfinite(values).all(1)
    place = np.full(len(values), -1)
    place[finite] = _cells(_in_the_plane(values[finite], layout), side)
    mean, whiten = _whitening(values[finite])
    found = []
    for cell in range(side * side):
        members = np.flatnonzero(place == cell)
        if len(members) < least:
            continue
        own = values[members].mean(0)
        near = np.argsort(np.linalg.norm(values[members] - own, axis=1), kind="stable")
        direction = whiten(own - mean)
        length = np.linalg.norm(direction)
        if not length:
            continue
        common = int(Counter(samples.classes[members].tolist()).most_common(1)[0][0])
        label = labels[common] if 0 <= common < len(labels) else ""
        found.append(Cell(*divmod(cell, side), members[near], direction / length, label))
    return found


def _in_the_plane(values: np.ndarray, layout: str) -> np.ndarray:
    """Lay out (N, C) as (N, 2)."""
    if len(values) < 3 or not np.ptp(values, axis=0).any():
        raise ValueError(
            f"a map takes three different activations or more, here are {len(values)}: give more "
            "images"
        )
    if layout == "umap":
        try:
            umap = importlib.import_module("umap")
        except ImportError as missing:
            raise ValueError(
                "layout umap needs the package umap-learn: pip install umap-learn, or take pca"
            ) from missing
        return np.asarray(umap.UMAP(random_state=0).fit_transform(values), np.float64)
    check_name("layout", layout, LAYOUTS)
    centred = values - values.mean(0)
    if len(values) < centred.shape[1]:  # the smaller of two matrices of the same spectrum
        length, vectors = np.linalg.eigh(centred @ centred.T)
        points = vectors[:, :-3:-1] * np.sqrt(np.maximum(length[:-3:-1], 0))
    else:
        points = centred @ np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    largest = points[np.abs(points).argmax(0), np.arange(points.shape[1])]
    points = points * np.where(largest < 0, -1, 1)  # so that every machine draws the same map
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _cells(points: np.ndarray, side: int) -> np.ndarray:
    """Number the cell of every point (N,), row by row; the second axis goes up.

    A column and a row hold as many samples as another one, but equal points share a cell.
    """
    column, up = (np.minimum(side * _ranks(axis), side - 1).astype(int) for axis in points.T)
    return (side - 1 - up) * side + column


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return for each value (N,) the share of values below it; equal ones take their middle."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return ((np.cumsum(counts) - counts + (counts - 1) / 2) / len(values))[place]


def _whitening(values: np.ndarray):
    """Return the mean (C,) and the function that divides by the covariance, shrunk."""
    mean = values.mean(0)
    centred = values - mean
    variance = (centred**2).mean()
    ridge = _SHRINKAGE * variance + 1e-12
    if len(values) < values.shape[1]:
        # (X'X / N + r I)^-1 v = (v - X' (X X' + N r I)^-1 X v) / r
        gram = centred @ centred.T + len(values) * ridge * np.eye(len(values))
        return mean, lambda v: (v - centred.T @ np.linalg.solve(gram, centred @ v)) / ridge
    covariance = centred.T @ centred / len(values) + ridge * np.eye(values.shape[1])
    return mean, lambda v: np.linalg.solve(covariance, v)
