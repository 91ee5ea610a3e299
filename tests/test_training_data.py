"""Photographs for training: splits and classes by exact names, and the pixels that scores see."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_image_files import COMPLAINTS, GREY_RGB, IMAGE, RGB, picture, stored

from jaxsynth.image_files import read_image
from jaxsynth.training import data as module
from jaxsynth.training.data import load_images


def _write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or stored("PNG"))


def _folders(folder: Path, *classes: str, files: int = 10) -> Path:
    for name in classes:
        for i in range(files):
            _write(folder / name / f"{i:02}.png")
    return folder


def _zip(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as z:
        for name in names:
            z.writestr(name, stored("PNG"))
    return path


def _seen(data: Path, tmp_path: Path) -> list[tuple[tuple[str, ...], int]]:
    """Classes and number of usable images of both splits."""
    found = [load_images(data, split, 16, tmp_path / "cache") for split in ("train", "val")]
    return [(one.classes, len(one.rows)) for one in found]


AB = [f"{name}/{i}.png" for name in "ab" for i in range(10)]
SPLIT = [(("a", "b"), 18), (("a", "b"), 2)]
WHOLE = [(("a", "b"), 20), (("a", "b"), 20)]
LAYOUTS = {
    "class folders": (lambda d: _folders(d, "a", "b"), SPLIT),
    "a zip": (lambda d: _zip(d / "photos.zip", *AB).parent, SPLIT),
    "a zip of train and val": (lambda d: _zip(d / "places_trainval.zip", *AB).parent, SPLIT),
    "a zip called carnival": (lambda d: _zip(d / "carnival.zip", *AB).parent, SPLIT),
    "the zip itself": (lambda d: _zip(d / "photos.zip", *AB), SPLIT),
    "zips by a word": (
        lambda d: _zip(d / "tiny128-train-00.zip", *AB) and _zip(d / "tiny128-val.zip", *AB).parent,
        WHOLE,
    ),
    "zips and folders": (
        lambda d: _zip(d / "train.zip", *AB) and _folders(d / "val", "a", "b").parent,
        WHOLE,
    ),
    "folders, test is not used": (
        lambda d: [_folders(d / name, "a", "b") for name in ("train", "val", "test")].pop().parent,
        WHOLE,
    ),
    "train alone": (lambda d: _folders(d / "train", "a", "b").parent, SPLIT),
    "a class called train": (
        lambda d: _folders(d, "bus", "car", "train"),
        [(("bus", "car", "train"), 27), (("bus", "car", "train"), 3)],
    ),
    "no folders": (lambda d: _folders(d.parent, d.name, files=20) / d.name, None),
    "hidden ones": (lambda d: _folders(d, "a", "b", ".ipynb_checkpoints", "__MACOSX"), SPLIT),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_and_classes_are_those_of_the_data(name, tmp_path):
    make, expected = LAYOUTS[name]
    data = make(tmp_path / "data")
    assert _seen(data, tmp_path) == (expected or [(("data",), 18), (("data",), 2)])


REFUSED = {
    "absent": (lambda d: d, "no such folder"),
    "empty": (lambda d: d.mkdir() or d, "expected a folder train/.*has no image files"),
    "a zip of no split": (
        lambda d: _zip(d / "train.zip", *AB) and _zip(d / "cars.zip", *AB).parent,
        "train.zip is a split by its name, but cars.zip is of none",
    ),
    "val is a link to train": (
        lambda d: os.symlink("train", _folders(d / "train", "a").parent / "val") or d,
        "10 images are in train and in val, such as",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_cannot_be_split_is_one_line(name, tmp_path):
    make, expected = REFUSED[name]
    with pytest.raises(ValueError, match=expected) as caught:
        load_images(make(tmp_path / "data"), "train", 16, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_class_without_training_images_is_refused(tmp_path):
    _folders(tmp_path / "train", "a")
    _folders(tmp_path / "val", "b")
    with pytest.raises(ValueError, match=r"val class .b. .* is not a training class"):
        load_images(tmp_path, "val", 16, tmp_path / "cache", ("a",))


def test_what_is_left_out_is_named(tmp_path):
    _folders(tmp_path / "data", "a")
    _write(tmp_path / "data" / "a" / ".hidden.png")
    _write(tmp_path / "data" / "a" / "labels.txt", b"text")
    _write(tmp_path / "data" / "a" / "broken.png", b"text")
    _write(tmp_path / "data" / "a" / "cut.jpg", COMPLAINTS["cut and closed"][0])
    _write(tmp_path / "data" / "outside.png")
    found = load_images(tmp_path / "data", "train", 16, tmp_path / "cache")
    assert len(found.rows) == 9 + 0 and found.classes == ("a",)
    broken, cut, *others = found.skipped
    assert "broken.png' is not an image" in broken and "cut.jpg' is damaged: libjpeg" in cut
    kinds = ("1 hidden files", "1 other files, such as", "1 images outside class folders")
    for kind, line in zip(kinds, others, strict=True):
        assert line.startswith(kind)


def test_photographs_are_read_as_by_score(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _write(tmp_path / "data" / "0.png", stored("PNG", Image.fromarray(picture(0)), exif=exif))
    grey = Image.fromarray(GREY_RGB[..., 0].astype(np.uint16) * 257)
    _write(tmp_path / "data" / "1.png", stored("PNG", grey))
    found = load_images(tmp_path / "data", "train", 48, tmp_path / "cache")
    for image, name in zip(found.images, ("0.png", "1.png"), strict=True):
        upright = Image.fromarray(read_image(tmp_path / "data" / name))
        expected = np.asarray(upright.resize((48, 48), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(image, expected)


def test_the_cache_is_taken_until_a_file_or_the_reader_changes(tmp_path, monkeypatch):
    data, cache = _folders(tmp_path / "data", "a"), tmp_path / "cache"

    def folders() -> int:
        found = load_images(data, "train", 16, cache)
        assert isinstance(found.images, np.memmap)
        return len(list(cache.iterdir()))

    assert [folders(), folders()] == [1, 1]
    monkeypatch.setattr(module, "READER", module.READER + 1)
    assert folders() == 2
    _write(data / "a" / "00.png", stored("PNG", IMAGE.rotate(90)))
    assert folders() == 3
    shutil.rmtree(cache)
    monkeypatch.setenv("CACHE", str(cache))
    assert load_images(data, "train", 16, Path("$CACHE")).images.shape == (9, 16, 16, 3)
    assert cache.is_dir() and RGB.shape == (50, 75, 3)
