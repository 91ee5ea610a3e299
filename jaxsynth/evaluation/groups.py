"""Groups of metrics: each computes its numbers and the pages that show them; their table.

Every group is a function of `Work`; `jaxsynth.evaluation.run` calls those that were asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxsynth.ascent import ChunkResult, Evaluation
from jaxsynth.evaluation import measures
from jaxsynth.evaluation.pictures import (
    FEATURES,
    PLACES,
    Pair,
    inversion_metrics,
    invert,
    judge_ranks,
    label_units,
    logits_of,
    look,
    nsfw_page,
    reconstruct,
    reconstruction_page,
    scene_pages,
)
from jaxsynth.lpips import mean_pairwise_lpips
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.names import shipped_files
from jaxsynth.report.tables import format_markdown
from jaxsynth.results import Run
from jaxsynth.runs.parts import Parts
from jaxsynth.system import GENERATOR
from jaxsynth.training.data import ImageSet, batches
from jaxsynth.training.scene import top_k_accuracy

NSFW = "nsfw"
JUDGE = "judge"  # a classifier that no objective knows
LPIPS = "lpips"  # a network whose features tell how different two images look
_BATCH = 100
_SHEET = 24  # photographs on the page of reconstructions


class Work(NamedTuple):
    """The material of all groups. The functions compute when called, and once.

    Attributes:
      models: By role, those that the groups need: generator, places, nsfw, judge, encoder, lpips.
      pair: The generator with its encoder, or None.
      runs: Sweep -> its runs (`scenes`, `nsfw`, `sfw`, `joint`, `random`).
      results: Sweep -> its finished runs.
      photographs: () -> the validation photographs at the generator's side.
      some: The rows of them that all groups but `network` use.
      has_photographs: Whether there are any.
      reconstructions: () -> G(E(x)) of those, (N, S, S, 3) uint8, in their order.
      real_features: () -> the judge's features (N, C) of those.
    """

    models: Mapping[str, Generator | Classifier]
    pair: Pair | None
    runs: Mapping[str, Sequence[Run]]
    results: Callable[[str], ChunkResult]
    photographs: Callable[[], ImageSet]
    some: Callable[[], ImageSet]
    has_photographs: bool
    reconstructions: Callable[[], np.ndarray]
    real_features: Callable[[], np.ndarray]

    @property
    def generator(self) -> Generator:
        """The generator."""
        return self.models[GENERATOR]

    @property
    def pixels(self) -> np.ndarray:
        """Photographs `some` in order, (N, S, S, 3) uint8."""
        images = self.some()
        return images.images[images.rows]


class Group(NamedTuple):
    """A finished group: its metrics, and pages by file name."""

    metrics: dict[str, Any]
    pages: Mapping[str, Image.Image]


def network(work: Work) -> Group:
    """Measure top-1 and top-5 of the scene network on all photographs."""
    places, images = work.models[PLACES], work.photographs()
    images = images._replace(labels=label_units(images.classes, places)[images.labels])
    found = top_k_accuracy(logits_of(places), batches(images, _BATCH))
    metrics = {"top1": found["val top-1"], "top5": found["val top-5"], "loss": found["val loss"]}
    return Group(metrics | {"photographs": len(images.rows)}, {})


def inversion(work: Work) -> Group:
    """Compare E(G(E(x))) with E(x), and G(E(x)) with x."""
    images = work.some()
    metrics = inversion_metrics(invert(work.pair), batches(images, _BATCH))
    few = images.images[images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET]]
    page = reconstruction_page(few, reconstruct(work.pair, few))
    return Group(metrics | {"photographs": len(images.rows)}, {"reconstructions.png": page})


def frechet(work: Work) -> Group:
    """Measure the distance of reconstructions to photographs in the judge's features."""
    real = work.real_features()
    metrics = {
        "distance": _distance(work, work.reconstructions()),
        "halves": measures.feature_distance(real[::2], real[1::2]),  # its floor
        "photographs": len(real),
    }
    return Group(metrics, {})


def features(judge: Classifier, rgb: np.ndarray) -> np.ndarray:
    """Compute a judge's pooled features of pictures (N, S, S, 3): (N, C)."""
    return look(judge, rgb, [FEATURES])[FEATURES]


def _distance(work: Work, rgb: np.ndarray) -> float:
    """The Frechet distance of pictures to the photographs in the judge's features."""
    return measures.feature_distance(features(work.models[JUDGE], rgb), work.real_features())


def spectrum(work: Work) -> Group:
    """Compare spectra of reconstructions with photographs, and the pattern that all share."""
    made, real = work.reconstructions(), work.pixels
    shared = {
        "fixed": measures.fixed_pattern(made),
        "photographs_fixed": measures.fixed_pattern(real),
    }
    spectra = measures.compare_spectra(measures.mean_power(made), measures.mean_power(real))
    return Group(spectra | shared, {})


def scenes(work: Work) -> Group:
    """Ask scene images of the scene network, and of a judge that no objective knows."""
    runs, judge = work.runs["scenes"], work.models[JUDGE]
    images, pixels, units = work.some(), work.pixels, _scene_units(runs)
    names = np.array(work.models[PLACES].class_names)[units]
    labels = np.array(images.classes)[images.labels[images.rows]]
    same = np.isin(labels, names)  # photographs of the categories that were maximised
    if not same.any():
        raise ValueError("no validation photograph is of a category of scenes: see --data")
    real = judge_ranks(judge, pixels[same], label_units(labels[same], judge))
    last = work.results("scenes").last
    rgb, p = work.generator.preprocess.show(last.image), _p_scene(last, units)
    made = judge_ranks(judge, rgb, label_units(names, judge))
    metrics = measures.scene_values(p) | measures.judge_values(made, real)
    metrics |= {"categories": len(set(units.tolist())), "frechet": _distance(work, rgb)}
    unclipped = work.generator.preprocess.to_rgb(last.image)
    metrics |= {"saturated": measures.saturated_share(unclipped)}
    metrics |= _lpips(work, rgb, names, pixels[same], labels[same])
    metrics |= measures.compare_spectra(measures.mean_power(rgb), measures.mean_power(pixels))
    pages = scene_pages(runs, rgb, p, made < measures.TOP)
    return Group(metrics, {f"scenes_{i:02d}.png": page for i, page in enumerate(pages)})


def _lpips(work: Work, made, names, photographs, labels) -> dict[str, float]:
    """Compare the mean LPIPS of pairs of seeds with that of pairs of photographs of a category.

    Of each category as many photographs as there are seeds; {} without the network of LPIPS, or
    where there are no two of a category.
    """
    counts = {name: min((names == name).sum(), (labels == name).sum()) for name in set(names)}
    least = min(counts.values())
    if LPIPS not in work.models or least < 2:
        return {}
    groups = [
        np.stack([images[of == name][:least] for name in sorted(counts)])
        for images, of in ((made, names), (photographs, labels))
    ]
    seeds, real = (float(mean_pairwise_lpips(g, work.models[LPIPS]).mean()) for g in groups)
    return {"lpips_seeds": seeds, "lpips_photographs": real, "lpips_share": seeds / real}


def nsfw(work: Work) -> Group:
    """Measure both ends of the NSFW neuron."""
    titles = {"nsfw": "Maximising P(NSFW)", "sfw": "Minimising P(NSFW)"}
    p, pages, show = [], {}, work.generator.preprocess.show
    for name, title in titles.items():
        last = work.results(name).last
        p.append(_p_nsfw(work, last))
        pages[f"{name}.png"] = nsfw_page(title, work.runs[name], show(last.image), p[-1])
    return Group(measures.ends_values(*p), pages)


def joint(work: Work) -> Group:
    """Measure a scene and NSFW together."""
    last = work.results("joint").last
    p = _p_scene(last, _scene_units(work.runs["joint"]))
    p_nsfw, title = _p_nsfw(work, last), "A scene and NSFW together"
    rgb = work.generator.preprocess.show(last.image)
    page = nsfw_page(title, work.runs["joint"], rgb, p_nsfw, p)
    return Group(measures.joint_values(p, p_nsfw), {"joint.png": page})


def random(work: Work) -> Group:
    """Measure random codes, not optimised; with photographs, against those."""
    last = work.results("random").last
    p, rgb = _p_nsfw(work, last), work.generator.preprocess.show(last.image)
    metrics = measures.random_values(p)
    if JUDGE in work.models and work.has_photographs:
        real = work.pixels
        metrics |= {"frechet": _distance(work, rgb)}
        metrics |= measures.compare_spectra(measures.mean_power(rgb), measures.mean_power(real))
    page = nsfw_page("Random codes, not optimised", work.runs["random"], rgb, p)
    return Group(metrics, {"random.png": page})


def size(work: Work) -> Group:
    """Measure the weights that ship with the package, in MB (1e6)."""
    sizes = {path.name: path.stat().st_size for path in shipped_files()}
    return Group({"megabytes": sum(sizes.values()) / 1e6, "files": sizes}, {})


def _scene_units(runs: Sequence[Run]) -> np.ndarray:
    """The scene of each run, (R,)."""
    return np.array(
        [next(t.unit for t in run.objective.terms if t.network == PLACES) for run in runs]
    )


def _p_scene(last: Evaluation, units: np.ndarray) -> np.ndarray:
    """P(its own scene) of each run's image, (R,); 0 where the image is not finite."""
    return np.nan_to_num(last.watched[PLACES]["prob"][np.arange(len(units)), units])


def _p_nsfw(work: Work, last: Evaluation) -> np.ndarray:
    """P(NSFW) of each run's image, (R,); NaN where the image is not finite."""
    return work.models[NSFW].sensitive_probability(last.watched[NSFW]["prob"])


def summary_line(name: str, metrics: Mapping[str, Any]) -> str:
    """Return a group's metrics on one line."""
    if name == "scenes":
        fraction = metrics["judge_fraction"]
        return (
            f"scenes: P >= 0.9 {metrics['reached']:.1%}, median P {metrics['median']:.3f}, "
            f"judge top-5 {metrics['judge_made']:.1%} (photographs {metrics['judge_real']:.1%}), "
            f"fraction {'none' if fraction is None else format(fraction, '.2f')}, "
            f"LPIPS share {metrics.get('lpips_share', float('nan')):.2f}, "
            f"clipped {metrics['saturated']:.1%}, spectrum {metrics['largest_db']:.1f} dB"
        )
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    return f"{name}: {', '.join(f'{k} {v:.4g}' for k, v in numbers.items())}"


def table_text(parts: Parts, groups: Sequence[str]) -> str:
    """Format the table: a row for every number, and how each group was made."""
    found = [name for name in groups if name in parts.names()]
    rows = [
        {"group": name, "metric": metric, "value": text}
        for name in found
        for metric, value in parts.value(name)["metrics"].items()
        if (text := _text(value))
    ]
    lines = [format_markdown(rows)]
    if missing := [name for name in groups if name not in found]:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    made: dict[str, list[str]] = {}  # command and hardware -> groups
    for name in found:
        how = f"`{parts.command(name)}`, {parts.value(name)['hardware']}"
        made.setdefault(how, []).append(name)
    lines += [f"* {', '.join(names)}: {how}" for how, names in made.items()]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    """Return a number, or a few named ones, as text; "" for curves and missing numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {number:+.1f}" for name, number in value.items())
    return f"{value:.4g}" if isinstance(value, int | float) else ""
