"""Atomic writes, regular file checks, hashes, folders of images."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    with atomic_file(path) as out:
        out.write(data)


@contextmanager
def atomic_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write that appears under its name when the block ends well, or not at all.

    Args:
      path: Its name.
      sync: Wait for the disk, so that the file outlives the machine and not only the process.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as out:
            yield out
            out.flush()
            if sync:
                os.fsync(out.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_regular(path: str | os.PathLike[str], name: str, what: str) -> None:
    """Check that a path is a regular file before anybody opens it.

    Args:
      path: The path.
      name: What the message calls it.
      what: What was expected there.

    Raises:
      ValueError: one line that begins with the name.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} cannot be read: {why}; expected {what}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name} is a folder, expected {what}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{name} is a device, pipe or socket, expected {what}")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Expand folders, sorted and recursive; keep every file given by name.

    Every file of a folder is listed whatever its suffix, except hidden ones (`.name`). What cannot
    be listed stays in the list as it is, so that reading it reports it. No file twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        files = sorted(_files_below(path)) if path.is_dir() else []
        found += files or [path]
    return list(dict.fromkeys(found))


def _files_below(folder: Path) -> list[Path]:
    unlisted: list[OSError] = []
    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=unlisted.append):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(root, f) for f in files if not f.startswith(".")]
    return found + [Path(error.filename) for error in unlisted]


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ and $NAME replaced (to be replaced by the full one)."""
    return Path(os.path.expandvars(path)).expanduser()
