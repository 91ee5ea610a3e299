"""Paths as people type them, atomic writes, regular file checks, hashes."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` and environment variables replaced, unless it exists as it is.

    Raises:
      ValueError: In one line, where there is no such home or variable.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return Path(text)
    found = os.path.expandvars(text)
    if unset := re.search(r"\$(?:\{\w+\}|[A-Za-z_]\w*)", found):
        raise ValueError(f"{text!r}: the environment variable {unset[0]} is not set")
    try:
        return Path(found).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text!r}: {error}: give the folder's full path") from error


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
      name: Its name in the message.
      what: The expected kind of file.

    Raises:
      ValueError: one line that begins with the name.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} cannot be read: {why}; expected {what}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name} is a folder, expected {what}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{name} is a device, pipe or socket, expected {what}")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
