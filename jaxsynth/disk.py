"""Atomic writes, and the check for a regular file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as out:
        out.write(data)


@contextmanager
def whole_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when the block ends well, or not at all.

    sync: wait for the disk, so that it outlives the machine and not only the process.
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
    """Looks at the kind of file before anybody opens it.

    Args:
      name: what the message calls the path. what: what was expected there.

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
