"""The arithmetic of a step, counted from the layers and not from how they are computed.

A multiplication and its addition are two operations. A gradient of the input costs what the forward
pass costs, but for the layer that x enters: there it is counted as well, as it is computed.
"""

import math
from collections.abc import Mapping

from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.network import Config, Network, activation_shapes, param_shapes


def forward_operations(config: Config) -> int:
    """Operations of one example's forward pass: convolutions and dense layers."""
    blobs, shapes = activation_shapes(config), param_shapes(config)
    kernels = {p.removesuffix("/kernel"): s for p, s in shapes.items() if p.endswith("/kernel")}
    return sum(2 * math.prod(s) * _pixels(config, name, blobs) for name, s in kernels.items())


def step_operations(networks: Mapping[str, Network]) -> int:
    """Operations of one example's step: forward and input gradient of every network."""
    return sum(2 * forward_operations(n.info.config) for n in networks.values())


def parameter_bytes(networks: Mapping[str, Network]) -> int:
    """Bytes of all weights, as stored."""
    return sum(p.size * p.dtype.itemsize for n in networks.values() for p in n.params.values())


def _pixels(config: Config, name: str, blobs: Mapping[str, tuple[int, ...]]) -> int:
    """At how many places a kernel is applied: outputs, or inputs of a stride-2 deconvolution."""
    if isinstance(config, GridGeneratorConfig):
        sides = {"colour": 1, "conv_in": config.grid[0], "paint": config.size, "rgb": config.size}
        side = sides.get(name) or int(name.lstrip("convup"))
        return side * side
    names = (f"{name}_pre", name, name.removesuffix("_project"))
    shape = blobs[next(blob for blob in names if blob in blobs)]
    if len(shape) < 3:
        return 1
    strides = {
        layer.name: layer.stride
        for layer in getattr(config, "layers", ())
        if layer.kind == "deconv"
    }
    return shape[0] * shape[1] // strides.get(name, 1) ** 2
