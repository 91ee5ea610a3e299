"""The whitening of an encoder's blob over training photographs: principal components, then ZCA."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxsynth.disk import atomic_file

_LAYERS = ("project", "whiten", "colour")
_LEAST = 1e-4  # share of the mean eigenvalue below which a direction is not amplified further


class Whitening(NamedTuple):
    """Dense layers, each (kernel, bias).

    project: features at one place (C + 3,) -> components (K,). whiten: components of the whole grid
    (D,) -> code (D,). colour: the inverse of `whiten`.
    """

    project: tuple[np.ndarray, np.ndarray]
    whiten: tuple[np.ndarray, np.ndarray]
    colour: tuple[np.ndarray, np.ndarray]
    explained: float  # share of the features' variance that the components hold


def measure_whitening(
    features: Callable[[np.ndarray], jax.Array],
    batches: Callable[[], Iterable[tuple[np.ndarray, np.ndarray, int]]],
    channels: int,
) -> Whitening:
    """Measure a whitening over photographs, which are read twice.

    Args:
      features: RGB (B, S, S, 3) uint8 -> (B, h, w, C), `encoder.grid_features`.
      batches: A function that gives batches (rgb, labels, count).
      channels: Of the code at each place.

    Raises:
      ValueError: If the blob has fewer features than `channels`.
    """

    def places(rgb, count):
        made = np.asarray(features(rgb), np.float64)[:count]
        return made.reshape(count, -1, made.shape[-1])

    mean, covariance = _moments(
        x.reshape(-1, x.shape[-1]) for x in (places(rgb, n) for rgb, _, n in batches())
    )
    if len(mean) < channels:
        raise ValueError(
            f"the blob has {len(mean)} features with colour, fewer than the code's {channels}: "
            "choose fewer channels"
        )
    scaled = _heard_colours(covariance)
    values, vectors = np.linalg.eigh(scaled.T @ covariance @ scaled)
    order = np.argsort(values)[::-1][:channels]
    basis = scaled @ vectors[:, order] / np.sqrt(values[order])  # (C, K), unit variance
    bias = -mean @ basis

    mean_grid, grid = _moments(
        (x @ basis + bias).reshape(len(x), -1) for x in (places(rgb, n) for rgb, _, n in batches())
    )
    values_grid, vectors_grid = np.linalg.eigh(grid)
    root = np.sqrt(np.maximum(values_grid, _LEAST * values_grid.mean()))
    whiten = vectors_grid / root @ vectors_grid.T  # C^-1/2, (D, D)
    colour = vectors_grid * root @ vectors_grid.T
    layers = ((basis, bias), (whiten, -mean_grid @ whiten), (colour, mean_grid))
    single = (tuple(np.asarray(a, np.float32) for a in layer) for layer in layers)
    return Whitening(*single, explained=float(values[order].sum() / values.sum()))


def saved_whitening(path: Path, measure: Callable[[], Whitening]) -> Whitening:
    """Read a whitening from a file; measure and save it first if the file is missing.

    A resumed run reads what its first part measured.
    """
    if not path.is_file():
        made = measure()
        layers = {f"{n}_{k}": a for n in _LAYERS for k, a in enumerate(getattr(made, n))}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as part:
            np.savez(part, explained=made.explained, **layers)
    with np.load(path) as saved:
        layers = {n: (saved[f"{n}_0"], saved[f"{n}_1"]) for n in _LAYERS}
        return Whitening(**layers, explained=float(saved["explained"]))


def _heard_colours(covariance: np.ndarray) -> np.ndarray:
    """Scales features (C + 3,), the last three colours, so that colours are principal components.

    Features stay; colours are whitened and get the variance of the strongest feature.
    """
    scaled = np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance[-3:, -3:])
    strongest = np.linalg.eigvalsh(covariance[:-3, :-3])[-1]
    scaled[-3:, -3:] = vectors * np.sqrt(strongest / np.maximum(values, 1e-12))
    return scaled


def _moments(rows: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N,) and covariance (N, N) of batches of rows (B, N)."""
    total, square, count = 0.0, 0.0, 0
    for x in rows:
        total, square, count = total + x.sum(0), square + x.T @ x, count + len(x)
    mean = total / count
    return mean, square / count - np.outer(mean, mean)
