"""Networks of other people as a list of layers: an image (H, W, 3) -> every activation.

Files of Keras and state dicts of torchvision become such lists (`jaxsynth.porting`), so that a new
network is no new module. Batch norm is folded into the convolutions. The input is the engine's
(BGR, mean-subtracted); the network itself sees (RGB - mean) / deviation.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsynth.models.compiled import conv
from jaxsynth.models.depthwise import depthwise_conv, same_padding
from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    normalised,
    relu,
    relu6,
)
from jaxsynth.models.layers import max_pool as max_pool_3_2

Pads = tuple[tuple[int, int], tuple[int, int]]
RELUS = {"relu": relu, "relu6": relu6}
NONE: Pads = ((0, 0), (0, 0))
SAME = ()  # TensorFlow's, which depends on the size
_WIDEST = 64  # window of a pool that does not see the whole map


class Node(NamedTuple):
    """A layer, or an operation of several.

    Attributes:
      name: Of the layer and its blob.
      op: `conv`, `depthwise`, `dense`, `scale` (channel by channel), `add`, `concat`, `max_pool`,
        `mean_pool` (places outside the map do not count), `mean` (over the map), or `flatten`.
      inputs: Names of nodes; `data` is the image.
      features: Channels of a `conv`, units of a `dense`.
      kernel: Height and width of a kernel or window.
      stride: Of a kernel or window.
      pads: Around height and width, or `SAME`.
      groups: Of a `conv`.
      relu: A key of `RELUS`, applied to what the layer puts out; empty for none.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    features: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pads: Pads | tuple[()] = NONE
    groups: int = 1
    relu: str = ""


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """A network. Its last node gives the logits.

    Attributes:
      size: Side of the input image.
      nodes: In an order in which they can be computed.
      mean: Subtracted from RGB of 0..255.
      deviation: Divides what is left.
    """

    size: int
    nodes: tuple[Node, ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (255.0, 255.0, 255.0)

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].features


class Graph(nn.Module):
    """data (..., H, W, 3) -> dict of activations, spatial ones (..., H, W, C).

    A blob is what its node puts out; `{blob}_pre` is what its ReLU takes in.
    """

    config: GraphConfig
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every activation of an image."""
        config = self.config
        x = normalised(data, config.mean, config.deviation)
        out, last = {"data": data}, config.nodes[-1].name
        for node in config.nodes:
            inputs = [x if name == "data" else out[name] for name in node.inputs]
            if node.name == last:
                inputs = [at_least_float32(inputs[0])]
            y = self._layer(node, *inputs)
            if node.relu:
                out[f"{node.name}_pre"], y = y, RELUS[node.relu](y)
            out[node.name] = y
        return out | classifier_outputs(out[last])

    def _layer(self, node: Node, x: jax.Array, *more: jax.Array) -> jax.Array:
        match node.op:
            case "conv":
                how = {"strides": node.stride, "padding": _pads(node, x)}
                how["feature_group_count"] = node.groups
                return conv(self, node.name, node.features, node.kernel, **how)(x)
            case "depthwise" | "scale":
                return _Channels(node, name=node.name)(x)
            case "dense":
                return dense(node.features, node.name)(x)
            case "add":
                return sum(more, x)
            case "concat":
                return jnp.concatenate([x, *more], axis=-1)
            case "max_pool" | "mean_pool":
                return (max_pool if node.op == "max_pool" else mean_pool)(x, node)
            case "mean":
                return x.mean((-3, -2))
            case "flatten":
                return x.reshape(*x.shape[:-3], -1)
        raise ValueError(f"layer {node.name!r}: {node.op!r} is no operation of a graph")


class _Channels(nn.Module):
    """A kernel for each channel by itself (`depthwise`), or a factor (`scale`), and a bias."""

    node: Node

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, node = x.shape[-1], self.node
        window = node.kernel if node.op == "depthwise" else ()
        kernel = self.param("kernel", nn.initializers.normal(0.3), (*window, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if node.op == "scale":
            return x * kernel + bias
        return depthwise_conv(x, kernel, (node.stride, node.stride), _pads(node, x)) + bias


def _pads(node: Node, x: jax.Array) -> Pads:
    sides = zip(x.shape[-3:-1], node.kernel, strict=True)
    return node.pads or tuple(same_padding(n, k, node.stride) for n, k in sides)


def max_pool(x: jax.Array, node: Node) -> jax.Array:
    """Take the largest value of each window: (..., H, W, C) -> (..., H', W', C)."""
    x = _padded(x, node, -jnp.inf)
    if node.kernel == (3, 3) and node.stride == 2:
        return max_pool_3_2(x)
    lead = (1,) * (x.ndim - 3)
    window, strides = (*lead, *node.kernel, 1), (*lead, node.stride, node.stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")


def mean_pool(x: jax.Array, node: Node) -> jax.Array:
    """Average each window, as sums along one axis after the other: (..., H, W, C)."""
    if node.kernel == x.shape[-3:-1] and node.pads == NONE:
        return x.mean((-3, -2), keepdims=True)
    count = np.ones((*x.shape[-3:-1], 1), np.float32)
    if max(node.kernel) > _WIDEST:
        raise ValueError(f"layer {node.name!r}: window {node.kernel} is larger than {_WIDEST}")
    x, count = _padded(x, node, 0), np.pad(count, [*_pads(node, count), (0, 0)])
    for axis, k in zip((-3, -2), node.kernel, strict=True):
        x, count = (_window_sums(y, axis, k, node.stride) for y in (x, count))
    return x / jnp.asarray(count, x.dtype)


def _window_sums(x, axis: int, window: int, stride: int):
    """Sum windows along an axis."""
    places = (slice(None),) * (-1 - axis)
    reach = x.shape[axis] - window + 1
    return sum(x[(..., slice(i, i + reach, stride), *places)] for i in range(window))


def _padded(x: jax.Array, node: Node, value: float) -> jax.Array:
    """Pad the map, and cut off what no window sees."""
    pads = _pads(node, x)
    if pads != NONE:
        x = jnp.pad(x, [*((0, 0),) * (x.ndim - 3), *pads, (0, 0)], constant_values=value)
    rows, columns = (
        n - (n - k) % node.stride for n, k in zip(x.shape[-3:-1], node.kernel, strict=True)
    )
    return x[..., :rows, :columns, :]
