"""Weights files: one safetensors file a network, and a manifest beside it.

The file holds flat `path -> array`, with `code/upper`, `code/mean` and `code/sigma` of a
generator's code. Its metadata `jaxsynth` are the JSON description of the architecture.
`manifest.jsonl` in the same folder has one JSON line per file {"file", "network", "sha256",
"source_sha256", "bytes"}; the last line of a file's name holds, and every load checks it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxsynth.arithmetic import arithmetic
from jaxsynth.disk import expected, file_kind, file_sha256
from jaxsynth.environment import check_backend
from jaxsynth.models.grid_generator import EncoderConfig
from jaxsynth.models.labels import read_labels
from jaxsynth.models.names import (
    HOW_TO_PORT,
    LABELS,
    SUFFIX,
    check_manifest,
    resolve,
    write_listed,
)
from jaxsynth.models.network import (
    ARCHITECTURES,
    CodeStats,
    Config,
    Network,
    NetworkInfo,
    architecture_name,
    build_network,
    is_generator,
)

_LARGEST = 1e5  # of the weights of networks that are in use, the largest is some hundreds
_MANY = 64  # a kernel of so many weights that are all whole numbers was never trained
_MOST_BLOCKS = 1000  # a damaged description could ask for any number, each of which takes time


def load_network(name_or_path: str | Path, dtype: np.dtype | type = np.float32) -> Network:
    """Load the network of a weights file, by its path or name; see `jaxsynth.load`.

    ValueErrors tell of an unknown name, a missing or corrupt file, a hash other than the
    manifest's, and parameters that do not fit the description.
    """
    dtype = check_dtype(dtype)
    check_backend()
    path, wide = resolve(str(name_or_path)), np.promote_types(dtype, np.float32)
    info, arrays = _read(path)
    try:
        check_weights(arrays)
        code = {k[5:]: arrays.pop(k) for k in list(arrays) if k.startswith("code/")}
        network = build_network(info, arrays, _code_stats(info, code, wide))
    except (ValueError, TypeError) as error:  # TypeError: shapes that contradict each other
        raise ValueError(f"{path}: {error}") from error
    with arithmetic(dtype == np.float64):
        params = {p: jnp.asarray(a, dtype) for p, a in network.params.items()}
    return network._replace(params=params)


def check_dtype(dtype: np.dtype | type | str) -> np.dtype:
    """Return the type of parameters: float32, float64 or bfloat16, else ValueError."""
    try:
        dtype = np.dtype(dtype)
        known = dtype in (np.float32, np.float64, jnp.bfloat16)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype {dtype} is not supported: choose float32, float64 or bfloat16")
    return dtype


def read_info(name_or_path: str | Path) -> NetworkInfo:
    """Read the description in a weights file, not its arrays."""
    return _read(resolve(str(name_or_path)), arrays=False)[0]


def save_network(path: str | Path, network: Network) -> str:
    """Write a weights file, atomically, and its manifest line; return the file's sha256."""
    path = check_output(path)
    code = network.code._asdict() if network.code is not None else {}
    arrays = dict(network.params) | {f"code/{k}": a for k, a in code.items() if a is not None}
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={"jaxsynth": info_to_json(network.info)},
    )
    digest = hashlib.sha256(data).hexdigest()
    line = {
        "file": path.name,
        "network": network.name,
        "sha256": digest,
        "source_sha256": network.info.source_sha256,
        "bytes": len(data),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_listed(path, data, line)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    return digest


def check_output(path: str | Path) -> Path:
    """Return a path if a weights file may be written there, else raise ValueError."""
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} must end with {SUFFIX}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file to write")
    return path


def file_record(name_or_path: str | Path) -> dict[str, str]:
    """Return what identifies the weights of a name, for a config file: file and sha256."""
    path = resolve(str(name_or_path))
    return {"name": str(name_or_path), "file": path.name, "sha256": file_sha256(path)}


def _read(path: Path, arrays: bool = True) -> tuple[NetworkInfo, dict[str, np.ndarray]]:
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"weights file {path} {what}; {HOW_TO_PORT}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if arrays:
                check_manifest(path)
            names = file.keys() if arrays else ()
            read = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        kind = file_kind(path)
        what = "is not a whole safetensors file of float arrays"
        unknown = not kind or "safetensors" in kind
        said = f"{what} ({error})" if unknown else expected("a weights file", kind)
        raise ValueError(f"{path} {said}; {HOW_TO_PORT}") from error
    if "jaxsynth" not in metadata:
        raise ValueError(f"{path} has no description `jaxsynth` in its metadata; {HOW_TO_PORT}")
    try:
        return _labelled(info_from_json(metadata["jaxsynth"])), read
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _labelled(info: NetworkInfo) -> NetworkInfo:
    """Name classes that have numbers only, where an installed package knows their names.

    They are read at every load, so that the file, and its hash, do not depend on the package.
    """
    numbers = tuple(map(str, range(len(info.labels))))
    if info.network not in LABELS or info.labels != numbers:
        return info
    path = LABELS[info.network].find()
    names = read_labels(path, len(numbers), info.network) if path else numbers
    return dataclasses.replace(info, labels=names)


def check_weights(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless arrays can be the weights of a trained network."""
    if arrays and not any(np.any(array) for array in arrays.values()):
        raise ValueError("weights must be those of a trained network: all of them are 0")
    flaws = [f"{name} {flaw}" for name, array in arrays.items() if (flaw := _flaw(array))]
    if flaws:
        more = f" (and {len(flaws) - 1} more)" if flaws[1:] else ""
        raise ValueError(f"weights must be finite floats of a sane size: {flaws[0]}{more}")


def _flaw(array: np.ndarray) -> str:
    if array.dtype not in (np.float16, jnp.bfloat16, np.float32, np.float64):
        return f"is {array.dtype.name} (of quantised weights the scales are missing)"
    if not np.isfinite(array).all():
        return "holds numbers that are not finite"
    largest = float(max(np.max(array, initial=0), -np.min(array, initial=0)))
    if largest > _LARGEST:
        return f"reaches {largest:.3g}, expected at most {_LARGEST:g}"
    if array.ndim > 1 and array.size >= _MANY and largest > 1 and (array == np.rint(array)).all():
        return "holds whole numbers only (quantised weights without their scales, perhaps)"
    return ""


def _code_stats(info: NetworkInfo, code: dict, dtype: np.dtype) -> CodeStats | None:
    if not code:
        return None
    if not is_generator(info.config):
        raise ValueError("holds code statistics, but is no generator")
    if "upper" not in code or not set(code) <= set(CodeStats._fields):
        raise ValueError(f"code statistics are {sorted(code)}, expected {CodeStats._fields}")
    for name, array in code.items():
        if array.shape != (info.config.code,):
            raise ValueError(f"code/{name} has shape {array.shape}, not {(info.config.code,)}")
    if (code["upper"] < code.get("lower", 0)).any():
        raise ValueError("code/upper is below code/lower, or below 0, in some unit")
    return CodeStats(**{name: array.astype(dtype) for name, array in code.items()})


def info_to_json(info: NetworkInfo) -> str:
    """Return the description as JSON text."""
    plain = dataclasses.asdict(info)
    if isinstance(info.config, EncoderConfig):
        plain["config"]["trunk"]["architecture"] = architecture_name(info.config.trunk)
    return json.dumps(plain | {"architecture": architecture_name(info.config)})


def info_from_json(text: str) -> NetworkInfo:
    """Invert `info_to_json`; ValueError if the text is not such a description."""
    try:
        plain = json.loads(text)
        config = _config_from_plain(plain.pop("architecture"), plain.pop("config"))
        plain["labels"] = tuple(str(label).strip("\ufeff") for label in plain["labels"])
        return NetworkInfo(config=config, **plain)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a description of a network: {error!r}") from error


def _config_from_plain(architecture: str, plain: dict[str, Any]) -> Config:
    known = ARCHITECTURES[architecture]
    if known.config is EncoderConfig:
        trunk = plain.pop("trunk")
        plain["trunk"] = _config_from_plain(trunk.pop("architecture"), trunk)
    plain = {key: _tuples(value) for key, value in plain.items()}
    for key in known.rows.keys() & plain.keys():
        plain[key] = tuple(known.rows[key](*row) for row in plain[key])
    if (blocks := sum(stage[0] for stage in plain.get("stages", ()))) > _MOST_BLOCKS:
        raise ValueError(f"{blocks} residual blocks, at most {_MOST_BLOCKS} are expected")
    return known.config(**plain)


def _tuples(value: Any) -> Any:
    """Turn lists of JSON into tuples, at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
