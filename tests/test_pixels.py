"""Generators of Fourier coefficients: numpy's transform, spectra, sizes, a search."""

import jax
import numpy as np
import pytest

import jaxsynth as js
from jaxsynth.models.pixels import _COLOURS, _LEVELS, _MEANS, _SLOPES, fourier, maco


def _image(generator, seed=0, scale=1.0):
    code = scale * jax.random.normal(jax.random.key(seed), (generator.code_size,))
    return np.asarray(code), np.asarray(generator.apply(generator.params, code)["image"])


def _before_sigmoid(image):
    logits = np.log(image.astype(np.float64) / (1 - image))
    return logits @ np.linalg.inv(_COLOURS.T)


@pytest.mark.parametrize("size", [9, 16])
def test_fourier_is_numpys_inverse_transform(size):
    generator = fourier(size)
    code, image = _image(generator, scale=20)
    real, imaginary = code.reshape(2, size, size // 2 + 1, 3).astype(np.float64)
    cycles = size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    scale = 0.01 / 4 * size**2 / np.maximum(cycles, 1)
    spectrum = scale[..., None] * (real + 1j * imaginary)
    expected = np.fft.irfft2(spectrum, (size, size), axes=(0, 1))
    np.testing.assert_allclose(_before_sigmoid(image), expected, atol=2e-4)


@pytest.mark.parametrize("size", [15, 32])
def test_maco_keeps_the_magnitudes_of_photographs(size):
    _, image = _image(maco(size))
    made = _before_sigmoid(image)
    np.testing.assert_allclose(made.mean((0, 1)), _MEANS, atol=1e-3)
    spectrum = np.abs(np.fft.rfft2(made, axes=(0, 1)))
    for row, column in ((1, 2), (3, 1), (0, 5)):
        cycles = np.hypot(row, column)
        expected = size**2 * _LEVELS * cycles**-_SLOPES
        np.testing.assert_allclose(spectrum[row, column], expected, rtol=1e-3)


def test_a_size_of_one_pixel_is_refused():
    with pytest.raises(ValueError, match="size is 1"):
        maco(1)


@pytest.mark.parametrize("name", ["fourier", "maco"])
def test_a_search_in_pixels_raises_its_objective(name):
    def apply(params, image):  # two units that look for their own pattern
        return (image * params).sum((0, 1))[:2]

    pattern = np.random.default_rng(0).normal(size=(24, 24, 3)).astype(np.float32)
    mine = js.Classifier(apply, pattern, size=24)
    generator = {"fourier": fourier, "maco": maco}[name](24)
    recipe = js.recipes.make_recipe(name, steps=20, jitter=0)
    result = js.maximize(mine.logit(0), generator, recipe=recipe, seed=1)
    assert result.image.shape == (24, 24, 3)
    assert result.objective[-1] > result.objective[0] + 1


def test_both_are_loaded_by_name():
    assert js.load("maco").image_size == 224 and js.load("fourier").code_size == 2 * 3 * 224 * 113
