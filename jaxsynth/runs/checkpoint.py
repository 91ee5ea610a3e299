"""What a run that is under way leaves in its folder, so that nothing computed is lost.

  OUT/.lock                        held (flock) by the process that works on the run
  OUT/unfinished/run00000012.safetensors        a finished chunk, whose first run is 12: the
                                   arrays of results.safetensors for its runs
  OUT/unfinished/under_way00000016.safetensors  the chunk under way: `state/NUMBER`,
                                   `trace/objective`, `watched/...`, `recorded/STEP`

Every file is written whole or not at all. `unfinished` goes when the last page is written.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from jaxsynth.ascent import Trace
from jaxsynth.chunks import Results
from jaxsynth.progress import Progress
from jaxsynth.runs.folder import (
    GONE,
    LOCK,
    RESULTS,
    STOP,
    UNFINISHED,
    flatten_watched,
    results_arrays,
    results_from_arrays,
    unflatten_watched,
    write_arrays,
    write_parts,
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process off the folder until the block ends; makes it if need be, and
    takes it away again if nothing was written into it.

    The lock is the kernel's and ends with the process, however that ends.

    Raises:
      ValueError: if another process holds it.
    """
    path, made = folder / LOCK, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ValueError(f"output folder {folder} cannot be used: {error.strerror}") from None
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise ValueError(
                f"output folder {folder} is in use by another process (number {holder}): wait for "
                "it, or choose another --out"
            ) from None
        if _same_file(handle, path):  # its last holder may have deleted it in between
            break
        os.close(handle)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
        if made:
            with suppress(OSError):  # something was written
                folder.rmdir()


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def is_kept(folder: Path, first: int) -> bool:
    """Whether the folder keeps the finished chunk whose first run is `first`."""
    return _chunk(folder, first).is_file()


def save_chunk(folder: Path, first: int, chunk: Results, start_codes: np.ndarray) -> None:
    """Keeps a finished chunk, whose first run is `first` and whose runs started from these codes;
    what was kept of it while it was under way goes."""
    write_arrays(_chunk(folder, first), results_arrays(chunk, start_codes))
    _under_way(folder, first).unlink(missing_ok=True)


def load_chunk(folder: Path, first: int) -> Results:
    """A finished chunk.

    Raises:
      ValueError: if its file is damaged.
    """
    return results_from_arrays(load_kept(_chunk(folder, first)))


def save_progress(folder: Path, first: int, progress: Progress) -> None:
    """Keeps the state of the chunk whose first run is `first`."""
    arrays = {f"state/{i:03d}": leaf for i, leaf in enumerate(progress.state)}
    arrays |= {"trace/objective": progress.trace.objective}
    arrays |= flatten_watched("watched", progress.trace.watched)
    arrays |= {f"recorded/{step}": codes for step, codes in progress.recorded.items()}
    write_arrays(_under_way(folder, first), arrays)


def load_progress(folder: Path, first: int) -> Progress | None:
    """The state of the chunk whose first run is `first`, or None if none was kept.

    Raises:
      ValueError: if the file is damaged.
    """
    path = _under_way(folder, first)
    if not path.is_file():
        return None
    arrays = load_kept(path)
    return Progress(
        state=[arrays[name] for name in sorted(arrays) if name.startswith("state/")],
        trace=Trace(arrays["trace/objective"], unflatten_watched(arrays, "watched")),
        recorded={
            int(name.removeprefix("recorded/")): value
            for name, value in arrays.items()
            if name.startswith("recorded/")
        },
    )


def join_chunks(folder: Path) -> None:
    """Writes results.safetensors from the finished chunks, one array of one chunk in memory."""
    paths = sorted((folder / UNFINISHED).glob("run*.safetensors"))
    write_parts(folder / RESULTS, paths)


def ask_all_to_stop(folder: Path) -> None:
    """Tells the other processes of this run, see `all_asked_to_stop`."""
    with suppress(OSError):
        (folder / UNFINISHED / STOP).touch()


def all_asked_to_stop(folder: Path) -> bool:
    """Whether a process of this run has stopped or failed since the folder was opened."""
    return (folder / UNFINISHED / STOP).exists()


def remove_unfinished(folder: Path) -> None:
    """The run is done, its results and pages are written: what was kept goes at once, so that a
    kill leaves no half of it to be computed again."""
    shutil.rmtree(folder / GONE, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(folder / UNFINISHED, folder / GONE)
    shutil.rmtree(folder / GONE, ignore_errors=True)


def _chunk(folder: Path, first: int) -> Path:
    return folder / UNFINISHED / f"run{first:08d}.safetensors"


def _under_way(folder: Path, first: int) -> Path:
    return folder / UNFINISHED / f"under_way{first:08d}.safetensors"


def load_kept(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file that a run under way has kept.

    Raises:
      ValueError: if it is damaged, with the way out.
    """
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and --resume computes it again"
        ) from None
