"""Events for TensorBoard, read back."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tiny import save_tiny_networks

import jaxsynth as js
from jaxsynth.runs.folder import clear


def _events(folder):
    """Tag and step -> value of every event in the folder's only file."""
    [path] = folder.iterdir()
    data, found = path.read_bytes(), {}
    while data:
        [length] = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            image = value.image.encoded_image_string
            found[value.tag, event.step] = image or value.simple_value
        data = data[16 + length :]
    return found


def _runs(home, **options):
    save_tiny_networks(home)
    gen, places = (js.load(home / f"{r}.safetensors") for r in ("generator", "places"))
    how = {"recipe": js.recipes.goh(steps=3), "batch": 2, "folder": home / "run"}
    goals = {label: places.logit(label) for label in ("abbey", "bar")}
    return js.sweep(goals, gen, seeds=2, tensorboard=True, **how | options)


def test_events_are_those_of_the_runs(tmp_path):
    runs = _runs(tmp_path)
    found = _events(tmp_path / "run" / "tensorboard")
    curves = {}
    for (tag, step), value in found.items():
        curves.setdefault(tag, []).append((step, value))
    for i in range(4):
        [tag] = [tag for tag in curves if tag.startswith(f"objective/run_{i:05d}_")]
        assert [step for step, _ in curves[tag]] == [1, 2, 3]
        values = [value for _, value in curves[tag]]
        np.testing.assert_allclose(values, runs.objective[i], rtol=1e-6)
    best = runs.objective[2:, 2].max()
    assert found["chunk_00002/best", 3] == pytest.approx(best, rel=1e-6)
    [(tag, step)] = [key for key in found if key[0].startswith("image/run_00003_")]
    with Image.open(io.BytesIO(found[tag, step])) as image:
        np.testing.assert_array_equal(np.asarray(image), runs[3].image)
    clear(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_told_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxsynth\[tensorboard\]'"):
        _runs(tmp_path)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="tensorboard needs a folder"):
        _runs(tmp_path, folder=None)
