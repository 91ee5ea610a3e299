"""A whole audit of tiny networks: its report, its resume, hostile labels, no photograph in it."""

import base64
import csv
import io
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from launching import run
from PIL import Image
from safetensors.numpy import load_file
from test_hostile_data import Page
from tiny import save_tiny_networks, tiny_networks

from jaxsynth.audit.changes import CHANGES
from jaxsynth.audit.subjects import Photographs, find_photographs, make_subject, truth_of
from jaxsynth.models.registry import to_model

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    save_tiny_networks(folder)
    rng = np.random.default_rng(0)
    for label, level in (("nsfw", 200), ("safe", 60)):
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(3):
            rgb = rng.integers(level - 50, level + 50, (30, 40, 3), np.uint8)
            Image.fromarray(rgb).save(folder / "photos" / label / f"{i}{HOSTILE}")
    (folder / "photos" / "safe" / "notes.txt").write_text("no image")
    return folder


def audit(folder, out, *more):
    flags = [
        f"--models=first={folder}/nsfw.safetensors,second={folder}/places.safetensors",
        "--decide=second=abbey+dam",
        *(f"--{role}={folder}/{role}.safetensors" for role in ("generator", "places")),
        *("--samples=12", "--seeds=2", "--steps=2", "--neurons=2", "--changed=3", "--flips=3"),
        *("--units=2", "--unit_pictures=3", "--scenes=3", "--scene_seeds=1"),
    ]
    return run("audit", *flags, f"--out={out}", *more)


@pytest.fixture(scope="module")
def done(folder):
    out = folder / "run"
    ended = audit(folder, out, f"--images={folder}/photos")
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


def _pictures(page: Path) -> list[Image.Image]:
    found = re.findall(r'"data:image/webp;base64,([^"]+)"', page.read_text("utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_a_run_writes_a_page_and_all_numbers(done):
    out, said = done
    assert "report         " in said and "neurons of second" in said
    numbers = json.loads((out / "audit.json").read_text())
    titles = [section["title"] for section in numbers["sections"]]
    assert len(set(titles)) == len(titles) >= 4
    for section in numbers["sections"]:
        assert section["how_it_was_made"] and section["what_it_does_not_mean"]
        for name, rows in section["tables"].items():
            with open(out / f"{name}.csv", newline="", encoding="utf-8") as file:
                assert len(list(csv.DictReader(file))) == len(rows)
    hashes = {record["sha256"] for record in numbers["facts"]["networks"].values()}
    page = (out / "index.html").read_text("utf-8")
    assert len(hashes) == 3 and all(value in page for value in hashes)
    tables = {k: v for section in numbers["sections"] for k, v in section["tables"].items()}
    assert len(tables["thresholds"]) == 2 * (2 + 6) * 13  # of every neuron, and of two together
    assert {row["neuron"] for row in tables["neurons"] if row["model"] == "first"} == {"NSFW"}
    most, least = (
        next(r for r in tables["neurons"] if (r["neuron"], r["end"]) == ("abbey + dam", end))
        for end in ("most", "least")
    )
    assert most["median"] > least["median"]
    assert {row["judge"] for row in tables["transfer"]} == {"first", "second"}
    assert {row["by"] for row in tables["flips"]} == {"pixels", "prior"}
    assert {row["of"] for row in tables["flips"]} == {"random sample", "photograph"}
    assert len(tables["changes"]) == 2 * 2 * (len(CHANGES) - 1) and len(tables["units"]) == 4
    assert len(tables["scenes"]) == 3 and len(tables["scenes_neurons"]) == 3 * 2 * (2 + 5)
    [summary] = [r for r in tables["calibration_summary"] if r["model"] == "first"]
    assert (summary["positives"], summary["negatives"]) == (3, 3)
    assert not [r for r in tables["calibration_summary"] if r["model"] == "second"]


def test_hostile_names_are_text_and_nothing_is_loaded(done):
    out, _ = done
    page = Page()
    page.feed((out / "index.html").read_text("utf-8"))
    assert not page.tags & {"script", "iframe", "link", "object"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("src", "href")]
    ids = {"#" + value for name, value in page.attributes if name == "id"}
    assert all(v.startswith("data:image/webp;") or v in ids or (out / v).is_file() for v in links)
    assert sum(v in ids for v in links) == len(ids)  # each section has findings
    text, _, command = page.text.partition("--models")
    assert HOSTILE in text and str(out.parent) not in text and str(out.parent) in command


def test_photographs_are_in_the_report_only_if_asked(done, folder, tmp_path):
    out, _ = done
    shapes = {image.size for image in _pictures(out / "index.html")}
    assert shapes == {(16, 16), (14, 14), (16, 32)}  # of the generator, changed, as `first` sees it
    assert {*load_file(out / "stages" / "photographs.safetensors")} == {"p0", "p1"}
    for name in ("first", "second"):
        kept = load_file(out / "stages" / f"flips+{name}.safetensors")
        assert {*kept} == {"random sample pixels", "random sample prior"}
    less = ("--embed_photographs", "--flips=0", "--units=0", "--changed=0", "--places=none")
    ended = audit(folder, tmp_path, f"--images={folder}/photos", *less)
    assert ended.returncode == 0, ended.stderr
    assert (40, 30) in {image.size for image in _pictures(tmp_path / "index.html")}


def test_a_resumed_audit_reads_its_stages_back(done, folder, monkeypatch):
    out, _ = done
    before = (out / "audit.json").read_bytes()
    index = json.loads((out / "stages.json").read_text())
    last = list(index)[-1]
    del index[last]
    (out / "stages.json").write_text(json.dumps(index))
    ended = audit(folder, out, f"--images={folder}/photos", "--resume")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" s)") == 1
    old, new = json.loads(before), json.loads((out / "audit.json").read_bytes())
    assert old["sections"] == new["sections"]
    refused = audit(folder, out, "--resume", "--samples=13", f"--images={folder}/photos")
    assert refused.returncode == 2 and "settings samples 12, not 13" in refused.stderr
    refused = audit(folder, out)
    assert refused.returncode == 2 and "not empty" in refused.stderr


@pytest.mark.parametrize(
    "flags, said",
    [
        ([], "no classifier named"),
        (["--models=a=FOLDER/places.safetensors"], "--decide=a=LABEL"),
        (["--models=a=FOLDER/nsfw.safetensors,a=FOLDER/nsfw.safetensors"], "two have one name"),
        (["--models=a=FOLDER/nsfw.safetensors", "--decide=b=x"], "model 'b' does not exist"),
        (["--models=a=FOLDER/nsfw.safetensors", "--decide=a=SFW+NSFW"], "no decision is left"),
        (["--models=a=FOLDER/generator.safetensors"], "is a generator"),
        (["--models=a=FOLDER/nsfw.safetensors", "--images=FOLDER/none"], "no image can be read"),
        (["--resume", "--overwrite"], "give one of them"),
    ],
)
def test_what_cannot_be_audited_is_refused(folder, tmp_path, flags, said):
    flags = [flag.replace("FOLDER", str(folder)) for flag in flags]
    ended = run("audit", *flags, f"--out={tmp_path}/out")
    assert ended.returncode == 2 and said in ended.stderr
    assert ended.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def places():
    return to_model(tiny_networks()["places"])


def test_the_decision_is_the_log_odds_of_the_classes_together(places):
    subject = make_subject(places, ("abbey", "dam"))
    x = np.random.default_rng(0).normal(0, 40, (16, 16, 3)).astype(np.float32)
    out = jax.jit(subject.model.activations)(subject.model.params, x)
    p = np.asarray(out["prob"], float)
    together = subject.score(p)
    assert together == pytest.approx(p[0] + p[3]) and subject.decision == "abbey + dam"
    assert float(out["decision"][0]) == pytest.approx(np.log(together / (1 - together)), abs=1e-4)
    assert subject.model.activations == make_subject(places, ("abbey", "dam")).model.activations


def test_labels_come_from_folders_or_a_table(folder, places, tmp_path):
    found = find_photographs([folder / "photos"])
    assert found.labels == ("nsfw",) * 3 + ("safe",) * 3 and len(found.unread) == 1
    assert found.names[0] == f"nsfw/0{HOSTILE}"
    some = find_photographs([folder / "photos"], most=3)
    assert some.names == (f"nsfw/0{HOSTILE}", f"safe/0{HOSTILE}") and len(some.unread) == 1
    table = tmp_path / "labels.csv"
    table.write_text(f"nsfw/0{HOSTILE},abbey\nsafe/1{HOSTILE},bar\n")
    named = find_photographs([folder / "photos"], table=table)
    assert named.labels == ("abbey", "", "", "", "bar", "")
    subject = make_subject(places, ("abbey", "dam"))
    assert truth_of(subject, ["abbey", "bar", "DAM"]).tolist() == [True, False, True]
    assert truth_of(subject, ["bar", "nsfw"]) is None
    assert truth_of(subject, ["bar", "hut"], ("hut",)).tolist() == [False, True]
    table.write_text("other.png,abbey\n")
    with pytest.raises(ValueError, match="names none of the photographs"):
        find_photographs([folder / "photos"], table=table)
    assert find_photographs([]) == Photographs()
