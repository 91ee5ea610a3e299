"""Checkpoints that a small writer makes as torch.save does, pickles of numpy arrays, and files that
lie: nothing is run, and whatever is wrong is one line."""

import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import safetensors.numpy

from jaxsynth.porting.pickled_arrays import read_arrays

KINDS = {
    **{"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"},
    **{"Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?", "BFloat16": "<u2"},
}
MAGIC = 0x1950A86A20F9469CFC6C
VALUES = np.arange(24, dtype=np.float32)
MOST_MEMORY = 16e6  # bytes; the damaged files have less than 2 kB


class Storage(NamedTuple):
    """`bits` are the values as saved; `view` is what old files may say of a part."""

    key: str
    kind: str
    bits: np.ndarray
    view: tuple | None = None


class Tensor:
    """Pickles itself with the globals of PyTorch, which stand-ins provide."""

    def __init__(self, storage, size, stride, offset=0, rebuild="_rebuild_tensor_v2", more=None):
        self.rest = (False, OrderedDict()) if more is None else more
        self.rebuild, self.args = rebuild, (storage, offset, size, stride)

    def __reduce__(self):
        return getattr(sys.modules["torch._utils"], self.rebuild), self.args + self.rest


class Parameter(NamedTuple):
    tensor: Tensor

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_parameter
        return rebuild, (self.tensor, True, OrderedDict())


class Size(NamedTuple):
    size: tuple

    def __reduce__(self):
        return sys.modules["torch"].Size, (self.size,)


def stand_in(module: types.ModuleType, name: str) -> None:
    def function():
        raise AssertionError("nothing calls it")

    function.__module__, function.__name__, function.__qualname__ = module.__name__, name, name
    setattr(module, name, function)


def torch_modules() -> dict[str, types.ModuleType]:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("Size", "UntypedStorage", *(f"{kind}Storage" for kind in KINDS)):
        stand_in(torch, name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        stand_in(utils, name)
    return {"torch": torch, "torch._utils": utils}


def pickled(obj, legacy: bool, protocol: int = 2) -> tuple[bytes, dict[str, Storage]]:
    """The pickle, and the storages by key: persistent ids refer to them."""
    out, storages = io.BytesIO(), {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            storages[obj.key] = obj
            kind = getattr(sys.modules["torch"], f"{obj.kind}Storage")
            saved = ("storage", kind, obj.key, "cpu", obj.bits.size)
            return (*saved, obj.view) if legacy else saved

    with mock.patch.dict(sys.modules, torch_modules()):
        Pickler(out, protocol).dump(obj)
    return out.getvalue(), storages


def zip_file(obj, root: str = "archive/", order: str = "little", protocol: int = 2) -> bytes:
    program, storages = pickled(obj, legacy=False, protocol=protocol)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{root}data.pkl", program)
        archive.writestr(f"{root}byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"{root}data/{key}", storage.bits.tobytes())
        archive.writestr(f"{root}version", "3\n")
    return out.getvalue()


def legacy_file(obj, little: bool = True) -> bytes:
    program, storages = pickled(obj, legacy=True)
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, system)]
    parts += [program, pickle.dumps(sorted(storages), 2)]
    for key in sorted(storages):
        parts += [struct.pack("<q", storages[key].bits.size), storages[key].bits.tobytes()]
    return b"".join(parts)


WRITERS = pytest.mark.parametrize("write", [zip_file, legacy_file])


def whole(storage: Storage, *size: int) -> Tensor:
    strides = np.empty(size, "u1").strides
    return Tensor(storage, size, strides)


def refusal(data, *words: str) -> str:
    """What the reader says: one line, in which the words stand."""
    with pytest.raises(ValueError) as caught:
        read_arrays(data)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500 and all(word in text for word in words), text
    return text


def assert_arrays(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


@WRITERS
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_storage(write, kind):
    bits = np.arange(6).astype(KINDS[kind])
    expected = bits.reshape(2, 3)
    if kind == "BFloat16":
        bits = np.array([0x3F80, 0xC000, 0x3E80, 0x7F80, 0x0000, 0x4049], "<u2")
        expected = np.array([[1, -2, 0.25], [np.inf, 0, 3.140625]], np.float32)
    assert_arrays(read_arrays(write({"w": whole(Storage("0", kind, bits), 2, 3)})), {"w": expected})


@WRITERS
def test_views_of_one_storage(write):
    s = Storage("7", "Float", VALUES)
    tensors = OrderedDict(
        transposed=Tensor(s, (4, 3), (1, 4)),
        piece=Tensor(s, (2, 2), (6, 2), 5),
        scalar=Tensor(s, (), (), 23),
        empty=Tensor(s, (0, 3), (3, 1)),
        repeated=Tensor(s, (3, 2), (0, 1), 1),
        old=Tensor(s, (24,), (1,), 0, "_rebuild_tensor", ()),
        parameter=Parameter(whole(s, 2, 12)),
    )
    expected = {
        "transposed": VALUES[:12].reshape(3, 4).T,
        "piece": np.array([[5, 7], [11, 13]], np.float32),
        "scalar": np.float32(23),
        "empty": np.zeros((0, 3), np.float32),
        "repeated": np.array([[1, 2]] * 3, np.float32),
        "old": VALUES,
        "parameter": VALUES.reshape(2, 12),
    }
    assert_arrays(read_arrays(write(tensors)), expected)


def test_a_view_that_the_legacy_format_names():
    s = Storage("7", "Float", VALUES, ("8", 10, 4))
    found = read_arrays(legacy_file({"w": whole(s, 4)}))
    assert_arrays(found, {"w": VALUES[10:14]})


@WRITERS
def test_names(write):
    class Stateful(OrderedDict):  # as a state_dict, has attributes that are no items
        def __reduce__(self):
            return OrderedDict, (), {"_metadata": OrderedDict(version=1)}, None, iter(self.items())

    a, b = whole(Storage("0", "Float", VALUES), 24), whole(Storage("1", "Long", np.arange(3)), 3)
    state = Stateful({"_blocks.0._bn0.weight": a, "n": b})
    obj = {"epoch": 3, "state_dict": state, "lists": [None, (b, 0.5), {7: a}], "size": Size((2,))}
    long = np.arange(3)
    names = {"state_dict/_blocks.0._bn0.weight": VALUES, "state_dict/n": long}
    assert_arrays(read_arrays(write(obj)), names | {"lists/1/0": long, "lists/2/7": VALUES})
    assert list(read_arrays(write(state))) == ["_blocks.0._bn0.weight", "n"]
    assert_arrays(read_arrays(write(a)), {"array": VALUES})


def test_paths_and_the_root_of_the_archive(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(zip_file({"w": whole(Storage("0", "Float", VALUES), 24)}, "some/net/"))
    assert_arrays(read_arrays(path), {"w": VALUES})
    assert_arrays(read_arrays(str(path)), {"w": VALUES})
    assert refusal(tmp_path / "none").startswith(str(tmp_path / "none"))
    refusal(tmp_path, "is a folder")


ARRAYS = {
    "f4": VALUES.reshape(4, 6),
    "fortran": np.asfortranarray(VALUES.reshape(4, 6)),
    "strided": VALUES[::-2],
    "big": np.arange(5, dtype=">i4"),
    "half": np.float16([1, 2]),
    "complex": np.complex64([1j]),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 2)),
    "zero_d": np.array(3.5),
    "bytes": np.arange(256, dtype=np.uint8),  # no valid UTF-8, and newlines
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_pickles_of_numpy_arrays(protocol, core):
    data = pickle.dumps([ARRAYS, {"best": np.float64(0.75), "n": 5}], protocol)
    if core == b"numpy.core" and protocol < 4:
        data = data.replace(b"numpy._core", core)
    elif core == b"numpy.core":  # the text and the frame that holds it have a length
        data = pickle_without_frames(data)
        for part in (b"multiarray", b"numeric"):
            old, new = b"numpy._core." + part, b"numpy.core." + part
            data = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
        assert b"_core" not in data
    expected = {f"0/{name}": array for name, array in ARRAYS.items()}
    assert_arrays(read_arrays(data), expected | {"1/best": np.array(0.75)})


def pickle_without_frames(data: bytes) -> bytes:
    assert data[2:3] == pickle.FRAME and data.count(data[2:11]) == 1
    return data[:2] + data[11:]


def test_pickles_of_python_2():
    """Texts are bytes there, and an OrderedDict takes its items as an argument."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb\x89U\x08" + np.float32([1.5, -2]).tobytes() + b"tb"
    )
    data = b"\x80\x02ccollections\nOrderedDict\n(](](U\x01w" + array + b"eetR."
    assert_arrays(read_arrays(data), {"w": np.float32([1.5, -2])})


class Call:
    """An object whose unpickling would call a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_code_is_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    calls = {
        f"{os.system.__module__}.system": Call(os.system, f"touch {mark}"),
        "builtins.getattr": Call(getattr, ARRAYS, "clear"),
        "builtins.eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "functools.partial": Call(__import__("functools").partial, print),
        "numpy.load": Call(np.load, str(mark)),
        "types.SimpleNamespace": types.SimpleNamespace(a=1),
    }
    for name, call in calls.items():
        obj = {"w": VALUES, "x": call}
        for data in (pickle.dumps(obj, protocol), zip_file(obj, protocol=protocol)):
            name = name.replace("builtins", "__builtin__") if protocol == 2 else name
            refusal(data, f"'{name}' is not an array: the file asks to run code, and is not read")
    assert not mark.exists()


def test_pickle_is_not_used(monkeypatch):
    files = [pickle.dumps(ARRAYS), *(write({"w": ARRAYS}) for write in (zip_file, legacy_file))]
    for name in ("load", "loads", "Unpickler", "_Unpickler", "_loads"):
        monkeypatch.delattr(pickle, name)
    assert [len(read_arrays(data)) for data in files] == [10, 10, 10]


@WRITERS
def test_tensors_stay_inside_their_storages(write):
    s = Storage("0", "Float", VALUES)
    outside = [((25,), (1,), 0), ((24,), (1,), 1), ((2, 2), (23, 1), 0), ((1,), (1,), 24)]
    for size, stride, offset in outside:
        refusal(write({"w": Tensor(s, size, stride, offset)}), "'w' of", "not inside", "24 values")
    huge = [((2**29,), (1,), 0), ((2**29,), (0,), 0), ((2**40, 2**40), (0, 0), 0)]
    for size, stride, offset in huge:  # also the repeats of one value
        refusal(write({"w": Tensor(s, size, stride, offset)}), "not inside")
    for bad in [((-1,), (1,), 0), ((2,), (-1,), 5), ((2,), (1, 1), 0), ((2.0,), (1,), 0)]:
        refusal(write({"w": Tensor(s, *bad)}))
    refusal(write({"w": Tensor(s, (2**62,), (1,), 0)}))
    refusal(write({"w": Tensor(s, (2,), (1,), 2**70)}))
    refusal(write({"w": Tensor(s, (1,) * 2000, (1,) * 2000)}))
    two_kinds = Storage("0", "Long", VALUES)
    refusal(write({"v": whole(s, 2), "w": whole(two_kinds, 2)}), "damaged")


def test_claims_of_size_cost_nothing():
    legacy = legacy_file({"w": whole(Storage("0", "Float", VALUES), 24)})
    lied = legacy.replace(struct.pack("<q", 24), struct.pack("<q", 2**29))
    negative = legacy.replace(struct.pack("<q", 24), struct.pack("<q", -1))
    array = pickle.dumps(VALUES, 4).replace(b"K\x18\x85", b"J\xff\xff\xff\x7f\x85")
    text = b"\x80\x04\x8e" + struct.pack("<Q", 2**31) + b"abc."
    archive = zip_file({"w": whole(Storage("0", "Float", VALUES), 24)})
    directory = archive.index(b"PK\x01\x02", archive.index(b"archive/data/0"))
    sizes = archive.index(struct.pack("<II", 96, 96), directory)
    inflated = bytearray(archive)
    inflated[sizes : sizes + 8] = struct.pack("<II", 2**31, 2**31)
    tracemalloc.start()
    refusal(lied, "storage '0' claims 536870912 values in 96 bytes")
    refusal(negative, "claims -1 values")
    refusal(array, "shape (2147483647,)", "96 bytes")
    refusal(text)
    refusal(bytes(inflated), "claims more bytes than it has")
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    tracemalloc.stop()


def program(*parts: bytes) -> bytes:
    return b"".join([b"\x80\x04", *parts, b"."])


DEEP = 10**5
LONG = b"B" + struct.pack("<I", DEEP) + b"k" * DEEP + b"q\x00"  # bytes, kept in the memo
HOSTILE = {
    "a tuple hashed as a key": program(b"})", b"\x85" * DEEP, b"Ns"),
    "lists in lists": program(b"]" * DEEP, b"a" * (DEEP - 1)),
    "dicts without names": program(b"}" + b"\x8c\0}" * DEEP, b"s" * DEEP),
    "marks": program(b"(" * DEEP, b"t" * DEEP),
    "a list that holds itself": program(b"]\x94h\0a"),
    "a dict that holds itself": program(b"}\x94\x8c\0h\0s"),
    "2**60 lists": program(b"]", *(b"]\x94(hXhXe".replace(b"X", bytes([i])) for i in range(60))),
    "a long key in many dicts": program(LONG, b"](", b"}h\0Ns" * DEEP, b"e"),
    "a long list, many times an OrderedDict": program(
        *(b"](", *(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(DEEP)), b"e\x85q\0"),
        *(b"ccollections\nOrderedDict\nq\1](", b"h\1h\0R" * DEEP, b"e"),
    ),
    "a long text, many times encoded": program(
        *(b"X" + struct.pack("<I", DEEP) + b"k" * DEEP, b"\x8c\x06latin1\x86q\0"),
        *(b"c_codecs\nencode\nq\x01](", b"h\1h\0R" * DEEP, b"e"),
    ),
    "a number of many digits": program(
        b"\x8b" + struct.pack("<i", DEEP) + b"k" * DEEP, b"q\0}h\0Ns"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_programs_that_multiply(name):
    """Small files whose values would be large, deep or endless."""
    start = time.monotonic()
    tracemalloc.start()
    refusal(HOSTILE[name])
    assert tracemalloc.get_traced_memory()[1] < 8 * MOST_MEMORY
    tracemalloc.stop()
    assert time.monotonic() - start < 60


def test_other_files_by_their_first_bytes(tmp_path):
    refusal(b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file")
    refusal(safetensors.numpy.save({"w": VALUES}), "a safetensors file")
    refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull")
    out = io.BytesIO()
    np.savez(out, w=VALUES)
    refusal(out.getvalue(), "a zip archive with 0 entries data.pkl")
    for data in (b"", b"<html>", b"{}", bytes(1000), os.urandom(1000)):
        refusal(data)
    refusal(pickle.dumps({"epoch": 3, "dtype": np.dtype("f4")}), "holds no array")
    refusal(pickle.dumps({"a/b": VALUES, "a": {"b": VALUES}}), "two arrays are named 'a/b'")
    refusal(pickle.dumps(np.array([{}], object)), "dtype 'O8'")
    refusal(pickle.dumps({"a", "b"}, 4), "the opcode EMPTY_SET belongs to no array")
    tensors = {"w": whole(Storage("0", "Float", VALUES), 24)}
    refusal(zip_file(tensors, order="big"), "not little-endian")
    refusal(legacy_file(tensors, little=False), "not little-endian")


def small_files() -> dict[str, bytes]:
    s, b = Storage("0", "Float", VALUES), Storage("1", "BFloat16", np.arange(4, dtype="<u2"))
    obj = {"epoch": 3, "net": OrderedDict(a=whole(s, 4, 6), b=Tensor(b, (2, 2), (1, 2)))}
    little = {name: ARRAYS[name] for name in ("f4", "fortran", "big", "bool")}
    return {
        "zip": zip_file(obj),
        "legacy": legacy_file(obj),
        **{f"numpy{p}": pickle.dumps([little, np.float32(3)], p) for p in (2, 4, 5)},
    }


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, the end cut off, a piece cut out, or a piece doubled."""
    kind, out = rng.integers(5), bytearray(data)
    if kind < 2:
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            out[place] = rng.integers(256)
        return bytes(out)
    a, b = sorted(rng.integers(0, len(data), 2))
    return (data[:a], data[:a] + data[b:], data[:b] + data[a:])[kind - 2]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(small_files()))
def test_damaged_files(kind):
    """Each is read or refused in one line, at once and in little memory."""
    original, refused = small_files()[kind], 0
    assert len(read_arrays(original)) in (2, 5) and len(original) < 2000
    tracemalloc.start()
    for case in range(300):
        start = time.monotonic()
        try:
            found = read_arrays(damage(original, np.random.default_rng(case)))
            assert all(array.nbytes < 1e5 for array in found.values())
        except ValueError as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < 500, case
            refused += 1
        assert time.monotonic() - start < 20, case
    assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    tracemalloc.stop()
    assert refused > 150


@pytest.mark.parametrize("kind", list(small_files()))
def test_no_truncated_file_is_read(kind):
    original = small_files()[kind]
    for size in range(0, len(original), 7):
        refusal(original[:size])
