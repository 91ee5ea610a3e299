"""Shapes of the pocket pair: small networks that we train ourselves and ship.

The pocket scene network names the 100 MiniPlaces categories; the pocket generator inverts its
post-ReLU `fc6`. Image side, code length and widths are arguments: other sizes are other weights.
"""

from jaxsynth.models.alexnet import AlexNetConfig, Conv
from jaxsynth.models.generator import GeneratorConfig, Up
from jaxsynth.models.resnet import ResNetConfig


def pocket_places(
    size: int = 64, code: int = 512, classes: int = 100, width: int = 24
) -> AlexNetConfig:
    """Five convolutions down to size / 16, then the code `fc6` (D,) and the logits `fc8`."""
    return AlexNetConfig(
        size=size,
        convs=(
            Conv("conv1", width, 5, 2, 2),
            Conv("conv2", 2 * width, 3, 1, 1, pool="pool2"),
            Conv("conv3", 4 * width, 3, 1, 1, pool="pool3"),
            Conv("conv4", 6 * width, 3, 1, 1),
            Conv("conv5", 8 * width, 3, 1, 1, pool="pool5"),
        ),
        dense=(("fc6", code),),
        classes=classes,
    )


def pocket_judge(size: int = 64, classes: int = 100, width: int = 24) -> ResNetConfig:
    """A residual network of bottlenecks: another architecture, trained only to judge images."""
    return ResNetConfig(
        size=size,
        stem=width,
        stages=((2, width), (2, 2 * width), (3, 4 * width)),
        classes=classes,
    )


def pocket_generator(size: int = 64, code: int = 512, width: int = 16) -> GeneratorConfig:
    """Two dense layers to (size / 16)^2, then four times upsampling + 3x3, and 3x3 to the image.

    The last upsampling is bilinear: nearest neighbour there leaves a grid of two pixels.
    """
    side = size // 16
    return GeneratorConfig(
        code=code,
        dense=(("defc6", 2 * code), ("defc5", side * side * 12 * width)),
        seed=(side, side, 12 * width),
        layers=(
            Up("upconv4", "upconv", 10 * width, 3, 2),
            Up("upconv3", "upconv", 6 * width, 3, 2),
            Up("upconv2", "upconv", 3 * width, 3, 2),
            Up("upconv1", "linconv", width, 3, 2),
            Up("conv0", "upconv", 3, 3, 1),
        ),
    )
