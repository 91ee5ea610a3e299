"""State dicts of PyTorch with torchvision's names, and of the generators of 2016."""

import dataclasses

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest
import safetensors.numpy
from reference import TINY_GENERATOR, generator_layers, hwc, write_caffemodel
from test_pickled_arrays import Storage, legacy_file, whole, zip_file

from jaxsynth.models.compiled import network_jit
from jaxsynth.models.generator import DGN, GeneratorConfig, Up
from jaxsynth.models.layers import to_bgr
from jaxsynth.models.network import activation_shapes, make_apply, prepare_params
from jaxsynth.models.packaged import DEVIATION, MEAN
from jaxsynth.models.registry import load
from jaxsynth.models.weights import load_network, save_network
from jaxsynth.porting.port import port
from jaxsynth.porting.state_dicts import torch_graph

RGB = np.random.default_rng(7).integers(0, 256, (224, 224, 3)).astype(np.float32)
X = ((RGB - MEAN) / DEVIATION).transpose(2, 0, 1).astype(np.float64)


class StateDict(dict):
    """Draws arrays as they are asked for."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def draw(self, name: str, *shape: int) -> np.ndarray:
        fan_in = max(1, int(np.prod(shape[1:])))
        scale = np.sqrt(2 / fan_in) if len(shape) > 1 else 0.3
        return self.setdefault(name, (scale * self.rng.standard_normal(shape)).astype(np.float32))

    def layer(self, name: str, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        return self.draw(f"{name}.weight", *shape), self.draw(f"{name}.bias", shape[0])

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        gain, shift = self.layer(name, len(x))
        mean = self.draw(f"{name}.running_mean", len(x))
        variance = self.setdefault(f"{name}.running_var", 0.5 + np.abs(mean))
        self[f"{name}.num_batches_tracked"] = np.array(3)
        return naive.norm(x, gain, shift, mean, variance, 1e-5)


def head(made: StateDict, x: np.ndarray, keys, units: int, classes: int) -> np.ndarray:
    x = x.ravel()
    for key in keys:
        last = key == keys[-1]
        weight, bias = made.layer(f"classifier.{key}", classes if last else units, len(x))
        x = weight @ x + bias
        x = x if last else naive.relu(x)
    return x


def alexnet(made: StateDict) -> np.ndarray:
    x = X
    for i, width, k in ((0, 4, 11), (3, 6, 5), (6, 5, 3), (8, 4, 3), (10, 4, 3)):
        weight, bias = made.layer(f"features.{i}", width, len(x), k, k)
        options = {"stride": 4, "pads": ((2, 2), (2, 2))} if i == 0 else {}
        x = naive.relu(naive.conv(x, weight, bias, **options))
        if i in (0, 3, 10):
            x = naive.max_pool(x, 3, 2)
    assert x.shape == (4, 6, 6)
    return head(made, x, (1, 4, 6), 7, 5)


def vgg(made: StateDict, normed: bool) -> np.ndarray:
    x, i = X, 0
    for width in (3, "M", 4, "M", 4, 5, "M", 4, "M", 4, "M"):
        if width == "M":
            x, i = naive.max_pool(x, 2, 2), i + 1
            continue
        x = naive.conv(x, *made.layer(f"features.{i}", width, len(x), 3, 3))
        x = naive.relu(made.norm(x, f"features.{i + 1}") if normed else x)
        i += 2 + normed
    return head(made, x, (0, 3, 6), 7, 5)


def resnet(made: StateDict, deep: bool) -> np.ndarray:
    def conv(x, name, norm, width, k, stride=1, groups=1):
        weight = made.draw(f"{name}.weight", width, len(x) // groups, k, k)
        return made.norm(naive.conv(x, weight, 0.0, stride), norm)

    x = naive.relu(conv(X, "conv1", "bn1", 4, 7, 2))
    x = naive.max_pool(x, 3, 2, 1)
    for stage, width in enumerate((4, 6, 8, 8), 1):
        for block in range(2 if stage == 2 else 1):
            key, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = 2 * width if deep else width
            short = x
            if stride > 1 or len(x) != out:
                short = conv(x, f"{key}.downsample.0", f"{key}.downsample.1", out, 1, stride)
            if deep:
                y = naive.relu(conv(x, f"{key}.conv1", f"{key}.bn1", width, 1))
                y = naive.relu(conv(y, f"{key}.conv2", f"{key}.bn2", width, 3, stride, groups=2))
                y = conv(y, f"{key}.conv3", f"{key}.bn3", out, 1)
            else:
                y = naive.relu(conv(x, f"{key}.conv1", f"{key}.bn1", width, 3, stride))
                y = conv(y, f"{key}.conv2", f"{key}.bn2", width, 3)
            x = naive.relu(y + short)
    weight, bias = made.layer("fc", 5, len(x))
    return weight @ x.mean((1, 2)) + bias


def built(name: str) -> tuple[StateDict, np.ndarray]:
    made = StateDict()
    forward = {"alexnet": alexnet, "vgg": vgg, "resnet": resnet}[name.split("-")[0]]
    return made, forward(made, *([name.endswith("+")] if "-" in name else []))


NAMES = ("alexnet", "vgg-", "vgg-+", "resnet-", "resnet-+")


def tensors(arrays) -> dict:
    return {
        name: whole(Storage(str(i), "Float", np.float32(a).ravel()), *np.shape(a))
        for i, (name, a) in enumerate(arrays.items())
    }


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_networks_compute_what_their_layers_say(name, tmp_path):
    made, wanted = built(name)
    config, params = torch_graph({f"state_dict/module.{k}": a for k, a in made.items()})
    path = tmp_path / "made.safetensors"
    safetensors.numpy.save_file({k: np.asarray(a) for k, a in made.items()}, path)
    network, rows = port("torchvision", path)
    assert network.info.config == config and {r.parameter for r in rows} == set(params)
    assert network.info.labels == tuple("01234") and config.classes == 5
    out = jax.jit(network.apply)(network.params, to_bgr(jnp.asarray(RGB)))
    np.testing.assert_allclose(out[config.nodes[-1].name], wanted, rtol=2e-4, atol=2e-4)
    shapes = activation_shapes(config)
    relus = [node.name for node in config.nodes if node.relu]
    assert all(shapes[f"{blob}_pre"] == shapes[blob] for blob in relus) and len(relus) > 5
    save_network(tmp_path / "again.safetensors", network)  # the description survives the file
    assert load_network(tmp_path / "again.safetensors").info == network.info


def test_checkpoints_of_places365_and_what_does_not_fit(tmp_path):
    """The zip and the legacy format, within `state_dict` and `DataParallel`."""
    made, _ = built("alexnet")
    renamed = {k.replace("features.", "features.module."): a for k, a in made.items()}
    labels = tmp_path / "labels"
    labels.write_text("/a/airfield 0\n/a/airplane_cabin 1\n/b/bow_window/indoor 2\n/b/a 3\n/b/b 4")
    own = tensors(renamed)
    some = list(own.values())[:2]  # a training script keeps more than the network
    more = {
        "best_acc1": some[0],
        "optimizer": {"state": {i: {"sum": a} for i, a in enumerate(some)}},
    }
    whole_file = {"epoch": 90, "arch": "alexnet", "state_dict": own} | more
    for number, data in enumerate((zip_file(whole_file), legacy_file(whole_file))):
        path = tmp_path / f"{number}.pth.tar"
        path.write_bytes(data)
        network = port("places365_alexnet", path, labels)[0]
        assert network.labels[2] == "bow_window-indoor"
        assert {"conv5", "conv5_pre", "fc7"} <= set(activation_shapes(network.info.config))
        assert "CC BY" in network.info.licence
    lacking = {k: a for k, a in made.items() if k != "classifier.4.bias"}
    for arrays, said in (
        (lacking, "classifier.4.bias is missing"),
        (made | {"extra.weight": np.ones(3)}, "extra.weight and 0 more arrays are of no layer"),
        ({"a": np.ones(2)}, "its arrays a, ... are not those of"),
        ({k: a for k, a in made.items() if "features.6" not in k}, "4 convolutions"),
    ):
        with pytest.raises(ValueError, match=said):
            torch_graph(arrays)
    (tmp_path / "html").write_text("<html>quota exceeded</html>")
    with pytest.raises(ValueError, match=r"is a web page.*expected a PyTorch checkpoint"):
        port("places365_alexnet", tmp_path / "html")


@pytest.mark.parametrize("names", ["{}", "{}.1", "G.{}"])
@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_generators_of_2016_as_state_dicts(names, write, tmp_path):
    """Parameters equal those of a caffemodel of the same weights."""
    layers = generator_layers(TINY_GENERATOR, 3)
    caffe = write_caffemodel(tmp_path / "g.caffemodel", layers)
    arrays = {
        f"{names.format(layer.name)}.{part}": np.asarray(blob).reshape(np.shape(blob))
        for layer in layers
        for part, blob in zip(("weight", "bias"), layer.blobs, strict=True)
    }
    path = tmp_path / "upconvGAN_fc7.pt"
    path.write_bytes(write(tensors(arrays)))
    got, rows = port("dgn_fc7", path, config=TINY_GENERATOR)
    wanted = port("dgn_fc6", caffe, config=TINY_GENERATOR)[0]
    assert got.info.encoder_blob == "fc7" and wanted.info.encoder_blob == "fc6" and rows
    for name, array in wanted.params.items():
        np.testing.assert_array_equal(got.params[name], array)
    path.write_bytes(write(tensors({k: a for k, a in arrays.items() if "bias" not in k})))
    with pytest.raises(ValueError, match="has weight, expected weight and bias"):
        port("dgn_fc7", path, config=TINY_GENERATOR)


def test_a_spatial_generator(tmp_path):
    """The pool5 generator: its code is a map in the order of our blobs, its bounds Caffe's."""
    config = GeneratorConfig(
        code=6 * 6 * 2,
        dense=(),
        seed=(6, 6, 2),
        layers=(
            Up("Rconv6", "conv", 3, 3, 1),
            Up("Rconv8", "conv", 4, 3, 1, pad=0),
            Up("deconv0", "deconv", 3, 4, 2),
        ),
    )
    made, rng = StateDict(), np.random.default_rng(2)
    first, last = made.layer("Rconv6", 3, 2, 3, 3), made.layer("Rconv8", 4, 3, 3, 3)
    made.draw("deconv0.weight", 4, 3, 4, 4), made.draw("deconv0.bias", 3)
    path, bounds = tmp_path / "pool5.pt", tmp_path / "bounds"
    path.write_bytes(zip_file(tensors(made)))
    bounds.write_text(" ".join(map(str, range(1, 73))))
    network = port("dgn_pool5", path, bounds=bounds, config=config)[0]
    assert (
        network.info.encoder_blob == "pool5" and config.size == 8 and DGN["dgn_pool5"].size == 256
    )
    np.testing.assert_array_equal(
        network.code.upper.reshape(6, 6, 2), np.arange(1, 73).reshape(2, 6, 6).transpose(1, 2, 0)
    )
    code = rng.standard_normal((2, 6, 6))
    out = jax.jit(network.apply)(network.params, jnp.asarray(hwc(code).ravel(), jnp.float32))

    def leaky(x):
        return np.where(x > 0, x, 0.3 * x)

    x = leaky(naive.conv(code, *first))
    x = leaky(naive.conv(x, *last, pads=((0, 0), (0, 0))))
    np.testing.assert_allclose(out["Rconv8"], hwc(x), rtol=1e-4, atol=1e-5)
    assert out["deconv0"].shape == (8, 8, 3)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on accelerators nothing is derived")
def test_prepared_parameters_give_the_same_gradient():
    made, _ = built("resnet-")
    config, params = torch_graph(made)
    params = {path: jnp.asarray(a, jnp.float32) for path, a in params.items()}
    more, apply = prepare_params(config, params), make_apply(config)
    gradient = network_jit(jax.grad(lambda x, p: apply(p, x)["fc"][1]))
    x = to_bgr(jnp.asarray(RGB))
    assert len(more) > len(params)
    np.testing.assert_array_equal(gradient(x, params), gradient(x, more))


def test_a_graph_is_a_model_as_any_other(tmp_path):
    made, _ = built("resnet-")
    safetensors.numpy.save_file(dict(made), tmp_path / "resnet18.safetensors")
    save_network(
        tmp_path / "mine.safetensors", port("torchvision", tmp_path / "resnet18.safetensors")[0]
    )
    model = load(f"mine={tmp_path / 'mine.safetensors'}")
    assert model.name == "mine" and model.logits == "fc" and model.sensitive is None
    assert model.shapes["layer2_0"] == (28, 28, 6) and model.unit("layer2_0_pre", 3)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, {"op": "convolve"}),
        (1, {"op": "max_pool", "stride": 0}),
        (1, {"op": "mean_pool", "kernel": (10**9, 1)}),
        (3, {"inputs": ("nobody",)}),
        (3, {"name": "conv1"}),
        (3, {"relu": "swish"}),
        (-1, {"features": 10**9}),
        (-1, {"op": "add"}),
    ],
)
def test_descriptions_that_are_of_no_graph_are_one_line(number, change, tmp_path):
    made, _ = built("resnet-")
    safetensors.numpy.save_file(dict(made), tmp_path / "r.safetensors")
    network, _ = port("torchvision", tmp_path / "r.safetensors")
    nodes = list(network.info.config.nodes)
    nodes[number] = nodes[number]._replace(**change)
    config = dataclasses.replace(network.info.config, nodes=tuple(nodes))
    info = dataclasses.replace(network.info, config=config)
    save_network(tmp_path / "n.safetensors", network._replace(info=info))
    with pytest.raises(ValueError, match=r"n\.safetensors: ") as error:
        load_network(tmp_path / "n.safetensors")
    assert "\n" not in str(error.value)
