"""Files are found in folders and zips, behind links, each once, and what is left out is named."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_image_files import RGB, stored

from jaxsynth.image_files import read_image
from jaxsynth.image_search import find_images


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_and_named_files_stay(tmp_path):
    _touch(tmp_path, "b.png", "a", "sub/c.JPG", "sub/odd\nname", ".hidden", ".git/x.png")
    _touch(tmp_path, "__MACOSX/._b.png")
    (tmp_path / "nothing").mkdir()
    found = find_images([tmp_path, tmp_path / ".hidden", tmp_path / "a", tmp_path / "nothing"])
    names = ["a", "b.png", "sub/c.JPG", "sub/odd\nname", ".hidden"]
    assert [file.path for file in found.files] == [tmp_path / name for name in names]
    assert find_images(str(tmp_path / "a")).files == find_images([tmp_path / "a"]).files
    [line] = found.left_out
    assert line.startswith("3 hidden files or folders, such as ")


def test_a_folder_without_files_says_so(tmp_path):
    _touch(tmp_path, ".hidden")
    [file] = find_images([tmp_path]).files
    with pytest.raises(ValueError, match="has no image files"):
        read_image(file)


def test_links_are_followed_once_each(tmp_path):
    _touch(tmp_path, "photos/a.png", "elsewhere/b.png", "photos/deep/c.png")
    os.symlink("../elsewhere", tmp_path / "photos" / "link")
    os.symlink("../elsewhere", tmp_path / "photos" / "other")
    os.symlink("..", tmp_path / "photos" / "deep" / "loop")
    os.symlink("loop.png", tmp_path / "photos" / "loop.png")
    found = find_images([tmp_path / "photos"])
    names = [str(file.path.relative_to(tmp_path / "photos")) for file in found.files]
    assert names == ["a.png", "deep/c.png", "link/b.png", "loop.png"]
    [line] = found.left_out
    assert line.startswith("2 links to folders that are searched anyway")
    with pytest.raises(ValueError, match="symbolic links"):
        read_image(found.files[-1])
    assert len(find_images([tmp_path, tmp_path / "photos"]).files) == 4


def test_zips_are_searched_like_folders(tmp_path):
    inner = tmp_path / "photos" / "all.zip"
    inner.parent.mkdir()
    with zipfile.ZipFile(inner, "w") as z, pytest.warns(UserWarning, match="Duplicate name"):
        z.writestr("a/x.png", b"an older one")
        z.writestr("a/x.png", stored("PNG"))
        for name in ("__MACOSX/a/._x.png", ".DS_Store", "more.zip", "./b/y.png", "top.png"):
            z.writestr(name, stored("PNG"))
        z.writestr("a/damaged.png", b"x")
        z.writestr("windows\\z.png", stored("PNG"))
        z.mkdir("empty")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        z.writestr(link, "a/x.png")
    (tmp_path / "photos" / "no.zip").write_bytes(b"PK\3\4 no zip")
    found = find_images([tmp_path / "photos"])
    names = [str(file).removeprefix(f"{inner}/") for file in found.files]
    assert names[:-1] == ["./b/y.png", "a/damaged.png", "a/x.png", "top.png", "windows\\z.png"]
    assert [file.folder for file in found.files[:-1]] == ["b", "a", "a", "all", "windows"]
    np.testing.assert_array_equal(read_image(found.files[2]), RGB)
    for file, said in ((found.files[1], "all.zip/a/damaged.png' is not"), (found.files[-1], "zip")):
        with pytest.raises(ValueError, match=said):
            read_image(file)
    counts = {line.partition(", such")[0] for line in found.left_out}
    assert counts == {
        *("2 hidden files in a zip", "1 links in a zip", "1 zips in a zip"),
        "1 older files of the same name in a zip",
    }


def test_a_damaged_member_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("x.png", stored("PNG"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[200] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    [file] = find_images([tmp_path / "a.zip"]).files
    with pytest.raises(ValueError, match=r"a\.zip/x\.png' cannot be unpacked: Bad CRC"):
        read_image(file)
