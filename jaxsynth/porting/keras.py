"""Topologies of TensorFlow -> nodes of a graph: layers of Keras, and frozen graphs of TensorFlow.

Batch norm is folded into the convolution before it. A ReLU becomes part of the node before it, and
zero padding part of the convolution after it. Nodes for training alone are left out, and so is the
last softmax. Names of blobs are those of Keras layers; of a frozen graph the last two parts.
"""

import base64
import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsynth.models.graph import NONE, RELUS, SAME, GraphConfig, Node

Arrays = Mapping[str, np.ndarray]
_PASSED = ("Dropout", "SpatialDropout2D", "Identity", "StopGradient")
_KINDS = {"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "Dense": "dense"}
_POOLS = {"MaxPooling2D": "max_pool", "AveragePooling2D": "mean_pool"}
_PARTS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
_TENSORFLOW = {
    **{"Conv2D": "conv", "_FusedConv2D": "conv", "DepthwiseConv2dNative": "depthwise"},
    **{"FusedDepthwiseConv2dNative": "depthwise", "MatMul": "dense", "_FusedMatMul": "dense"},
    **{"AvgPool": "mean_pool", "MaxPool": "max_pool"},
}
_SIZE = 224
_TAILS = ("Relu", "Relu6", "BiasAdd", "BatchNorm", "FusedBatchNormV3", "Conv2D")


@dataclasses.dataclass
class GraphBuilder:
    """A graph under construction.

    Attributes:
      nodes: Name -> node, in order.
      params: Path -> array, float64.
      where: Name in the file -> name of the node that computes it.
      users: Name in the file -> how many use it.
    """

    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    params: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    where: dict[str, str] = dataclasses.field(default_factory=dict)
    users: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def put(self, name: str, node: Node, kernel: np.ndarray | None = None, bias: Any = 0.0) -> None:
        """Append what a layer of the file becomes; a depthwise kernel is (k, k, C, 1)."""
        self.nodes[node.name], self.where[name] = node, node.name
        if kernel is not None:
            kernel = kernel[..., 0] if node.op == "depthwise" else kernel
            self.params[f"{node.name}/kernel"] = kernel.astype(np.float64)
            bias = np.broadcast_to(np.asarray(bias, np.float64), kernel.shape[-1:])
            self.params[f"{node.name}/bias"] = bias

    def normalise(self, name: str, source: str, factor: np.ndarray, shift: np.ndarray) -> None:
        """Multiply channels by a factor and shift them, within the layer before if possible."""
        node = self.nodes.get(self.where[source])
        path = node.name if node else ""
        if node and f"{path}/kernel" in self.params and self.alone(source):
            self.params[f"{path}/kernel"] = self.params[f"{path}/kernel"] * factor
            self.params[f"{path}/bias"] = self.params[f"{path}/bias"] * factor + shift
            self.where[name] = path
        else:
            self.put(name, Node(name, "scale", (self.where[source],)), factor, shift)

    def rectify(self, name: str, source: str, relu: str) -> None:
        """Apply a ReLU: within the node before, unless somebody else sees that."""
        node = self.nodes.get(self.where[source])
        if node and self.alone(source):
            self.put(name, node._replace(relu=relu))
        else:
            self.put(name, Node(name, "add", (self.where[source],), relu=relu))

    def alone(self, source: str) -> bool:
        """Return whether a node serves one user, and has no ReLU yet."""
        return self.users[source] == 1 and not self.nodes[self.where[source]].relu

    def config(self, size: int, output: str, **units: Any) -> GraphConfig:
        """Finish the graph; ValueError if its output is not the dense layer that comes last."""
        last = list(self.nodes.values())[-1:]
        if not last or last[0].name != output or last[0].op != "dense" or last[0].relu:
            raise ValueError(f"its output {output!r} is no dense layer at its end")
        return GraphConfig(size, tuple(self.nodes.values()), **units)


def keras_graph(
    topology: Mapping[str, Any], arrays: Arrays
) -> tuple[GraphConfig, dict[str, np.ndarray]]:
    """Make the graph of a Keras model that sees RGB of 0..1; ValueErrors name its layers."""
    model = topology["model_config"]["config"]
    layers = model if isinstance(model, list) else model["layers"]
    made, pads, previous, size = GraphBuilder(where={"data": "data"}), {}, "data", 0
    waiting = {}  # name -> layer, and the layers that it takes in
    for layer in layers:
        name, inputs = layer["config"]["name"], _sources(layer)
        if not inputs and layer["class_name"] != "InputLayer":  # Sequential: in order
            inputs = [previous]
        shape = layer["config"].get("batch_input_shape") or layer["config"].get("batch_shape")
        previous, size = name, shape[1] if shape else size
        made.users.update(inputs)
        waiting[name] = layer, inputs
    while waiting:
        ready = [name for name, (_, inputs) in waiting.items() if set(inputs) <= set(made.where)]
        if not ready:
            raise ValueError(f"layer {next(iter(waiting))!r} takes in what no layer puts out")
        for name in ready:
            layer, inputs = waiting.pop(name)
            if layer["class_name"] == "InputLayer":
                made.where[name] = "data"
            else:
                _keras_layer(made, layer["class_name"], layer["config"], inputs, arrays, pads)
    return made.config(size, made.where[name]), made.params


def _sources(layer: Mapping[str, Any]) -> list[str]:
    return [source[0] for source in (layer.get("inbound_nodes") or [[]])[0]]


def _keras_layer(made, kind, config, inputs, arrays, pads) -> None:
    name, source = config["name"], inputs[0]
    at = tuple(made.where[i] for i in inputs)

    def array(part, default=None):
        if f"{name}/{part}" not in arrays and default is None:
            raise ValueError(f"layer {name!r} has no array {part!r}")
        return np.asarray(arrays.get(f"{name}/{part}", default), np.float64)

    if config.get("data_format") not in (None, "channels_last"):
        raise ValueError(f"layer {name!r} has its channels first, which is not known")
    match kind:
        case "ZeroPadding2D":
            made.where[name], pads[name] = at[0], _pairs(config["padding"])
        case kind if kind in _PASSED:
            made.where[name] = at[0]
        case kind if kind in _KINDS:
            kernel = array(_PARTS[kind])
            node = Node(name, _KINDS[kind], at, features=kernel.shape[-1])
            if kind != "Dense":
                node = _window(node, config, config["kernel_size"], pads.get(source))
            relu = config["activation"] if config["activation"] in RELUS else ""
            made.put(name, node._replace(relu=relu), kernel, array("bias", 0.0))
            _check_activation(made, name, config["activation"])
        case "BatchNormalization":
            variance = array("moving_variance")
            factor = array("gamma", 1.0) / np.sqrt(variance + config["epsilon"])
            made.normalise(name, source, factor, array("beta", 0.0) - array("moving_mean") * factor)
        case "ReLU":
            if config.get("negative_slope") or config.get("threshold"):
                raise ValueError(f"layer {name!r}: a leaky ReLU is not known")
            most = config.get("max_value")
            made.rectify(name, source, {None: "relu", 6: "relu6"}[most])
        case "Activation" if config["activation"] in RELUS:
            made.rectify(name, source, config["activation"])
        case "Activation" | "Softmax":
            made.where[name] = at[0]
            _check_activation(made, name, config.get("activation", "softmax"))
        case kind if kind in _POOLS:
            made.put(name, _window(Node(name, _POOLS[kind], at), config, config["pool_size"]))
        case "Add" | "Concatenate" | "Flatten" | "GlobalAveragePooling2D":
            op = {"Concatenate": "concat", "GlobalAveragePooling2D": "mean"}.get(kind, kind.lower())
            made.put(name, Node(name, op, at))
        case _:
            raise ValueError(f"layer {name!r} is a {kind}, which is not known")


def _window(node: Node, config: Mapping[str, Any], kernel: list[int], pads=None) -> Node:
    strides = config.get("strides") or kernel
    usual = config.get("dilation_rate", [1, 1]) == [1, 1] and config.get("depth_multiplier", 1) == 1
    if not usual or strides[0] != strides[1] or (pads and config["padding"] != "valid"):
        raise ValueError(f"layer {node.name!r}: its strides, dilation or padding are not known")
    pads = SAME if config["padding"] == "same" else pads or NONE
    return node._replace(kernel=tuple(kernel), stride=strides[0], pads=pads)


def _pairs(padding) -> tuple:
    return tuple(tuple(pair) if isinstance(pair, list) else (pair, pair) for pair in padding)


def _check_activation(made: GraphBuilder, name: str, activation: str) -> None:
    last = activation == "softmax" and not made.users[name]
    if activation not in (*RELUS, "linear") and not last:
        raise ValueError(f"layer {name!r}: activation {activation!r} is not known")


def tensorflow_graph(
    topology: Mapping[str, Any], arrays: Arrays
) -> tuple[GraphConfig, dict[str, np.ndarray]]:
    """Make the graph of a frozen TensorFlow graph that sees RGB of 0..1, by default 224 x 224."""
    made, mean, deviation, size = GraphBuilder(), 0.0, 255.0, _SIZE
    made.users.update(i for node in topology["node"] for i in node.get("input", ()))
    for node in topology["node"]:
        name, op, inputs = node["name"], node["op"], node.get("input", ())
        if op == "Const":
            continue
        constants = [arrays[i] for i in inputs if i in arrays]
        sources = [i for i in inputs if i not in arrays]
        if op == "Placeholder":
            made.where[name] = "data"
            dims = node.get("attr", {}).get("shape", {}).get("shape", {}).get("dim", [])
            size = int(dims[1]["size"]) if len(dims) == 4 and int(dims[1]["size"]) > 0 else size
        elif op in ("Mul", "Sub") and [made.where[i] for i in sources] == ["data"]:
            if op == "Sub" and inputs[0] in arrays:
                raise ValueError(f"node {name!r} subtracts the image, which is not known")
            value = float(constants[0].reshape(()))
            if op == "Mul":
                deviation /= value
            else:
                mean += value * deviation
            made.where[name] = "data"
        elif op in _TENSORFLOW:
            _tensorflow_layer(made, node, sources, constants)
        elif op in ("Identity", "Softmax"):  # softmax: the output, see `config`
            made.where[name] = made.where[sources[0]]
        elif op in ("AddV2", "Add", "Squeeze", "Reshape") and len(constants) == (op == "Reshape"):
            kind = "add" if op.startswith("Add") else "flatten"
            at = tuple(made.where[i] for i in sources)
            made.put(name, Node(_short(name), kind, at))
        elif op in ("Relu", "Relu6"):
            made.rectify(name, sources[0], op.lower())
        else:
            raise ValueError(f"node {name!r} is a {op}, which is not known")
    units = {"mean": (mean,) * 3, "deviation": (deviation,) * 3}
    return made.config(size, made.where[name], **units), made.params


def _tensorflow_layer(made: GraphBuilder, node, sources, constants) -> None:
    name, attr = node["name"], node["attr"]
    fused = [_text(s) for s in attr.get("fused_ops", {}).get("list", {}).get("s", ())]
    relu = "".join(f.lower() for f in fused if f.startswith("Relu"))
    at = tuple(made.where[i] for i in sources)
    new = Node(_short(name), _TENSORFLOW[node["op"]], at, relu=relu)
    if set(fused) - {"BiasAdd", "Relu", "Relu6"}:
        raise ValueError(f"node {name!r}: {', '.join(fused)} is not known")
    if new.op != "dense":
        strides = attr["strides"]["list"]["i"][1:3]
        window = constants[0].shape[:2] if constants else attr["ksize"]["list"]["i"][1:3]
        config = {
            "strides": list(map(int, strides)),
            "padding": _text(attr["padding"]["s"]).lower(),
        }
        new = _window(new, config, list(map(int, window)))
    if not constants:
        return made.put(name, new)
    features = constants[0].shape[-1] if new.op != "depthwise" else 0
    return made.put(name, new._replace(features=features), *constants[:2])


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _short(name: str) -> str:
    parts = list(dict.fromkeys(name.split("/")))
    while parts[1:] and parts[-1] in _TAILS:
        parts.pop()
    return "_".join(parts[-2:])
