"""Damaged weights and labels: a thousand mutated, truncated and swapped files, none of which gets
through as something else than it is, crashes, hangs, or takes memory without bound; and some more
by the launchers, which say one line and leave nothing behind."""

import json
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from in_process import Outcome, run_cases
from reference import TINY_ALEXNET, TINY_RESNET
from tiny import save_tiny_networks, tiny_networks
from tiny_originals import write_originals

from jaxsynth.models.names import MANIFEST
from jaxsynth.models.network import KNOWN_CONFIGS, Network, param_shapes
from jaxsynth.models.weights import info_to_json, load_network, save_network
from jaxsynth.porting.port import file_sha256, port

MOST_MEMORY = 64e6  # bytes; the files have some 30 kB
MOST_SECONDS = 150  # of a case; one takes a few thousandths, and its first of a kind a second
ADDRESSES = 4 << 30  # bytes that a launcher may map for all of its cases


@pytest.fixture(autouse=True)
def deadline():
    """What a hanging case raises, see `outcomes`."""

    def hung(*_args):
        raise AssertionError("a case hangs")

    before = signal.signal(signal.SIGALRM, hung)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    for config in KNOWN_CONFIGS.values():  # what a file that does not fit is compared with
        param_shapes(config)
    return write_originals(tmp_path_factory.mktemp("originals"))


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


def outcomes(
    original: bytes, path: Path, load: Callable[[], Network], cases: int, finite: bool = False
) -> dict:
    """How often a damaged file was refused in one line, or loaded with the shapes it describes (and
    `finite` numbers)."""
    found = {"refused": 0, "loaded": 0, "same": 0}
    tracemalloc.start()
    for case in range(cases):
        data = damage(original, np.random.default_rng(case))
        path.write_bytes(data)
        signal.alarm(MOST_SECONDS)
        try:
            network = load()
        except ValueError as error:
            assert str(error).strip() and len(str(error)) < 2000, case
            found["refused"] += 1
            continue
        shapes = {name: value.shape for name, value in network.params.items()}
        assert shapes == param_shapes(network.info.config), case
        assert all(np.isfinite(value).all() for value in network.params.values()) or not finite
        found["same" if data == original else "loaded"] += 1
    signal.alarm(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY
    return found


def test_damaged_weights_files_never_load(tmp_path):
    """The manifest's hash catches whatever the format would let through."""
    path = tmp_path / "n.safetensors"
    save_network(path, tiny_networks()["places"])
    found = outcomes(path.read_bytes(), path, lambda: load_network(path), 280)
    assert found["loaded"] == 0 and found["refused"] > 250


def test_damaged_weights_files_with_a_hash_to_match(tmp_path):
    """What somebody else saved and listed, whole or not: the reader itself must hold."""
    path = tmp_path / "n.safetensors"
    save_network(path, tiny_networks()["generator"])

    def load():
        line = {"file": path.name, "sha256": file_sha256(path)}
        (tmp_path / MANIFEST).write_text(json.dumps(line) + "\n")
        return load_network(path)

    found = outcomes(path.read_bytes(), path, load, 220)
    assert found["refused"] > 100 and found["loaded"] > 20  # changed numbers are numbers


@pytest.mark.parametrize("form", ["v2", "v1", "v0", "nsfw"])
def test_damaged_caffemodels(form, originals, tmp_path):
    path = tmp_path / "n.caffemodel"
    name = "open_nsfw" if form == "nsfw" else "places205"
    found = outcomes(originals[form].read_bytes(), path, lambda: _port(name, path), 60, finite=True)
    assert found["refused"] > 10


def test_damaged_onnx_files(originals, tmp_path):
    path = tmp_path / "n.onnx"
    path.write_bytes(originals["onnx"].read_bytes())
    assert _port("open_nsfw", path).params["fc_nsfw/kernel"].shape == (24, 2)
    found = outcomes(
        originals["onnx"].read_bytes(), path, lambda: _port("open_nsfw", path), 200, finite=True
    )
    assert found["refused"] > 60 and found["loaded"] > 5  # if of a sane size


def test_damaged_label_files(originals, tmp_path):
    labels, text = tmp_path / "labels", originals["labels"].read_bytes()
    found = outcomes(text, labels, lambda: _port("places205", originals["v2"], labels), 60)
    assert found["refused"] > 20


def _port(name: str, source: Path, labels: Path | None = None) -> Network:
    config = TINY_RESNET if name == "open_nsfw" else TINY_ALEXNET
    return port(name, source, config=config, labels=labels)[0]


def test_a_launcher_says_one_line_and_writes_nothing_of_a_damaged_original(originals, tmp_path):
    cases, out = [], "--out=case{}.safetensors"
    for kind, file in originals.items():
        for seed in range(12):
            path = tmp_path / f"{kind}{seed}{file.suffix}"
            path.write_bytes(damage(file.read_bytes(), np.random.default_rng(1000 + seed)))
            source = [f"--source={path}"]
            if kind == "labels":
                source = [f"--source={originals['v2']}", f"--labels={path}"]
            name = "open_nsfw" if file.stem == "nsfw" else "places205"
            cases.append([f"--network={name}", *source, out.format(len(cases))])
    folder = tmp_path / "work"
    found = run_cases("port", cases, folder, "tiny_known", ADDRESSES)
    written = {path.name for path in folder.iterdir()} - {MANIFEST}
    assert written == {out.format(i)[6:] for i, one in enumerate(found) if one.code == 0}
    _check_one_line([one for one in found if one.code], 20)


def test_a_launcher_says_one_line_and_writes_nothing_of_damaged_weights(tmp_path):
    flags, cases = save_tiny_networks(tmp_path), []
    data = (tmp_path / "generator.safetensors").read_bytes()
    lines = []
    for seed in range(60):
        path = tmp_path / f"n{seed}.safetensors"
        path.write_bytes(damage(data, np.random.default_rng(2000 + seed)))
        if seed % 2:  # as somebody else saved it
            lines.append(json.dumps({"file": path.name, "sha256": file_sha256(path)}) + "\n")
        cases.append([*flags, f"--generator={path}", "--seeds=1", "--batch=1", f"--out=case{seed}"])
    with open(tmp_path / MANIFEST, "a") as manifest:
        manifest.writelines(lines)
    folder = tmp_path / "work"
    found = run_cases("random_samples", cases, folder, more_memory=ADDRESSES)
    written = {path.name for path in folder.iterdir()}
    assert written == {f"case{i}" for i, one in enumerate(found) if one.code is None}
    assert all(one.code == 2 for one in found[::2])  # no line of the manifest is theirs
    _check_one_line([one for one in found if one.code is not None], 35)


def _check_one_line(refused: list[Outcome], least: int) -> None:
    assert len(refused) > least
    for one in refused:
        assert one.code == 2 and not one.out, one
        assert one.err.startswith("error: ") and one.err.count("\n") == 1, one.err
        assert "out of memory" not in one.err


def test_a_hash_that_differs_is_told_with_both_and_the_way_out(tmp_path):
    path = tmp_path / "n.safetensors"
    before = save_network(path, tiny_networks()["places"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = rf"{file_sha256(path)}.*{before}.*delete it, then port or copy it again"
    with pytest.raises(ValueError, match=said):
        load_network(path)


ODD = (0, -1, 1.5, 1e400, None, "x", [], 10**30)
PLACES = {
    "generator": [("config", "layers", 0, 4), ("config", "seed", 0), ("config", "code")],
    "places": [
        *(("config", "convs", 1, 1), ("config", "convs", 1, 5), ("config", "size")),
        *(("config", "dense", 0), ("labels",), ("architecture",)),
    ],
}
# -1 is what is left, text and nothing are lists of labels.
FINE = [(("config", "seed", 0), -1), (("labels",), "x"), (("labels",), [])]


@pytest.mark.parametrize(
    ("role", "place", "odd"),
    [(r, p, odd) for r in PLACES for p in PLACES[r] for odd in ODD if (p, odd) not in FINE],
)
def test_a_description_of_no_network_is_one_line(role, place, odd, tmp_path):
    network, path = tiny_networks()[role], tmp_path / "n.safetensors"
    plain = within = json.loads(info_to_json(network.info))
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = odd
    _save_described(path, network, json.dumps(plain))
    with pytest.raises(ValueError, match=r"n\.safetensors: "):
        load_network(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\udcff", "{}", "3", ""])
def test_a_description_of_nothing_is_one_line(text, tmp_path):
    path = tmp_path / "n.safetensors"
    _save_described(path, tiny_networks()["places"], text.encode("utf-8", "replace").decode())
    with pytest.raises(ValueError, match=r"n\.safetensors: not a description"):
        load_network(path)
    (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape") or b"3")
    with pytest.raises(ValueError, match="line 1, is not a manifest line"):
        load_network(path)


def _save_described(path: Path, network: Network, description: str) -> None:
    """Weights under any description, in the manifest as they are."""
    arrays = {name: np.asarray(value) for name, value in network.params.items()}
    safetensors.numpy.save_file(arrays, path, {"jaxsynth": description})
    line = {"file": path.name, "sha256": file_sha256(path)}
    (path.parent / MANIFEST).write_text(json.dumps(line) + "\n")


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
