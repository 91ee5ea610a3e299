"""Frechet distance of two sets of images in a network's features.

Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium": |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), both sets taken as Gaussians. Theirs are
the features of Inception; the numbers of another network are not comparable with theirs. A
covariance of few images is inexact and makes the distance larger: compare equal counts.
"""

import numpy as np


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) and covariance (C, C) of features (N, C), in float64.

    Raises:
      ValueError: for fewer than two rows, which have no covariance.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {features.shape}, expected (N, C) with N of 2 or more")
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """Frechet distance (squared, as usual) of two Gaussians: means (C,), covariances (C, C).

    tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is
    symmetric: no complex numbers, and singular covariances do no harm.
    """
    values, vectors = np.linalg.eigh(np.asarray(cov1, np.float64))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T  # (C, C)
    both = np.linalg.eigvalsh(root @ cov2 @ root)
    overlap = np.sqrt(np.maximum(both, 0.0)).sum()
    shift = np.square(np.asarray(mean1, np.float64) - mean2).sum()
    return float(shift + np.trace(cov1) + np.trace(cov2) - 2 * overlap)


def feature_distance(features1: np.ndarray, features2: np.ndarray) -> float:
    """Frechet distance of two sets of features, (N1, C) and (N2, C)."""
    return frechet_distance(*moments(features1), *moments(features2))
