"""Figures of finished sweeps and of photographs, as plain numbers for figures.json. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsynth.ascent import Evaluation
from jaxsynth.images import BGR_MEAN
from jaxsynth.short import NSFW, NSFW_UNIT, PLACES, Run

SCENE_REACHED = 0.9  # P(target) of a scene that was found
BOTH_REACHED = 0.5  # of a scene and of NSFW together
NSFW_REACHED, SFW_REACHED = 0.99, 0.001  # P(NSFW) of the two ends
TOP = 5


def scene_units(runs: Sequence[Run]) -> np.ndarray:
    """The scene that each run climbs first, (R,)."""
    return np.array([next(t.index[0] for t in r.terms if t.network == PLACES) for r in runs])


def scene_probability(look: Evaluation, units: np.ndarray) -> np.ndarray:
    """P(its own scene) of each run's image, (R,); 0 where the image is not finite."""
    return np.nan_to_num(look.watched[PLACES]["prob"][np.arange(len(units)), units])


def nsfw_probability(look: Evaluation) -> np.ndarray:
    """P(NSFW) of each run's image, (R,); NaN where the image is not finite."""
    return look.watched[NSFW]["prob"][:, NSFW_UNIT]


def scene_values(p: np.ndarray) -> dict[str, Any]:
    """Share of runs that reach their scene, and the median, from P (R,)."""
    return {
        "runs": len(p),
        "reached": float((p >= SCENE_REACHED).mean()),
        "median": float(np.median(p)),
    }


def judge_values(made: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """A judge's ranks of the target on made images and of the label on photographs -> rates.

    `judge_fraction` is None where the judge knows none of the photographs.
    """
    rates = [float((ranks < TOP).mean()) for ranks in (made, real)]
    fraction = rates[0] / rates[1] if rates[1] else None
    return {"judge_made": rates[0], "judge_real": rates[1], "judge_fraction": fraction}


def saturated_share(images: np.ndarray) -> float:
    """Share of pixels that lie outside 0..255 in any channel and are clipped when shown.

    images: (N, H, W, 3), BGR, mean-subtracted; a pixel that is not finite counts.
    """
    pixels = images + BGR_MEAN
    inside = (pixels >= 0) & (pixels <= 255)  # NaN: False
    return float(1 - inside.all(-1).mean())


def ends_values(nsfw: np.ndarray, sfw: np.ndarray) -> dict[str, Any]:
    """P(NSFW) (R,) of the runs that raise it and of those that lower it -> shares, medians."""
    return {
        "runs": len(nsfw),
        "nsfw_reached": float((nsfw >= NSFW_REACHED).mean()),
        "sfw_reached": float((sfw <= SFW_REACHED).mean()),
        "nsfw_median": float(np.median(nsfw)),
        "sfw_median": float(np.median(sfw)),
    }


def joint_values(scene: np.ndarray, nsfw: np.ndarray) -> dict[str, Any]:
    """P(scene) and P(NSFW) (R,) of runs that climb both -> shares, medians."""
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
    """P(NSFW) (R,) of random codes -> mean and range."""
    return {
        "runs": len(nsfw),
        "mean": float(nsfw.mean()),
        "least": float(nsfw.min()),
        "most": float(nsfw.max()),
    }
