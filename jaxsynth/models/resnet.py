"""open_nsfw, the ResNet-50 "1by2" of Yahoo 2016: an image (224, 224, 3) -> every activation.

BGR, mean-subtracted. Batch norm is folded into the convolutions when the weights are ported. Blob
names follow Yahoo's `deploy.prototxt`; a block's output `eltwise_stage{s}_block{b}` is also given
as `conv_stage{s}_block{b}`, and what a ReLU takes in as `{blob}_pre`. The stride sits on branch2a
and on the projection.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax

from jaxsynth.models.derived import conv
from jaxsynth.models.layers import (
    at_least_float32,
    classifier_outputs,
    dense,
    max_pool_relu,
    rectify,
)


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
        rectify(out, "conv_1", x)  # the blob; computed only where it is read
        x = out["pool1"] = max_pool_relu(x)  # ceil mode: 112 -> 56
        for s, (blocks, width) in enumerate(self.config.stages):
            for b in range(blocks):
                stride = 2 if s > 0 and b == 0 else 1
                x = self._block(out, x, f"stage{s}_block{b}", width, stride, project=b == 0)
        x = x.mean(axis=(-3, -2), keepdims=True)
        out["pool"] = x  # (..., 1, 1, C)
        pooled = at_least_float32(x[..., 0, 0, :])
        out["fc_nsfw"] = dense(self.config.classes, "fc_nsfw")(pooled)
        return out | classifier_outputs(out["fc_nsfw"])

    def _block(self, out, x, name, width, stride, project):
        def branch(suffix, x, features, kernel, stride=1):
            full = f"conv_{name}_{suffix}"
            return full, self._conv(full, x, features, kernel, stride)

        shortcut = x
        if project:
            key, shortcut = branch("proj_shortcut", x, 4 * width, 1, stride)
            out[key] = shortcut
        x = rectify(out, *branch("branch2a", x, width, 1, stride))
        x = rectify(out, *branch("branch2b", x, width, 3))
        key, x = branch("branch2c", x, 4 * width, 1)
        out[key] = x
        x = out[f"conv_{name}"] = rectify(out, f"eltwise_{name}", shortcut + x)
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
