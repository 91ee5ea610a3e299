"""The experiments as a user types them, on tiny networks, and once on seeded originals."""

import csv
import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from finished import read_arrays
from launching import run
from PIL import Image
from tiny import tiny_networks

from jaxsynth.recipes import RECIPES

FILES = ("config.json", "metrics.csv", "contact_sheet.png", "traces.png", "index.html")


def launch(name: str, *flags: str) -> subprocess.CompletedProcess:
    return run(name, "--noprogress", *flags)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_joint_leaves_everything_behind(weights, tmp_path):
    out = tmp_path / "run"
    done = launch(
        "joint",
        *weights,
        "--scenes=abbey,d*",
        "--nsfw_weights=0.5,2",
        "--seeds=3:5",
        "--steps=4",
        "--batch=3",
        "--record_codes=2,4",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    assert str(out / "contact_sheet.png") in done.stdout and str(out / "index.html") in done.stdout
    assert all((out / name).is_file() for name in FILES)
    assert len(list((out / "images").glob("*.png"))) == 16

    results = read_arrays(out)
    assert results.codes.shape == (8, 12) and results.recorded_codes.shape == (8, 2, 12)
    np.testing.assert_array_equal(results.recorded_codes[:, 1], results.codes)
    assert results.objective.shape == (8, 4)
    assert results.watched["places"]["prob"].shape == (8, 4, 5)
    rows = rows_of(out)
    assert [row["row"] for row in rows[::2]] == [
        "abbey, seed 3",
        "abbey, seed 4",
        "dam, seed 3",
        "dam, seed 4",
    ]
    np.testing.assert_allclose(
        [float(row["nsfw_last"]) for row in rows],
        results.last.watched["nsfw"]["prob"][:, 1],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        [float(row["p_1_last"]) for row in rows[:4]],
        results.last.watched["places"]["prob"][:4, 0],
        rtol=1e-5,
    )
    with Image.open(out / "images" / "run00005_last.png") as image:
        from jaxsynth.images import to_rgb

        np.testing.assert_array_equal(np.asarray(image), to_rgb(results.last.image[5]))

    config = json.loads((out / "config.json").read_text())
    assert config["flags"]["nsfw_weights"] == ["0.5", "2"] and config["sweep"]["batch"] == 3
    assert config["sweep"]["recipe"]["steps"] == 4 and len(config["runs"]) == 8
    assert len(config["networks"]["places"]["sha256"]) == 64
    assert config["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize(
    ("name", "flags", "runs"),
    [
        ("random_samples", ["--seeds=5"], 5),
        ("nsfw", ["--seeds=2", "--steps=3", "--recipe=dgn_am"], 2),
        ("sfw", ["--seeds=0,9", "--steps=3", "--optimizer=adam", "--lr_start=0.1"], 2),
        ("scene", ["--scenes=all", "--seeds=1", "--steps=2", "--target=log_odds"], 5),
        (
            "synthesize",
            [
                "--seeds=2",
                "--steps=2",
                "--term=places:conv2_pre:3@1,2:1",
                "--term=nsfw:prob:SFW:0.5",
                "--term=generator:image_tv:0:-0.1",
                "--schedule=cosine",
                "--box=unit",
            ],
            2,
        ),
    ],
)
def test_every_experiment_runs(weights, tmp_path, name, flags, runs):
    done = launch(name, *weights, *flags, f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "run")
    assert len(rows) == runs and all(row["status"] == "ok" for row in rows)
    assert all(0 <= float(row["nsfw_last"]) <= 1 for row in rows)
    assert read_arrays(tmp_path / "run").last.image.shape == (runs, 16, 16, 3)


def test_cells_of_pareidolia_with_one_ratio_are_computed_once(weights, tmp_path):
    out = tmp_path / "run"
    given = ["--alphas=1,2", "--betas=0.5,1,4", "--steps=2", "--balance=sum", f"--out={out}"]
    done = launch("pareidolia", *weights, *given)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert [row["equals"] for row in rows] == ["", "", "", "0", "", ""]
    assert (rows[0]["row"], rows[0]["column"]) == ("NSFW x 0.5", "SFW x 1")
    assert (rows[3]["row"], rows[3]["column"]) == ("NSFW x 1", "SFW x 2")
    images = read_arrays(out).last.image
    np.testing.assert_array_equal(images[0], images[3])
    assert not np.array_equal(images[0], images[1])


def test_start_codes_and_the_same_run_in_process(weights, tmp_path):
    codes = np.random.default_rng(0).uniform(0, 2, (2, 12))
    np.save(tmp_path / "codes.npy", codes)
    done = launch(
        "synthesize",
        *weights,
        "--precision=float64",
        "--recipe=cnnpref",
        "--steps=3",
        "--term=places:fc8:bar:1",
        f"--init_codes={tmp_path / 'codes.npy'}",  # two rows: two seeds
        "--record_codes=1,2,3",
        f"--out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    results = read_arrays(tmp_path / "run")
    assert results.codes.dtype == np.float64 and results.recorded_codes.shape == (2, 3, 12)
    from dataclasses import replace

    from short import Run, Sweep, Term, synthesize
    from tiny import in_float64

    with jax.enable_x64(True):
        here = synthesize(
            in_float64(tiny_networks()),
            [Run(s, (Term("places", "fc8", (1,), 1.0),)) for s in range(2)],
            Sweep(replace(RECIPES["cnnpref"], steps=3), precision="float64", batch=8),
            codes,
        )
    np.testing.assert_allclose(results.codes, here.codes, rtol=1e-10)


def test_scenes_need_no_nsfw_network(weights, tmp_path):
    out = tmp_path / "run"
    given = ["--nsfw=none", "--scenes=bar", "--seeds=1", "--steps=2", f"--out={out}"]
    done = launch("scene", *weights, *given)
    assert done.returncode == 0, done.stderr
    [row] = rows_of(out)
    assert "nsfw_last" not in row and 0 <= float(row["p_1_last"]) <= 1
    assert "NSFW" not in done.stdout and "P(bar)" in done.stdout


def test_init_image_starts_from_its_code(weights, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = launch(
        "scene",
        *weights,
        "--scenes=bar",
        f"--init_image={tmp_path / 'photo.png'}",
        f"--out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["sweep"]["recipe"]
    assert recipe["steps"] == 30 and recipe["lr_start"] == 1.0
    assert len(rows_of(tmp_path / "run")) == 1


def test_a_full_folder_is_refused_unless_told_otherwise(weights, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    flags = [*weights, "--seeds=1", f"--out={out}"]
    done = launch("random_samples", *flags)
    assert done.returncode == 2 and "not empty" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["mine.txt"]
    assert launch("random_samples", *flags, "--overwrite").returncode == 0
    assert (out / "mine.txt").read_text() == "keep" and (out / "report.html").is_file()


@pytest.mark.full_size
def test_the_2016_system_runs_by_the_same_command(big_generator, big_places, golden, tmp_path):
    """Ported seeded originals at full size, two DGN-AM steps, no golden bounds needed."""
    bounds = tmp_path / "bounds.txt"
    bounds.write_text(" ".join(["12"] * 4096))
    for original, network, more in (
        (big_generator, "dgn_fc6", [f"--bounds={bounds}"]),
        (big_places, "places205", []),
    ):
        out = f"--out={tmp_path / network}.safetensors"
        done = run("port", f"--network={network}", *more, f"--source={original.caffemodel}", out)
        assert done.returncode == 0, done.stderr
    np.save(tmp_path / "codes.npy", np.atleast_2d(golden["codes"]))
    done = launch(
        "scene",
        f"--generator={tmp_path}/dgn_fc6.safetensors",
        "--scenes=8",
        "--batch=1",
        f"--places={tmp_path}/places205.safetensors",
        "--recipe=dgn_am",
        "--target=logit",
        "--steps=2",
        "--seeds=1",
        f"--init_codes={tmp_path / 'codes.npy'}",
        f"--out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    results = read_arrays(tmp_path / "run")
    np.testing.assert_allclose(
        results.objective[0, 0], np.ravel(golden["value_fc8_8"])[0], rtol=1e-4
    )
    assert results.last.image.shape == (1, 256, 256, 3)
    assert rows_of(tmp_path / "run")[0]["target_1"] == "places:fc8:8"


def test_balances_are_compared_by_command(weights, tmp_path):
    out = tmp_path / "run"
    done = launch(
        "compare_balances",
        *weights,
        "--scenes=bar,dam",
        "--seeds=2",
        "--steps=3",
        "--balances=image,sum",
        "--targets=logit",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    with open(out / "balances.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["balance"], row["runs"]) for row in rows] == [("image", "4"), ("sum", "4")]
    assert (out / "balances.md").read_text() in done.stdout
    wrong = launch("compare_balances", *weights, "--balances=even", f"--out={tmp_path / 'x'}")
    assert wrong.returncode == 2 and "even" in wrong.stderr


def test_precisions_are_compared_by_command(weights, tmp_path):
    out = tmp_path / "run"
    flags = [*weights, "--scenes=bar", "--seeds=3", "--steps=3", "--batch=2", "--recipe=goh"]
    done = launch("compare_precisions", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    with open(out / "precision.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = [("float32", "2"), ("float32", "1"), ("bfloat16", "2")]
    assert [(r["objective"], r["precision"], r["batch"], r["runs"]) for r in rows] == [
        (objective, *kind, "3") for objective in ("bar", "nsfw") for kind in kinds
    ]
    assert all(0 <= float(r["median P"]) <= 1 and r["not finite"] == "0" for r in rows)
    for first, second, third in (rows[:3], rows[3:]):
        assert float(first["rms from float32, median"]) == 0
        # three steps of tiny networks are not yet chaotic, but bfloat16 has 8 bits
        assert float(second["rms from float32, median"]) < 0.5
        assert float(third["rms from float32, median"]) > 0
        assert float(first["rms between seeds, median"]) > 0
    assert (out / "precision.md").read_text() in done.stdout
    wrong = launch("compare_precisions", *flags, "--other_batch=2", f"--out={tmp_path / 'x'}")
    assert wrong.returncode == 2 and "--other_batch=2 is that of --batch" in wrong.stderr
