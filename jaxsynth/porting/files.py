"""Foreign files of weights: protobuf messages, and models of TensorFlow.js.

Protobuf is read with schemas that are built in code: only the fields that are needed, unknown ones
are skipped. A TensorFlow.js model is model.json with its weight files, or the npm package `nsfwjs`,
which holds each model as JavaScript that exports an object literal, and its weights as base64 in
more JavaScript. Nothing is run: literals are rewritten token by token into JSON.

Foreign files are untrusted: one that cannot be read is one `ValueError`.
"""

import base64
import gzip
import io
import json
import math
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from jaxsynth.disk import check_regular, expected, file_kind, kind_of

_MAX_BYTES = 2**31 - 1  # protobuf's own limit for one message
_KINDS = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
}
_TFJS = "a TensorFlow.js model.json, or the npm package nsfwjs (`npm pack nsfwjs@4.4.0`)"
_LARGEST = 2**29  # bytes of a package
_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2"}
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<bool>![01])|(?P<mark>[{}\[\],:])|(?P<word>[A-Za-z_$][\w$]*)
    |(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = ("true", "false", "null")


def message_classes(package: str, messages: dict[str, str]) -> dict[str, type[Message]]:
    """Make message name -> class, for messages that may refer to each other.

    Each has fields `NAME NUMBER KIND`, separated by commas. A kind is `bytes`, `int64`, `float`,
    `double` or the name of a message; repeated ones end with `*`.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in map(str.split, fields.split(",")):
            field = message.field.add(name=name, number=int(number))
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            field.type = _KINDS.get(kind, field.TYPE_MESSAGE)
            if kind not in _KINDS:
                field.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def parse_file(path: str | Path, message_class: type[Message], what: str) -> Message:
    """Parse a file as one message; `what` names the expected format in errors."""
    path = Path(path)
    check_regular(path, str(path), what)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{path} has {size} bytes: too large for {what}")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; expected {what}") from error
    if kind := kind_of(data):
        raise ValueError(f"{path} {expected(what, kind)}")
    try:
        return message_class.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{path} is truncated or not {what}") from error


# --- TensorFlow.js --------------------------------------------------------------------------------


def read_tfjs(path: Path, model: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a model's topology, and name -> array (float32); `model` is a folder of the package."""
    check_regular(path, str(path), _TFJS)
    try:
        kind = file_kind(path)
        if kind.startswith("a JSON"):
            description = json.loads(path.read_text("utf-8"))
            return _parts(description, lambda shard: (path.parent / Path(shard).name).read_bytes())
        if kind.startswith(("a gzip", "a tar")):
            opened = gzip.open if kind.startswith("a gzip") else open
            with opened(path, "rb") as file:  # read to its end: that checks its sum
                data = file.read(_LARGEST)
            with tarfile.open(fileobj=io.BytesIO(data)) as package:
                folder = f"package/dist/models/{model}"
                description = _exported(_member(package, f"{folder}/model.min.js"))

                def shard_bytes(shard: str) -> bytes:
                    return base64.b64decode(
                        _exported(_member(package, f"{folder}/{shard}.min.js")), validate=True
                    )

                return _parts(description, shard_bytes)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}; expected {_TFJS}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).strip("'")[:200]
        raise ValueError(f"{path} is damaged or not {_TFJS} ({why})") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: fetch it again ({error})") from error
    raise ValueError(f"{path} {expected(_TFJS, kind)}")


def _member(package: tarfile.TarFile, name: str) -> str:
    member = package.getmember(name)
    file = package.extractfile(member) if member.isfile() else None
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read().decode()


def _exported(script: str) -> Any:
    """Return the value of `exports=...` in a script: an object, list or text."""
    found = re.search(r"exports=(?=[{\"\[])", script)
    if found is None:
        raise ValueError("a script exports no literal")
    start, out, depth = found.end(), [], 0
    while not out or depth:
        token = _TOKEN.match(script, start)
        if token is None:
            raise ValueError(f"no literal at character {start} of a script")
        start, text = token.end(), token[0]
        match token.lastgroup:
            case "bool":
                text = "true" if text == "!0" else "false"
            case "word" if text not in _WORDS:
                text = json.dumps(text)
            case "number":
                text = repr(float(text)) if "." in text or "e" in text.lower() else text
            case "mark":
                depth += (text in "{[") - (text in "}]")
        out.append(text)
    return json.loads("".join(out))


def _parts(
    description: dict[str, Any], shard_bytes: Callable[[str], bytes]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays: dict[str, np.ndarray] = {}
    for group in description["weightsManifest"]:
        data, place = b"".join(map(shard_bytes, group["paths"])), 0
        for weight in group["weights"]:
            quantised = weight.get("quantization", {})
            dtype = np.dtype(_TYPES[quantised.get("dtype", weight["dtype"])])
            count = math.prod(weight["shape"])
            values = np.frombuffer(data, dtype, count, place)
            place += count * dtype.itemsize
            if "scale" in quantised:  # computed in double precision, stored in single
                values = values * float(quantised["scale"]) + float(quantised["min"])
            arrays[weight["name"]] = values.astype(np.float32).reshape(weight["shape"])
        if place != len(data):
            raise ValueError(f"{len(data)} bytes of weights, {place} are described")
    return description["modelTopology"], arrays
