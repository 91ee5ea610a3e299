"""Programs of networks: compiled well on CPU, saved on disk, and what they need not compute again.

On CPU, XLA gives convolutions to YNNPACK, which takes up to twice as long as XLA's own code (jaxlib
0.10): `network_jit` leaves it the matrix products only. In bfloat16 both are alike; in float64 XLA
has no fast code, and YNNPACK stays.

Tracing is Python: a third of the time of a short command. `saved_jit` saves a program as StableHLO
(`jax.export`, no pickle) under a hash of all that decides it: this package's source, the versions
and settings of JAX, the static arguments by their text, the shapes of the others. Programs of
functions without a text, such as a user's own, are traced in every process.

On CPU, convolutions run on kernels that are turned for the input gradient or split into phases
(`cpu_convolution`), again at every step. A layer asks a `Derive` for them; they are variables of
the flax module, in a collection of their own.
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

import flax.linen as nn
import jax
import numpy as np
from jax import export, lax
from jax.core import Tracer

from jaxsynth.arithmetic import arithmetic, is_double, unpinned
from jaxsynth.disk import write_atomic

# Matrix products stay YNNPACK's: a dense layer's few rows are slow in XLA's own. Barriers stay too:
# without them XLA computes a layer's output again wherever it is used.
_WITHOUT_BARRIERS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
_CPU_OPTIONS = {**_WITHOUT_BARRIERS, "xla_disable_hlo_passes": "cse_barrier_expander"}
DERIVED = "derived"  # the collection
# derive(name, make): the array made before; made now, if it is to be stored; else None
Derive = Callable[[str, Callable[[], jax.Array]], jax.Array | None]
_DIGEST = 32  # bytes of SHA-256 before the content
_DECIDE = ("jax", "jaxlib", "flax", "numpy")
_log = logging.getLogger("jaxsynth")
_ready: dict[Any, Callable[..., Any]] = {}


def network_jit(fun: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """Wrap a function that runs networks in `jax.jit`, with options that are fast where it runs.

    The backend is asked at the first call, not before. JAX takes options at the outermost jit only:
    within another one, or a gradient, this is `jax.jit`; so `network_jit(jax.grad(f))`, not
    `jax.grad(network_jit(f))`. The function that `jax.jit` made is `.jitted()` of the result. Calls
    are computed with the settings of `arithmetic`, in double precision where an argument is.
    """

    @functools.cache
    def made(plain: bool):
        return jax.jit(fun, compiler_options=None if plain else compiler_options(), **kwargs)

    def jitted():
        return made(compiler_options() is None)

    @functools.wraps(fun)
    def call(*args, **named):
        with arithmetic(is_double(args, named)):
            try:
                return jitted()(*args, **named)
            except ValueError as error:  # nothing tells beforehand: arguments may be constants
                if "top-level `jax.jit`" not in str(error):
                    raise
            return made(True)(*args, **named)

    call.__dict__["jitted"] = jitted
    return call


def compiler_options() -> dict[str, str] | None:
    """Return the options for `jax.jit`; None in double precision, and where XLA has none."""
    double = jax.config.jax_enable_x64  # type: ignore
    return None if double else _known_options()


def rounds_by_place() -> bool:
    """Return whether a row of a batch may be rounded differently for being the last one.

    YNNPACK's convolutions do so. XLA's own do not with AVX-512 (`tests/test_pocket.py`), but did on
    a processor without it.
    """
    if jax.default_backend() != "cpu":
        return False
    return compiler_options() is None or not _has_avx512()


@functools.cache
def _has_avx512() -> bool:
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux: nothing is known, so rows are taken to differ
        return False


@functools.cache
def _known_options() -> dict[str, str] | None:
    """Return as many of the options as this XLA accepts; None on accelerators."""
    if jax.default_backend() != "cpu":
        return None
    for options in (_CPU_OPTIONS, _WITHOUT_BARRIERS):
        with contextlib.suppress(RuntimeError, ValueError):  # another XLA, without one of them
            jax.jit(lax.optimization_barrier, compiler_options=options).lower(0.0).compile()
            return options
    return None


# --- programs on disk -----------------------------------------------------------------------------


def saved_jit(fun: Callable[..., Any], statics: int) -> Callable[..., Any]:
    """Wrap a function as `network_jit` does, and save its traced program where that is possible.

    It is not possible within other traced functions, on accelerators, in double precision, without
    a cache folder, or where a static argument has no text. The function is pure, of a module; its
    first `statics` arguments are static, the others pytrees of arrays, and none is named.
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
                program = _saved_program(fun, first, others)
                if program is None:
                    return plain(*args)  # a user's functions are not kept
                _ready[key] = program
            return _ready[key](*others)

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


# --- what depends on a kernel alone ---------------------------------------------------------------


def derive_nothing(name: str, make: Callable[[], jax.Array]) -> None:
    """Store nothing (a `Derive`): the caller makes the array itself."""


def derive_now(derive: Derive, name: str, make: Callable[[], jax.Array]) -> jax.Array:
    """Return the stored array, or make it now, as the forward pass needs it."""
    derived = derive(name, make)
    return make() if derived is None else derived


def derived_of(module: nn.Module, layer: str) -> Derive:
    """Return the `Derive` of a layer.

    It reads the module's variables, and writes them if `DERIVED` is mutable.
    """

    def derive(name, make):
        key = f"{layer}_{name}"
        if module.has_variable(DERIVED, key):
            return module.get_variable(DERIVED, key)
        if not module.is_mutable_collection(DERIVED) or module.is_initializing():
            return None
        module.put_variable(DERIVED, key, make())
        return module.get_variable(DERIVED, key)

    return derive


def layer_conv(module: Any, layer: str) -> Callable[..., jax.Array] | None:
    """Return the module's hook `conv` for one of its layers."""
    return (
        None
        if module.conv is None
        else functools.partial(module.conv, derive=derived_of(module, layer))
    )


def conv(module: Any, name: str, features: int, kernel: int | Sequence[int], **how: Any) -> nn.Conv:
    """Make a convolution that a module's hook `conv` computes; `how` as `nn.Conv` takes it."""
    sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    how |= {"conv_general_dilated": layer_conv(module, name), "name": name}
    return nn.Conv(features, sides, **how)


def part(derive: Derive, index: int) -> Derive:
    """Return the `Derive` of one of several parts of a layer."""
    return lambda name, make: derive(f"{name}_{index}", make)
