"""Image files: every format and mode gives the pixels that it holds, or one clear line."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxsynth.image_files import read_image, read_picture


def picture(seed: int, width: int = 75, height: int = 50) -> np.ndarray:
    """Smooth, skin-coloured blotches: open_nsfw scores them well away from 0 and 1."""
    blotches = np.random.default_rng(seed).random((3, 3, 1))
    dark, light = np.array([60, 30, 25]), np.array([240, 190, 165])
    rgb = (dark + (light - dark) * blotches).astype(np.uint8)
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


RGB = picture(0)
IMAGE = Image.fromarray(RGB)
GREY = np.array(IMAGE.convert("L"))
GREY_RGB = np.stack([GREY] * 3, axis=-1)


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


_PALETTE = IMAGE.quantize(64)
_BINARY = GREY > 128

LOSSLESS = {
    "png": (IMAGE, "PNG", {}, RGB),
    "tiff": (IMAGE, "TIFF", {}, RGB),
    "tiff lzw": (IMAGE, "TIFF", {"compression": "tiff_lzw"}, RGB),
    "webp": (IMAGE, "WEBP", {"lossless": True}, RGB),
    "bmp": (IMAGE, "BMP", {}, RGB),
    "ppm": (IMAGE, "PPM", {}, RGB),
    "alpha": (_with_alpha(IMAGE), "PNG", {}, RGB),
    "alpha webp": (_with_alpha(IMAGE), "WEBP", {"lossless": True, "exact": True}, RGB),
    "grey": (Image.fromarray(GREY), "PNG", {}, GREY_RGB),
    "grey alpha": (_with_alpha(Image.fromarray(GREY)), "PNG", {}, GREY_RGB),
    "grey 16 png": (Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", {}, GREY_RGB),
    "grey 16 tiff": (Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", {}, GREY_RGB),
    "grey 32 tiff": (Image.fromarray(GREY.astype(np.int32) * 257), "TIFF", {}, GREY_RGB),
    "grey float": (Image.fromarray(GREY.astype(np.float32) / 255), "TIFF", {}, GREY_RGB),
    "binary": (Image.fromarray(_BINARY), "PNG", {}, np.stack([_BINARY * np.uint8(255)] * 3, -1)),
    "palette": (_PALETTE, "PNG", {}, np.array(_PALETTE.convert("RGB"))),
    "palette transparent": (
        _PALETTE,
        "PNG",
        {"transparency": 3},
        np.array(_PALETTE.convert("RGB")),
    ),
    "gif": (_PALETTE, "GIF", {}, np.array(_PALETTE.convert("RGB"))),
    "gif animated": (
        _PALETTE,
        "GIF",
        {"save_all": True, "append_images": [Image.new("P", IMAGE.size)] * 2},
        np.array(_PALETTE.convert("RGB")),
    ),
    "cmyk tiff": (IMAGE.convert("CMYK"), "TIFF", {}, RGB),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_give_the_same_pixels(tmp_path, name):
    image, file_format, options, expected = LOSSLESS[name]
    image.save(tmp_path / "x", file_format, **options)
    found = read_image(tmp_path / "x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_jpeg_modes_give_nearly_the_same_pixels(tmp_path, mode):
    IMAGE.convert(mode).save(tmp_path / "x", "JPEG", quality=95)
    error = np.abs(read_image(tmp_path / "x").astype(int) - RGB)
    assert error.mean() < 1.5 and error.max() < 16


# What a camera stores for an upright picture, by EXIF orientation (CIPA DC-008, table 6).
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_exif_rotated_pictures_stand_upright(tmp_path, orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    stored.save(tmp_path / "x", file_format, exif=exif)
    found = read_image(tmp_path / "x")
    assert found.shape == RGB.shape
    tolerance = 12 if file_format == "JPEG" else 0
    np.testing.assert_allclose(found.astype(int), RGB, atol=tolerance)


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    IMAGE.save(tmp_path / "x", "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(read_image(tmp_path / "x"), RGB)


def stored(file_format: str, image: Image.Image = IMAGE, **options: object) -> bytes:
    """The picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG whose header promises 60000 x 60000 pixels."""
    data = bytearray(stored("PNG"))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


BAD = {
    "cut jpeg": (lambda: stored("JPEG")[:-400], "cannot be read"),
    "cut png": (lambda: stored("PNG")[:-400], "cannot be read"),
    "cut gif": (lambda: stored("GIF")[:-400], "cannot be read"),
    "cut webp": (lambda: stored("WEBP")[:-100], "cannot be read"),
    "cut tiff": (lambda: stored("TIFF")[:-400], "cannot be read"),
    "text": (lambda: b"not a picture\n", "not an image"),
    "postscript": (lambda: stored("EPS"), "not an image"),
    "empty": (lambda: b"", "empty"),
    "bomb": (_bomb, "bomb"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_one_clear_line(tmp_path, name):
    content, expected = BAD[name]
    path = tmp_path / "od\nd\x1b.jpg"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=expected) as caught:
        read_image(path)
    assert repr(str(path)) in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_one_clear_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, expected in (
        (tmp_path, "folder"),
        (tmp_path / "fifo", "pipe"),
        (tmp_path / "absent", "No such file"),
        ("nul\0byte", "null"),
        (Path(os.devnull), "device"),
    ):
        with pytest.raises(ValueError, match=expected):
            read_image(path)


# ---- deep and odd TIFFs


def tiff(pixels: np.ndarray, photometric: int, **tags: object) -> bytes:
    """An uncompressed TIFF of (H, W) or (H, W, C) numbers; byte order and kind are the array's."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, count = pixels.shape
    order = "<" if pixels.dtype.newbyteorder("<") == pixels.dtype else ">"
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    bits = [tags.pop("bits", pixels.itemsize * 8)] * count
    data = tags.pop("data", pixels.tobytes())
    known = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: count}
    known |= {278: height, 279: len(data), 339: [form] * count, 273: 0}
    known |= {int(name.removeprefix("tag")): value for name, value in tags.items()}
    start = 8 + 2 + 12 * len(known) + 4
    values = {tag: np.atleast_1d(value) for tag, value in sorted(known.items())}
    later = b"".join(v.astype(f"{order}u2").tobytes() for v in values.values() if len(v) > 2)
    values[273] = np.array([start + len(later)])
    out, at = (
        struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(known)),
        start,
    )
    for tag, value in values.items():
        wide = tag in (273, 279)
        text = value.astype(f"{order}u4" if wide else f"{order}u2").tobytes()
        if len(text) > 4:
            text, at = struct.pack(f"{order}I", at), at + len(text)
        out += struct.pack(f"{order}HHI", tag, 4 if wide else 3, len(value)) + text.ljust(4, b"\0")
    return out + b"\0" * 4 + later + data


_12_BITS = GREY.astype(int) * 4095 // 255
_PACKED = b"".join(struct.pack(">I", a << 12 | b)[1:] for a, b in _12_BITS[:, :74].reshape(-1, 2))
TIFFS = {
    "16 bits, 0 is black": (tiff(GREY.astype("<u2") * 257, 1), GREY_RGB),
    "16 bits, 0 is white": (tiff(65535 - GREY.astype("<u2") * 257, 0), GREY_RGB),
    "8 bits, 0 is white": (tiff(255 - GREY, 0), GREY_RGB),
    "16 bits, big-endian": (tiff(GREY.astype(">u2") * 257, 1), GREY_RGB),
    "12 bits": (tiff(GREY[:, :74], 1, bits=12, data=_PACKED), GREY_RGB[:, :74]),
    "float of 0..1": (tiff((GREY / 255).astype("<f4"), 1), GREY_RGB),
    "float of 0..1, 0 is white": (tiff((1 - GREY / 255).astype("<f4"), 0), GREY_RGB),
    "float of 0..255": (tiff(GREY.astype(">f4"), 1), GREY_RGB),
    "RGB of 16 bits": (tiff(RGB.astype("<u2") * 257, 2), RGB),
    "RGB of 16 bits, big-endian": (tiff(RGB.astype(">u2") * 257, 2), RGB),
    "CMYK of 16 bits": (
        tiff(
            (255 - np.pad(RGB, ((0, 0), (0, 0), (0, 1)), constant_values=255)).astype("<u2") * 257,
            5,
        ),
        RGB,
    ),
}
NOT_TIFFS = {
    "signed, 8 bits": (tiff((GREY.astype(int) - 128).astype("i1"), 1), "signed, 8 bits"),
    "signed, 16 bits": (tiff(GREY.astype("<i2"), 1), "signed, 16 bits"),
    "32 bits": (tiff(GREY.astype("<u4") * 16843009, 1), "whole numbers of 16 bits"),
    "float of 64 bits": (tiff(GREY / 255, 1), "photometric 1, 64 bits, floating-point"),
    "float beyond 1": (tiff((GREY / 150).astype("<f4"), 1), "floats from 0 to 1, or"),
    "not a number": (tiff((GREY * np.nan).astype("<f4"), 1), "floats from 0 to 1, or"),
    "RGB of floats": (tiff((RGB / 255).astype("<f4"), 2), r"32\+32\+32 bits, floating-point"),
    "16 bits, big-endian, 0 is white": (tiff(GREY.astype(">u2"), 0), "photometric 0, 16 bits"),
    "planes of 16 bits": (tiff(RGB.astype("<u2"), 2, tag284=2), "stored as planes"),
    "CIELAB": (tiff(RGB, 8), "CIELAB"),
    "YCbCr, subsampled": (tiff(RGB, 6), "subsampled YCbCr"),
    "a raw photograph's preview": (tiff(GREY, 1, tag254=1, tag330=8), "raw picture"),
}


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_is_what_its_tags_say(name):
    data, expected = TIFFS[name]
    np.testing.assert_array_equal(read_image(data), expected)


@pytest.mark.parametrize("name", NOT_TIFFS)
def test_a_tiff_without_agreed_black_and_white_is_refused(name):
    data, expected = NOT_TIFFS[name]
    with pytest.raises(ValueError, match=expected):
        read_image(data)


# ---- metadata costs no pixels


def _chunk(kind: bytes, data: bytes, crc: int = 0) -> bytes:
    checksum = zlib.crc32(kind + data) ^ crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _png(*chunks: bytes) -> bytes:
    """The picture as PNG, with these chunks after its header."""
    data = stored("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


_LONG = zlib.compress(b"abcdefghij" * 200_000)
METADATA = {
    "long text": _png(_chunk(b"iTXt", b"workflow\0\1\0\0\0" + _LONG)),
    "long compressed text": _png(_chunk(b"zTXt", b"workflow\0\0" + _LONG)),
    "long profile": _png(_chunk(b"iCCP", b"profile\0\0" + _LONG)),
    "wrong checksum": _png(_chunk(b"tEXt", b"Comment\0hello", crc=1)),
    "damaged text": _png(_chunk(b"zTXt", b"x\0\0no zlib"), _chunk(b"iTXt", b"")),
    "damaged EXIF": _png(_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff")),
    "damaged animation": _png(_chunk(b"acTL", b"\xff" * 3)),
    "no end": stored("PNG")[:-12],
    "bytes behind the end": stored("PNG") + b"x" * 99,
    "damaged WebP profile": stored("WEBP", lossless=True, icc_profile=b"x" * 99),
    "cut WebP EXIF": stored("WEBP", lossless=True, exif=b"Exif\0\0II*\0" + b"x" * 99)[:-50],
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_costs_no_pixels(name):
    np.testing.assert_array_equal(read_image(METADATA[name]), RGB)


def test_metadata_of_a_jpeg_costs_no_pixels():
    plain, exif = stored("JPEG"), Image.Exif()
    exif[0x0112] = 6
    full = stored("JPEG", exif=exif, icc_profile=b"junk" * 60_000, comment=b"c" * 60_000)
    upright = np.rot90(read_image(plain), -1)
    np.testing.assert_array_equal(read_image(full), upright)
    at = full.index(b"Exif\0\0") + 8
    damaged = full[:at] + b"\xff" * 12 + full[at + 12 :]
    np.testing.assert_array_equal(read_image(damaged), read_image(plain))
    mpo = io.BytesIO()
    IMAGE.save(mpo, "MPO", save_all=True, append_images=[IMAGE.rotate(180)])
    np.testing.assert_array_equal(read_image(mpo.getvalue()), read_image(plain))


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF"])
def test_exif_turns_other_formats(file_format):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(stored(file_format, exif=exif)).shape == (75, 50, 3)


def test_a_wrong_checksum_of_pixels_is_refused():
    data = bytearray(stored("PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ValueError, match="IDAT is damaged"):
        read_image(bytes(data))


# ---- JPEGs that decode, but not to the whole picture


def _half_scan(**options: object) -> bytes:
    data = stored("JPEG", _NOISE, **options)
    return data[: len(data) * 3 // 4] + b"\xff\xd9"


def _without_last_scan() -> bytes:
    data = stored("JPEG", _NOISE, progressive=True)
    return data[: data.rfind(b"\xff\xc4")] + b"\xff\xd9"


_NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
COMPLAINTS = {
    "cut and closed": (_half_scan(), "premature end"),
    "cut and closed, progressive": (_half_scan(progressive=True), "premature end|last scans"),
    "cut and closed, restarts": (_half_scan(restart_marker_blocks=7), "premature end"),
    "without the last scan": (_without_last_scan(), "last scans are missing"),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_damaged_jpeg_is_told_of(name):
    data, expected = COMPLAINTS[name]
    picture = read_picture(data)
    assert picture.rgb.shape == (80, 90, 3) and re.search(expected, picture.complaint)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 7}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_sound_jpeg_is_not(mode, options):
    assert not read_picture(stored("JPEG", _NOISE.convert(mode), **options)).complaint


# ---- what is no image is named


KINDS = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
    "SVG": (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "zip": (b"PK\3\4" + bytes(99), "zip"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "HTML": (b"<!DOCTYPE html><html></html>", "web page"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41", "video"),
    "raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "raw picture|damaged TIFF"),
    "JPEG XL": (b"\xff\x0a" + bytes(99), "JPEG XL"),
    "EXR": (b"v/1\x01\2\0\0\0", "OpenEXR"),
    "PNG of Apple's": (stored("PNG")[:8] + _chunk(b"CgBI", b"\0" * 4), "Apple"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_image_is_named(tmp_path, name):
    data, expected = KINDS[name]
    (tmp_path / "photo.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=expected) as caught:
        read_image(tmp_path / "photo.jpg")
    assert "photo.jpg' " in str(caught.value) and "no known image format" not in str(caught.value)


def test_a_failing_disk_and_a_full_memory_are_not_the_files_fault(tmp_path, monkeypatch):
    IMAGE.save(tmp_path / "x.png")
    monkeypatch.setattr(os, "fstat", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug stays a bug
        read_image(tmp_path / "x.png")
    monkeypatch.undo()

    def full(image):
        raise MemoryError

    monkeypatch.setattr("jaxsynth.image_files._to_8_bits", full)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "x.png")


def test_panoramas_are_read_if_they_are_allowed(monkeypatch):
    with pytest.raises(ValueError, match="75 x 50 pixels are more than 3000"):
        read_image(stored("PNG"), max_pixels=3000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit is not asked
    np.testing.assert_array_equal(read_image(stored("PNG")), RGB)


def test_paths_are_read_as_a_shell_reads_them(tmp_path, monkeypatch):
    IMAGE.save(tmp_path / "x.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PICTURE", "x")
    for path in ("~/x.png", "$HOME/${PICTURE}.png"):
        np.testing.assert_array_equal(read_image(path), RGB)
    with pytest.raises(ValueError, match=r"variable \$ABSENT is not set"):
        read_image("$ABSENT/x.png")
    with pytest.raises(ValueError, match="home directory"):
        read_image("~nobody_here/x.png")
