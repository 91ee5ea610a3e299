"""TensorFlow.js models: model.json with its weight files, or the npm package `nsfwjs`.

The package holds each model as JavaScript that exports an object literal, and its weights as base64
in more JavaScript. Nothing is run: literals are rewritten token by token into JSON.
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

from jaxsynth.disk import check_regular, expected, file_kind

WHAT = "a TensorFlow.js model.json, or the npm package nsfwjs (`npm pack nsfwjs@4.4.0`)"
_LARGEST = 2**29  # bytes of a package
_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2"}
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<bool>![01])|(?P<mark>[{}\[\],:])|(?P<word>[A-Za-z_$][\w$]*)
    |(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = ("true", "false", "null")


def read_tfjs(path: Path, model: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a model's topology, and name -> array (float32).

    Args:
      path: model.json, or the package.
      model: Which model of the package, such as `mobilenet_v2`.

    Raises:
      ValueError: One line: the file cannot be read, or is not one.
    """
    check_regular(path, str(path), WHAT)
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
        raise ValueError(f"cannot read {path}: {error}; expected {WHAT}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).strip("'")[:200]
        raise ValueError(f"{path} is damaged or not {WHAT} ({why})") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: fetch it again ({error})") from error
    raise ValueError(f"{path} {expected(WHAT, kind)}")


def _member(package: tarfile.TarFile, name: str) -> str:
    member = package.getmember(name)
    if not member.isfile():
        raise ValueError(f"{name} is no file")
    return package.extractfile(member).read().decode()


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
