"""Generators without weights: the code is the image's Fourier coefficients.

`fourier` is the parametrisation of Olah et al. 2017 ("Feature visualization") and their lucid: a
spectrum whose low frequencies count more, in decorrelated colours. `maco` is that of Fel et al.
2023 ("Unlocking feature visualization for deeper networks with magnitude constrained
optimization"): the code is the phases alone; magnitudes are those of natural images. They are no
prior of natural images, work at any size, and show what a classifier reacts to in plain pixels.

Codes are N(0, 1) at the start, phases in half turns. Images are RGB within 0 to 1 by a sigmoid.
"""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.images import UNIT_RGB
from jaxsynth.models.base import Generator, Info

# Square root of the covariance of ImageNet's colours, columns decorrelated; from lucid.
_COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS /= np.linalg.norm(_COLOURS, axis=0).max()
_SIGMA = 0.01  # of lucid's coefficients at the start
# Mean spectrum of 800 photographs before the sigmoid, in decorrelated colours: the magnitude of k
# cycles an image is S^2 * level * k^-slope for S x S pixels, within 25 % at 128 pixels; the mean.
_LEVELS = np.array([0.5573, 0.3893, 0.3599])
_SLOPES = np.array([1.253, 1.163, 1.060])
_MEANS = np.array([-0.732, 0.683, -0.388])
_RUN_BYTES = 100  # of a pixel: its code with Adam's state and a gradient, in float32


def fourier(size: int = 224) -> Generator:
    """Make lucid's generator of S x S pixels: real and imaginary parts -> an image."""
    cycles = _cycles(size)
    scale = _SIGMA / 4 * size**2 * (1 / cycles)  # lucid's, up to a constant
    params = {"scale": jnp.asarray(scale, jnp.float32)}
    return _make("fourier", _fourier, params, size, 2 * 3 * cycles.size)


def maco(size: int = 224) -> Generator:
    """Make the generator of phases of S x S pixels: half turns -> an image of natural spectrum."""
    cycles = _cycles(size)
    magnitude = size**2 * _LEVELS * cycles[..., None] ** -_SLOPES
    magnitude[0, 0] = 0  # the mean has no phase
    params = {"magnitude": jnp.asarray(magnitude, jnp.float32)}
    return _make("maco", _maco, params, size, 3 * cycles.size)


def _fourier(size: int, params, code: jax.Array) -> dict[str, jax.Array]:
    parts = code.reshape(2, size, size // 2 + 1, 3)
    spectrum = params["scale"][..., None] * jax.lax.complex(parts[0], parts[1])
    return {"code": code, "image": _show(jnp.fft.irfft2(spectrum, (size, size), axes=(0, 1)))}


def _maco(size: int, params, code: jax.Array) -> dict[str, jax.Array]:
    phases = jnp.pi * code.reshape(size, size // 2 + 1, 3)
    spectrum = params["magnitude"] * jax.lax.complex(jnp.cos(phases), jnp.sin(phases))
    image = jnp.fft.irfft2(spectrum, (size, size), axes=(0, 1)) + jnp.asarray(_MEANS, code.dtype)
    return {"code": code, "image": _show(image)}


def _show(image: jax.Array) -> jax.Array:
    """Decorrelated colours (S, S, 3) -> RGB within 0 to 1."""
    return jax.nn.sigmoid(image @ jnp.asarray(_COLOURS.T, image.dtype))


def _cycles(size: int) -> np.ndarray:
    """Cycles an image of each coefficient of a real transform, (S, S // 2 + 1), at least 1."""
    if size < 2:
        raise ValueError(f"size is {size}, expected 2 pixels or more")
    needed, there = _RUN_BYTES * size**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise ValueError(
            f"size is {size}: a run takes {needed / 1e9:.0f} GB or more, here are {there / 1e9:.0f}"
        )
    cycles = size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    return np.maximum(cycles, 1.0)


@functools.cache
def _of_size(function, size: int):
    """Fix the size; equal ones are one function, so that jit knows it again."""
    return functools.partial(function, size)


def _make(name: str, function, params, size: int, length: int) -> Generator:
    return Generator(
        apply=_of_size(function, size),
        params=params,
        code_size=length,
        preprocess=dataclasses.replace(UNIT_RGB, resize=f"resize{size}"),
        start="normal",
        name=name,
        recipe=name,
        recipe_from_image=name,
        info=Info(name, f"{name},size={size}", notes=f"{size} pixels, no weights"),
    )
