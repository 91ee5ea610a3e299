"""Layers in NumPy, float64, by their definition, for graphs to agree with. Maps are (C, H, W)."""

import numpy as np


def windows(x: np.ndarray, kernel, stride: int, pads, value: float = 0.0) -> np.ndarray:
    """(C, H, W) -> (C, H', W', kh, kw)."""
    x = np.pad(x, [(0, 0), *pads], constant_values=value)
    found = np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))
    return found[:, ::stride, ::stride]


def conv(x: np.ndarray, weight: np.ndarray, bias=0.0, stride: int = 1, pads=None) -> np.ndarray:
    """A convolution with the weights (out, in / groups, kh, kw) of PyTorch."""
    k = weight.shape[2]
    pads = ((k // 2, k // 2),) * 2 if pads is None else pads
    seen = windows(x, weight.shape[2:], stride, pads)
    groups = len(x) // weight.shape[1]
    parts = zip(np.split(seen, groups), np.split(weight, groups), strict=True)
    y = np.concatenate([np.einsum("chwij,ocij->ohw", a, b) for a, b in parts])
    return y + np.broadcast_to(bias, len(y))[:, None, None]


def norm(x: np.ndarray, gain, shift, mean, variance, eps: float) -> np.ndarray:
    per = [np.asarray(a, np.float64).reshape(-1, 1, 1) for a in (gain, shift, mean, variance)]
    return per[0] * (x - per[2]) / np.sqrt(per[3] + eps) + per[1]


def max_pool(x: np.ndarray, k: int, stride: int, pad: int = 0) -> np.ndarray:
    return windows(x, (k, k), stride, ((pad, pad),) * 2, -np.inf).max((3, 4))


def mean_pool(x: np.ndarray, k: int, stride: int, pads=((0, 0), (0, 0))) -> np.ndarray:
    """Places outside the map do not count."""
    total, count = (windows(a, (k, k), stride, pads).sum((3, 4)) for a in (x, np.ones_like(x)))
    return total / count


def relu(x: np.ndarray, most: float = np.inf) -> np.ndarray:
    return np.clip(x, 0, most)
