"""The search for image files: in folders and zips, through links, each once."""

import functools
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from jaxsynth.disk import check_regular, expand

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".jpx")
SUFFIXES += (".ico", ".tga", ".pcx", ".sgi", ".dds", ".psd", ".qoi", ".heic", ".heif", ".svg")
SUFFIXES += (".jxl",)
_MAX_BYTES = 1 << 31
_DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error)
_DAMAGED_ZIP += (RuntimeError, struct.error)  # a RuntimeError: it asks for a password


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
      path: Of the file, or of the zip that holds it.
      member: Its entry in the zip.
      problem: Why it cannot be read, if that is known already.
    """

    path: Path
    member: zipfile.ZipInfo | None = None
    problem: str = ""

    def __str__(self) -> str:
        """Return its path; of a member that of the zip and its own."""
        return f"{self.path}/{self.member.filename}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Its suffix in small letters, such as `.png`."""
        return os.path.splitext(str(self))[1].lower()

    @property
    def folder(self) -> str:
        """The name of the folder that holds it; of a zip's member without one, the zip's name."""
        if self.member is None:
            return self.path.parent.name
        return _parts(self.member)[-2] if len(_parts(self.member)) > 1 else self.path.stem

    def read(self, most: int = -1) -> bytes:
        """Read its bytes, or the first of them; ValueError if that is impossible."""
        name = repr(str(self))
        if self.problem:
            raise ValueError(f"{name} {self.problem}")
        if self.member is None:
            check_regular(self.path, name, "an image file")
        try:
            with self._open() as (file, size):
                if most < 0 and size > _MAX_BYTES:
                    raise ValueError(f"{name} is not read: {size / 1e9:.1f} GB are no image")
                return file.read(most)
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror or error}") from error
        except _DAMAGED_ZIP as error:
            if self.member is None:
                raise
            raise ValueError(f"{name} cannot be unpacked: {error}") from error

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        if self.member is None:
            with open(self.path, "rb") as file:
                yield file, os.fstat(file.fileno()).st_size
        else:
            with _archive(self.path).open(self.member) as file:
                yield file, self.member.file_size


class Found(NamedTuple):
    """The findings of `find_images`.

    Attributes:
      files: Each once, sorted within each named file or folder.
      left_out: A line for every reason to leave files out: how many, and the first.
    """

    files: list[ImageFile]
    left_out: list[str]


def find_images(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> Found:
    """Find the files in folders and zips, one or several; a file that is named is always included.

    Every file is listed whatever its suffix, except hidden ones (`.name`, `__MACOSX`). Links are
    followed, a folder is searched once. An unreadable folder is listed with its problem.
    """
    finder = _Finder()
    for path in map(expand, [paths] if isinstance(paths, str | os.PathLike) else paths):
        finder.add(path)
    lines = [f"{len(n)} {why}, such as {n[0]!r}" for why, n in finder.left_out.items()]
    return Found(list(finder.files.values()), lines)


class _Finder:
    """Collects files, folder by folder."""

    def __init__(self) -> None:
        self.files: dict[tuple[Path, str], ImageFile] = {}
        self.left_out: dict[str, list[str]] = {}
        self._searched: set[tuple[int, int]] = set()

    def add(self, path: Path) -> None:
        """Add a file, or the content of a folder or zip."""
        before, asked = len(self.files), len(self._searched)
        if os.path.isdir(path):  # False also where that cannot be asked
            self._search(path)
            if len(self.files) == before and len(self._searched) > asked:
                self._problem(path, "has no image files")
        elif path.suffix.lower() == ".zip" and os.path.isfile(path):
            self._unzip(path)
        else:
            self._file(path)

    def _file(self, path: Path) -> None:
        self.files[path, ""] = ImageFile(path)

    def _problem(self, path: Path, problem: str) -> None:
        self.files[path, ""] = ImageFile(path, problem=problem)

    def _skip(self, why: str, name: object) -> None:
        self.left_out.setdefault(why, []).append(str(name))

    def _search(self, top: Path) -> None:
        """Search a folder: first its own content, then that of its links."""
        folders, links, found = [top], [], []
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in self._searched:
                    if os.path.islink(folder):
                        self._skip("links to folders that are searched anyway", folder)
                    continue
                self._searched.add((status.st_dev, status.st_ino))
                inside = sorted(folder.iterdir())
            except OSError as error:
                self._problem(folder, f"cannot be read: {error.strerror or error}")
                continue
            for path in inside:
                if _is_hidden(path.name):
                    self._skip("hidden files or folders", path)
                elif os.path.isdir(path):
                    (links if os.path.islink(path) else folders).append(path)
                else:
                    found.append(path)
        for path in sorted(found):
            if path.suffix.lower() == ".zip" and os.path.isfile(path):
                self._unzip(path)
            else:
                self._file(path)

    def _unzip(self, path: Path) -> None:
        try:
            entries = _archive(path).infolist()
        except (OSError, *_DAMAGED_ZIP) as error:
            self._problem(
                path, f"cannot be read as a zip: {getattr(error, 'strerror', '') or error}"
            )
            return
        members: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = f"{path}/{entry.filename}"
            if entry.is_dir():
                continue
            if any(map(_is_hidden, _parts(entry))):
                self._skip("hidden files in a zip", name)
            elif stat.S_ISLNK(entry.external_attr >> 16):
                self._skip("links in a zip", name)
            elif entry.filename.lower().endswith(".zip"):
                self._skip("zips in a zip", name)
            else:
                if entry.filename in members:
                    self._skip("older files of the same name in a zip", name)
                members[entry.filename] = entry
        if not members:
            self._problem(path, "has no image files")
        for name, entry in sorted(members.items()):
            self.files[path, name] = ImageFile(path, entry)


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders of an entry and its name; some programs for Windows write backslashes."""
    return PurePosixPath(entry.filename.replace("\\", "/")).parts


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _archive(path: Path) -> zipfile.ZipFile:
    status = os.stat(path)
    return _opened(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _opened(path: Path, *_version: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
