"""Files that appear whole or not at all, whatever happens while they are written."""

import os
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
