"""One run over several devices and several processes: the same results as on one."""

import signal
import socket
import time
from pathlib import Path

import pytest
from launching import Launched, start

from jaxsynth.runs.folder import UNFINISHED

RUNS = ("--scenes=abbey,dam,bar", "--nsfw_weights=1", "--seeds=7", "--steps=12", "--batch=2")


def _start(weights, out, *flags, devices=1) -> Launched:
    devices = f"--xla_force_host_platform_device_count={devices}"
    given = [*weights, *RUNS, f"--out={out}", *flags]
    return start("joint", "--noprogress", *given, XLA_FLAGS=devices, JAX_PLATFORMS="cpu")


def _end(process: Launched) -> tuple[int, str, str]:
    out, err = process.communicate()
    return process.returncode, out, err


def _left_behind(out: Path) -> dict[str, bytes]:
    files = [p for p in out.rglob("*") if p.suffix in (".safetensors", ".csv", ".png")]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module", autouse=True)
def one_refuses(weights, tmp_path_factory) -> list[Launched]:
    """Two processes, one with a wrong flag. The other waits half a minute, while tests run."""
    shared = [f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2"]
    out, other = tmp_path_factory.mktemp("refused") / "run", ([], ["--record_codes=99"])
    return [_start(weights, out, *shared, f"--process_id={i}", *other[i]) for i in range(2)]


@pytest.fixture(scope="module")
def one(weights, tmp_path_factory) -> dict[str, bytes]:
    """What the 21 runs leave behind on one device."""
    out = tmp_path_factory.mktemp("one") / "run"
    code, _, err = _end(_start(weights, out))
    assert code == 0, err
    return _left_behind(out)


def test_eight_devices_give_what_one_gives(weights, tmp_path, one):
    out = tmp_path / "run"
    code, _, err = _end(_start(weights, out, devices=8))
    assert code == 0, err
    assert _left_behind(out) == one


def test_more_devices_than_there_are_are_refused(weights, tmp_path):
    code, _, err = _end(_start(weights, tmp_path / "run", "--devices=3", devices=2))
    assert code == 2 and "--devices=3: there are 2 here" in err


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_give_what_one_gives(weights, tmp_path, one):
    out = tmp_path / "run"
    shared = [f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2"]
    both = [_start(weights, out, *shared, f"--process_id={i}") for i in range(2)]
    ends = [_end(process) for process in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert "index.html" in ends[0][1] and "index.html" not in ends[1][1]
    assert _left_behind(out) == one
    shared[0] = f"--coordinator=127.0.0.1:{_free_port()}"
    ends = [_end(p) for p in [_start(weights, out, *shared, f"--process_id={i}") for i in range(2)]]
    assert [code for code, _, _ in ends] == [2, 2]
    assert "is not empty" in ends[0][2] and "process 0 has refused" in ends[1][2]
    assert _left_behind(out) == one


def test_processes_with_different_flags_are_refused(weights, tmp_path):
    out = tmp_path / "run"
    shared = [f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2"]
    other = (["--seeds=7"], ["--seeds=100:107"])
    both = [_start(weights, out, *shared, f"--process_id={i}", *other[i]) for i in range(2)]
    ends = [_end(process) for process in both]
    assert [code for code, _, _ in ends] == [2, 2], ends
    assert all("started with different flags" in err for _, _, err in ends)
    assert not out.exists()


def test_processes_with_different_folders_are_refused(weights, tmp_path):
    shared = [f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2"]
    both = [_start(weights, tmp_path / str(i), *shared, f"--process_id={i}") for i in range(2)]
    ends = [_end(process) for process in both]
    assert [code for code, _, _ in ends] == [2, 2], ends
    assert all("is not that of all processes" in err for _, _, err in ends)


def test_a_process_that_refuses_its_flags_leaves_the_other_a_clear_line(one_refuses):
    ends = [_end(process) for process in one_refuses]
    assert [code for code, _, _ in ends] == [2, 2], ends
    assert "does not answer" in ends[0][2] and "99" in ends[1][2]


def test_one_of_two_that_stops_stops_both_and_one_alone_goes_on(weights, tmp_path, one):
    out = tmp_path / "run"
    shared = [f"--coordinator=127.0.0.1:{_free_port()}", "--num_processes=2", "--save_seconds=0"]
    both = [_start(weights, out, *shared, f"--process_id={i}") for i in range(2)]
    while not list((out / UNFINISHED).glob("under_way*")):
        assert both[0].poll() is None, _end(both[0])
        time.sleep(0.001)
    both[1].send_signal(signal.SIGINT)
    ends = [_end(process) for process in both]
    assert [code for code, _, _ in ends] == [128 + signal.SIGTERM, 128 + signal.SIGINT], ends
    assert all("--resume continues" in err for _, _, err in ends)
    code, _, err = _end(_start(weights, out, "--resume"))
    assert code == 0, err
    assert _left_behind(out) == one


@pytest.mark.parametrize("flags, message", [
    (["--num_processes=2", "--process_id=0"], "--coordinator missing"),
    (["--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"], "expected 0 to 1"),
])  # fmt: skip
def test_processes_that_cannot_meet_are_one_clear_line(weights, tmp_path, flags, message):
    code, _, err = _end(_start(weights, tmp_path / "run", *flags))
    assert code == 2 and message in err and err.count("\n") == 1
