"""Damaged weights: a thousand mutated, truncated and swapped files, none of which gets through
as something else than it is, crashes, or takes memory without bound."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from reference import TINY_ALEXNET, alexnet_layers, write_caffemodel
from tiny import tiny_networks

from jaxsynth.files.porting import file_sha256, port
from jaxsynth.files.weights import MANIFEST, load_network, save_network
from jaxsynth.networks.network import Network, param_shapes

MOST_MEMORY = 64e6  # bytes; the files have some 30 kB


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: bytes changed (anywhere, or near the start, where the structure is), a piece cut out
    or doubled, two pieces swapped, the end cut off."""
    kind, n = rng.integers(6), len(data)
    out = bytearray(data)
    if kind < 2:
        reach = n if kind else min(n, 400)
        for place in rng.integers(0, reach, rng.integers(1, 9)):
            out[place] = rng.integers(256)
        return bytes(out)
    a, b = sorted(rng.integers(0, n, 2))
    if kind == 2:
        return data[:a]
    if kind == 3:
        return data[:a] + data[b:]
    if kind == 4:
        return data[:b] + data[a:]
    size = min(64, n // 2)
    a, b = rng.integers(0, n - size, 2)
    out[a : a + size], out[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(out)


def outcomes(original: bytes, path: Path, load: Callable[[], Network], cases: int) -> dict:
    """How often a damaged file was refused in one line, or loaded with the shapes it describes."""
    found = {"refused": 0, "loaded": 0, "same": 0}
    tracemalloc.start()
    for case in range(cases):
        data = damage(original, np.random.default_rng(case))
        path.write_bytes(data)
        try:
            network = load()
        except ValueError as error:
            assert str(error).strip() and len(str(error)) < 2000, case
            found["refused"] += 1
            continue
        shapes = {name: value.shape for name, value in network.params.items()}
        assert shapes == param_shapes(network.info.config), case
        found["same" if data == original else "loaded"] += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY
    return found


def test_damaged_weights_files_never_load(tmp_path):
    """The manifest's hash catches whatever the format would let through."""
    path = tmp_path / "n.safetensors"
    save_network(path, tiny_networks()["places"])
    found = outcomes(path.read_bytes(), path, lambda: load_network(path), 300)
    assert found["loaded"] == 0 and found["refused"] > 250


def test_damaged_weights_files_with_a_hash_to_match(tmp_path):
    """What somebody else saved and listed, whole or not: the reader itself must hold."""
    path = tmp_path / "n.safetensors"
    save_network(path, tiny_networks()["generator"])

    def load():
        line = {"file": path.name, "sha256": file_sha256(path)}
        (tmp_path / MANIFEST).write_text(json.dumps(line) + "\n")
        return load_network(path)

    found = outcomes(path.read_bytes(), path, load, 300)
    assert found["refused"] > 100 and found["loaded"] > 20  # changed numbers are numbers


@pytest.mark.parametrize("form", ["v2", "v1", "v0"])
def test_damaged_caffemodels(form, tmp_path):
    path = write_caffemodel(tmp_path / "n.caffemodel", alexnet_layers(TINY_ALEXNET, 3), form=form)
    load = lambda: port("places205", path, config=TINY_ALEXNET)[0]  # noqa: E731
    found = outcomes(path.read_bytes(), path, load, 100)
    assert found["refused"] > 20


def test_damaged_label_files(tmp_path):
    model = write_caffemodel(tmp_path / "n.caffemodel", alexnet_layers(TINY_ALEXNET, 3))
    labels = tmp_path / "labels"
    text = "\n".join(f"/x/name{i} {i}" for i in range(TINY_ALEXNET.classes)).encode()
    load = lambda: port("places205", model, config=TINY_ALEXNET, labels=labels)[0]  # noqa: E731
    found = outcomes(text, labels, load, 100)
    assert found["refused"] > 20


def test_another_networks_description_is_refused(tmp_path):
    """Weights of one network under the description of another, hash and all."""
    path = tmp_path / "n.safetensors"
    networks = tiny_networks()
    for role in networks:
        save_network(tmp_path / f"{role}.safetensors", networks[role])
    arrays = safetensors.numpy.load_file(tmp_path / "places.safetensors")
    with safetensors.safe_open(tmp_path / "nsfw.safetensors", framework="np") as file:
        safetensors.numpy.save_file(arrays, path, file.metadata())
    line = {"file": path.name, "sha256": file_sha256(path)}
    with open(tmp_path / MANIFEST, "a") as manifest:
        manifest.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"n\.safetensors: .*conv"):
        load_network(path)
