"""Caffe's files and layouts: a `.caffemodel` -> blobs -> our parameters.

Files of all three generations are read (Caffe's `caffe.proto`): V2, NetParameter.layer (100); V1,
NetParameter.layers (2); V0, NetParameter.layers.layer (1). Packed floats have the same bytes on the
wire as a `bytes` field, so `data` is declared as one: the arrays are views of the file's contents.

Layouts (Caffe's layer definitions): Convolution (out, in / groups, kh, kw), Deconvolution
(in, out, kh, kw) and acting flipped, InnerProduct (out, in) on a C, H, W flattening; BatchNorm
mean, variance and the factor that divides both; Scale gain and bias.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import Message

from jaxsynth.models.caffe_networks import AlexNetConfig, ResNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.layers import caffe_constant
from jaxsynth.models.network import Config, activation_shapes, param_shapes
from jaxsynth.porting.files import message_classes, parse_file

Blobs = Mapping[str, list[np.ndarray]]
Shape = tuple[int, ...]
BATCH_NORM_EPS = caffe_constant(1e-5)
WHAT = "a .caffemodel file"
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_LEGACY = ("num", "channels", "height", "width")
_MESSAGES = message_classes(
    "jaxsynth_caffe",
    {
        "BlobShape": "dim 1 int64*",
        # raw_data: NVCaffe since 0.16 (DIGITS)
        "BlobProto": "num 1 int64, channels 2 int64, height 3 int64, width 4 int64, data 5 bytes*, "
        "shape 7 BlobShape, double_data 8 bytes*, raw_data_type 10 int64, raw_data 12 bytes*",
        "UnpackedBlob": "data 5 float*, double_data 8 double*",
        "V0Layer": "name 1 bytes, blobs 50 BlobProto*",
        "V1Layer": "layer 1 V0Layer, name 4 bytes, blobs 6 BlobProto*",
        "V2Layer": "name 1 bytes, blobs 7 BlobProto*",
        "NetParameter": "layers 2 V1Layer*, layer 100 V2Layer*",
    },
)


class Row(NamedTuple):
    """One line of the port's table: a blob, its parameter, and the change of layout."""

    blob: str
    blob_shape: Shape
    parameter: str
    shape: Shape
    change: str


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read layer name -> its blobs, in the file's order; layers without blobs are left out.

    Arrays are read-only, shapes as found: the legacy num/channels/height/width give 4-D arrays.
    They are float32, or float64 where the file holds `double_data`; raw data as they are.
    """
    net = parse_file(path, _MESSAGES["NetParameter"], WHAT)
    layers: dict[str, list[np.ndarray]] = {}
    for raw_name, blobs in _named_blobs(net):
        name = raw_name.decode("utf-8", "replace")
        if not blobs:
            continue
        if name in layers:
            raise ValueError(f"{path}: two layers named {name!r} have weights")
        layers[name] = [_array(blob, f"{path}: {name}[{i}]") for i, blob in enumerate(blobs)]
    if not layers:
        raise ValueError(f"{path} holds no layer with weights: is it {WHAT}?")
    return layers


def _named_blobs(net: Message):
    for outer in net.layers:
        yield outer.name or outer.layer.name, outer.blobs or outer.layer.blobs
    for layer in net.layer:
        yield layer.name, layer.blobs


def _array(blob: Message, where: str) -> np.ndarray:
    legacy = any(blob.HasField(name) for name in _LEGACY)
    shape = tuple(getattr(blob, name) for name in _LEGACY) if legacy else tuple(blob.shape.dim)
    values = _values(blob, where)
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise ValueError(f"{where} has shape {shape} but {values.size} values")
    return values.reshape(shape)


def _values(blob: Message, where: str) -> np.ndarray:
    raw = _RAW_TYPES.get(blob.raw_data_type)
    if blob.raw_data and raw is None:
        kind = blob.raw_data_type
        raise ValueError(f"{where} has NVCaffe's raw data of type {kind}, which are no floats")
    for chunks, dtype in ((blob.data, "<f4"), (blob.double_data, "<f8"), (blob.raw_data, raw)):
        if chunks:
            data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
            if len(data) % np.dtype(dtype).itemsize:
                raise ValueError(f"{where} has {len(data)} bytes of data, not whole numbers")
            return np.frombuffer(data, dtype)
    # One field per number is legal too; such data stand among the unknown fields.
    unpacked = _MESSAGES["UnpackedBlob"].FromString(blob.SerializeToString())
    if unpacked.double_data:
        return np.array(unpacked.double_data, np.float64)
    return np.array(unpacked.data, np.float32)


def expected_blobs(config: Config) -> dict[str, list[Shape]]:
    """Return layer -> the shapes of its blobs, as Caffe has them."""
    if not isinstance(config, GeneratorConfig | AlexNetConfig | ResNetConfig):
        raise ValueError("only generators, AlexNets and residual networks have Caffe originals")
    axes = {"dense": (1, 0), "conv": (3, 2, 0, 1), "deconv": (2, 3, 0, 1)}
    shapes = param_shapes(config)
    expected: dict[str, list[Shape]] = {}
    for path in shapes:
        layer, _, leaf = path.rpartition("/")
        if leaf != "kernel":
            continue
        kernel, bias = shapes[path], shapes[f"{layer}/bias"]
        expected[layer] = [tuple(kernel[i] for i in axes[_kind(config, layer, len(kernel))]), bias]
        if folds(config, layer):
            norm, scale = norm_layers(layer)
            expected |= {norm: [bias, bias, (1,)], scale: [bias, bias]}
    return expected


def fit_blobs(config: Config, blobs: Blobs) -> dict[str, list[np.ndarray]]:
    """Bring the blobs into their expected shapes: leading ones of the legacy form are dropped.

    ValueErrors name everything that is missing, unexpected or mis-shaped.
    """
    expected = expected_blobs(config)
    missing = _difference(expected, blobs)
    unexpected = _difference(blobs, expected)
    wrong = [
        f"{layer}[{i}] is {found.shape}, not {shape}"
        for layer, shapes in expected.items()
        for i, (found, shape) in enumerate(zip(blobs.get(layer, ()), shapes, strict=False))
        if not _same_but_leading_ones(found.shape, shape)
    ]
    groups = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    if any(groups.values()):
        raise ValueError("; ".join(f"{k}: {', '.join(v)}" for k, v in groups.items() if v))
    return {
        layer: [a.reshape(shape) for a, shape in zip(blobs[layer], shapes, strict=True)]
        for layer, shapes in expected.items()
    }


def _difference(wanted: Mapping[str, list], given: Mapping[str, list]) -> list[str]:
    """Name the blobs of `wanted` that `given` lacks: a layer, or `layer[i]` where it has some."""
    whole = [layer for layer in wanted if layer not in given]
    single = [
        f"{layer}[{i}]"
        for layer in wanted
        if layer in given
        for i in range(len(given[layer]), len(wanted[layer]))
    ]
    return whole + single


def convert(config: Config, blobs: Blobs) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Convert fitted blobs to path -> parameter, and the table; folded convolutions are float64."""
    params: dict[str, np.ndarray] = {}
    rows = []
    for path in param_shapes(config):
        layer, _, leaf = path.rpartition("/")
        if leaf != "kernel":
            continue
        weight, bias = blobs[layer]
        kernel, change = _kernel(config, layer, weight)
        if folds(config, layer):
            norm, scale = norm_layers(layer)
            kernel, bias = fold_batch_norm(kernel, bias, blobs[norm], blobs[scale])
            change += ", folded, float64"
        params |= {path: kernel, f"{layer}/bias": bias}
        rows.append(Row(f"{layer}[0]", weight.shape, path, kernel.shape, change))
        as_is = "folded, float64" if folds(config, layer) else "as is"
        rows.append(Row(f"{layer}[1]", bias.shape, f"{layer}/bias", bias.shape, as_is))
        if folds(config, layer):
            rows += [
                Row(f"{name}[{i}]", a.shape, layer, (), "folded into kernel and bias")
                for name in norm_layers(layer)
                for i, a in enumerate(blobs[name])
            ]
    return params, rows


def fold_batch_norm(
    kernel: np.ndarray, bias: np.ndarray, norm: Iterable[np.ndarray], scale: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Fold BatchNorm and Scale into kernel (H, W, I, O) and bias (O,), in float64.

    y = gain * (conv + bias - mean / f) / sqrt(var / f + eps) + shift; a factor f = 0 means mean 0
    and variance 0, as in Caffe.
    """
    mean, variance, factor = (a.astype(np.float64) for a in norm)
    gain, shift = (a.astype(np.float64) for a in scale)
    inverse = 0.0 if factor[0] == 0 else 1.0 / factor[0]
    slope = gain / np.sqrt(variance * inverse + BATCH_NORM_EPS)
    return kernel * slope, (bias - mean * inverse) * slope + shift


def folds(config: Config, layer: str) -> bool:
    """Return whether the layer's original is followed by BatchNorm and Scale."""
    return isinstance(config, ResNetConfig) and layer.startswith("conv_")


def norm_layers(layer: str) -> tuple[str, str]:
    """Return the names of the BatchNorm and Scale layers of a convolution `conv_...`."""
    suffix = layer.removeprefix("conv_")
    return f"bn_{suffix}", f"scale_{suffix}"


def _kind(config: Config, layer: str, rank: int) -> str:
    if rank == 2:
        return "dense"
    ups = config.layers if isinstance(config, GeneratorConfig) else ()
    return next((up.kind for up in ups if up.name == layer), "conv")


def _kernel(config: Config, layer: str, weight: np.ndarray) -> tuple[np.ndarray, str]:
    kind = _kind(config, layer, weight.ndim)
    if kind == "deconv":
        return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), "IOHW flipped -> HWIO"
    if kind == "conv":
        return weight.transpose(2, 3, 1, 0), "OIHW -> HWIO"
    if isinstance(config, AlexNetConfig) and layer == config.dense[0][0]:
        last = config.convs[-1]
        height, width, channels = activation_shapes(config)[last.norm or last.pool or last.name]
        rows = weight.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
        return rows.reshape(-1, weight.shape[0]), "OI -> IO, I from CHW to HWC"
    return weight.T, "OI -> IO"


def _same_but_leading_ones(found: Shape, expected: Shape) -> bool:
    extra = len(found) - len(expected)
    return extra >= 0 and found == (1,) * extra + tuple(expected)
