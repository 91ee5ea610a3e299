"""Launchers as a user types them: `run("scene", "--steps=3", ...)`.

`run` carries a launcher out in this process, whose programs are traced and compiled already; with
variables of the environment, and by `run_alone`, in a process of its own. `start` gives a process
that can be killed and sent signals; "in_process" stands for `in_process.py`.

`python -m experiments.NAME` spends most of its time on importing JAX. So these processes are forked
from one that has imported what all launchers share, and has computed nothing and read no flag: the
rest, from the launcher's own imports to its exit code, is that of a new process. They share a hash
seed; what JAX has read of its environment as it was imported is read again. (`test_docs` starts a
launcher by `python -m`.)
"""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import quick  # noqa: F401
from absl import flags as absl_flags
from jax._src import xla_bridge

import experiments
from experiments import launch

ROOT = Path(__file__).parents[1]
_SHARED = (
    *("jaxsynth.maximize", "jaxsynth.scoring", "jaxsynth.runs.saving", "jaxsynth.report.pages"),
    *("absl.app", "tqdm", "matplotlib.figure", "matplotlib.backends.backend_agg"),
)


class Launched:
    """A launcher under way; the part of `subprocess.Popen` that tests need."""

    def __init__(self, name: str, flags: tuple[str, ...], cwd: Path, env: dict[str, str]):
        self.returncode = None
        address = _server()
        self._talk = socket.socket(socket.AF_UNIX)
        self._talk.connect(address)
        files = [tempfile.mkstemp(dir=Path(address).parent) for _ in range(2)]
        streams, self._written = zip(*files, strict=True)
        asked = {"name": name, "flags": flags, "cwd": str(cwd), "env": env}
        socket.send_fds(self._talk, [b"+"], streams)
        for stream in streams:
            os.close(stream)
        self._talk.sendall(json.dumps(asked).encode() + b"\n")
        self.pid = int(self._line())

    def poll(self) -> int | None:
        """The exit code, None while it runs; minus the signal if one has ended it."""
        return self._wait(0)

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Waits for the end; what it wrote to stdout and stderr."""
        if self._wait(timeout) is None:
            self.kill()
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        out, err = (Path(path).read_text("utf-8") for path in self._written)
        return out, err

    def _wait(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._talk], [], [], timeout)[0]:
            self._talk.recv(1)
            self._talk.sendall(b".")
            self.returncode = int(self._line())
            self._talk.close()
        return self.returncode

    def _line(self) -> str:
        """An answer, and nothing beyond it: what is left can be selected on."""
        text = b""
        while not text.endswith(b"\n"):
            text += self._talk.recv(1) or b"gone\n"
        return text.decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(name: str, *flags: object, cwd: Path = ROOT, **env: str) -> Launched:
    """`python -m experiments.NAME FLAGS...` in this folder, with these variables more."""
    return Launched(name, tuple(map(str, flags)), cwd, environment() | env)


def environment() -> dict[str, str]:
    """Of a process that a test starts: it finds the packages, and its programs are optimised as
    those of the test are: little, but for networks of full size."""
    little = str(int(jax.config.values["jax_disable_most_optimizations"]))
    return dict(os.environ, PYTHONPATH=str(ROOT), JAX_DISABLE_MOST_OPTIMIZATIONS=little)


def run_alone(
    name: str, *flags: object, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start(name, *flags, cwd=cwd, **env)
    out, err = process.communicate()
    return subprocess.CompletedProcess([name, *flags], process.returncode, out, err)


def run(
    name: str, *flags: object, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """`python -m experiments.NAME FLAGS...` in this folder, in this process."""
    found = importlib.util.find_spec(f"experiments.{name}")
    if env or "class Flags" not in Path(found.origin).read_text():  # its flags would stay defined
        return run_alone(name, *flags, cwd=cwd, **env)
    module = importlib.import_module(f"experiments.{name}")
    typed = ["-m", *map(str, flags)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _as_it_was(cwd):
        sys.argv = typed
        code = _carried_out(module, typed)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return subprocess.CompletedProcess([name, *flags], code, *texts)


def _carried_out(module: types.ModuleType, typed: list[str]) -> int:
    """The exit code of a launcher."""
    try:
        launch.run_experiment(module.main, module.Flags, typed)
    except SystemExit as end:
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1


@contextlib.contextmanager
def _as_it_was(cwd: Path) -> Iterator[None]:
    """Let a launcher change what a process has, and change it back."""
    x64, argv = jax.config.jax_enable_x64, sys.argv
    for flag in absl_flags.FLAGS:
        absl_flags.FLAGS[flag].unparse()
    with contextlib.chdir(cwd), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            yield
        finally:
            sys.argv = argv
            jax.config.update("jax_enable_x64", x64)


# --- the process that forks, one for each that tests ----------------------------------------------


@functools.cache
def _server() -> str:
    """The address of a server that ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="launch")
    atexit.register(folder.cleanup)
    address = str(Path(folder.name) / "socket")
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,  # its end says that this process has ended
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING="utf-8"),
        start_new_session=True,
    )
    atexit.register(_end, server)
    while not Path(address).exists():
        assert server.poll() is None
        time.sleep(0.01)
    return address


def _end(server: subprocess.Popen) -> None:
    """Ends it and all that it has forked, stopped ones too: they are one process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server.stdin.close()


def _serve(address: str) -> tuple[str, list[str]]:
    """Forks; returns in the processes that are to become launchers: name and flags."""
    for name in _SHARED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is imported is no garbage, and stays shared
    assert not xla_bridge.backends_are_initialized()  # a fork would inherit dead threads
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    os.rename(address + ".new", address)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os.killpg(0, signal.SIGKILL)
        talk, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _attend(talk)
        talk.close()


def _attend(talk: socket.socket) -> tuple[str, list[str]]:
    """Forks the launcher, tells its process and its end; returns in the launcher."""
    _, streams, _, _ = socket.recv_fds(talk, 1, 2)
    asked = json.loads(talk.makefile("r").readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        talk.sendall(f"{pid}\n".encode())
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(OSError):
            talk.sendall(b".")  # it has ended; its number is taken until the answer
            talk.recv(1)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            talk.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    talk.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate([nothing, *streams]):
        os.dup2(stream, number)
        os.close(stream)
    _read_again(asked["env"])
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    return asked["name"], asked["flags"]


def _read_again(env: dict[str, str]) -> None:
    """Tells JAX of its variables that are not what they were when it was imported."""
    for name in {name for name in env if name.startswith("JAX_")}:
        option = name.lower()
        if env[name] != os.environ.get(name) and option in jax.config.values:
            switch = isinstance(jax.config.values[option], bool)
            jax.config.update(option, env[name] in ("1", "true") if switch else env[name])


if __name__ == "__main__":
    launcher, given = _serve(sys.argv[1])
    if launcher == "in_process":
        sys.argv = [launcher, *given]
        runpy.run_path(str(Path(__file__).with_name("in_process.py")), run_name="__main__")
        sys.exit()
    sys.argv = ["-m", *given]  # as it stands while `python -m` imports
    sys.path[0] = os.getcwd()
    importlib.reload(experiments)  # it was imported before there was an argv to look at
    runpy.run_module(f"experiments.{launcher}", run_name="__main__", alter_sys=True)
