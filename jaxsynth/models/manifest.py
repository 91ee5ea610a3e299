"""The manifest beside weights files: the hash of each file."""

import json
import os
import tempfile
from pathlib import Path

from jaxsynth.disk import file_sha256

MANIFEST = "manifest.jsonl"


def check_manifest(path: Path) -> None:
    """Raise ValueError unless a file has the hash that its manifest line says."""
    manifest = path.parent / MANIFEST
    line = _manifest_lines(manifest).get(path.name)
    way_out = "port or copy it again, together with its manifest line"
    if line is None:
        raise ValueError(f"{path.name} has no line in {manifest}: {way_out}")
    digest = file_sha256(path)
    if digest != line.get("sha256"):
        raise ValueError(
            f"{path} has sha256 {digest}, but {manifest} says {line.get('sha256')}: the file was "
            f"changed or damaged; delete it, then {way_out}"
        )


def _manifest_lines(manifest: Path) -> dict[str, dict]:
    """Return file name -> its last line."""
    if not manifest.is_file():
        return {}
    lines = {}
    whole = manifest.read_text("utf-8", errors="backslashreplace")
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            if text.strip():
                line = json.loads(text)
                lines[line["file"]] = line
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{manifest}, line {number}, is not a manifest line") from error
    return lines


def write_listed(path: Path, data: bytes, line: dict) -> None:
    """Write the manifest line, then the file: whoever sees a new file sees its line as well."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        _append_manifest(path.parent / MANIFEST, line)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _append_manifest(manifest: Path, line: dict) -> None:
    if _manifest_lines(manifest).get(line["file"]) == line:
        return
    text = json.dumps(line) + "\n"
    before = manifest.read_bytes() if manifest.is_file() else b""
    if before and not before.endswith(b"\n"):
        text = "\n" + text
    handle = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
