"""Arrays of pickled files: PyTorch checkpoints (zip and legacy) and pickles of numpy arrays.

A pickle is a program, and unpickling runs it. Nothing is unpickled here: a small stack machine
interprets the opcodes, knows a closed list of globals, and refuses a file that names another.
Arrays are views of the file's contents, so a claim of size costs nothing.
"""

import io
import lzma
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxsynth.disk import check_regular, expected, kind_of

WHAT = "a PyTorch checkpoint or a pickle of numpy arrays"
_READ = ("", "a text", "a zip", "a pickle")  # a pickle of protocol 0 is a text
# What damage makes pickletools, zipfile and numpy raise.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError)
_DAMAGE += (RuntimeError, AssertionError, struct.error, zlib.error, lzma.LZMAError)
_RUNS_CODE = "is not an array: the file asks to run code, and is not read"
_BIG = "the checkpoint is not little-endian: save it again on another machine"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the legacy format
_LONGEST_NAME = 400  # characters; bounds the depth, too
_MOST_DIMS, _MOST = 32, 2**48  # dimensions of an array; the size of one
_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}
_BFLOAT16 = np.dtype("V2")  # numpy has none: two bytes, which become float32
_STORAGES = {
    **{"BFloat16": _BFLOAT16, "Half": "<f2", "Float": "<f4", "Double": "<f8", "Bool": "?"},
    **{"Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Untyped": "u1"},
}
_NEW = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False}
_NEW |= {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_COUNTS = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Refused(ValueError):
    """What is wrong with the file, in words that are fit to show."""


class _Made:
    """A "dtype" or an "array" (BUILD completes both), a "tensor" or a "storage" as their kind."""

    def __init__(self, kind: str, value: object = None):
        self.kind, self.value = kind, value


def read_arrays(path_or_bytes: str | Path | bytes) -> dict[str, np.ndarray]:
    """Read name -> array of a checkpoint, or its bytes, in its order; nothing in it is run.

    Nested dicts and lists give names with `/`. What is no array is left out. A lone array is named
    `array`. Arrays are read-only, with shape, dtype and byte order as found; bfloat16 is float32.

    Raises:
      ValueError: The file cannot be read, is of another type, truncated or damaged, asks for more
        than arrays, or holds none.
    """
    data, where = path_or_bytes, "the checkpoint"
    if not isinstance(data, bytes):
        where = str(path_or_bytes)
        check_regular(data, where, WHAT)
    try:
        return _read(data if isinstance(data, bytes) else Path(data).read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {where}: {error.strerror}; expected {WHAT}") from error
    except _Refused as error:
        raise ValueError(f"{where}: {error}") from error
    except (*_DAMAGE, zipfile.BadZipFile) as error:
        why = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise ValueError(f"{where} is damaged or not {WHAT} ({why}): fetch it again") from error


def _check(holds: bool, what: str = "the file is damaged: fetch it again") -> None:
    if not holds:
        raise _Refused(what)


def _read(data: bytes) -> dict[str, np.ndarray]:
    kind = kind_of(data)
    _check(kind.split(" (")[0].replace(" archive", "") in _READ, f"the file {expected(WHAT, kind)}")
    machine, arrays = _Machine(len(data)), {}
    parts = _zip_parts if data.startswith(b"PK\x03\x04") else _stream_parts
    value, storages = parts(machine, data)
    for name, made in _leaves(machine, value):
        _check(name not in arrays, f"two arrays are named {name!r}")
        arrays[name] = _array(name, made, storages, len(data))
        arrays[name].flags.writeable = False
    _check(arrays, f"the file holds no array; expected {WHAT}")
    return arrays


def _zip_parts(machine: "_Machine", data: bytes) -> tuple[object, dict[str, np.ndarray]]:
    """The object, and the storages by key."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        found = [name for name in sizes if f"/{name}".endswith("/data.pkl")]
        why = f"a zip archive with {len(found)} entries data.pkl, where a checkpoint has 1"
        _check(len(found) == 1, f"the file is {why}: unpack it and give the file inside")
        _check(sum(sizes.values()) <= len(data), "the zip archive claims more bytes than it has")
        top = found[0].removesuffix("data.pkl")
        order = f"{top}byteorder"
        _check(order not in sizes or archive.read(order) == b"little", _BIG)
        value, dtypes = machine.run(io.BytesIO(archive.read(found[0]))), machine.dtypes
        return value, {k: _values(archive.read(f"{top}data/{k}"), dtypes[k]) for k in dtypes}


def _stream_parts(machine: "_Machine", data: bytes) -> tuple[object, dict[str, np.ndarray]]:
    """As `_zip_parts`, of a plain pickle or the legacy format, which begins with a number."""
    stream, storages = io.BytesIO(data), {}
    value = machine.run(stream)
    if value != _MAGIC:
        return value, {}
    protocol, system, value, keys = (machine.run(stream) for _ in range(4))
    _check(protocol == _PROTOCOL)
    _check(system["little_endian"] is True, _BIG)
    for key in map(_text, keys):
        (count,) = np.frombuffer(stream.read(8), "<i8").tolist()
        size, left = count * machine.dtypes[key].itemsize, len(data) - stream.tell()
        _check(0 <= size <= left, f"storage {key[:50]!r} claims {count} values in {left} bytes")
        storages[key] = _values(stream.read(size), machine.dtypes[key])
    return value, storages


def _values(raw: bytes, dtype: np.dtype) -> np.ndarray:
    values = np.frombuffer(raw, dtype)
    return values if dtype != _BFLOAT16 else (values.view("<u2").astype("<u4") << 16).view("<f4")


def _leaves(machine: "_Machine", value: object, name: str = "") -> Iterator[tuple[str, _Made]]:
    machine.spend(len(name))
    _check(len(name) <= _LONGEST_NAME, f"the name {name[:50]!r}... is longer than {_LONGEST_NAME}")
    if isinstance(value, _Made) and value.kind in ("tensor", "array"):
        yield name.removesuffix("/") or "array", value
    elif isinstance(value, dict | list | tuple):
        machine.spend(len(value))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, _Made | dict | list | tuple):
                yield from _leaves(machine, item, f"{name}{key}/")


def _array(name: str, made: _Made, storages: dict, file_size: int) -> np.ndarray:
    if made.kind == "array":
        return made.value
    key, offset, size, stride = made.value
    storage, count = storages[key], math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    what = f"{name!r} of shape {size}, stride {stride} and offset {offset}"
    inside = count == 0 or (last < storage.size and count <= file_size)
    _check(inside, f"{what} is not inside its storage of {storage.size} values")
    offset, *strides = (n * storage.itemsize for n in (offset, *stride))
    return np.ndarray(size, storage.dtype, storage, offset, strides)


def _text(key: object) -> str:
    short = isinstance(key, bytes) and len(key) <= _LONGEST_NAME
    _check(short or isinstance(key, str | int | float | None))
    return key.decode("latin-1") if short else str(key)


def _sizes(*sizes: object) -> tuple[int, ...]:
    _check(len(sizes) <= _MOST_DIMS and all(type(n) is int and 0 <= n < _MOST for n in sizes))
    return sizes


class _Machine:
    """Runs pickles opcode by opcode; keeps the dtype of each storage that they name."""

    def __init__(self, file_size: int):
        self.dtypes: dict[str, np.dtype] = {}
        self._left = 8 * file_size

    def spend(self, count: int) -> None:
        """One value may stand in many places, for two bytes each: this bounds the product."""
        self._left -= count
        _check(self._left >= 0, "its containers hold themselves or one another too often")

    def run(self, stream: io.BytesIO) -> object:
        """The value of the pickle at the stream's position, which moves behind it."""
        stack, marks, memo = [], [], {}
        for opcode, arg, _ in pickletools.genops(stream):
            match opcode.name:
                case "PROTO" | "FRAME" | "STOP":
                    pass
                case name if name in _NEW:
                    stack.append(_NEW[name]())
                case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if arg is None else arg] = stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(_collected(opcode.name, stack, marks)))
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                    _add(_collected(opcode.name, stack, marks), stack[-1])
                case "GLOBAL" | "STACK_GLOBAL":
                    name = ".".join(arg.split(" ", 1) if arg else [stack.pop(), stack.pop()][::-1])
                    _check(name in _GLOBALS, f"{name[:80]!r} {_RUNS_CODE}")
                    stack.append(_GLOBALS[name])
                case "REDUCE":
                    args, function = stack.pop(), stack.pop()
                    stack.append(function(self, *args))  # functions come from GLOBAL alone
                case "BINPERSID":
                    stack.append(self.storage(*stack.pop()))
                case "BUILD":
                    self.build(stack.pop(), stack[-1])
                case name if opcode.arg and opcode.stack_after[0] is not pickletools.anyobject:
                    stack.append(arg)  # a literal
                case name:
                    _check(False, f"the opcode {name} belongs to no array: the file is not read")
        return stack.pop()

    def build(self, state: object, target: object) -> None:
        if isinstance(target, dict):
            return  # attributes of an OrderedDict (`_metadata`) are left out
        if target.kind == "dtype":
            target.value = target.value.newbyteorder(_text(state[1]))
        else:
            _check(target.kind == "array")
            _, shape, dtype, fortran, raw = state
            target.value = self.array(raw, dtype, shape, "F" if fortran else "C").value

    def storage(self, kind, dtype, key, _location, _count, view=None) -> _Made:
        _check(_text(kind) == "storage" and isinstance(dtype, np.dtype))
        _check(self.dtypes.setdefault(_text(key), dtype) == dtype)
        return _Made("storage", (_text(key), view[1] if view else 0))

    def tensor(self, storage, offset, size, stride, _grad=None, _hooks=None, bits=None) -> _Made:
        _check(storage.kind == "storage" and not bits)  # bits ask for the negative or conjugate
        key, start = storage.value
        return _Made("tensor", (key, *_sizes(start + offset), _sizes(*size), _sizes(*stride)))

    def ordered(self, pairs=()) -> dict:  # Python 2 gives an OrderedDict its items at once
        self.spend(32 * len(pairs))  # a pair fills some bytes of the file
        return _add([item for key, value in pairs for item in (key, value)], {})

    def encode(self, text, encoding) -> bytes:
        _check(isinstance(text, str) and encoding in ("latin1", "latin-1"))
        self.spend(len(text))
        return text.encode("latin-1")

    def dtype(self, code, _align=False, _copy=True) -> _Made:
        code = _text(code)
        _check(code in _CODES, f"an array has dtype {code[:50]!r}, expected numbers or bool")
        return _Made("dtype", np.dtype(code))

    def array(self, raw, dtype, shape, order="C") -> _Made:
        raw = self.encode(raw, "latin1") if isinstance(raw, str) else raw  # a str from Python 2
        _check(dtype.kind == "dtype" and isinstance(raw, bytes | bytearray))
        size = math.prod(_sizes(*shape)) * dtype.value.itemsize
        _check(size == len(raw), f"an array of shape {shape} has {len(raw)} bytes, not {size}")
        return _Made("array", np.ndarray(shape, dtype.value, raw, order=order))


def _collected(opcode: str, stack: list, marks: list[int]) -> list:
    start = len(stack) - _COUNTS[opcode] if opcode in _COUNTS else marks.pop()
    _check(start >= 0)
    items, stack[start:] = stack[start:], []
    return items


def _add(items: list, target: object) -> list | dict:
    """Items, or keys and values in turn. Keys become texts: to hash a deep tuple may crash."""
    if type(target) is list:
        target.extend(items)
        return target
    _check(type(target) is dict)
    for key, value in zip(map(_text, items[::2]), items[1::2], strict=True):
        _check(key not in target)
        target[key] = value
    return target


_GLOBALS = {f"torch.{name}Storage": np.dtype(code) for name, code in _STORAGES.items()} | {
    "torch.storage.UntypedStorage": np.dtype("u1"),
    "torch.Size": lambda _self, size: size,
    "torch._utils._rebuild_tensor": _Machine.tensor,
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "torch._utils._rebuild_parameter": lambda _self, tensor, _grad, _hooks: tensor,
    "collections.OrderedDict": _Machine.ordered,
    "_codecs.encode": _Machine.encode,
    "__builtin__.bytes": lambda _self: b"",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": _Machine.dtype,
    "numpy.core.multiarray._reconstruct": lambda _self, _type, _shape, _code: _Made("array"),
    "numpy.core.multiarray.scalar": lambda self, dtype, raw: self.array(raw, dtype, ()),
    "numpy.core.numeric._frombuffer": _Machine.array,
}
_GLOBALS |= {name.replace(".core.", "._core."): value for name, value in _GLOBALS.items()}
