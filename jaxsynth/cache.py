"""The content and size of the cache folder, and how it is emptied."""

import shutil
from pathlib import Path

from jaxsynth.environment import cache_dir

# Pattern of a name in the folder -> its content. Nothing else there is counted or deleted.
_PARTS = {
    "compiled": "compiled programs",
    "images-*": "decoded photographs of the trainers",
    "*.safetensors": "ported networks",
    "manifest.jsonl": "their hashes",
}
HOW_TO_CLEAR = (
    "`jaxsynth cache clear` deletes all of it; it is made again when needed, but for networks that "
    "were ported from a file of yours"
)


def content() -> list[dict[str, str | int]]:
    """Return a row for each part of the cache: its content, its files, its size; and their sum."""
    rows, total = [], [0, 0]
    for pattern, what in _PARTS.items():
        files = [f for path in cache_dir().glob(pattern) for f in _files(path)]
        size = sum(file.stat().st_size for file in files)
        if files:
            rows.append({"what": what, "files": len(files), "size": megabytes(size)})
            total = [total[0] + len(files), total[1] + size]
    return [*rows, {"what": "together", "files": total[0], "size": megabytes(total[1])}]


def clear() -> int:
    """Delete what jaxsynth has put into the cache folder; return how many bytes that were.

    Raises:
      OSError: If a file cannot be deleted.
    """
    freed = 0
    for pattern in _PARTS:
        for path in cache_dir().glob(pattern):
            freed += sum(file.stat().st_size for file in _files(path))
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return freed


def megabytes(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e6:.1f} MB"


def _files(path: Path) -> list[Path]:
    return [f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file()]
