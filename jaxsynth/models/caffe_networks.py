"""Classifiers of Caffe's time, AlexNet and open_nsfw: an image (H, W, 3) -> every activation.

Images are BGR, mean-subtracted. Blobs are what Caffe holds after the whole forward pass: ReLUs are
in place, so `conv1` and `fc6` are after their ReLU. `conv1_pre` and `fc6_pre` are before it: DGN-AM
maximises hidden units there (its backward pass starts at the convolution, so a silent unit has a
gradient).

`PLACES205` and `CAFFENET` are Caffe's single-column AlexNet with pooling before normalisation
(Zhou et al. 2014, "Learning deep features for scene recognition"; BVLC reference CaffeNet).

`OPEN_NSFW` is the ResNet-50 "1by2" of Yahoo 2016. Batch norm is folded into the convolutions when
the weights are ported. Blob names follow Yahoo's `deploy.prototxt`; a block's output
`eltwise_stage{s}_block{b}` is also given as `conv_stage{s}_block{b}`. The stride sits on branch2a
and on the projection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax

from jaxsynth.models import layers
from jaxsynth.models.compiled import conv


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
            if c.pool:  # the ReLU above is then computed only where its blob is read
                x = out[c.pool] = layers.max_pool_relu(out[f"{c.name}_pre"])
            if c.norm:
                x = layers.local_response_norm(x)
                out[c.norm] = x
        x = x.reshape((*x.shape[:-3], -1))
        for name, features in self.config.dense:
            x = self._rectify(out, name, layers.dense(features, name)(x))
        return layers.with_logits(out, "fc8", x, self.config.classes)

    def _rectify(self, out: dict[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
        return layers.rectify(out, name, x if self.norm is None else self.norm(name)(x))


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


# --- open_nsfw ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResNetConfig:
    """Shapes of a residual network.

    Attributes:
      size: Side of the input image.
      stem: Channels of the first convolution.
      stages: (blocks, inner width) each; a block puts out 4 times its inner width.
      classes: Number of logits.
    """

    size: int
    stem: int
    stages: tuple[tuple[int, int], ...]
    classes: int


class ResNet(nn.Module):
    """The flax module: data (..., H, W, 3) -> dict of activations, spatial ones (..., H, W, C).

    Attributes:
      config: Shapes.
      norm: Training only; makes the layer after the convolution of a name, as in `AlexNet`.
      conv: Replaces `lax.conv_general_dilated`; it also takes a `derive` (`derived`).
    """

    config: ResNetConfig
    norm: Callable[[str], Callable[[jax.Array], jax.Array]] | None = None
    conv: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, data: jax.Array) -> dict[str, jax.Array]:
        """Compute every blob."""
        out = {"data": data}
        x = self._conv("conv_1", data, self.config.stem, 7, 2)
        layers.rectify(out, "conv_1", x)  # the blob; computed only where it is read
        x = out["pool1"] = layers.max_pool_relu(x)  # ceil mode: 112 -> 56
        for s, (blocks, width) in enumerate(self.config.stages):
            for b in range(blocks):
                stride = 2 if s > 0 and b == 0 else 1
                x = self._block(out, x, f"stage{s}_block{b}", width, stride, project=b == 0)
        x = x.mean(axis=(-3, -2), keepdims=True)
        out["pool"] = x  # (..., 1, 1, C)
        return layers.with_logits(out, "fc_nsfw", x[..., 0, 0, :], self.config.classes)

    def _block(self, out, x, name, width, stride, project):
        def branch(suffix, x, features, kernel, stride=1):
            full = f"conv_{name}_{suffix}"
            return full, self._conv(full, x, features, kernel, stride)

        shortcut = x
        if project:
            key, shortcut = branch("proj_shortcut", x, 4 * width, 1, stride)
            out[key] = shortcut
        x = layers.rectify(out, *branch("branch2a", x, width, 1, stride))
        x = layers.rectify(out, *branch("branch2b", x, width, 3))
        key, x = branch("branch2c", x, 4 * width, 1)
        out[key] = x
        x = out[f"conv_{name}"] = layers.rectify(out, f"eltwise_{name}", shortcut + x)
        out[f"conv_{name}_pre"] = out[f"eltwise_{name}_pre"]
        return x

    def _conv(self, name: str, x: jax.Array, features: int, kernel: int, stride: int) -> jax.Array:
        x = conv(self, name, features, kernel, strides=stride, padding=kernel // 2)(x)
        return x if self.norm is None else self.norm(name)(x)


OPEN_NSFW = ResNetConfig(
    size=224, stem=64, stages=((3, 32), (4, 64), (6, 128), (3, 256)), classes=2
)


def pocket_judge(size: int = 64, classes: int = 100, width: int = 24) -> ResNetConfig:
    """Shapes of the pocket judge: another architecture, trained only to judge images."""
    return ResNetConfig(
        size=size,
        stem=width,
        stages=((2, width), (2, 2 * width), (3, 4 * width)),
        classes=classes,
    )
