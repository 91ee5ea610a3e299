"""Generators of Fourier coefficients: numpy's transform, spectra, sizes, a search."""

import jax
import numpy as np
import pytest
from launching import run
from PIL import Image
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth.models.pixels import _COLOURS, _LEVELS, _MEANS, _SLOPES, fourier, maco
from jaxsynth.repeat import repeat
from jaxsynth.report.pages import read_sweep


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
    for name in ("maco", "fourier"):
        made = js.load(f"{name},size=20")
        assert made.image_size == 20 and js.load(made.info.asked).image_size == 20
    with pytest.raises(ValueError, match=r"size is 99999: .* GB"):
        js.load("fourier,size=99999")


def _flags(folder):
    return [*save_tiny_networks(folder)[1:], "--term=places:fc8:bar:1", "--seeds=1", "--steps=1"]


def test_size_is_what_generators_without_weights_compute(tmp_path):
    flags = _flags(tmp_path)
    done = run("synthesize", *flags, "--generator=fourier", "--size=18", f"--out={tmp_path / 'a'}")
    assert done.returncode == 0 and "Lanczos" not in done.stderr, done.stderr
    with Image.open(tmp_path / "a" / "images" / "run00000_best.png") as image:
        assert image.size == (18, 18)
    made = repeat(image.filename, tmp_path / "again.png")
    assert made.equal, made.line
    assert read_sweep(tmp_path / "a").generator.image_size == 18
    more = [f"--continue_from={tmp_path / 'a'}", "--extend_steps=1", f"--out={tmp_path / 'b'}"]
    done = run("synthesize", *flags[:2], *more)
    assert done.returncode == 0, done.stderr
    before, after = (js.read_results(tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(after.start_codes, before.codes)


def test_size_only_enlarges_what_a_learned_prior_makes(tmp_path):
    out, flags = tmp_path / "a", [f"--generator={tmp_path}/generator.safetensors"]
    flags = [*flags, *_flags(tmp_path), "--size=40", f"--out={out}"]
    done = run("synthesize", *flags)
    said = "tiny_generator makes 16 x 16 pixels; the files in images/ are enlarged to 40 x 40 by"
    assert done.returncode == 0 and said in done.stderr, done.stderr
    assert said in (out / "index.html").read_text()
    runs = read_sweep(out)
    assert runs.raw.shape == (1, 16, 16, 3)
    expected = Image.fromarray(runs[0].best).resize((40, 40), Image.Resampling.LANCZOS)
    with Image.open(out / "images" / "run00000_best.png") as image:
        np.testing.assert_array_equal(image, expected)
    made = repeat(out / "images" / "run00000_best.png", tmp_path / "again.png")
    assert made.equal, made.line
    runs[0].save(tmp_path / "large.png", size=50)
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (50, 50)
    with pytest.raises(ValueError, match="size is 8, but the image has 16 pixels"):
        runs[0].save(tmp_path / "small.png", size=8)
    flags[flags.index("--size=40")] = "--size=32"
    done = run("synthesize", *flags, "--resume")
    assert done.returncode == 2 and "holds a run with --size 40, not 32" in done.stderr
    flags[flags.index("--size=32")] = "--size=8"
    done = run("synthesize", *flags, "--overwrite")
    assert done.returncode == 2 and "tiny_generator makes 16 pixels" in done.stderr
