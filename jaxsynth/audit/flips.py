"""How little flips a decision: the smallest change found in pixels, and in codes of the prior.

Each step goes to where the decision's linear approximation crosses the threshold, and a little
beyond. Source: Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep
neural networks"; here with one decision, steps of limited length, and codes beside pixels.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth import system
from jaxsynth.audit.settings import PIXELS, PRIOR
from jaxsynth.audit.subjects import DECISION, Subject
from jaxsynth.devices import batches
from jaxsynth.images import conversion
from jaxsynth.lpips import lpips
from jaxsynth.models.base import Generator
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.system import system_params, view

_BATCH = 8
_BEYOND = 0.02  # share of a step that it goes beyond the linear crossing
_STEPS = 20
_LEAST_LPIPS = 32  # pixels a side
_LONGEST = {PIXELS: 2.0, PRIOR: 0.15}  # of a step, root mean square: grey levels, sigmas of codes
Slope = Callable[[np.ndarray], tuple[Any, Any]]  # (B, ...) -> decisions (B,), their gradients


class Flip(NamedTuple):
    """Pictures before and after, as the classifier sees them.

    Attributes:
      before, after: (N, size, size, 3) float RGB of 0..255.
      odds: (N, 2) decision before and after.
      code: (N,) root mean square change of the code, in its sigmas; None for pixels.
    """

    before: np.ndarray
    after: np.ndarray
    odds: np.ndarray
    code: np.ndarray | None = None


def cross(
    slope: Slope, start: np.ndarray, level: float, longest: float, limits: tuple[Any, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Move points until their decision is on the other side of a level.

    Args:
      slope: Decisions and gradients of points (B, ...).
      start: (B, ...).
      level: Of the decision.
      longest: Root mean square of a single step, at most.
      limits: Least and largest values, that broadcast against points.

    Returns:
      The points (B, ...) and decisions (B, 2), before and after. A point that does not cross stays
      where its last step led.
    """
    x, axes = np.array(start, np.float32), tuple(range(1, np.ndim(start)))
    low, high = np.minimum(limits[0], x), np.maximum(limits[1], x)
    first = value = np.zeros(len(x))
    for step in range(_STEPS + 1):
        found, gradient = slope(x)
        value = np.asarray(found, float) - level
        first = value if step == 0 else first
        left = (value > 0) == (first > 0)
        if step == _STEPS or not left.any():
            break
        gradient = np.asarray(gradient)
        square = np.maximum((gradient**2).sum(axes), 1e-20)
        length = -(1 + _BEYOND) * value / square - 1e-4 * np.sign(first) / np.sqrt(square)
        rms = np.abs(length) * np.sqrt(square / gradient[0].size)
        length *= np.minimum(1.0, longest / np.maximum(rms, 1e-20)) * left
        move = length.reshape(-1, *(1,) * len(axes)) * gradient
        x = np.clip(x + move, low, high).astype(np.float32)
    return x, np.stack([first, value], 1) + level


def flip_pixels(subject: Subject, inputs: np.ndarray, threshold: float) -> Flip:
    """Change the pixels of a classifier's inputs (N, size, size, 3) until its decision flips."""
    model = subject.model
    params = model.params if model.prepare is None else model.prepare(model.params)
    slope = partial(_pixel_slope, model.activations, params)
    black, dark, white = (model.preprocess.to_input(np.full(3, v)) for v in (0, 1, 255))
    limits = np.minimum(black, white), np.maximum(black, white)
    longest = _LONGEST[PIXELS] * float(np.abs(dark - black).mean())
    after, odds = _in_batches(slope, inputs, _level(threshold), longest, limits)
    return Flip(model.preprocess.to_rgb(inputs), model.preprocess.to_rgb(after), odds)


def flip_codes(subject: Subject, generator: Generator, codes: np.ndarray, threshold: float) -> Flip:
    """Change codes (N, D) until the decision on their images flips."""
    model, code = subject.model, generator.code
    units = conversion(generator.preprocess, model.preprocess)
    static = (generator.activations, generator.image, model.activations, model.size, units)
    params = system_params(generator, [model])
    sigma = np.ones(generator.code_size) if code is None or code.sigma is None else code.sigma
    sigma = np.maximum(np.asarray(sigma, np.float32), 1e-3 * float(np.max(sigma)))
    own = params[system.GENERATOR], params[model.name]

    def slope(scaled: np.ndarray) -> tuple[Any, Any]:
        return _code_slope(static, own, jnp.asarray(sigma), scaled)

    low = -np.inf if code is None else (np.zeros(len(sigma)) if code.lower is None else code.lower)
    high = np.inf if code is None else code.upper
    limits = np.asarray(low) / sigma, np.asarray(high) / sigma
    start = np.asarray(codes, np.float32) / sigma
    after, odds = _in_batches(slope, start, _level(threshold), _LONGEST[PRIOR], limits)
    seen = []
    for z in (start, after):
        parts = [
            np.asarray(_seen(static, own, part * sigma))[:count]
            for part, count in batches(z, _BATCH)
        ]
        seen.append(np.clip(model.preprocess.to_rgb(np.concatenate(parts)), 0, 255))
    distance = np.sqrt(((after - start) ** 2).mean(1))
    return Flip(seen[0], seen[1], odds, distance)


def distances(flip: Flip) -> dict[str, np.ndarray]:
    """Measure changes: root mean square in grey levels, and LPIPS if its network is installed."""
    rms = np.sqrt(((flip.after - flip.before) ** 2).mean((1, 2, 3)))
    found = {"grey levels": rms} | ({} if flip.code is None else {"code": flip.code})
    if flip.before.shape[1] < _LEAST_LPIPS:
        return found
    try:
        return found | {"LPIPS": lpips(flip.before, flip.after)}
    except ValueError:  # the package is not installed
        return found


def _level(threshold: float) -> float:
    return math.log(threshold / (1 - threshold))


def _in_batches(slope: Slope, start: np.ndarray, level: float, longest: float, limits: Any):
    found = [
        tuple(part[:count] for part in cross(slope, some, level, longest, limits))
        for some, count in batches(start, _BATCH)
    ]
    return tuple(map(np.concatenate, zip(*found, strict=True)))


@partial(network_jit, static_argnums=0)
def _pixel_slope(activations: Any, params: Any, x: jax.Array):
    return jax.vmap(jax.value_and_grad(lambda one: activations(params, one)[DECISION][0]))(x)


def _image_seen(static: tuple, params: Any, code: jax.Array) -> jax.Array:
    generate, blob, _, size, units = static
    return view(generate(params[0], code)[blob], size, units)


@partial(network_jit, static_argnums=0)
def _seen(static: tuple, params: Any, codes: jax.Array) -> jax.Array:
    return jax.vmap(partial(_image_seen, static, params))(codes)


@partial(network_jit, static_argnums=0)
def _code_slope(static: tuple, params: Any, sigma: jax.Array, scaled: jax.Array):
    def decision(z: jax.Array) -> jax.Array:
        return static[2](params[1], _image_seen(static, params, z * sigma))[DECISION][0]

    return jax.vmap(jax.value_and_grad(decision))(scaled)
