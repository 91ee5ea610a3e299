"""The arithmetic of a step, counted from the layers and not from how they are computed.

A multiplication and its addition are two operations. A gradient of the input costs what the forward
pass costs, but for the layer that x enters: there it is counted as well, as it is computed.
"""

import math
from collections.abc import Mapping

from jaxsynth.models.alexnet import AlexNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.network import Config, Network, activation_shapes, param_shapes


def forward_operations(config: Config) -> int:
    """Operations of one example's forward pass: convolutions and dense layers."""
    blobs, shapes = activation_shapes(config), param_shapes(config)
    total = 0
    for path, shape in shapes.items():
        name = path.removesuffix("/kernel")
        if name == path:
            continue
        pixels = 1 if len(shape) == 2 else _pixels(config, name, blobs)
        total += 2 * math.prod(shape) * pixels
    return total


def step_operations(networks: Mapping[str, Network]) -> int:
    """Operations of one example's step: forward and input gradient of every network."""
    return sum(2 * forward_operations(n.info.config) for n in networks.values())


def parameter_bytes(networks: Mapping[str, Network]) -> int:
    """Bytes of all weights, as stored."""
    return sum(p.size * p.dtype.itemsize for n in networks.values() for p in n.params.values())


def _pixels(config: Config, name: str, blobs: Mapping[str, tuple[int, ...]]) -> int:
    """At how many places a kernel is applied: outputs, or inputs of a stride-2 deconvolution."""
    if isinstance(config, GeneratorConfig):
        layer = next(row for row in config.layers if row.name == name)
        height, width, _ = blobs[name]
        shrink = layer.stride**2 if layer.kind == "deconv" else 1
        return height * width // shrink
    if isinstance(config, AlexNetConfig):
        height, width, _ = blobs[f"{name}_pre"]
        return height * width
    blob = f"{name}_pre" if f"{name}_pre" in blobs else name
    height, width, _ = blobs[blob]
    return height * width
