"""Photographs for training: zips or folders with one folder per class, decoded once into a cache.

In `data` the split `train` is every `*train*.zip` and the folder `train/`, `val` likewise; where
neither is there, `data` itself holds the class folders and every tenth file of a class is for
validation. A folder of images without class folders is one class, which is enough to train a
generator. Cached images are RGB, uint8, (N, side, side, 3), the whole picture resized.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SPLITS = ("train", "val")
_HELD_OUT = 10  # every tenth file, where the data has no split of its own
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class ImageSet(NamedTuple):
    """Decoded photographs. `rows` are the usable rows of `images` and `labels`.

    images: (N, side, side, 3) uint8, RGB, a read-only memory map. labels: (N,) int32.
    skipped: one line per unreadable file, with its name and the reason.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


class _Item(NamedTuple):
    archive: str  # path of the zip, or "" for a plain file
    name: str
    label: str


def load_images(
    data: Path, split: str, side: int, cache: Path, classes: Sequence[str] | None = None
) -> ImageSet:
    """Reads one split, from the cache if the files have not changed since.

    Args:
      data: folder of zips or of class folders.
      split: `train` or `val`.
      side: pixels per side; the whole picture is resized to a square (antialiased bilinear).
      cache: folder for the decoded arrays.
      classes: the classes in order; by default the sorted ones of this split.

    Raises:
      ValueError: if there are no images, or a class that is not in `classes`.
    """
    items = _find_items(data, split)
    if not items:
        raise ValueError(
            f"no {split} images in {str(data)!r}: expected *{split}*.zip, a folder {split}/, "
            "class folders of images, or images"
        )
    names = tuple(sorted({item.label for item in items}) if classes is None else classes)
    unknown = sorted({item.label for item in items} - set(names))
    if unknown:
        raise ValueError(f"{split} class {unknown[0]!r} in {str(data)!r} is not a training class")
    folder = cache / f"images-{side}-{_fingerprint(items, side)}"
    if not (folder / "skipped.json").is_file():
        _decode_all(items, side, folder)
    labels = np.array([names.index(item.label) for item in items], np.int32)
    good = np.load(folder / "good.npy")
    skipped = tuple(json.loads((folder / "skipped.json").read_text()))
    if not good.any():
        raise ValueError(f"no readable {split} image in {str(data)!r}; the first: {skipped[0]}")
    images = np.load(folder / "images.npy", mmap_mode="r")
    return ImageSet(images, labels, np.flatnonzero(good), names, skipped)


def content_hash(images: ImageSet) -> str:
    """Tells one set of photographs from another: their number, labels, and some 64 of them."""
    some = images.rows[:: max(1, len(images.rows) // 64)]
    digest = hashlib.sha256(images.labels[images.rows].tobytes())
    digest.update(np.ascontiguousarray(images.images[some]).tobytes())
    return digest.hexdigest()


def epoch_rows(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows in the order of one epoch: a permutation that depends on (seed, epoch) only."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


def batches(images: ImageSet, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """All usable images in order: (pixels, labels, count), the last batch padded by repetition."""
    for start in range(0, len(images.rows), size):
        rows = images.rows[start : start + size]
        full = np.resize(rows, size)
        yield images.images[full], images.labels[full], len(rows)


def _find_items(data: Path, split: str) -> list[_Item]:
    if not data.is_dir():
        raise ValueError(f"no such folder of training data: {str(data)!r}")
    has_split = [s for s in SPLITS if (data / s).is_dir() or any(data.glob(f"*{s}*.zip"))]
    if not has_split:
        return _held_out(_folder_items(data), split)
    items = [i for archive in sorted(data.glob(f"*{split}*.zip")) for i in _zip_items(archive)]
    return items + (_folder_items(data / split) if (data / split).is_dir() else [])


def _held_out(items: list[_Item], split: str) -> list[_Item]:
    seen: dict[str, int] = {}
    chosen = []
    for item in items:
        n = seen[item.label] = seen.get(item.label, -1) + 1
        if (n % _HELD_OUT == _HELD_OUT - 1) == (split == "val"):
            chosen.append(item)
    return chosen


def _zip_items(archive: Path) -> list[_Item]:
    try:
        with zipfile.ZipFile(archive) as z:
            names = [n for n in z.namelist() if n.lower().endswith(_SUFFIXES) and "/" in n]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{str(archive)!r} cannot be read as a zip: {error}") from None
    return [_Item(str(archive), n, n.split("/")[-2]) for n in names]


def _folder_items(folder: Path) -> list[_Item]:
    paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in _SUFFIXES)
    paths = paths or sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES)
    return [_Item("", str(p), p.parent.name) for p in paths]


def _fingerprint(items: list[_Item], side: int) -> str:
    """Changes with any file's name, size or time; a zip counts as one file."""
    digest = hashlib.sha256(f"{side}".encode())
    for path in sorted({item.archive or item.name for item in items}):
        stat = os.stat(path)
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    digest.update("\n".join(item.name for item in items).encode())
    return digest.hexdigest()[:16]


def _decode_all(items: list[_Item], side: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "images.npy.partial"
    shape = (len(items), side, side, 3)
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    good = np.zeros(len(items), bool)
    skipped = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, result in enumerate(_in_order(pool, items, side)):
            if isinstance(result, str):
                skipped.append(result)
            else:
                out[i], good[i] = result, True
    out.flush()
    partial.replace(folder / "images.npy")
    np.save(folder / "good.npy", good)
    (folder / "skipped.json").write_text(json.dumps(skipped))  # last: marks a complete cache


def _in_order(
    pool: ThreadPoolExecutor, items: list[_Item], side: int
) -> Iterator[np.ndarray | str]:
    """Decodes in threads (Pillow releases the lock), chunk by chunk so that few are in memory."""
    archives = {path: zipfile.ZipFile(path) for path in {i.archive for i in items} if path}
    rest = iter(items)
    try:
        while chunk := list(islice(rest, 1024)):
            yield from pool.map(lambda item: _decode(item, archives, side), chunk)
    finally:
        for archive in archives.values():
            archive.close()


def _decode(item: _Item, archives: dict[str, zipfile.ZipFile], side: int) -> np.ndarray | str:
    """(side, side, 3) uint8, RGB, or one line that says what is wrong with the file."""
    try:
        if item.archive:
            data = archives[item.archive].read(item.name)
        else:
            data = Path(item.name).read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    except Exception as error:  # a damaged file can make a decoder raise anything
        where = f"{item.archive}: {item.name}" if item.archive else item.name
        why = " ".join(str(error).split()) or type(error).__name__
        return f"{where!r} cannot be read as an image: {why}"
