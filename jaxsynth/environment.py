"""The surroundings of a run: cache folder, compiled programs, memory, versions, hardware."""

import contextlib
import ctypes
import errno
import functools
import importlib.metadata
import io
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache

from jaxsynth import __version__
from jaxsynth.disk import expand

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")  # they decide the numbers
# glibc's malloc.h: give nothing back to the system, map no single blocks, one heap for all threads
# (the heaps of threads have a fixed size, above which blocks are mapped).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1
_SHARE = 8  # rows of a training batch below which another device does not pay
# Pattern of a name in the folder -> its content. Nothing else there is counted or deleted.
_PARTS = {
    "compiled": "compiled programs",
    "images-*": "decoded photographs of the trainers",
    "*.safetensors": "ported networks",
    "manifest.jsonl": "their hashes",
}
HOW_TO_CLEAR = (
    "`jaxsynth cache clear` deletes all of it; it is made again when needed, but for networks that "
    "were ported from a file of yours"
)
_log = logging.getLogger("jaxsynth")
_read_compiled = compilation_cache.get_executable_and_time


def cache_dir() -> Path:
    """Return the folder of ported originals, decoded photographs and compiled programs.

    It is $JAXSYNTH_CACHE, else ~/.cache/jaxsynth, or a temporary folder where there is no home.
    """
    if chosen := os.environ.get("JAXSYNTH_CACHE"):
        return expand(chosen)
    try:
        return Path.home() / ".cache" / "jaxsynth"
    except RuntimeError:  # no home
        return _temporary_cache()


def writable_cache() -> Path:
    """Return the cache, made; where it cannot be written, a temporary folder, and say so once."""
    return _made(cache_dir())


@functools.cache
def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        why = "no permission to write"
    except OSError as error:
        why = error.strerror or str(error)
    instead = _temporary_cache()
    _log.warning(
        "cache %s cannot be written (%s), so %s is used: JAXSYNTH_CACHE names another folder",
        *(folder, why, instead),
    )
    return instead


@functools.cache
def _temporary_cache() -> Path:
    """A folder of this user alone, the same for all processes if possible."""
    folder = Path(tempfile.gettempdir()) / f"jaxsynth-{getattr(os, 'getuid', lambda: 0)()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
            return folder
    except (OSError, AttributeError):  # somebody else's, or Windows
        pass
    return Path(tempfile.mkdtemp(prefix="jaxsynth-"))


def cache_content() -> list[dict[str, str | int]]:
    """Return a row for each part of the cache: its content, its files, its size; and their sum."""
    rows, total = [], [0, 0]
    for pattern, what in _PARTS.items():
        files = [f for path in cache_dir().glob(pattern) for f in _files(path)]
        size = sum(file.stat().st_size for file in files)
        if files:
            rows.append({"what": what, "files": len(files), "size": megabytes(size)})
            total = [total[0] + len(files), total[1] + size]
    return [*rows, {"what": "together", "files": total[0], "size": megabytes(total[1])}]


def clear_cache() -> int:
    """Delete what jaxsynth has put into the cache folder; return how many bytes that were."""
    freed = 0
    for pattern in _PARTS:
        for path in cache_dir().glob(pattern):
            freed += sum(file.stat().st_size for file in _files(path))
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return freed


def megabytes(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e6:.1f} MB"


def _files(path: Path) -> list[Path]:
    return [f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file()]


def keep_compiled(cache: Path) -> None:
    """Store compiled programs, small ones too, below a folder; later processes load them from it.

    To be called before anything is compiled. Without a writable folder nothing is cached. An entry
    that cannot be read, as a killed process leaves it, is written again.
    """
    folder = expand(cache) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        said = "compiled programs are not cached: %s: %s; JAXSYNTH_CACHE names another folder"
        _log.warning(said, folder, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.get_executable_and_time = functools.partial(_read_entry, folder)


def _read_entry(folder: Path, key: str, *how: Any) -> tuple[Any, Any]:
    """Read a compiled program; a damaged one is deleted, so that JAX writes it again."""
    try:
        return _read_compiled(key, *how)
    except Exception as error:  # of zstd, zlib, pickle or XLA; the program is compiled instead
        _log.warning("damaged entry of the compile cache is replaced: %s (%s)", key, error)
        (folder / f"{key}-cache").unlink(missing_ok=True)
        return None, None


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable: closed ones lead nowhere, and any text can be printed.

    A file that is opened later must not get the number of a closed stream.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:  # takes the lowest free number
        pass
    os.close(handle)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")


def check_backend() -> None:
    """Raise ValueError unless JAX has the devices that JAX_PLATFORMS asks for."""
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a plugin is missing
        names = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
        asked = next((f"{n}={os.environ[n]}" for n in names if os.environ.get(n)), "JAX")
        why = (str(error).splitlines() or ["no such backend here"])[0]
        raise ValueError(
            f"{asked}: {why}; unset it, or JAX_PLATFORMS=cpu computes on the CPU"
        ) from error


def use_two_threads() -> None:
    """Let XLA compute with two threads where this process may use one processor.

    With a single thread XLA rounds a row of a batch by its place in it. With more, only the last
    row's rounding depends on its place (`devices.share_rows`). Without an effect once JAX has used
    the CPU, and where NPROC, XLA's own setting, is given.
    """
    if _processors() == 1:
        os.environ.setdefault("NPROC", "2")


def split_over_processors(batch: int) -> None:
    """Make a JAX device of each processor that this process may use, for training on CPU.

    On two, a training step takes little more than half the time: XLA runs much of the backward pass
    in one thread. A device gets at least `_SHARE` rows of the batch. Without an effect once JAX has
    used the CPU, and where XLA_FLAGS or JAX_NUM_CPU_DEVICES gives a number.
    """
    given = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    given = given or "JAX_NUM_CPU_DEVICES" in os.environ
    counts = range(2, _processors() + 1)
    fitting = [n for n in counts if batch % n == 0 and batch // n >= _SHARE]
    if fitting and not given:
        with contextlib.suppress(RuntimeError):  # JAX has used the CPU
            jax.config.update("jax_num_cpu_devices", fitting[-1])


def _processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_memory() -> None:
    """Let this process reuse the memory that a step frees, for the next step on CPU.

    XLA allocates the memory of a step's activations by malloc each time. glibc maps and unmaps
    blocks of more than 32 MB every time, page by page, and the step waits for it. Nothing happens
    without glibc, and where the environment has settings of its malloc. Most of the effect is lost
    once JAX has used the CPU. Source: mallopt(3).
    """
    given = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if sys.platform != "linux" or given:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
            libc.mallopt(option, value)


def versions() -> dict[str, str]:
    """Return the versions of this package, Python, and the libraries that decide the numbers."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"jaxsynth": __version__, "python": platform.python_version()} | found


def hardware() -> str:
    """Return the accelerators' number and kind, or how many CPUs of which model."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {model}"


def machine_line(more: Mapping[str, str] | None = None) -> str:
    """Return a Markdown item: the hardware, and the versions with those of `more` packages."""
    packages = ", ".join(
        f"{name} {number}" for name, number in (versions() | dict(more or {})).items()
    )
    return f"* {hardware()}; {packages}"


def this_device() -> dict[str, str]:
    """Return platform and kind of the first device, as config.json has them."""
    device = jax.devices()[0]
    return {"platform": device.platform, "kind": device.device_kind}


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a runtime error of JAX says that a device's memory is full."""
    return "RESOURCE_EXHAUSTED" in str(error)
