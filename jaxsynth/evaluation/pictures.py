"""8-bit pictures as a user sees them: what networks see, reconstructions, pages.

Pictures are (N, S, S, 3) uint8, RGB. Photographs and made images of one side S take the same way
into a network: `jaxsynth.system.view` where its side is another one. In between, images are in
Caffe's units (`jaxsynth.images.CAFFE`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxsynth.devices import batches
from jaxsynth.images import CAFFE, conversion
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.compiled import network_jit
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.results import Run
from jaxsynth.runs.records import model_record
from jaxsynth.system import view
from jaxsynth.table import BLUR_ABOVE
from jaxsynth.training.data import Batch
from jaxsynth.training.setup import to_input

FEATURES = "pool"  # pooled features of a judge
PLACES = "places"
_PAGE_ROWS = 25  # categories on a page of scenes
_COLUMNS = 8
_BATCH = 100
# x (B, S, S, 3) -> E(x) and E(G(E(x))), (B, D), and G(E(x))
Circle = Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


class Pair(NamedTuple):
    """A generator G and the encoder E that it inverts."""

    generator: Generator
    encoder: Classifier


def check_judge(judge: Classifier, labels: Sequence[str], others: Mapping[str, Any]) -> None:
    """Raise ValueError unless a judge sees whole pictures and has pooled features and labels.

    Or if it is one of the others, by role.
    """
    own = model_record(judge)
    for role, other in others.items():
        if model_record(other)["sha256"] == own["sha256"]:
            raise ValueError(
                f"{own['name']!r} is the judge and cannot be the network for {role!r} as well: a "
                "judge that is maximised or inverted judges nothing"
            )
    if FEATURES not in judge.shapes:
        raise ValueError(
            f"judge {judge.info.network!r} has no pooled features: expected a blob `{FEATURES}`"
        )
    how = judge.preprocess.resize
    if how not in ("simple", f"resize{judge.size}"):
        raise ValueError(
            f"judge {judge.info.network!r} takes {how!r} pictures, expected resize{judge.size}"
        )
    label_units(labels, judge)


def label_units(labels: Sequence[str], classifier: Classifier) -> np.ndarray:
    """Find the classifier's unit of each label, (len(labels),).

    Raises:
      ValueError: For a label that the classifier does not have.
    """
    place = {name: unit for unit, name in enumerate(classifier.class_names)}
    unknown = [label for label in labels if label not in place]
    if unknown:
        name = classifier.info.network or classifier.name
        raise ValueError(f"category {unknown[0]!r} is none of those of network {name!r}")
    return np.array([place[label] for label in labels], np.int64)


def look(classifier: Classifier, rgb: np.ndarray, blobs: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute a classifier's blobs of pictures: blob -> (N, K), spatial blobs flattened."""
    units = conversion(CAFFE, classifier.preprocess)
    static = (classifier.activations, classifier.size, units, tuple(blobs))
    found = [
        {blob: np.asarray(a)[:count] for blob, a in _look(static, classifier.params, some).items()}
        for some, count in batches(rgb, min(_BATCH, len(rgb)))
    ]
    return {blob: np.concatenate([part[blob] for part in found]) for blob in blobs}


@partial(network_jit, static_argnums=0)
def _look(static, params, rgb):
    apply, size, units, blobs = static
    out = jax.vmap(apply, (None, 0))(params, view(to_input(rgb), size, units))
    return {blob: out[blob].reshape(rgb.shape[0], -1) for blob in blobs}


def ranks(logits: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Count the classes that stand before each row's unit: logits (N, K), units (N,) -> (N,)."""
    own = np.take_along_axis(logits, np.asarray(units)[:, None], axis=1)
    return np.where(np.isfinite(own[:, 0]), (logits > own).sum(1), logits.shape[1])


def judge_ranks(judge: Classifier, rgb: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Find the rank (N,) that a judge gives each picture's own unit (N,), 0 for the first."""
    return ranks(look(judge, rgb, [judge.logits])[judge.logits], units)


def logits_of(classifier: Classifier) -> Callable[[jax.Array], jax.Array]:
    """Make the function x (B, S, S, 3) in Caffe's units -> logits (B, K)."""
    units = conversion(CAFFE, classifier.preprocess)
    static = (classifier.activations, classifier.size, units, classifier.logits)
    return partial(_logits, static, classifier.params)


@partial(network_jit, static_argnums=0)
def _logits(static, params, x):
    apply, size, units, blob = static
    return jax.vmap(apply, (None, 0))(params, view(x, size, units))[blob]


def invert(pair: Pair) -> Circle:
    """Make the circle of a pair, for x in Caffe's units; G(E(x)) is in them, too, not clipped."""
    generator, encoder = pair
    pixels = generator.preprocess
    static = (
        (generator.activations, generator.image, conversion(pixels, CAFFE)),
        (encoder.activations, encoder.size, generator.encoder_blob),
        (conversion(CAFFE, encoder.preprocess), conversion(pixels, encoder.preprocess)),
    )
    return lambda x: _invert(static, generator.params, encoder.params, x)


@partial(network_jit, static_argnums=0)
def _invert(static, generator_params, encoder_params, x):
    (generate, image, shown), (encode, size, blob), (of_photo, of_made) = static

    def encoded(image, units):
        out = jax.vmap(encode, (None, 0))(encoder_params, view(image, size, units))
        return out[blob].reshape(image.shape[0], -1)

    code = encoded(x, of_photo)
    made = jax.vmap(generate, (None, 0))(generator_params, code)[image]
    return code, encoded(made, of_made), shown(made) if shown else made


def reconstruct(pair: Pair, rgb: np.ndarray) -> np.ndarray:
    """Compute G(E(x)) of pictures of the generator's side, in 8 bits: (N, S, S, 3) uint8."""
    circle = invert(pair)
    return np.concatenate([
        CAFFE.show(np.asarray(circle(to_input(some))[-1])[:count])
        for some, count in batches(rgb, min(_BATCH, len(rgb)))
    ])  # fmt: skip


def inversion_metrics(circle: Circle, some: Iterable[Batch]) -> dict[str, float]:
    """Measure how well G inverts E on photographs x.

    Args:
      circle: See `Circle`.
      some: Batches of photographs.

    Returns:
      `explained`: 1 less the mean square of what E(G(E(x))) loses over a unit's variance, at least
      0, the mean over units that vary; `silent`: number of units that do not; `rms`: of the
      difference of images in grey levels.
    """
    square = total = 0.0
    sums = 0.0  # (3, D): of codes, of their squares, of the squares of what is lost
    for rgb, _, count in some:
        x = to_input(rgb)
        code, code_made, image = (np.asarray(v)[:count] for v in circle(x))
        square += float(((image - np.asarray(x)[:count]) ** 2).mean((1, 2, 3)).sum())
        wide = code.astype(np.float64)
        sums = np.stack([wide, wide**2, (code_made - wide) ** 2]).sum(1) + sums
        total += count
    mean, power, lost = sums / total
    variance = power - mean**2
    varies = variance > 1e-9 * power
    share = np.maximum(1 - lost[varies] / variance[varies], 0)
    return {
        "explained": float(share.mean()) if varies.any() else 0.0,
        "silent": int((~varies).sum()),
        "rms": (square / total) ** 0.5,
    }


def scene_pages(
    runs: Sequence[Run], rgb: np.ndarray, p: np.ndarray, seen: np.ndarray
) -> list[Image.Image]:
    """Draw a row per category, a column per seed, with P(target) and the judge's word, (R,)."""
    columns = len({run.seed for run in runs})
    tiles = [
        Tile(image, (f"P {q:.2f}, judge {'sees it' if s else 'does not'}",))
        for image, q, s in zip(rgb, p, seen, strict=True)
    ]
    names = [run.row for run in runs[::columns]]
    pages = []
    for first in range(0, len(names), _PAGE_ROWS):
        rows = names[first : first + _PAGE_ROWS]
        own = tiles[first * columns :][: len(rows) * columns]
        heads = [run.column for run in runs[:columns]]
        title = f"scene, categories {first} to {first + len(rows) - 1} of {len(names)}"
        pages.append(contact_sheet(own, columns, title, rows, heads))
    return pages


def reconstruction_page(photographs: np.ndarray, made: np.ndarray) -> Image.Image:
    """Draw rows of photographs above rows of their reconstructions, (N, S, S, 3) uint8 each."""
    tiles, labels, columns = [], [], min(_COLUMNS, len(photographs))
    for first in range(0, len(photographs) - columns + 1, columns):  # full rows only
        part = slice(first, first + columns)
        for name, images in (("photographs", photographs), ("G(E(x))", made)):
            tiles += [Tile(image) for image in images[part]]
            labels.append(name)
    return contact_sheet(tiles, columns, "Photographs and their reconstructions", labels)


def nsfw_page(
    title: str,
    runs: Sequence[Run],
    rgb: np.ndarray,
    p: np.ndarray,
    p_scene: np.ndarray | None = None,
) -> Image.Image:
    """Draw runs with their P(NSFW) and P(scene), (R,); above 0.5, or where it is NaN, blurred.

    Runs of scenes get a row for each, and must be as many for each.
    """
    tiles = []
    for i, image in enumerate(rgb):
        lines = [f"seed {runs[i].seed}, NSFW {p[i]:.3f}"]
        if p_scene is not None:
            lines.append(f"scene {p_scene[i]:.2f}")
        bad = not np.isfinite(p[i])
        blur = bool(bad or p[i] > BLUR_ABOVE)
        tiles.append(Tile(image, tuple(lines), blur=blur, flag="non-finite" if bad else ""))
    terms = [t for run in runs for t in run.objective.terms]
    rows = list(dict.fromkeys(t.label for t in terms if t.network == PLACES))
    if not rows:
        return contact_sheet(tiles, _COLUMNS, title)
    return contact_sheet(tiles, len(runs) // len(rows), title, rows)
