"""Images of a generator in training: metrics on photographs, and `samples.png`."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxsynth.arithmetic import root_key
from jaxsynth.images import to_rgb
from jaxsynth.models.compiled import network_jit
from jaxsynth.training.augment import to_input
from jaxsynth.training.data import ImageSet, batches
from jaxsynth.training.prior import PriorParts, PriorState

_BATCH = 100  # of photographs that are only looked at
_SHEET = 16  # columns of the sheet


def measure_prior(
    parts: PriorParts, state: PriorState, frozen: Any, images: ImageSet
) -> dict[str, float]:
    """Measure the rms of E(G(E(x))) - E(x) and, in grey levels, of G(E(x)) - x."""
    look = partial(_reconstruct, parts)
    code = pixels = total = 0.0
    for rgb, _, count in batches(images, _BATCH):
        z, made, x, image = (np.asarray(v)[:count] for v in look(state.average, frozen, rgb))
        code += float(((made - z) ** 2).mean(1).sum())
        pixels += float(((image - x) ** 2).mean((1, 2, 3)).sum())
        total += count
    return {"val code": (code / total) ** 0.5, "val rms": (pixels / total) ** 0.5}


@partial(network_jit, static_argnums=0)
def _reconstruct(parts, average, frozen, rgb):
    x = to_input(rgb)
    z = parts.encode(frozen["encoder"], x)["code"]
    image = parts.generate(average, z)
    return z, parts.encode(frozen["encoder"], image)["code"], x, image


@partial(network_jit, static_argnums=0)
def _generate(parts, average, codes):
    return parts.generate(average, codes)


def write_sheet(
    path: Path, parts: PriorParts, state: PriorState, frozen: Any, images: ImageSet
) -> None:
    """Write photographs, their reconstructions, images of N(0, 1) and of 0.7 N(0, 1)."""
    chosen = images._replace(rows=images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET])
    (rgb, _, _), *_ = batches(chosen, _SHEET)
    _, _, x, made = partial(_reconstruct, parts)(state.average, frozen, rgb)
    codes = jax.random.normal(root_key(1), (_SHEET, _code_size(state)))
    drawn = [_generate(parts, state.average, scale * codes) for scale in (1.0, 0.7)]
    rows = [np.concatenate([to_rgb(np.asarray(v)) for v in row], 1) for row in (x, made, *drawn)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(path)


def _code_size(state: PriorState) -> int:
    return state.params["colour"]["bias"].shape[0]
