"""ONNX files: the graph, its arrays and what the file says of itself, as plain Python and numpy.

Source: onnx.proto3 of github.com/onnx/onnx. A file is untrusted: sizes are checked against the data
before an array is made, and external data must lie beside the file.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from google.protobuf.message import Message

from jaxsynth.disk import check_regular, file_sha256
from jaxsynth.porting.files import message_classes, parse_file

WHAT = "an ONNX file"
# The messages as far as they are read.
_MESSAGES = message_classes(
    "jaxsynth_onnx",
    {
        "Entry": "key 1 bytes, value 2 bytes",
        "Tensor": "dims 1 int64*, data_type 2 int64, float_data 4 float*, int32_data 5 int64*, "
        "int64_data 7 int64*, name 8 bytes, raw_data 9 bytes, double_data 10 double*, "
        "uint64_data 11 int64*, external_data 13 Entry*, data_location 14 int64",
        "Attribute": "name 1 bytes, f 2 float, i 3 int64, s 4 bytes, t 5 Tensor, g 6 bytes, "
        "floats 7 float*, ints 8 int64*, strings 9 bytes*, type 20 int64, ref_attr_name 21 bytes",
        "Node": "input 1 bytes*, output 2 bytes*, name 3 bytes, op_type 4 bytes, "
        "attribute 5 Attribute*, domain 7 bytes",
        "Dim": "dim_value 1 int64, dim_param 2 bytes",
        "Shape": "dim 1 Dim*",
        "TensorType": "elem_type 1 int64, shape 2 Shape",
        "Type": "tensor_type 1 TensorType",
        "Value": "name 1 bytes, type 2 Type",
        "Graph": "node 1 Node*, initializer 5 Tensor*, input 11 Value*, output 12 Value*, "
        "sparse_initializer 15 bytes*",
        "Opset": "domain 1 bytes, version 2 int64",
        "Function": "name 1 bytes, input 4 bytes*, output 5 bytes*, node 7 Node*, "
        "attribute_proto 11 Attribute*, domain 10 bytes",
        "Model": "producer_name 2 bytes, graph 7 Graph, opset_import 8 Opset*, "
        "metadata_props 14 Entry*, functions 25 Function*",
    },
)
_TYPES = {  # TensorProto.DataType
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
    16: ml_dtypes.bfloat16,
}
_STRING, _EXTERNAL = 8, 1
_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data"}
_FIELDS |= {13: "uint64_data"}
_MOST_DIMS = 16
_LARGEST = 2**36  # bytes of an array


class Subgraph:
    """The value of an attribute that is a graph, as control flow has them; it is not read."""


class OnnxNode(NamedTuple):
    """One operator of a graph; names of absent inputs and outputs are empty."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    name: str = ""
    domain: str = ""


class Input(NamedTuple):
    """An input of a graph: its data type, and sizes, text or None where they are open."""

    dtype: np.dtype | None
    shape: tuple[int | str | None, ...] | None


class OnnxFile(NamedTuple):
    """The content of an ONNX file.

    Attributes:
      path: The file.
      opset: Version of the standard operators.
      nodes: As stored, functions inlined.
      arrays: Initialisers by name, in the file's data types.
      inputs: The graph's inputs without initialisers.
      outputs: Names of its outputs.
      metadata: `metadata_props`, and `producer`.
      data: Names of the files beside it that hold arrays.
    """

    path: Path
    opset: int
    nodes: list[OnnxNode]
    arrays: dict[str, np.ndarray]
    inputs: dict[str, Input]
    outputs: list[str]
    metadata: dict[str, str]
    data: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Return the hash of the file; with external data of all their hashes."""
        files = [self.path, *(self.path.parent / name for name in self.data)]
        hashes = [file_sha256(file) for file in files]
        return (
            hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        )


def read_onnx(path: str | Path) -> OnnxFile:
    """Read an ONNX file and its external data; ValueError, one line, if it is damaged."""
    path = Path(path)
    model = parse_file(path, _MESSAGES["Model"], WHAT)
    graph = model.graph
    if not graph.node:
        raise ValueError(f"{path} is not an ONNX file with a graph")
    if graph.sparse_initializer:
        raise ValueError(f"{path} has sparse weights, which are not read: save them dense")
    functions = {(_text(f.domain), _text(f.name)): f for f in model.functions}
    nodes = [n for one in graph.node for n in _inlined(_node(one, path), functions, path)]
    arrays = {_text(t.name): _array(t, path) for t in graph.initializer}
    inputs = {_text(v.name): _input(v) for v in graph.input if _text(v.name) not in arrays}
    metadata = {_text(e.key): _text(e.value) for e in model.metadata_props}
    opsets = {_text(o.domain): o.version for o in model.opset_import}
    return OnnxFile(
        path,
        opsets.get("", opsets.get("ai.onnx", 1)),
        nodes,
        arrays,
        inputs,
        [_text(v.name) for v in graph.output],
        {"producer": _text(model.producer_name)} | metadata,
        tuple(sorted({_location(t) for t in graph.initializer} - {""})),
    )


def dtype_of(number: int) -> np.dtype:
    """Return the numpy type of a TensorProto.DataType; ValueError if no array has it."""
    if number not in _TYPES:
        raise ValueError(
            f"data type {number} is not one of float32, float16, bfloat16, double, bool and "
            "integers of 8 bits and more"
        )
    return np.dtype(_TYPES[number])


def _node(message: Message, path: Path, given: Mapping[str, Any] | None = None) -> OnnxNode:
    """Read a node; in a function `given` are the attributes that it is called with."""
    attributes = {}
    for a in message.attribute:
        if not a.ref_attr_name:
            attributes[_text(a.name)] = _attribute(a, path)
        elif (name := _text(a.ref_attr_name)) in (given or {}):
            attributes[_text(a.name)] = given[name]
    return OnnxNode(
        _text(message.op_type),
        tuple(map(_text, message.input)),
        tuple(map(_text, message.output)),
        attributes,
        _text(message.name),
        "" if message.domain == b"ai.onnx" else _text(message.domain),
    )


def _attribute(a: Message, path: Path) -> Any:
    if a.HasField("t"):
        return _array(a.t, path)
    if a.HasField("g") or a.type in (5, 10):
        return Subgraph()
    for field, make, kind in (("s", _text, 3), ("f", float, 1), ("i", int, 2)):
        if a.HasField(field) or a.type == kind:  # some writers leave zeros out
            return make(getattr(a, field))
    if a.strings:
        return tuple(map(_text, a.strings))
    return tuple(a.floats) or tuple(a.ints)


def _inlined(node: OnnxNode, functions: dict, path: Path, depth: int = 0) -> Iterator[OnnxNode]:
    """Yield a node, or the nodes of the function that it calls, under names of their own."""
    function = functions.get((node.domain, node.op))
    if function is None:
        yield node
        return
    if depth > 8:
        raise ValueError(f"{path}: function {node.op} is too deep: inline it")
    given = {_text(a.name): _attribute(a, path) for a in function.attribute_proto}
    given |= node.attributes
    names = dict(zip(map(_text, function.input), node.inputs, strict=False))
    names |= dict(zip(map(_text, function.output), node.outputs, strict=False))
    prefix = f"{node.name or node.outputs[0]}/"

    def outer(inner: Iterable[str]) -> tuple[str, ...]:
        return tuple(names.get(n, f"{prefix}{n}") if n else "" for n in inner)

    for message in function.node:
        one = _node(message, path, given)
        renamed = one._replace(inputs=outer(one.inputs), outputs=outer(one.outputs))
        yield from _inlined(renamed._replace(name=prefix + one.name), functions, path, depth + 1)


def _input(value: Message) -> Input:
    kind = value.type.tensor_type
    dtype = _TYPES.get(kind.elem_type)
    if not kind.HasField("shape"):
        return Input(np.dtype(dtype) if dtype else None, None)
    dims = [d.dim_value if d.HasField("dim_value") else _text(d.dim_param) for d in kind.shape.dim]
    return Input(np.dtype(dtype) if dtype else None, tuple(d or None for d in dims))


def _array(tensor: Message, path: Path) -> np.ndarray:
    where = f"{path}: {_text(tensor.name) or 'a constant'}"
    shape = tuple(tensor.dims)
    if tensor.data_type == _STRING:
        return np.zeros(0, "U1")  # no operator on images reads text
    try:
        dtype = dtype_of(tensor.data_type)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    size = math.prod(shape)
    bytes_needed = size * dtype.itemsize
    if len(shape) > _MOST_DIMS or any(d < 0 for d in shape) or bytes_needed > _LARGEST:
        raise ValueError(f"{where} has shape {shape}, which no array can have")
    if tensor.data_location == _EXTERNAL:
        raw = _external(tensor, path, where, bytes_needed)
    elif tensor.raw_data or not size:
        raw = tensor.raw_data
    else:
        return _typed(tensor, dtype, where, shape)
    if len(raw) != bytes_needed:
        raise ValueError(f"{where} has shape {shape} but {len(raw)} bytes, expected {bytes_needed}")
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def _typed(tensor: Message, dtype: np.dtype, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the array of numbers that are stored one by one."""
    values = np.asarray(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))
    if values.size != math.prod(shape):
        raise ValueError(f"{where} has shape {shape} but {values.size} values")
    if tensor.data_type in (10, 16):  # their bits, as integers
        return values.astype(np.uint16).view(dtype).reshape(shape)
    return values.astype(dtype).reshape(shape)


def _location(tensor: Message) -> str:
    """The file beside this one that holds an array; empty if it is here."""
    if tensor.data_location != _EXTERNAL:
        return ""
    return {_text(e.key): _text(e.value) for e in tensor.external_data}.get("location", "")


def _external(tensor: Message, path: Path, where: str, size: int) -> bytes:
    entries = {_text(e.key): _text(e.value) for e in tensor.external_data}
    name = entries.get("location", "")
    file = path.parent / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{where} is in {name!r}, expected a file beside {path.name}")
    check_regular(file, str(file), f"the data of {path.name}")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    except ValueError as error:
        raise ValueError(f"{where}: its offset or length in {file} is no number") from error
    try:
        have = file.stat().st_size
        if offset < 0 or length != size or offset + length > have:
            raise ValueError(
                f"{where} needs {size} bytes from {offset} on, {file} has {have}: copy it again"
            )
        with open(file, "rb") as data:
            data.seek(offset)
            return data.read(length)
    except OSError as error:
        raise ValueError(
            f"{where}: cannot read {file}: {error.strerror}; keep it beside {path.name}"
        ) from error


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
