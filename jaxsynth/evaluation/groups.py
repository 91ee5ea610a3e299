"""The groups of figures: each computes its values and the pages that show them. Touches no file.

Every group is a function of `Work`; `jaxsynth.evaluation.run` calls those that were asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxsynth.chunks import Results
from jaxsynth.evaluation import figures, sheets
from jaxsynth.evaluation.frechet import feature_distance
from jaxsynth.evaluation.looks import FEATURES, Pair, judge_ranks, label_units, look, reconstruct
from jaxsynth.evaluation.spectrum import compare_spectra, fixed_pattern, mean_power
from jaxsynth.images import to_rgb
from jaxsynth.models.network import Network
from jaxsynth.short import PLACES, Run
from jaxsynth.system import GENERATOR
from jaxsynth.training.data import ImageSet, batches
from jaxsynth.training.measure import (
    inversion_figures,
    invert,
    logits_of,
    steadiness,
    top_k_accuracy,
)

JUDGE = "judge"  # a role that no objective knows
_BATCH = 100
_SHEET = 24  # photographs on the page of reconstructions


class Work(NamedTuple):
    """What groups work on. The functions compute when called, and once.

    Attributes:
      networks: by role, those that the groups need.
      pair, baseline: the generator with its encoder; another such pair to compare with, or None.
      runs: sweep -> its runs (`scenes`, `nsfw`, `sfw`, `joint`, `random`).
      results: sweep -> its finished runs.
      photographs: side -> the validation photographs at that side.
      reconstructions: () -> G(E(x)) of all of them, (N, S, S, 3) uint8, in their order.
    """

    networks: Mapping[str, Network]
    pair: Pair | None
    baseline: Pair | None
    runs: Mapping[str, Sequence[Run]]
    results: Callable[[str], Results]
    photographs: Callable[[int], ImageSet]
    reconstructions: Callable[[], np.ndarray]


class Group(NamedTuple):
    """A finished group: its values, and pages by file name."""

    values: dict[str, Any]
    pages: Mapping[str, Image.Image]


def network(work: Work) -> Group:
    """Top-1 and top-5 of the scene network, and how steady they are."""
    places, images = work.networks[PLACES], _photographs(work)
    images = images._replace(labels=label_units(images.classes, places)[images.labels])
    found = top_k_accuracy(logits_of(places), batches(images, _BATCH), _side(work))
    values = {"top1": found["val top-1"], "top5": found["val top-5"], "loss": found["val loss"]}
    values |= steadiness(logits_of(places), batches(images, _BATCH), _side(work))
    return Group(values | {"photographs": len(images.rows)}, {})


def inversion(work: Work) -> Group:
    """E(G(E(x))) against E(x), G(E(x)) against x."""
    images = _photographs(work)
    values = inversion_figures(invert(*work.pair), batches(images, _BATCH), _side(work))
    few = images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET]
    page = sheets.reconstruction_page(
        images.images[few], reconstruct(work.pair, images.images[few])
    )
    return Group(values | {"photographs": len(images.rows)}, {"reconstructions.png": page})


def frechet(work: Work) -> Group:
    """Distance of reconstructions to photographs in the judge's features, with its floor."""

    def features(rgb):
        return look(work.networks[JUDGE], rgb, [FEATURES])[FEATURES]

    real = features(_pixels(_photographs(work)))
    distance = feature_distance(features(work.reconstructions()), real)
    values = {
        "distance": distance,
        "halves": feature_distance(real[::2], real[1::2]),
        "photographs": len(real),
    }
    if work.baseline is not None:  # at its own size, which may be another
        x = _pixels(work.photographs(work.baseline.generator.info.config.size))
        first = feature_distance(features(reconstruct(work.baseline, x)), features(x))
        values |= {"baseline": first, "of_baseline": distance / first if first else None}
    return Group(values, {})


def scenes(work: Work) -> Group:
    """Scene images: does the scene network find them, and does a judge that nobody climbed?"""
    runs, judge = work.runs["scenes"], work.networks[JUDGE]
    images, units = _photographs(work), figures.scene_units(runs)
    names = np.array(work.networks[PLACES].class_names)[units]
    labels = np.array(images.classes)[images.labels[images.rows]]
    same = np.isin(labels, names)  # photographs of the categories that were climbed
    if not same.any():
        raise ValueError("no validation photograph is of a category that scenes climbs: see --data")
    pixels = _pixels(images)
    real = judge_ranks(judge, pixels[same], label_units(labels[same], judge))
    last = work.results("scenes").last
    rgb, p = to_rgb(last.image), figures.scene_probability(last, units)
    made = judge_ranks(judge, rgb, label_units(names, judge))
    values = figures.scene_values(p) | figures.judge_values(made, real)
    values |= {"categories": len(set(units.tolist()))}
    values |= {"saturated": figures.saturated_share(last.image)}
    values |= compare_spectra(mean_power(rgb), mean_power(pixels))
    pages = sheets.scene_pages(runs, rgb, p, made < figures.TOP)
    return Group(values, {f"scenes_{i:02d}.png": page for i, page in enumerate(pages)})


def spectrum(work: Work) -> Group:
    """Spectra of reconstructions against photographs, and what all of them share."""
    made, real = work.reconstructions(), _pixels(_photographs(work))
    shared = {"fixed": fixed_pattern(made), "photographs_fixed": fixed_pattern(real)}
    return Group(compare_spectra(mean_power(made), mean_power(real)) | shared, {})


def nsfw(work: Work) -> Group:
    """Both ends of the NSFW neuron."""
    looks = {name: work.results(name).last for name in ("nsfw", "sfw")}
    values = figures.ends_values(*(figures.nsfw_probability(v) for v in looks.values()))
    titles = {"nsfw": "Maximising P(NSFW)", "sfw": "Minimising P(NSFW)"}
    pages = {
        f"{name}.png": sheets.nsfw_page(titles[name], work.runs[name], v)
        for name, v in looks.items()
    }
    return Group(values, pages)


def joint(work: Work) -> Group:
    """A scene and NSFW together."""
    runs, last = work.runs["joint"], work.results("joint").last
    p = figures.scene_probability(last, figures.scene_units(runs))
    values = figures.joint_values(p, figures.nsfw_probability(last))
    page = sheets.nsfw_page("A scene and NSFW together", runs, last, p)
    return Group(values, {"joint.png": page})


def random(work: Work) -> Group:
    """Random codes, not climbed."""
    last = work.results("random").last
    values = figures.random_values(figures.nsfw_probability(last))
    page = sheets.nsfw_page("Random codes, not climbed", work.runs["random"], last)
    return Group(values, {"random.png": page})


def _side(work: Work) -> int:
    return work.networks[GENERATOR].info.config.size


def _photographs(work: Work) -> ImageSet:
    return work.photographs(_side(work))


def _pixels(images: ImageSet) -> np.ndarray:
    """All usable photographs in order, (N, S, S, 3) uint8."""
    return images.images[images.rows]
