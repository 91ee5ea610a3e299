"""Networks that look at 8-bit pictures, as a user sees them; a generator and encoder in a circle.

Pictures are (N, S, S, 3) uint8, RGB. Photographs and made images of one side S take the same way
into a network: mean-subtracted BGR, then `engine.objective.view` where its side is another one.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import numpy as np

from jaxsynth.images import to_rgb
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Network, activation_shapes, is_generator, logits_blob
from jaxsynth.system import view
from jaxsynth.training.augment import to_input
from jaxsynth.training.measure import Pair, invert

FEATURES = "pool"  # pooled features of a judge
_BATCH = 100


def check_judge(judge: Network, labels: Sequence[str]) -> None:
    """Raises ValueError unless a judge can be asked: whole pictures, pooled features, labels."""
    config = judge.info.config
    if is_generator(config) or FEATURES not in activation_shapes(config):
        raise ValueError(f"judge {judge.name!r} has no pooled features: expected a residual net")
    how, size = judge.info.preprocessing or "simple", judge.input_shape[0]
    if how not in ("simple", f"resize{size}"):
        raise ValueError(f"judge {judge.name!r} takes {how!r} pictures, expected resize{size}")
    label_units(labels, judge)


def label_units(labels: Sequence[str], network: Network) -> np.ndarray:
    """The network's unit of each label, (len(labels),).

    Raises:
      ValueError: for a label that the network does not have.
    """
    place = {name: unit for unit, name in enumerate(network.class_names)}
    unknown = [label for label in labels if label not in place]
    if unknown:
        raise ValueError(f"category {unknown[0]!r} is none of those of network {network.name!r}")
    return np.array([place[label] for label in labels], np.int64)


def look(network: Network, rgb: np.ndarray, blobs: Sequence[str]) -> dict[str, np.ndarray]:
    """What a classifier makes of pictures: blob -> (N, K), spatial blobs flattened."""
    static = (network.apply, network.input_shape[0], tuple(blobs))
    parts = [_look(static, network.params, batch) for batch in padded_batches(rgb)]
    return {b: np.concatenate([np.asarray(p[b]) for p in parts])[: len(rgb)] for b in blobs}


def ranks(logits: np.ndarray, units: np.ndarray) -> np.ndarray:
    """How many classes stand before each row's unit: logits (N, K), units (N,) -> (N,)."""
    own = np.take_along_axis(logits, np.asarray(units)[:, None], axis=1)
    return np.where(np.isfinite(own[:, 0]), (logits > own).sum(1), logits.shape[1])


def judge_ranks(judge: Network, rgb: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Rank (N,) that a judge gives each picture's own unit (N,), 0 for the first."""
    blob = logits_blob(judge.info.config)
    return ranks(look(judge, rgb, [blob])[blob], units)


def reconstruct(pair: Pair, rgb: np.ndarray) -> np.ndarray:
    """G(E(x)) of pictures of the generator's side, clipped to 8 bits: (N, S, S, 3) uint8."""
    inverted = invert(*pair)
    parts = [to_rgb(np.asarray(inverted(to_input(batch))[-1])) for batch in padded_batches(rgb)]
    return np.concatenate(parts)[: len(rgb)]


def padded_batches(rows: np.ndarray, most: int = _BATCH) -> Iterator[np.ndarray]:
    """Batches of one size, `most` at most: the last one is filled up by repetition."""
    size = min(most, len(rows))
    for first in range(0, len(rows), size):
        yield rows[np.minimum(np.arange(first, first + size), len(rows) - 1)]


@partial(network_jit, static_argnums=0)
def _look(static, params, rgb):
    apply, size, blobs = static
    out = jax.vmap(apply, (None, 0))(params, view(to_input(rgb), size))
    return {blob: out[blob].reshape(rgb.shape[0], -1) for blob in blobs}
