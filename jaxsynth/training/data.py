"""Photographs for training, from folders and zips, decoded once into a cache.

A class is the folder that holds a photograph; photographs without folders are one class, which is
enough to train a generator. Splits are told by exact names: the folders `train` and `val`, and zips
that have one of these words in their name (`places-train-00.zip`; `trainval` is another word).
Without a split of its own, every tenth file of a class is for validation. No file is in both.
Cached images are RGB, uint8, (N, side, side, 3), the whole picture resized.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxsynth.disk import expand
from jaxsynth.image_files import READER, read_picture
from jaxsynth.image_search import SUFFIXES, ImageFile, find_images

Batch = tuple[np.ndarray, np.ndarray, int]  # pixels (B, S, S, 3) uint8 RGB, labels (B,), count
SPLITS = ("train", "val")
_UNUSED = "test"  # a split that nothing reads
_HELD_OUT = 10  # every tenth file, where the data has no split of its own


class ImageSet(NamedTuple):
    """Decoded photographs.

    Attributes:
      images: (N, side, side, 3) uint8, RGB, a read-only memory map.
      labels: (N,) int32.
      rows: The usable rows of `images` and `labels`.
      classes: Names, by label.
      skipped: A line per file that is not used, with the reason, and per kind of file left out.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


class _Split(NamedTuple):
    files: list[ImageFile]
    left_out: list[str]


def load_images(
    data: Path, split: str, side: int, cache: Path, classes: Sequence[str] | None = None
) -> ImageSet:
    """Read one split, from the cache if neither the files nor the reader have changed since.

    Args:
      data: Folder of zips, of class folders, or of images; or one zip.
      split: `train` or `val`.
      side: Pixels per side; the whole picture is resized to a square (antialiased bilinear).
      cache: Folder for the decoded arrays.
      classes: The classes in order; by default the sorted ones of this split.

    Raises:
      ValueError: If there are no images, splits that overlap, or a class not in `classes`.
    """
    files, left_out = _find_split(expand(data), split)
    if not files:
        raise ValueError(
            f"no {split} images in {str(data)!r}: expected a folder {split}/, zips with the word "
            f"{split} in their names, class folders of images, or images"
            + "".join(f"; left out: {line}" for line in left_out)
        )
    names = tuple(sorted({file.folder for file in files}) if classes is None else classes)
    unknown = sorted({file.folder for file in files} - set(names))
    if unknown:
        raise ValueError(f"{split} class {unknown[0]!r} in {str(data)!r} is not a training class")
    folder = expand(cache) / f"images-{side}-{_fingerprint(files, side)}"
    if not (folder / "skipped.json").is_file():
        _decode_all(files, side, folder)
    labels = np.array([names.index(file.folder) for file in files], np.int32)
    good = np.load(folder / "good.npy")
    skipped = (*json.loads((folder / "skipped.json").read_text()), *left_out)
    if not good.any():
        raise ValueError(f"no readable {split} image in {str(data)!r}; the first: {skipped[0]}")
    images = np.load(folder / "images.npy", mmap_mode="r")
    return ImageSet(images, labels, np.flatnonzero(good), names, skipped)


def content_hash(images: ImageSet) -> str:
    """Tell one set of photographs from another: their number, labels, and some 64 of them."""
    some = images.rows[:: max(1, len(images.rows) // 64)]
    digest = hashlib.sha256(images.labels[images.rows].tobytes())
    digest.update(np.ascontiguousarray(images.images[some]).tobytes())
    return digest.hexdigest()


def epoch_rows(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Permute the rows for one epoch, by (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


def batches(images: ImageSet, size: int) -> Iterator[Batch]:
    """Yield all usable images in order: (pixels, labels, count), the last batch padded."""
    for start in range(0, len(images.rows), size):
        rows = images.rows[start : start + size]
        full = np.resize(rows, size)
        yield images.images[full], images.labels[full], len(rows)


def _find_split(data: Path, split: str) -> _Split:
    """Find the files of a split, and those that are left out of both."""
    if not data.exists():
        raise ValueError(f"no such folder of training data: {str(data)!r}")
    places = _split_places(data)
    if places is None:
        files, left_out = _usable([data])
        return _Split(_tenths(files, split == "val"), left_out)
    found = {name: _usable(places[name]) for name in SPLITS if places[name]}
    left_out = [line for one in found.values() for line in one.left_out]
    inside = [path for path in sorted(data.iterdir()) if path.is_file()]
    other = [p for p in inside if p.suffix.lower() != ".zip"] + places[_UNUSED]
    left_out += [f"{str(path)!r}, which is of no split that is used" for path in other]
    if "val" not in found:
        return _Split(_tenths(found["train"].files, split == "val"), left_out)
    if "train" not in found:
        return _Split(found["val"].files if split == "val" else [], left_out)
    trained = {_identity(file) for file in found["train"].files}
    both = [str(file) for file in found["val"].files if _identity(file) in trained]
    if both:
        raise ValueError(
            f"{len(both)} images are in train and in val, such as {both[0]!r}: what is measured on "
            "training images says nothing; take them out of one of the two"
        )
    return _Split(found[split].files, left_out)


def _split_places(data: Path) -> dict[str, list[Path]] | None:
    """Split -> its folders and zips; None where the data has no splits by name."""
    inside = sorted(p for p in data.iterdir() if p.name[0] != ".") if data.is_dir() else []
    inside = [path for path in inside if path.is_dir() or path.suffix.lower() == ".zip"]
    names = {path: _split_name(path) for path in inside}
    splits = [path for path in inside if names[path] in SPLITS]
    others = [path for path in inside if not names[path]]
    if not splits or (others and all(map(_holds_images, splits))):
        return None  # a class may be called train
    if others:
        raise ValueError(
            f"{str(data)!r}: {splits[0].name} is a split by its name, but {others[0].name} is of "
            "none: call all of them train or val, or none"
        )
    return {name: [p for p in inside if names[p] == name] for name in (*SPLITS, _UNUSED)}


def _split_name(path: Path) -> str:
    words = {path.name} if path.is_dir() else set(re.split(r"[\W\d_]+", path.stem.lower()))
    found = words & {*SPLITS, _UNUSED}
    return found.pop() if len(found) == 1 else ""


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())


def _usable(places: Sequence[Path]) -> _Split:
    """The images in these places by their names; where some have class folders, only those."""
    found = find_images(places)
    files = [f for f in found.files if f.suffix in SUFFIXES]
    other = [f for f in found.files if f.suffix not in SUFFIXES and not f.problem]
    lines = [f"{str(f)!r} {f.problem}" for f in found.files if f.problem]
    classed = [f for f in files if f.member is not None or f.path.parent not in places]
    alone = [f for f in files if f.member is None and f.path.parent in places] if classed else []
    for what, left in (("other files", other), ("images outside class folders", alone)):
        lines += [f"{len(left)} {what}, such as {str(left[0])!r}"] if left else []
    return _Split(classed or files, [*found.left_out, *lines])


def _tenths(files: Sequence[ImageFile], held_out: bool) -> list[ImageFile]:
    """Every tenth file of each class, or the others."""
    seen: dict[str, int] = {}
    chosen = []
    for file in files:
        n = seen[file.folder] = seen.get(file.folder, -1) + 1
        if (n % _HELD_OUT == _HELD_OUT - 1) == held_out:
            chosen.append(file)
    return chosen


def _identity(file: ImageFile) -> tuple[int, int, str]:
    """Equal for one file, or one member of a zip, behind two names."""
    status = os.stat(file.path)
    return status.st_dev, status.st_ino, file.member.filename if file.member else ""


def _fingerprint(files: Sequence[ImageFile], side: int) -> str:
    """Changes with the reader and any file's name, size or time; a zip counts as one file."""
    digest = hashlib.sha256(f"{READER} {side}".encode())
    for path in sorted({file.path for file in files}):
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update("\n".join(map(str, files)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _decode_all(files: Sequence[ImageFile], side: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"images.npy.{os.getpid()}.partial"  # another process may decode the same
    shape = (len(files), side, side, 3)
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    good = np.zeros(len(files), bool)
    skipped = []
    for i, result in enumerate(_in_order(files, side)):
        if isinstance(result, str):
            skipped.append(result)
        else:
            out[i], good[i] = result, True
    out.flush()
    partial.replace(folder / "images.npy")
    np.save(folder / "good.npy", good)
    (folder / "skipped.json").write_text(json.dumps(skipped))  # last: marks a complete cache


def _in_order(files: Sequence[ImageFile], side: int) -> Iterator[np.ndarray | str]:
    """Decode in threads (Pillow releases the lock), chunk by chunk so that few are in memory."""
    rest = iter(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(rest, 1024)):
            yield from pool.map(lambda file: _decode(file, side), chunk)


def _decode(file: ImageFile, side: int) -> np.ndarray | str:
    """Return (side, side, 3) uint8, RGB, or one line that says what is wrong with the file."""
    try:
        rgb, complaint = read_picture(file)
    except ValueError as error:
        return str(error)
    if complaint:
        return f"{str(file)!r} is damaged: {complaint}"
    return np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR))
