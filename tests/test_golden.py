"""Activations and gradients against arrays that real Caffe computed (tests/golden/README.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import hwc, noise_image, relative_error, relative_l2

import jaxsynth
from jaxsynth.porting.port import port

pytestmark = pytest.mark.full_size

CHECKSUMS = {  # sum of the weights in float64, first and last weight, first and last bias
    ("generator", "defc7"): (-13.4269528, -0.00283923536, -0.00601372076, 0.0589860678),
    ("generator", "deconv0"): (94.6256562, -0.238251165, 10.0107985, 4.10042763),
    ("places", "fc8"): (-72.071787, -0.00339545007, -0.0293207597, -0.170093834),
}


@pytest.fixture(scope="module")
def networks(big_generator, big_places):
    return {
        "generator": big_generator.network,
        "places": big_places.network,
        "nsfw": jaxsynth.load_network("open_nsfw"),
    }


def crop(image, size: int):
    start = (image.shape[0] - size) // 2
    return image[start : start + size, start : start + size]


def chw(x) -> np.ndarray:
    x = np.asarray(x)
    return np.moveaxis(x, -1, 0) if x.ndim == 3 else x


@pytest.mark.parametrize("key", CHECKSUMS)
def test_seeded_weights_are_those_of_the_golden_arrays(networks, key):
    network, layer = key
    kernel = np.asarray(networks[network].params[f"{layer}/kernel"], np.float64)
    total, first, last, bias = CHECKSUMS[key]
    flat = (kernel[::-1, ::-1] if kernel.ndim == 4 else kernel).ravel()  # unflip deconvolutions
    assert kernel.sum() == pytest.approx(total, rel=1e-6)
    assert (flat[0], flat[-1]) == pytest.approx((first, last), rel=1e-6)
    assert networks[network].params[f"{layer}/bias"][0] == pytest.approx(bias, rel=1e-6)


SUMMARIES = {
    "generator": ("generator_code0", lambda golden: golden["codes"]),
    "places": ("places_image0", lambda golden: hwc(noise_image(10, 227))),
    "nsfw": ("nsfw_image0", lambda golden: hwc(noise_image(20, 224))),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_activations(networks, golden, name):
    net, make_input = SUMMARIES[name]
    network = networks[name]
    out = jax.jit(network.apply)(network.params, make_input(golden))
    prefix = f"layer_summary/{net}/"
    blobs = [key.removeprefix(prefix) for key in golden if key.startswith(prefix)]
    assert len(blobs) >= 14
    for blob in blobs:
        x = chw(out[blob]).astype(np.float64)
        summary = [x.mean(), x.std(), x.min(), x.max(), *x.ravel()[:16]]
        wanted = golden[prefix + blob]  # 4 + up to 16 values, padded
        tolerance = 1e-4 * np.abs(wanted[:4]).max()
        n = len(summary)
        np.testing.assert_allclose(summary, wanted[:n], atol=tolerance, rtol=0, err_msg=blob)
    whole = [key for key in golden if key.startswith(f"{name}_") and f"{name}_mid" not in key]
    for key in whole:
        got = chw(out[key.removeprefix(f"{name}_")])
        assert relative_error(got, golden[key]) <= 1e-4, key
    if name == "nsfw":
        got = chw(out["eltwise_stage2_block0"])[::4]
        assert relative_error(got, golden["nsfw_mid_eltwise_stage2_block0_every4"]) <= 1e-4


# In float32 a rounding of 1e-6 may move one ReLU or one pooling window to its other side, which
# alone changes a gradient by up to 1e-2 (measured: one leaky ReLU of deconv4, one window of pool2).
# The tight comparisons are those in float64. Mistakes cost 0.1 and more.
SINGLE = 5e-2
IMAGE_GRADIENTS = {  # classifier -> names with their units, the input
    "places": ({"dfc8_8": ("fc8", 8)}, noise_image(10, 227)),
    "nsfw": ({"dprob_nsfw": ("prob", 1), "dlogit_nsfw": ("fc_nsfw", 1)}, noise_image(20, 224)),
}


def assert_image_gradients(networks, golden, classifier: str, tolerance: float, dtype) -> None:
    units, image = IMAGE_GRADIENTS[classifier]
    network = networks[classifier]

    @jax.jit
    def gradient(params, x, weights):
        def weighted(x):
            out = network.apply(params, x)
            return jnp.vdot(weights, jnp.stack([out[blob][unit] for blob, unit in units.values()]))

        return jax.grad(weighted)(x)

    params = {p: jnp.asarray(a, dtype) for p, a in network.params.items()}
    for name, weights in zip(units, jnp.eye(len(units), dtype=dtype), strict=True):
        got = gradient(params, jnp.asarray(hwc(image), dtype), weights)
        assert relative_l2(chw(got)[:, ::3, ::3], golden[f"image_{name}_every3"]) <= tolerance, name


@pytest.mark.parametrize("classifier", IMAGE_GRADIENTS)
def test_image_gradients(networks, golden, classifier):
    assert_image_gradients(networks, golden, classifier, SINGLE, jnp.float32)


def code_objectives(networks, classifier: str):
    """(params of generator and classifier, code) -> values, in the order of their names."""

    def values(params, code):
        image = networks["generator"].apply(params["generator"], code)["deconv0"]
        if classifier == "places":
            out = networks["places"].apply(params["places"], crop(image, 227))
            pixels = jnp.vdot(hwc(noise_image(30, 256)).astype(image.dtype), image)
            return jnp.stack([out["fc8"][8], out["fc8"][71], pixels])
        out = networks["nsfw"].apply(params["nsfw"], crop(image, 224))
        return jnp.concatenate([out["prob"], out["fc_nsfw"]])

    return values


OBJECTIVES = {
    "places": ["dfc8_8", "dfc8_71", "dsum_deconv0_times_R"],
    "nsfw": ["dprob_sfw", "dprob_nsfw", "dlogit_sfw", "dlogit_nsfw"],
}


def assert_code_gradients(networks, golden, classifier: str, prefix: str, tolerance, value_rtol):
    values = code_objectives(networks, classifier)
    double = bool(prefix)
    dtype = jnp.float64 if double else jnp.float32
    params = {
        name: {p: jnp.asarray(a, dtype) for p, a in networks[name].params.items()}
        for name in ("generator", classifier)
    }

    @jax.jit
    def value_and_gradient(params, code, weights):
        def weighted(code):
            out = values(params, code)
            return jnp.vdot(weights, out), out

        return jax.grad(weighted, has_aux=True)(code)

    for i, name in enumerate(OBJECTIVES[classifier]):
        weights = jnp.zeros(len(OBJECTIVES[classifier]), dtype).at[i].set(1)
        gradient, out = value_and_gradient(params, jnp.asarray(golden["codes"], dtype), weights)
        assert gradient.dtype == dtype
        assert relative_l2(gradient, golden[f"{prefix}code_{name}"]) <= tolerance, name
        value = golden.get(f"{prefix}value_{name[1:]}")
        if value is not None:
            assert float(out[i]) == pytest.approx(float(value), rel=value_rtol), name


@pytest.mark.parametrize("classifier", OBJECTIVES)
def test_code_gradients(networks, golden, classifier):
    assert_code_gradients(networks, golden, classifier, "", SINGLE, value_rtol=1e-4)


def test_gradients_in_double_precision(networks, golden):
    with jax.enable_x64(True):
        assert_image_gradients(networks, golden, "places", 1e-5, jnp.float64)
        assert_code_gradients(networks, golden, "places", "f64/", 1e-9, value_rtol=1e-10)


def test_gradients_of_yahoos_caffemodel(networks, golden, nsfw_caffemodel):
    """Folding in float64 follows Caffe's double build, which does not fold."""
    original = networks | {"nsfw": port("open_nsfw", nsfw_caffemodel)[0]}
    with jax.enable_x64(True):
        assert_code_gradients(original, golden, "nsfw", "f64/", 1e-9, value_rtol=1e-10)
        assert_image_gradients(original, golden, "nsfw", 1e-5, jnp.float64)
