"""AlexNet and its kin: an image (H, W, 3), BGR, mean-subtracted -> every activation.

`PLACES205` and `CAFFENET` are Caffe's single-column AlexNet with pooling before normalisation
(Zhou et al. 2014, "Learning deep features for scene recognition"; BVLC reference CaffeNet). Blobs
are what Caffe holds after the whole forward pass: ReLUs are in place, so `conv1` and `fc6` are
after their ReLU. `conv1_pre` and `fc6_pre` are before it: DGN-AM maximises hidden units there (its
backward pass starts at the convolution, so a silent unit has a gradient).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax

from jaxsynth.models.derived import conv
from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    local_response_norm,
    max_pool_relu,
    rectify,
)


class Conv(NamedTuple):
    """A convolution + ReLU, then optional max pooling 3/2, then optional LRN (blob names)."""

    name: str
    features: int
    kernel: int
    stride: int = 1
    pad: int = 0
    groups: int = 1
    pool: str = ""
    norm: str = ""


@dataclass(frozen=True)
class AlexNetConfig:
    """Shapes of an AlexNet.

    Attributes:
      size: Side of the input image.
      convs: The convolutions, in order.
      dense: (name, units) of the hidden layers with ReLU; `fc8` after them gives the logits.
      classes: Number of logits.
    """

    size: int
    convs: tuple[Conv, ...]
    dense: tuple[tuple[str, int], ...]
    classes: int


class AlexNet(nn.Module):
    """The flax module: data (..., H, W, 3) -> dict of activations, spatial ones (..., H, W, C).

    Attributes:
      config: Shapes.
      norm: Training only; makes the layer between a convolution or hidden dense layer of a name and
        its ReLU. Shipped weights have it folded in.
      conv: Replaces `lax.conv_general_dilated`; it also takes a `derive` (`derived`).
    """

    config: AlexNetConfig
    norm: Callable[[str], Callable[[jax.Array], jax.Array]] | None = None
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every blob."""
        out = {"data": data}
        x = data
        for c in self.config.convs:
            how = {"strides": c.stride, "padding": c.pad, "feature_group_count": c.groups}
            x = self._rectify(out, c.name, conv(self, c.name, c.features, c.kernel, **how)(x))
            if c.pool:  # the ReLU above is not computed then unless its blob is asked for
                x = out[c.pool] = max_pool_relu(out[f"{c.name}_pre"])
            if c.norm:
                x = local_response_norm(x)
                out[c.norm] = x
        x = x.reshape((*x.shape[:-3], -1))
        for name, features in self.config.dense:
            x = self._rectify(out, name, dense(features, name)(x))
        out["fc8"] = dense(self.config.classes, "fc8")(at_least_float32(x))
        return out | classifier_outputs(out["fc8"])

    def _rectify(self, out: dict[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
        return rectify(out, name, x if self.norm is None else self.norm(name)(x))


PLACES205 = AlexNetConfig(
    size=227,
    convs=(
        Conv("conv1", 96, 11, 4, 0, pool="pool1", norm="norm1"),
        Conv("conv2", 256, 5, 1, 2, groups=2, pool="pool2", norm="norm2"),
        Conv("conv3", 384, 3, 1, 1),
        Conv("conv4", 384, 3, 1, 1, groups=2),
        Conv("conv5", 256, 3, 1, 1, groups=2, pool="pool5"),
    ),
    dense=(("fc6", 4096), ("fc7", 4096)),
    classes=205,
)
CAFFENET = AlexNetConfig(PLACES205.size, PLACES205.convs, PLACES205.dense, classes=1000)
