"""What a file is, by its first bytes."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from jaxsynth.disk import decoded, expected, file_kind, kind_of


def made(write) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
PICTURE = Image.new("RGB", (4, 4))
FILES = {
    "an empty file": [b""],
    "a file of zeros": [bytes(5000)],
    "a Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n" + bytes(9)],
    "a gzip archive": [gzip.compress(b"abc")],
    "a zip archive": [made(lambda f: zipfile.ZipFile(f, "w").writestr("a", "b"))],
    "a tar archive": [tarfile.TarInfo("a").tobuf()],
    "a NumPy array": [made(lambda f: np.save(f, np.ones(2)))],
    "a safetensors file": [safetensors.numpy.save({"a": np.ones(2)})],
    "a pickle": [pickle.dumps([1], protocol) for protocol in (2, 4)],
    "a picture": [made(lambda f, k=k: PICTURE.save(f, k)) for k in FORMATS],
    "a HEIC picture": [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"],
    "an AVIF picture": [b"\0\0\0\x18ftypavif\0\0\0\0mif1avif"],
    "a camera's raw picture": [b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", b"II*\0\x10\0\0\0CR\2\0"],
    "a video": [b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", b"\x1a\x45\xdf\xa3\1\0"],
    "an SVG drawing": [b'<?xml version="1.0"?>\n<!-- x -->\n<svg/>', b"\xef\xbb\xbf<svg/>"],
    "an XML file": [b'<?xml version="1.0"?><note/>'],
    "a web page": [b"\n<!DOCTYPE html><html>", b"<html>", "<!doctype HTML>".encode("utf-16")],
    "a prototxt": [b'name: "CaffeNet"\nlayer {', b"# nets\n\nlayers {\n", b'input: "data"'],
    "a JSON text": [b'{"a": 1}', b'[{"a": 1}]'],
    "a text": [b"abbey\nbar\n", "é".encode() * 3000, "größe".encode("utf-16")],
    "": [b"\x0a\x08CaffeNet\x12\x07\x0a\x05\xff\0\1\2", b"\1\2\3\xff"],
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_a_file_is(kind, tmp_path):
    for data in FILES[kind]:
        for head in (data, data[:511]):
            assert kind_of(head).split(" (")[0].split(":")[0] == kind, data[:20]
        (tmp_path / "x").write_bytes(data)
        assert file_kind(tmp_path / "x") == kind_of(data)
    said = expected("a weights file", kind)
    assert said == (f"is {kind}, expected a weights file" if kind else "is not a weights file")


def test_a_file_that_cannot_be_read_has_no_kind(tmp_path):
    assert file_kind(tmp_path / "none") == file_kind(tmp_path) == ""


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_text_of_any_encoding(encoding):
    assert decoded("abbey\r\nSãopaulo\n".encode(encoding)) == "abbey\r\nSãopaulo\n"
    assert decoded("café".encode("latin-1")) is None
