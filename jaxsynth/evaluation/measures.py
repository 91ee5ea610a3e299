"""Numbers that tell how good a prior is: Frechet distances, spectra, shares of runs. Pure numpy.

Frechet distance: Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a
local Nash equilibrium". Theirs is of Inception's features; distances in another network's features
are not comparable with theirs. A covariance of few images is inexact and makes the distance larger:
compare equal counts.

Spectra: generators that upsample leave grids and lack fine detail, and both show in the spectrum
(Odena et al. 2016, "Deconvolution and checkerboard artifacts"; Durall et al. 2020, "Watch your
up-convolution"). Frequencies are counted in cycles per image side S; S / 2 is Nyquist.
"""

from typing import Any

import numpy as np

SCENE_REACHED = 0.9  # P(target) of a scene that was found
BOTH_REACHED = 0.5  # of a scene and of NSFW together
NSFW_REACHED, SFW_REACHED = 0.99, 0.001  # P(NSFW) of the two ends
TOP = 5
PERIODS = (2, 4, 8, 16)  # pixels; a generator that doubles its maps repeats itself at these
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_NEAR = 2  # cycles between a peak and its neighbours: the Hann window widens a peak by one
_BATCH = 128
_LEAST = 1e-9  # far below the power of 8-bit rounding, 1 / 12: a constant image has none


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean (C,) and covariance (C, C) of features (N, C), in float64.

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
    """Compute the Frechet distance (squared) of two Gaussians: means (C,), covariances (C, C).

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
    """Compute the Frechet distance of two sets of features, (N1, C) and (N2, C)."""
    return frechet_distance(*moments(features1), *moments(features2))


def mean_power(rgb: np.ndarray) -> np.ndarray:
    """Compute the mean power spectrum of the images' luma.

    The mean is removed and a Hann window laid on; white noise of variance v has power v everywhere.

    Args:
      rgb: (N, S, S, 3), RGB, 0..255.

    Returns:
      (S, S), in the order of numpy's fft2.

    Raises:
      ValueError: without images, or if they are not square.
    """
    if rgb.ndim != 4 or rgb.shape[1] != rgb.shape[2] or not len(rgb):
        raise ValueError(f"images of shape {rgb.shape}, expected (N, S, S, 3) with N of 1 or more")
    side = rgb.shape[1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)
    window = np.outer(hann, hann)  # (S, S)
    total = np.zeros((side, side))
    for first in range(0, len(rgb), _BATCH):
        luma = rgb[first : first + _BATCH] @ LUMA  # (B, S, S)
        mean = (luma * window).sum((1, 2), keepdims=True) / window.sum()
        total += np.square(np.abs(np.fft.fft2((luma - mean) * window))).sum(0)
    return total / len(rgb) / np.square(window).sum()


def radial_power(power: np.ndarray) -> np.ndarray:
    """Average power (S, S) over rings of 1, 2, ... S // 2 cycles per side: (S // 2,)."""
    side = power.shape[0]
    cycles = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(cycles[:, None], cycles[None, :])).astype(int)  # (S, S)
    total = np.bincount(ring.ravel(), power.ravel())
    return (total / np.bincount(ring.ravel()))[1 : side // 2 + 1]


def decibels(power: np.ndarray) -> np.ndarray:
    """Compute 10 log10 of power; no power at all is -90 dB."""
    return 10 * np.log10(np.maximum(power, _LEAST))


def grid_excess(power: np.ndarray, diagonal: bool = False) -> dict[int, float]:
    """Find the excess in dB of the power (S, S) at a grid's frequencies over their neighbours.

    A grid of period p has peaks at S / p cycles on both axes, a checkerboard of p pixels at
    (S / p, S / p). Neighbours lie 2 cycles to either side on the same axis or diagonal.

    Returns:
      Period in pixels -> dB, for those of `PERIODS` that S / p makes at least 4 whole cycles of.
    """
    side = power.shape[0]
    level = decibels(power)

    def at(k: int) -> float:
        pair = (level[k, k], level[-k, k]) if diagonal else (level[0, k], level[k, 0])
        return float(np.mean(pair))

    whole = [p for p in PERIODS if side % p == 0 and side // p >= 2 * _NEAR]
    ks = {p: side // p for p in whole}
    return {
        p: at(k) - (at(k - _NEAR) + at((k + _NEAR) if 2 * k < side else k - _NEAR)) / 2
        for p, k in ks.items()
    }


def fixed_pattern(rgb: np.ndarray) -> float:
    """Measure the fine detail that all images share, in grey levels.

    It is the root mean square of the mean image's luma at periods below 16 pixels. A speckle at
    fixed places stays in the mean, detail averages out: N photographs leave about their detail's
    rms / sqrt(N).

    Args:
      rgb: (N, S, S, 3), RGB, 0..255.
    """
    mean = rgb.mean(0, dtype=np.float64) @ LUMA  # (S, S)
    cycles = np.fft.fftfreq(mean.shape[0])
    fine = np.hypot(cycles[:, None], cycles[None, :]) > 1 / PERIODS[-1]
    return float(np.sqrt(np.mean(np.abs(np.fft.ifft2(np.fft.fft2(mean) * fine)) ** 2)))


def compare_spectra(made: np.ndarray, photographs: np.ndarray) -> dict[str, Any]:
    """Compare two mean spectra (S, S), as plain lists and numbers.

    Returns:
      `cycles_per_pixel` of each ring; `photographs_db`, `made_db` and their `difference_db` there;
      `largest_db`, the largest absolute difference; `grid` and `checkerboard` (`grid_excess` on
      the axes and on the diagonals) of the made images, and the same of the photographs.
    """
    side = made.shape[0]
    real, ours = decibels(radial_power(photographs)), decibels(radial_power(made))
    return {
        "cycles_per_pixel": [k / side for k in range(1, side // 2 + 1)],
        "photographs_db": real.tolist(),
        "made_db": ours.tolist(),
        "difference_db": (ours - real).tolist(),
        "largest_db": float(np.abs(ours - real).max()),
        "grid": _named(grid_excess(made)),
        "checkerboard": _named(grid_excess(made, diagonal=True)),
        "photographs_grid": _named(grid_excess(photographs)),
        "photographs_checkerboard": _named(grid_excess(photographs, diagonal=True)),
    }


def _named(excess: dict[int, float]) -> dict[str, float]:
    return {f"{period} px": value for period, value in excess.items()}


def scene_values(p: np.ndarray) -> dict[str, Any]:
    """Turn P (R,) into the share of runs that reach their scene, and the median."""
    return {
        "runs": len(p),
        "reached": float((p >= SCENE_REACHED).mean()),
        "median": float(np.median(p)),
    }


def judge_values(made: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """Turn a judge's ranks of targets on made images, and of labels on photographs, into rates.

    `judge_fraction` is None where the judge knows none of the photographs.
    """
    rates = [float((ranks < TOP).mean()) for ranks in (made, real)]
    fraction = rates[0] / rates[1] if rates[1] else None
    return {"judge_made": rates[0], "judge_real": rates[1], "judge_fraction": fraction}


def saturated_share(pixels: np.ndarray) -> float:
    """Find the share of pixels that lie outside 0..255 in any channel and are clipped when shown.

    Args:
      pixels: (N, H, W, 3) RGB of 0..255, not clipped, as `Preprocess.to_rgb` gives them; a pixel
        that is not finite counts.
    """
    inside = (pixels >= 0) & (pixels <= 255)  # NaN: False
    return float(1 - inside.all(-1).mean())


def ends_values(nsfw: np.ndarray, sfw: np.ndarray) -> dict[str, Any]:
    """Turn P(NSFW) (R,) of runs that raise it, and that lower it, into shares and medians."""
    return {
        "runs": len(nsfw),
        "nsfw_reached": float((nsfw >= NSFW_REACHED).mean()),
        "sfw_reached": float((sfw <= SFW_REACHED).mean()),
        "nsfw_median": float(np.median(nsfw)),
        "sfw_median": float(np.median(sfw)),
    }


def joint_values(scene: np.ndarray, nsfw: np.ndarray) -> dict[str, Any]:
    """Turn P(scene) and P(NSFW) (R,) of runs that maximise both into shares and medians."""
    reached = scene >= BOTH_REACHED, nsfw >= BOTH_REACHED
    return {
        "runs": len(scene),
        "both_reached": float((reached[0] & reached[1]).mean()),
        "scene_reached": float(reached[0].mean()),
        "nsfw_reached": float(reached[1].mean()),
        "scene_median": float(np.median(scene)),
        "nsfw_median": float(np.median(nsfw)),
    }


def random_values(nsfw: np.ndarray) -> dict[str, Any]:
    """Turn P(NSFW) (R,) of random codes into mean and range."""
    return {
        "runs": len(nsfw),
        "mean": float(nsfw.mean()),
        "least": float(nsfw.min()),
        "most": float(nsfw.max()),
    }
