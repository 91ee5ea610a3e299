"""TensorFlow.js models: read without running JavaScript, they compute what their layers say."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import naive
import numpy as np
import pytest

from jaxsynth.images import resize_to
from jaxsynth.models.layers import to_bgr
from jaxsynth.models.registry import load
from jaxsynth.models.weights import save_network
from jaxsynth.porting.files import read_tfjs
from jaxsynth.porting.port import port

SIZE = 12
RGB = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32)
X = (RGB / 255).transpose(2, 0, 1).astype(np.float64)
CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")


class Model:
    """Layers, and their arrays as 8-bit numbers with a scale and a least value."""

    def __init__(self):
        self.rng, self.layers, self.weights, self.data = np.random.default_rng(5), [], [], b""

    def array(self, name: str, *shape: int, low: float = -0.5) -> np.ndarray:
        q, scale = self.rng.integers(0, 256, shape, np.uint8), 0.9 / 255
        quantised = {"min": low, "scale": scale, "dtype": "uint8"}
        spec = {"name": name, "shape": list(shape), "dtype": "float32", "quantization": quantised}
        self.weights.append(spec)
        self.data += q.tobytes()
        return q * scale + low

    def layer(self, kind: str, name: str, *inputs: str, **config) -> None:
        bound = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
        config = {"name": name, **config}
        self.layers.append(
            {"name": name, "class_name": kind, "config": config, "inbound_nodes": bound}
        )

    def norm(self, name: str, source: str, channels: int, scale: bool = True) -> list[np.ndarray]:
        self.layer("BatchNormalization", name, source, epsilon=1e-3, axis=3, scale=scale)
        gain = self.array(f"{name}/gamma", channels, low=0.5) if scale else np.ones(channels)
        return [
            gain,
            self.array(f"{name}/beta", channels),
            self.array(f"{name}/moving_mean", channels),
            self.array(f"{name}/moving_variance", channels, low=0.3),
        ]

    def conv(self, name, source, channels, features, k=3, stride=1, padding="same", **more):
        depthwise = more.pop("depthwise", False)
        kind = "DepthwiseConv2D" if depthwise else "Conv2D"
        options = {"kernel_size": [k, k], "strides": [stride, stride], "padding": padding}
        options |= {"activation": "linear", "dilation_rate": [1, 1], "use_bias": False}
        self.layer(kind, name, source, **options | more)
        part = "depthwise_kernel" if depthwise else "kernel"
        kernel = self.array(f"{name}/{part}", k, k, channels, features)
        return kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)

    def description(self, topology: dict) -> dict:
        shards = ["group1-shard1of2", "group1-shard2of2"]
        return {
            "modelTopology": topology,
            "weightsManifest": [{"paths": shards, "weights": self.weights}],
        }

    def shards(self) -> list[bytes]:
        return [self.data[:100], self.data[100:]]


def keras_model() -> tuple[Model, dict, np.ndarray]:
    """Every kind of layer that MobileNetV2 and InceptionV3 have; and its logits."""
    m = Model()
    m.layer("InputLayer", "input_1", batch_input_shape=[None, SIZE, SIZE, 3])
    m.layer("ZeroPadding2D", "pad", "input_1", padding=[[0, 1], [0, 1]])
    kernel = m.conv("Conv1", "pad", 3, 4, stride=2, padding="valid")
    m.layer("ReLU", "Conv1_relu", "bn_Conv1", max_value=6)
    x = naive.conv(X, kernel, 0.0, 2, ((0, 1), (0, 1)))
    x = naive.relu(naive.norm(x, *m.norm("bn_Conv1", "Conv1", 4), 1e-3), 6)
    kernel = m.conv("deep", "Conv1_relu", 4, 1, depthwise=True)
    y = naive.conv(x, kernel)
    y = naive.norm(y, *m.norm("bn_deep", "deep", 4, scale=False), 1e-3)
    m.layer("Activation", "act", "bn_deep", activation="relu")
    m.layer("Add", "sum", "Conv1_relu", "act")
    x = x + naive.relu(y)
    m.layer("BatchNormalization", "bn_sum", "sum", epsilon=1e-3)
    parts = [m.array(f"bn_sum/{p}", 4, low=0.2) for p in ("gamma", "beta")]
    parts += [m.array(f"bn_sum/moving_{p}", 4, low=0.2) for p in ("mean", "variance")]
    x = naive.norm(x, *parts, 1e-3)
    m.layer("AveragePooling2D", "mean", "bn_sum", pool_size=[3, 3], strides=[1, 1], padding="same")
    m.layer("MaxPooling2D", "largest", "bn_sum", pool_size=[3, 3], strides=[2, 2], padding="valid")
    low = naive.mean_pool(x, 3, 1, ((1, 1), (1, 1)))
    wide = {"kernel_size": [1, 3], "strides": [2, 2], "padding": "same", "activation": "relu"}
    m.layer("Conv2D", "wide", "mean", **wide | {"dilation_rate": [1, 1], "use_bias": True})
    kernel = m.array("wide/kernel", 1, 3, 4, 3).transpose(3, 2, 0, 1)
    bias = m.array("wide/bias", 3)
    y = naive.relu(naive.conv(low, kernel, bias, 2, ((0, 0), (0, 1))))[:, :2, :2]
    m.layer("AveragePooling2D", "cut", "wide", pool_size=[2, 2], strides=[1, 1], padding="valid")
    y = naive.mean_pool(naive.relu(naive.conv(low, kernel, bias, 2, ((0, 0), (0, 1)))), 2, 1)
    m.layer("Concatenate", "mixed0", "largest", "cut", axis=3)
    x = np.concatenate([naive.max_pool(x, 3, 2), y])
    m.layer("Flatten", "flat", "mixed0")
    m.layer("Dense", "dense_1", "flat", units=6, activation="relu", use_bias=True)
    flat = x.transpose(1, 2, 0).ravel()
    hidden = naive.relu(flat @ m.array("dense_1/kernel", len(flat), 6) + m.array("dense_1/bias", 6))
    m.layer("Dropout", "drop", "dense_1", rate=0.5)
    m.layer("Dense", "dense_2", "drop", units=5, activation="softmax", use_bias=True)
    logits = hidden @ m.array("dense_2/kernel", 6, 5) + m.array("dense_2/bias", 5)
    model = {"name": "model_1", "layers": m.layers, "output_layers": [["dense_2", 0, 0]]}
    return m, {"model_config": {"class_name": "Model", "config": model}}, logits


def frozen_model() -> tuple[Model, dict, np.ndarray]:
    """A frozen graph as nsfwjs's second MobileNetV2 has it."""
    m, nodes = Model(), []

    def text(*values: str) -> list[str]:
        return [base64.b64encode(v.encode()).decode() for v in values]

    def node(op: str, name: str, *inputs: str, **attr) -> str:
        nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attr})
        return name

    def const(name: str, *shape: int) -> np.ndarray:
        node("Const", name)
        return m.array(name, *shape, low=0.1 if shape == () else -0.5)

    def layer(op, name, x, *constants, relu="", stride=1):
        fused = {"list": {"s": text(*filter(None, ("BiasAdd", relu)))}}
        strides = {"list": {"i": list(map(str, (1, stride, stride, 1)))}}
        (padding,) = text("SAME")
        options = {"fused_ops": fused, "strides": strides, "padding": {"s": padding}}
        return node(op, name, x, *constants, **options)

    sides = [{"size": str(n)} for n in (-1, SIZE, SIZE, 3)]
    node("Placeholder", "input", shape={"shape": {"dim": sides}})
    times, minus = const("in/Mul/y"), const("in/Sub/y")
    node("Mul", "in/Mul", "in/Mul/y", "input")
    node("Sub", "in/Sub", "in/Mul", "in/Sub/y")
    x = X * times - minus
    kernel, bias = const("net/Conv/weights", 3, 3, 3, 4), const("net/Conv/bias", 4)
    layer(
        "_FusedConv2D",
        "net/Conv/Relu6",
        "in/Sub",
        "net/Conv/weights",
        "net/Conv/bias",
        relu="Relu6",
        stride=2,
    )
    x = naive.relu(naive.conv(x, kernel.transpose(3, 2, 0, 1), bias, 2, ((0, 1), (0, 1))), 6)
    kernel, bias = const("net/b/deep/w", 3, 3, 4, 1), const("net/b/deep/b", 4)
    layer(
        "FusedDepthwiseConv2dNative",
        "net/b/deep/deep",
        "net/Conv/Relu6",
        "net/b/deep/w",
        "net/b/deep/b",
        relu="Relu6",
    )
    y = naive.relu(naive.conv(x, kernel.transpose(2, 3, 0, 1), bias), 6)
    node("AddV2", "net/b/add", "net/Conv/Relu6", "net/b/deep/deep")
    window = {"list": {"i": ["1", "6", "6", "1"]}}
    strides = {"list": {"i": ["1", "1", "1", "1"]}}
    node(
        "AvgPool",
        "net/AvgPool",
        "net/b/add",
        ksize=window,
        strides=strides,
        padding={"s": text("VALID")[0]},
    )
    node("Squeeze", "net/Squeeze", "net/AvgPool")
    matrix, bias = const("f/262", 4, 5), const("f/263", 5)
    layer("_FusedMatMul", "top/dense/BiasAdd", "net/Squeeze", "f/262", "f/263")
    node("Identity", "Identity", node("Softmax", "Softmax", "top/dense/BiasAdd"))
    return m, {"node": nodes}, (x + y).mean((1, 2)) @ matrix + bias


def minified(value) -> str:
    """A literal as minifiers write it: keys without quotes, !0 for true, .5 for 0.5."""
    text = json.dumps(value, separators=(",", ":"))
    text = re.sub(r'"([A-Za-z_$][\w$]*)":', r"\1:", text)
    text = re.sub(r"(?<=[:,\[])(-?)0\.(?=\d)", r"\1.", text)
    return text.replace(":true", ":!0").replace(":false", ":!1")


def script(value) -> bytes:
    head = '!function(e){if("object"==typeof exports)module.exports=e();else window.model=e()}'
    wrap = "(function(){return function e(a,n,i){var r=n[1]={exports:{}};return r.exports}"
    end = "},{}]},{},[1])(1)});"
    return f"{head}{wrap}({{1:[function(e,a,n){{a.exports={minified(value)}{end}".encode()


def package(path: Path, model: str, made: Model, topology: dict) -> Path:
    members = {"model": made.description(topology)}
    for name, shard in zip(("group1-shard1of2", "group1-shard2of2"), made.shards(), strict=True):
        members[name] = base64.b64encode(shard).decode()
    with tarfile.open(path, "w:gz") as archive:
        for name, value in members.items():
            data = script(value)
            info = tarfile.TarInfo(f"package/dist/models/{model}/{name}.min.js")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("name", "make"), [("mobilenet_v2", keras_model), ("mobilenet_v2_mid", frozen_model)]
)
def test_a_model_of_the_package_computes_what_its_layers_say(name, make, tmp_path):
    made, topology, wanted = make()
    network, _ = port(f"nsfwjs_{name}", package(tmp_path / "n.tgz", name, made, topology))
    assert network.info.config.size == SIZE
    out = jax.jit(network.apply)(network.params, to_bgr(jnp.asarray(RGB)))
    np.testing.assert_allclose(
        out[list(network.info.config.nodes)[-1].name], wanted, rtol=1e-4, atol=1e-4
    )
    assert network.labels == CLASSES and "MIT" in network.info.licence
    relu = {"Conv1", "Conv1_pre"} if make is keras_model else {"net_Conv", "net_Conv_pre"}
    assert relu <= set(out) and not any(":" in blob or "/" in blob for blob in out)


def test_gradients_of_a_graph_are_those_of_finite_differences(tmp_path, x64):
    made, topology, _ = keras_model()
    source = package(tmp_path / "n.tgz", "mobilenet_v2", made, topology)
    network, _ = port("nsfwjs_mobilenet_v2", source)
    params = {path: jnp.asarray(a, jnp.float64) for path, a in network.params.items()}
    rng = np.random.default_rng(1)
    x, step = to_bgr(jnp.asarray(RGB, jnp.float64)), rng.standard_normal(RGB.shape)
    value = jax.jit(lambda x: network.apply(params, x)["dense_2"] @ jnp.arange(1.0, 6.0))
    slope = float(jnp.vdot(jax.jit(jax.grad(value))(x), step))
    around = (value(x + 1e-4 * step) - value(x - 1e-4 * step)) / 2e-4
    np.testing.assert_allclose(slope, around, rtol=1e-6)


def test_its_model_is_as_any_other(tmp_path):
    made, topology, _ = keras_model()
    source = package(tmp_path / "n.tgz", "mobilenet_v2", made, topology)
    save_network(tmp_path / "m.safetensors", port("nsfwjs_mobilenet_v2", source)[0])
    model = load(f"mobile={tmp_path / 'm.safetensors'}")
    assert model.sensitive_name == "Hentai + Porn + Sexy" and model.logits == "dense_2"
    assert model.size == SIZE and model.preprocess.resize == "align_corners"
    assert model.log_odds("Neutral") and model.shapes["dense_1_pre"] == (6,)
    (tmp_path / "folder").mkdir()
    plain = tmp_path / "folder" / "model.json"  # the usual form: JSON, and shards beside it
    plain.write_text(json.dumps(made.description(topology)))
    for name, shard in zip(("group1-shard1of2", "group1-shard2of2"), made.shards(), strict=True):
        (tmp_path / "folder" / name).write_bytes(shard)
    again = read_tfjs(plain, "")[1]
    for name, array in read_tfjs(source, "mobilenet_v2")[1].items():
        np.testing.assert_array_equal(again[name], array)


LAMBDA = {
    "class_name": "Lambda",
    "config": {"name": "f"},
    "inbound_nodes": [[["drop", 0, 0, {}]]],
}


def config_of(model: dict, number: int) -> dict:
    return model["layers"][number]["config"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["layers"].append(LAMBDA), "'f' is a Lambda"),
        (lambda m: config_of(m, 2).update(dilation_rate=[2, 2]), "strides, dilation or padding"),
        (lambda m: config_of(m, 2).update(activation="swish"), "activation 'swish'"),
        (lambda m: config_of(m, 2).update(activation="softmax"), "activation 'softmax'"),
        (lambda m: config_of(m, 2).update(data_format="channels_first"), "channels first"),
        (lambda m: m["layers"].pop(), "no dense layer at its end"),
        (lambda m: m["layers"][3].update(inbound_nodes=[[["x", 0, 0, {}]]]), "no layer puts out"),
        (lambda m: config_of(m, 5).update(name="other"), "no array|no layer puts out"),
    ],
)
def test_layers_that_are_not_known_are_named(edit, said, tmp_path):
    made, topology, _ = keras_model()
    edit(topology["model_config"]["config"])
    source = package(tmp_path / "n.tgz", "mobilenet_v2", made, topology)
    with pytest.raises(ValueError, match=said) as error:
        port("nsfwjs_mobilenet_v2", source)
    assert str(source) in str(error.value) and "\n" not in str(error.value)


def test_damaged_packages_are_refused(tmp_path):
    made, topology, _ = keras_model()
    source = package(tmp_path / "n.tgz", "mobilenet_v2", made, topology)
    data = source.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 30, len(data) // 2):
        source.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"n\.tgz"):
            port("nsfwjs_mobilenet_v2", source)
    for _ in range(20):
        changed = bytearray(data)
        changed[rng.integers(10, len(data))] ^= 1 << rng.integers(8)
        source.write_bytes(changed)
        with pytest.raises(ValueError, match=r"n\.tgz"):
            port("nsfwjs_mobilenet_v2", source)
    source.write_bytes(data)
    with pytest.raises(ValueError, match="inception_v3"):
        port("nsfwjs_inception_v3", source)
    (tmp_path / "page.tgz").write_text("<html>")
    with pytest.raises(ValueError, match="is a web page"):
        port("nsfwjs_mobilenet_v2", tmp_path / "page.tgz")
    with pytest.raises(
        ValueError, match=r"not ported yet.*jaxsynth port --network=nsfwjs_inception"
    ):
        load("nsfwjs_inception_v3")


def test_corners_stay_corners():
    """TensorFlow's resizeBilinear with alignCorners."""
    ramp = np.linspace(0, 200, 5)
    rgb = np.broadcast_to(ramp[None, :, None], (4, 5, 3)).astype(np.uint8)
    got = resize_to(rgb, "align_corners", 9)
    np.testing.assert_array_equal(got[3, :, 0], np.linspace(0, 200, 9))
    up = resize_to(
        np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], 3, 2), "align_corners", 4
    )
    np.testing.assert_array_equal(up[:, 0, 1], [0, 50, 100, 150])


@pytest.mark.full_size
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_mid"])
def test_nsfwjs_is_what_tensorflow_js_computes(name, tmp_path):
    """The real weights, compared with tfjs on node (`python tests/fetch_originals.py .cache`)."""
    cache = Path(os.environ.get("JAXSYNTH_NSFWJS", Path(__file__).parents[1] / ".cache"))
    source, tfjs = cache / "nsfwjs-4.4.0.tgz", cache / "tf.min.js"
    if not (shutil.which("node") and source.is_file() and tfjs.is_file()):
        pytest.skip("no node, or no nsfwjs: run `python tests/fetch_originals.py .cache`")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    pixels = resize_to(pixels, "simple", 224)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    runner = Path(__file__).with_name("run_tfjs.js")
    folder = tmp_path / "package" / "dist" / "models" / name
    done = subprocess.run(
        ["node", runner, tfjs, folder, tmp_path / "pixels", "224"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wanted = json.loads(done.stdout.strip().splitlines()[-1])
    network, _ = port(f"nsfwjs_{name}", source)
    out = jax.jit(network.apply)(network.params, to_bgr(jnp.asarray(pixels, jnp.float32)))
    np.testing.assert_allclose(np.log(out["prob"]), np.log(wanted), atol=2e-3)
