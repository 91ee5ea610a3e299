"""Pixels: every way of preprocessing follows its definition, and images are shown as they are."""

import cv2
import numpy as np
import pytest
from PIL import Image
from test_image_files import IMAGE, RGB, picture

from jaxsynth.image_files import read_image
from jaxsynth.images import preprocess, to_rgb, write_png


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


def yahoo(rgb: np.ndarray) -> np.ndarray:
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
    np.testing.assert_allclose(preprocess(rgb, "yahoo", 224), yahoo(rgb), atol=3)


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
