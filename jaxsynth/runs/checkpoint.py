"""Arrays of a run's folder: its results and its checkpoints.

`results.safetensors`, and each checkpoint of a finished chunk, hold (R runs, T steps, D code units,
k recorded steps):

  start_codes (R, D)             before the first update
  codes (R, D)                   after the last update
  best_codes (R, D)              of the highest objective met
  recorded_codes (R, k, D)       after the steps of --record_codes
  objective (R, T)               at the code before each update
  objective_last, objective_best (R,)  of the last and the best image
  activations/NETWORK/BLOB (R, T, K)   per step: all K classes of logits and prob, and of log_prob
                                 and log_odds if the run weighs them; of another blob the values of
                                 its linear terms, in their order
  activations/NETWORK/HOW:BLOB (R, T, K)  of its other terms: match, cosine, square, diversity, and
                                 generator/function:NAME
  last/NETWORK/BLOB, best/NETWORK/BLOB (R, K)  the same of the last and the best image
  images/last, images/best (R, H, W, 3)  in the generator's own units
  ended (R,)                     step that ended the run before its last, or -1
  sound (R,)                     False if something that is not finite ended it, frozen at its last
                                 good code; True after a zero gradient

Checkpoints, all written atomically:

  OUT/unfinished/run00000012.safetensors        a finished chunk, whose first run is 12
  OUT/unfinished/under_way00000016.safetensors  the current chunk: `state/NUMBER`,
                                 `trace/objective`, `watched/...`, `recorded/STEP`
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from jaxsynth.ascent import ChunkResult, Evaluation, Progress, Trace
from jaxsynth.disk import atomic_file, check_regular, expand, file_kind
from jaxsynth.runs.folder import GONE, RESULTS, STOP, UNFINISHED, load_arrays, write_arrays

if TYPE_CHECKING:
    from jaxsynth.goal_arrays import Shared

_KINDS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U8": "u1"}
_KINDS |= {"BOOL": "?"}
_PLAIN = ("start_codes", "codes", "best_codes", "recorded_codes", "objective", "ended", "sound")
Watched = Mapping[str, Mapping[str, np.ndarray]]  # {network: {blob: array}}


def is_finished(folder: Path, first: int) -> bool:
    """Whether the folder has the finished chunk whose first run is `first`."""
    return _chunk(folder, first).is_file()


def save_chunk(folder: Path, first: int, chunk: ChunkResult) -> None:
    """Save a finished chunk, whose first run is `first`; its checkpoint under way goes."""
    write_arrays(_chunk(folder, first), _to_arrays(chunk))
    _under_way(folder, first).unlink(missing_ok=True)


def load_chunk(folder: Path, first: int) -> ChunkResult:
    """Load a finished chunk; ValueError if its file is damaged."""
    path = _chunk(folder, first)
    try:
        return from_arrays(load_arrays(path))
    except KeyError as missing:
        raise ValueError(f"{path} cannot be read (array {missing} is missing): delete it") from None


def save_progress(folder: Path, first: int, progress: Progress) -> None:
    """Save the state of the chunk whose first run is `first`."""
    arrays = {f"state/{i:03d}": leaf for i, leaf in enumerate(progress.state)}
    arrays |= {"trace/objective": progress.trace.objective}
    arrays |= _flat("watched", progress.trace.watched)
    arrays |= {f"recorded/{step}": codes for step, codes in progress.recorded.items()}
    write_arrays(_under_way(folder, first), arrays)


def load_progress(folder: Path, first: int) -> Progress | None:
    """Load the state of the chunk whose first run is `first`, or None if none was saved."""
    path = _under_way(folder, first)
    if not path.is_file():
        return None
    arrays = load_arrays(path)
    recorded = [name for name in arrays if name.startswith("recorded/")]
    return Progress(
        state=[arrays[name] for name in sorted(arrays) if name.startswith("state/")],
        trace=Trace(arrays["trace/objective"], _nested(arrays, "watched")),
        recorded={int(name.removeprefix("recorded/")): arrays[name] for name in recorded},
    )


def join_chunks(folder: Path, shared: "Shared | None" = None) -> None:
    """Write results.safetensors from the finished chunks, one array of one chunk in memory.

    `shared` tells which runs share a computed one.
    """
    paths = sorted((folder / UNFINISHED).glob("run*.safetensors"))
    _join_files(folder / RESULTS, paths, shared)


def ask_all_to_stop(folder: Path) -> None:
    """Tell the other processes of this run, see `all_asked_to_stop`."""
    with suppress(OSError):
        (folder / UNFINISHED / STOP).touch()


def all_asked_to_stop(folder: Path) -> bool:
    """Whether a process of this run has stopped or failed since the folder was opened."""
    return (folder / UNFINISHED / STOP).exists()


def remove_unfinished(folder: Path) -> None:
    """Remove all checkpoints of a finished run at once, so that a kill leaves no half of them."""
    shutil.rmtree(folder / GONE, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(folder / UNFINISHED, folder / GONE)
    shutil.rmtree(folder / GONE, ignore_errors=True)


# --- the content of a folder ----------------------------------------------------------------------


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a safetensors file: their pages are read at their first use."""
    try:
        with safetensors.safe_open(path, framework="np"), open(path, "rb") as file:  # a check
            begin = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(begin - 8))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds no readable results: {error}") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        kind, shape, offset = _KINDS[entry["dtype"]], entry["shape"], entry["data_offsets"][0]
        if math.prod(shape):
            mapped = np.memmap(path, kind, "r", begin + offset, tuple(shape))
            found[name] = np.asarray(mapped)  # a plain array is quicker to index
        else:
            found[name] = np.zeros(shape, kind)  # nothing cannot be mapped
    return found


def read_codes(path: str | Path) -> np.ndarray:
    """Read codes from a .npy file, or the final codes of an earlier run's results.safetensors."""
    what, path = f"FILE.npy or an earlier run's {RESULTS}", expand(path)
    check_regular(path, f"start codes {str(path)!r}", what)
    why, cause = "an archive of several arrays", None
    try:
        if str(path).endswith(".safetensors"):
            with safetensors.safe_open(path, framework="np") as file:
                if "codes" in set(file.keys()):
                    return file.get_tensor("codes")
            why = "it has no codes"
        elif isinstance(codes := np.load(path, allow_pickle=False), np.ndarray):
            return codes
    except OSError as error:
        why, cause = error.strerror or str(error), error
    except (ValueError, EOFError, safetensors.SafetensorError) as error:
        why, cause = _why_not(path, error), error
    raise ValueError(f"start codes {str(path)!r}: {why}; expected {what}") from cause


def _why_not(path: Path, error: Exception) -> str:
    """Say why a file's arrays cannot be read."""
    if "Object arrays" in str(error):
        return "it holds Python objects, which are not read"
    kind = file_kind(path)
    damaged = not kind or "NumPy" in kind or "safetensors" in kind
    return "damaged, or of another kind" if damaged else kind


# --- names ----------------------------------------------------------------------------------------


def _chunk(folder: Path, first: int) -> Path:
    return folder / UNFINISHED / f"run{first:08d}.safetensors"


def _under_way(folder: Path, first: int) -> Path:
    return folder / UNFINISHED / f"under_way{first:08d}.safetensors"


def _to_arrays(chunk: ChunkResult) -> dict[str, np.ndarray]:
    arrays = {name: getattr(chunk, name) for name in _PLAIN}
    arrays |= _flat("activations", chunk.watched)
    for which in ("last", "best"):
        seen = getattr(chunk, which)
        arrays |= {f"objective_{which}": seen.objective, f"images/{which}": seen.image}
        arrays |= _flat(which, seen.watched)
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> ChunkResult:
    """Make results of the arrays of results.safetensors; KeyError if one is missing."""
    ends = {
        which: Evaluation(
            arrays[f"objective_{which}"], _nested(arrays, which), arrays[f"images/{which}"]
        )
        for which in ("last", "best")
    }
    plain = {name: arrays[name] for name in _PLAIN}
    return ChunkResult(**plain, watched=_nested(arrays, "activations"), **ends)


def _flat(prefix: str, watched: Watched) -> dict[str, np.ndarray]:
    """{network: {blob: array}} -> {PREFIX/NETWORK/BLOB: array}."""
    return {
        f"{prefix}/{role}/{blob}": values
        for role, blobs in watched.items()
        for blob, values in blobs.items()
    }


def _nested(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    watched: dict[str, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        first, _, rest = name.partition("/")
        role, _, blob = rest.partition("/")
        if first == prefix:
            watched.setdefault(role, {})[blob] = values
    return watched


def _join_files(path: Path, parts: Sequence[Path], shared: "Shared | None" = None) -> None:
    """Join safetensors files of the same arrays along their first axis, atomically.

    One array of one file is in memory at a time, which safetensors' own writer cannot do. Rows that
    are shared are written again, objectives times their factor.
    """
    shapes: dict[str, list[tuple[str, list[int]]]] = {}
    for part in parts:  # one open file at a time: there may be thousands
        with safetensors.safe_open(part, framework="np") as file:
            for name in list(file.keys()):
                slice_ = file.get_slice(name)
                shapes.setdefault(name, []).append((slice_.get_dtype(), slice_.get_shape()))
    header, end = {}, 0
    for name, found in shapes.items():
        rows = [s[0] for _, s in found]
        count = sum(rows) if shared is None else len(shared.place)
        kind, shape = found[0][0], [count, *found[0][1][1:]]
        size = math.prod(shape) * np.dtype(_KINDS[kind]).itemsize
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            loaded = -1
            for part, begin, end, factor in _segments(rows, shared):
                if part != loaded:
                    with safetensors.safe_open(parts[part], framework="np") as file:
                        whole, loaded = np.ascontiguousarray(file.get_tensor(name)), part
                array = whole[begin:end]
                if shared is not None and name.startswith("objective"):
                    array = array * array.dtype.type(factor)
                out.write(array.data)


def _segments(
    rows: Sequence[int], shared: "Shared | None"
) -> Iterator[tuple[int, int, int, float]]:
    """Rows to be written, in order: their file, first and last place there, factor."""
    if shared is None:
        yield from ((part, 0, count, 1.0) for part, count in enumerate(rows))
        return
    first = np.cumsum([0, *rows])
    for place, factor in zip(shared.place, shared.factor, strict=True):
        part = int(np.searchsorted(first, place, side="right")) - 1
        begin = int(place - first[part])
        yield part, begin, begin + 1, float(factor)
