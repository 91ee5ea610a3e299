"""Weights of a `.caffemodel`, in all three generations of the format (Caffe's `caffe.proto`).

V2: NetParameter.layer (100); V1: NetParameter.layers (2); V0: NetParameter.layers.layer (1).
Packed floats have the same bytes on the wire as a `bytes` field, so `data` is declared as one: the
arrays are views of the file's contents.
"""

import math
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from jaxsynth.porting.proto import Field, message_classes, parse_file

WHAT = "a .caffemodel file"
_LEGACY = ("num", "channels", "height", "width")
_MESSAGES = message_classes(
    "jaxsynth_caffe",
    {
        "BlobShape": [Field("dim", 1, "int64", True)],
        "BlobProto": [
            *(Field(name, i + 1, "int64") for i, name in enumerate(_LEGACY)),
            Field("data", 5, "bytes", True),
            Field("shape", 7, "BlobShape"),
            Field("double_data", 8, "bytes", True),
        ],
        "UnpackedBlob": [
            Field("data", 5, "float", True),
            Field("double_data", 8, "double", True),
        ],
        "V0Layer": [Field("name", 1, "bytes"), Field("blobs", 50, "BlobProto", True)],
        "V1Layer": [
            Field("layer", 1, "V0Layer"),
            Field("name", 4, "bytes"),
            Field("blobs", 6, "BlobProto", True),
        ],
        "V2Layer": [Field("name", 1, "bytes"), Field("blobs", 7, "BlobProto", True)],
        "NetParameter": [
            Field("layers", 2, "V1Layer", True),
            Field("layer", 100, "V2Layer", True),
        ],
    },
)


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Layer name -> its blobs, in the file's order; layers without blobs are left out.

    Shapes are as found: the legacy num/channels/height/width give 4-D arrays. float32, or float64
    where the file holds `double_data`. The arrays are read-only.

    Raises:
      ValueError: the file cannot be read, is of another type, truncated, has no weights, has two
        layers of one name, or a blob whose data do not match its shape.
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
    for chunks, dtype in ((blob.data, "<f4"), (blob.double_data, "<f8")):
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
