"""Traced programs on disk: a later process compiles them without tracing the networks again.

Tracing is Python: a third of the time of a short command. A program is saved as StableHLO
(`jax.export`, no pickle) under a hash of all that decides it: this package's source, the versions
and settings of JAX, the static arguments by their text, the shapes of the others. Programs of
functions without a text, such as a user's own, are traced in every process.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jax.core import Tracer

from jaxsynth.arithmetic import arithmetic, is_double, unpinned
from jaxsynth.disk import write_atomic
from jaxsynth.models.cpu_convolution import compiler_options, network_jit

_DIGEST = 32  # bytes of SHA-256 before the content
_DECIDE = ("jax", "jaxlib", "flax", "numpy")
_log = logging.getLogger("jaxsynth")
_ready: dict[Any, Callable[..., Any]] = {}


def saved_jit(fun: Callable[..., Any], statics: int) -> Callable[..., Any]:
    """Wrap a function as `network_jit` does, and save its traced program where that is possible.

    It is not possible within other traced functions, on accelerators, in double precision, without
    a cache folder, or where a static argument has no text.

    Args:
      fun: pure, of a module; arguments are not named.
      statics: how many of its first arguments are static; the others are pytrees of arrays.
    """
    plain = network_jit(fun, static_argnums=tuple(range(statics)))

    @functools.wraps(fun)
    def call(*args: Any) -> Any:
        first, others = args[:statics], args[statics:]
        leaves, tree = jax.tree.flatten(others)
        if not _is_usual(leaves):
            return plain(*args)
        with arithmetic():
            key = (fun, first, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
            if key not in _ready:
                _ready[key] = _saved_program(fun, first, others) or plain
            program = _ready[key]
            return plain(*args) if program is plain else program(*others)

    call.__dict__["jitted"] = plain.__dict__["jitted"]
    return call


def _is_usual(leaves: Sequence[Any]) -> bool:
    return (
        jax.default_backend() == "cpu"
        and not is_double(leaves)
        and all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)
        and not any(isinstance(leaf, Tracer) for leaf in leaves)
    )


def _saved_program(fun, statics: Sequence[Any], args: Sequence[Any]) -> Callable[..., Any] | None:
    """Compile fun(*statics, ...), traced here or in an earlier process; None if it has no text."""
    named = text_of(tuple(statics))
    if named is None or _folder() is None:
        return None
    leaves, tree = jax.tree.flatten(args)
    shapes = repr([(leaf.shape, str(leaf.dtype)) for leaf in leaves])
    name = _name_of(f"{fun.__module__}.{fun.__qualname__}", named, str(tree), shapes)
    content = _read(f"{name}.bin")
    if content is None:
        whole = jax.jit(functools.partial(fun, *statics))
        content = bytes(export.export(whole, platforms=["cpu"])(*args).serialize())
        _write(f"{name}.bin", content)
    program = export.deserialize(bytearray(content)).call
    return jax.jit(program, compiler_options=compiler_options())


def saved_json(what: str, make: Callable[[], Any]) -> Any:
    """Return what `make` returns, plain data, from an earlier process where it was saved."""
    if _folder() is None:
        return make()
    name = f"{_name_of(what)}.json"
    if (content := _read(name)) is None:
        content = json.dumps(make()).encode()
        _write(name, content)
    return json.loads(content)


def text_of(static: Any) -> str | None:
    """Return the text of a static argument, equal only for equal ones; None if it has none.

    Plain data, tuples and dataclasses of them have one, and functions with an attribute `text`.
    """
    if static is None or isinstance(static, bool | int | float | str):
        return repr(static)
    if isinstance(text := getattr(static, "text", None), str):
        return text
    if dataclasses.is_dataclass(static):
        parts = [getattr(static, field.name) for field in dataclasses.fields(static)]
    elif isinstance(static, tuple):
        parts = list(static)
    else:
        return None
    texts = [text_of(part) for part in parts]
    return None if None in texts else f"{type(static).__qualname__}({', '.join(map(str, texts))})"


def _name_of(*said: str) -> str:
    """Hash what decides a file's content."""
    return hashlib.sha256(repr([*said, _surroundings(), unpinned()]).encode()).hexdigest()


@functools.cache
def _surroundings() -> str:
    """The source of this package, and the versions of what it is traced by."""
    source, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        source.update(path.read_bytes())
    versions = [importlib.metadata.version(package) for package in _DECIDE]
    return repr((source.hexdigest(), versions))


def _folder() -> Path | None:
    """Where traced programs are: within JAX's folder of compiled ones; None without one."""
    compiled = jax.config.values["jax_compilation_cache_dir"]
    return Path(compiled) / "traced" if compiled else None


def _read(name: str) -> bytes | None:
    """Read what `_write` has written; a damaged file is deleted, so that it is written again."""
    path = (_folder() or Path()) / name
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(content).digest() == digest:
        return content
    _log.warning("damaged entry of the cache is replaced: %s", path)
    path.unlink(missing_ok=True)
    return None


def _write(name: str, content: bytes) -> None:
    with contextlib.suppress(OSError):  # a full or read-only disk: the next process traces again
        folder = _folder() or Path()
        folder.mkdir(exist_ok=True)
        write_atomic(folder / name, hashlib.sha256(content).digest() + content)
