"""Files: paths as people type them, atomic writes, checks, hashes, and kinds by their first bytes.

An error can so name the real kind of a file.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

HEAD = 4096  # bytes that `kind_of` reads
_CUT = 500  # so many bytes may be the beginning of a file and end within a character
_UNPACK = "unpack it and give the file inside"
_KINDS = {
    rb"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the file itself)",
    rb"\x89HDF\r\n": "an HDF5 file (Keras and Caffe write them; convert it with the program that "
    "wrote it)",
    rb"\x1f\x8b": f"a gzip archive ({_UNPACK})",
    rb"BZh\d": f"a bzip2 archive ({_UNPACK})",
    rb"\xfd7zXZ\0": f"an xz archive ({_UNPACK})",
    rb"\x28\xb5\x2f\xfd": f"a zstd archive ({_UNPACK})",
    rb"7z\xbc\xaf\x27\x1c": f"a 7z archive ({_UNPACK})",
    rb"Rar!\x1a\x07": f"a RAR archive ({_UNPACK})",
    rb"(?s:.{257})ustar": f"a tar archive ({_UNPACK})",
    rb"PK(?:\x03\x04|\x05\x06)": f"a zip archive ({_UNPACK}; a PyTorch checkpoint is one, too)",
    rb"\x93NUMPY": "a NumPy array (.npy)",
    rb"(?s:.{4})\0{4}\{": "a safetensors file",
    rb"(?s:.{4})TFL3": "a TensorFlow Lite file",
    rb"\x80[\x02-\x05](?=.)": "a pickle (a PyTorch checkpoint, perhaps)",
    rb"(?s:.{4})ftypcrx|FUJIFILM|II[RU]|IIRO|(?s:II.{6})CR": "a camera's raw picture",
    rb"(?s:.{4})ftyp(?:hei[cfmsx]|hev[cx]|mif1|msf1)": "a HEIC picture",
    rb"(?s:.{4})ftypavi[fs]": "an AVIF picture",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL picture",
    rb"\x76\x2f\x31\x01": "an OpenEXR picture",
    rb"#\?(?:RADIANCE|RGBE)": "a Radiance HDR picture",
    rb"SIMPLE  =": "a FITS picture",
    rb"(?s:.{128})DICM": "a DICOM picture",
    rb"\x89PNG\r|\xff\xd8\xff|GIF8|RIFF(?s:.{4})WEBP|BM(?s:.{4})\0{4}": "a picture",
    rb"II\x2a\0|MM\0\x2a|II\x2b\0|8BPS|P[1-6]\s": "a picture",
    rb"(?s:.{4})(?:ftyp|moov|mdat)|\x1a\x45\xdf\xa3|RIFF(?s:.{4})AVI ": "a video",
    rb"RIFF(?s:.{4})WAVE|ID3|fLaC|OggS": "a sound",
    rb"%PDF": "a PDF document",
    rb"%!PS": "a PostScript document",
    rb"\x7fELF|MZ\x90": "a program",
}
# Of text, wherever it stands among the first bytes.
_TEXTS = {
    r"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)": (
        "a web page: the download did not give the file"
    ),
    r"\s*(?:<\?xml.*?>\s*|<!--.*?-->\s*|<!doctype svg.*?>\s*)*<svg": "an SVG drawing",
    r"\s*<\?xml": "an XML file",
    r"(?:\s|#[^\n]*\n)*(?:(?:name|input\w*|\w*net|base_lr)\s*:|(?:layers?|input\w*)\s*\{)": (
        "a prototxt: it describes a network, and its weights are in the .caffemodel"
    ),
    r"\s*[{\[]\s*[\"{}\[\]]": "a JSON text",
}


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` and environment variables replaced, unless it exists as it is."""
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


def to_write(path: str | os.PathLike[str]) -> Path:
    """Return the expanded path of a file to write; ValueError if there is no such folder."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{type(path).__name__} is no path: expected the name of a file to write")
    found = expand(path)
    if found.is_dir() or not found.parent.is_dir():
        why = "it is a folder" if found.is_dir() else f"make the folder {str(found.parent)!r} first"
        raise ValueError(f"{str(path)!r} cannot be written: {why}")
    return found


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    with atomic_file(path) as out:
        out.write(data)


@contextmanager
def atomic_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write that appears under its name when the block ends well, or not at all.

    `sync` waits for the disk, so that the file outlives the machine and not only the process.
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
    """Raise ValueError, which begins with `name`, unless a path is a regular file.

    It is looked at before anybody opens it; `what` is the kind of file that is expected.
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


def kind_of(head: bytes) -> str:
    """Name the kind of a file by its first bytes, `HEAD` or fewer; "" if it is not recognised."""
    head = head[:HEAD]
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "a file of zeros (a download that stopped, perhaps)"
    for start, kind in _KINDS.items():
        if re.match(start, head):
            return kind
    text = decoded(head, cut=len(head) >= _CUT)
    if text is None:
        return ""
    return next((k for t, k in _TEXTS.items() if re.match(t, text, re.I | re.S)), "a text")


def file_kind(path: str | Path) -> str:
    """Name the kind of the file at a path; "" also where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(HEAD))
    except OSError:
        return ""


def expected(what: str, kind: str) -> str:
    """Say that something else was expected: "is a web page ..., expected WHAT"."""
    return f"is {kind}, expected {what}" if kind else f"is not {what}"


def decoded(data: bytes, cut: bool = False) -> str | None:
    """Decode text by its byte order mark, else as UTF-16 or UTF-8; None if it is no text.

    The mark is no part of the text. UTF-16 without one is known by the zeros of ASCII characters.
    `cut` says that the last character may be incomplete.
    """
    marks = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xef\xbb\xbf": "utf-8-sig"}
    marks |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((e for mark, e in marks.items() if data.startswith(mark)), "utf-8")
    zeros = [data[i::2].count(0) for i in (0, 1)]
    if encoding == "utf-8" and max(zeros) > len(data) / 8 and min(zeros) == 0:
        encoding = "utf-16-le" if zeros[1] else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if not cut or error.start < len(data) - 3:
            return None
        text = data[: error.start].decode(encoding, "ignore")
    return text if all(c.isprintable() or c in "\t\n\r\f\v\ufeff\x1a" for c in text) else None
