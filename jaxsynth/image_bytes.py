"""Bytes of image files around the decoder: known kinds, damage, metadata.

Pillow decodes. This module adds: which known format cannot be read, of what kind
a TIFF is, and whether a JPEG decodes as its encoder meant it.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import TiffImagePlugin

from jaxsynth.disk import kind_of

try:
    import simplejpeg  # libjpeg's warnings, which Pillow swallows
except ImportError:
    simplejpeg = None

_EXPORT = "export it as JPEG or PNG"
# Text in a PNG that may say how the camera was held; everything else in it is for others.
_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_APP = {0xE0: b"JFIF\0", 0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/"), 0xEE: b"Adobe"}
_LARGE = 1 << 16  # bytes of metadata that are looked at


def unread_kind(head: bytes) -> str:
    """Name a known kind of file that is no readable image by its head; "" for others."""
    kind = kind_of(head)
    if kind in ("a picture", "a text"):
        return ""
    advice = f" ({_EXPORT}{', or convert it with pillow-heif' if 'HEIC' in kind else ''})"
    return kind + advice if kind.endswith(("picture", "drawing", "document")) else kind


def without_metadata(data: bytes) -> bytes:
    """Leave out everything that decides neither pixels nor orientation: text, profiles, thumbnails.

    Whatever is wrong with these costs no pixels then. ValueError if a part that decides pixels is
    damaged.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[:8] + b"".join(_png_chunks(data))
    if data.startswith(b"\xff\xd8\xff"):
        *segments, rest = _jpeg_segments(data)
        return b"\xff\xd8" + b"".join(s for s in segments if _decides(s)) + rest
    return data


def still_webp(data: bytes) -> bytes:
    """Return the pixels of a WebP file alone, without animation and metadata; else the data."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return data
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        if kind in (b"VP8 ", b"VP8L"):
            chunk = data[at : at + 8 + length + length % 2]
            return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
        at += 8 + length + length % 2
    return data


def jpeg_complaint(data: bytes) -> str:
    """Return what libjpeg says of a JPEG that it decodes nevertheless; "" if it is content."""
    if not data.startswith(b"\xff\xd8\xff"):
        return ""
    if simplejpeg is not None:
        try:
            simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8, strict=True)
        except ValueError as error:
            if "orrupt" in str(error) or "remature" in str(error):
                return f"libjpeg says: {error}"
    return _missing_scans(data)


def tiff_kind(data: bytes) -> str:
    """Describe the pixels of a TIFF: photometric interpretation, bits, sample format."""
    try:
        head = data[: 16 if data[2:3] == b"\x2b" or data[3:4] == b"\x2b" else 8]
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, form = tags.get(258, (1,)), tags.get(339, (1,))
        kinds = {1: "unsigned", 2: "signed", 3: "floating-point"}
        said = f"{'+'.join(map(str, bits))} bits, {kinds.get(form[0], 'other')} samples"
        return f"a TIFF of a kind that is not read (photometric {tags.get(262)}, {said})"
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return "a damaged TIFF"


def check_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Raise ValueError if Pillow decodes a TIFF of these tags to other pixels than they say."""
    bits, form = max(tags.get(258, (1,))), tags.get(339, (1,))
    raw = tags.get(259, 1) == 1
    if tags.get(254, 0) & 1 and 330 in tags:
        raise ValueError(f"it is a camera's raw picture, whose first image is a preview: {_EXPORT}")
    if 2 in form and bits < 32:
        raise ValueError(f"its samples are signed, {bits} bits: no agreed black and white")
    if raw and tags.get(284, 1) == 2 and bits > 8:
        raise ValueError(f"its {bits}-bit colours are stored as planes: store them as pixels")
    if raw and tags.get(262) == 6 and tuple(tags.get(530, (2, 2))) != (1, 1):
        raise ValueError("its colours are subsampled YCbCr without compression")


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            yield data[at:]  # the decoder tells how much is missing
            return
        body = data[at + 4 : end - 4]
        sound = zlib.crc32(body) == int.from_bytes(data[end - 4 : end], "big")
        if kind == b"CgBI":
            raise ValueError(f"it is a PNG of Apple's own kind, made for an iPhone ({_EXPORT})")
        if not kind[0] & 0x20:  # critical
            if not sound:
                raise ValueError(f"its {kind.decode('latin-1')} is damaged (wrong checksum)")
            yield data[at:end]
        elif sound and length < _LARGE and (kind == b"eXIf" or body[4:].startswith(_TEXTS)):
            yield data[at:end]
        if kind == b"IEND":
            return
        at = end


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The segments before the first scan, then the rest."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in (0x01, 0xDA) or 0xD0 <= marker <= 0xD9:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at:end]
        at = end
    yield data[at:]


def _decides(segment: bytes) -> bool:
    marker = segment[1]
    if marker in _APP:
        return segment[4:].startswith(_APP[marker])
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def _missing_scans(data: bytes) -> str:
    """Return whether a JPEG lacks a component, or if progressive the last bits of coefficients."""
    *segments, rest = _jpeg_segments(data)
    frames = [s for s in segments if s[1] in (0xC0, 0xC1, 0xC2) and len(s) > 9]
    if not frames or len(frames[0]) < 10 + 3 * frames[0][9]:
        return ""
    frame = frames[0]
    left = {frame[10 + 3 * i]: 2**64 - 1 for i in range(frame[9])}  # a bit for every coefficient
    for found in re.finditer(rb"\xff\xda..([\x01-\x04])", rest, re.S):
        count, at = found[1][0], found.end()
        ids, [first, last, bits] = rest[at : at + 2 * count : 2], rest[at + 2 * count :][:3]
        if frame[1] != 0xC2:
            first, last, bits = 0, 63, 0
        if last > 63 or bits & 15:
            continue
        for one in ids:
            left[one] = left.get(one, 0) & ~(2 ** (last + 1) - 2**first)
    return "its last scans are missing" if any(left.values()) else ""
