"""Caffe's blobs -> our parameters: pure array work, for any configuration of the three networks.

Layouts (Caffe's layer definitions): Convolution (out, in / groups, kh, kw), Deconvolution
(in, out, kh, kw) and acting flipped, InnerProduct (out, in) on a C, H, W flattening; BatchNorm
mean, variance and the factor that divides both; Scale gain and bias.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jaxsynth.models.alexnet import AlexNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.layers import caffe_constant
from jaxsynth.models.network import Config, activation_shapes, param_shapes
from jaxsynth.models.resnet import ResNetConfig

Blobs = Mapping[str, list[np.ndarray]]
Shape = tuple[int, ...]
BATCH_NORM_EPS = caffe_constant(1e-5)


class Row(NamedTuple):
    """One line of the port's table: a blob, the parameter it became, what changed."""

    blob: str
    blob_shape: Shape
    parameter: str
    shape: Shape
    change: str


def expected_blobs(config: Config) -> dict[str, list[Shape]]:
    """Layer -> the shapes of its blobs, as Caffe has them.

    Raises:
      ValueError: the configuration has a layer that Caffe does not know.
    """
    if not isinstance(config, GeneratorConfig | AlexNetConfig | ResNetConfig):
        raise ValueError("only generators, AlexNets and residual networks have Caffe originals")
    if isinstance(config, GeneratorConfig) and any(up.kind != "deconv" for up in config.layers):
        raise ValueError("a generator with layers other than 'deconv' has no Caffe original")
    axes = {"dense": (1, 0), "conv": (3, 2, 0, 1), "deconv": (2, 3, 0, 1)}
    shapes = param_shapes(config)
    expected: dict[str, list[Shape]] = {}
    for path in shapes:
        layer, _, leaf = path.rpartition("/")
        if leaf != "kernel":
            continue
        kernel, bias = shapes[path], shapes[f"{layer}/bias"]
        expected[layer] = [tuple(kernel[i] for i in axes[_kind(config, len(kernel))]), bias]
        if folds(config, layer):
            norm, scale = norm_layers(layer)
            expected |= {norm: [bias, bias, (1,)], scale: [bias, bias]}
    return expected


def fit_blobs(config: Config, blobs: Blobs) -> dict[str, list[np.ndarray]]:
    """The blobs in their expected shapes: the legacy form's leading ones are dropped.

    Raises:
      ValueError: naming everything that is missing, unexpected or mis-shaped.
    """
    expected = expected_blobs(config)
    missing = _difference(expected, blobs)
    unexpected = _difference(blobs, expected)
    wrong = [
        f"{layer}[{i}] is {found.shape}, not {shape}"
        for layer, shapes in expected.items()
        for i, (found, shape) in enumerate(zip(blobs.get(layer, ()), shapes, strict=False))
        if not _same_but_leading_ones(found.shape, shape)
    ]
    groups = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    if any(groups.values()):
        raise ValueError("; ".join(f"{k}: {', '.join(v)}" for k, v in groups.items() if v))
    return {
        layer: [a.reshape(shape) for a, shape in zip(blobs[layer], shapes, strict=True)]
        for layer, shapes in expected.items()
    }


def _difference(wanted: Mapping[str, list], given: Mapping[str, list]) -> list[str]:
    """Blobs of `wanted` that `given` lacks: a layer's name, or `layer[i]` where it has some."""
    whole = [layer for layer in wanted if layer not in given]
    single = [
        f"{layer}[{i}]"
        for layer in wanted
        if layer in given
        for i in range(len(given[layer]), len(wanted[layer]))
    ]
    return whole + single


def convert(config: Config, blobs: Blobs) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Fitted blobs -> (path -> parameter, table). Folded convolutions are float64."""
    params: dict[str, np.ndarray] = {}
    rows = []
    for layer, path in _kernels(config):
        weight, bias = blobs[layer]
        kernel, change = _kernel(config, layer, weight)
        if folds(config, layer):
            norm, scale = norm_layers(layer)
            kernel, bias = fold_batch_norm(kernel, bias, blobs[norm], blobs[scale])
            change += ", folded, float64"
        params |= {path: kernel, f"{layer}/bias": bias}
        rows.append(Row(f"{layer}[0]", weight.shape, path, kernel.shape, change))
        as_is = "folded, float64" if folds(config, layer) else "as is"
        rows.append(Row(f"{layer}[1]", bias.shape, f"{layer}/bias", bias.shape, as_is))
        if folds(config, layer):
            rows += [
                Row(f"{name}[{i}]", a.shape, layer, (), "folded into kernel and bias")
                for name in norm_layers(layer)
                for i, a in enumerate(blobs[name])
            ]
    return params, rows


def fold_batch_norm(
    kernel: np.ndarray, bias: np.ndarray, norm: Iterable[np.ndarray], scale: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """kernel (H, W, I, O) and bias (O,) with BatchNorm and Scale folded in, in float64.

    y = gain * (conv + bias - mean / f) / sqrt(var / f + eps) + shift; a factor f = 0 means mean 0
    and variance 0, as in Caffe.
    """
    mean, variance, factor = (a.astype(np.float64) for a in norm)
    gain, shift = (a.astype(np.float64) for a in scale)
    inverse = 0.0 if factor[0] == 0 else 1.0 / factor[0]
    slope = gain / np.sqrt(variance * inverse + BATCH_NORM_EPS)
    return kernel * slope, (bias - mean * inverse) * slope + shift


def folds(config: Config, layer: str) -> bool:
    """Whether the layer's original is followed by BatchNorm and Scale."""
    return isinstance(config, ResNetConfig) and layer.startswith("conv_")


def norm_layers(layer: str) -> tuple[str, str]:
    """Names of the BatchNorm and Scale layers of a convolution `conv_...`."""
    suffix = layer.removeprefix("conv_")
    return f"bn_{suffix}", f"scale_{suffix}"


def _kernels(config: Config) -> list[tuple[str, str]]:
    paths = [p for p in param_shapes(config) if p.endswith("/kernel")]
    return [(p.removesuffix("/kernel"), p) for p in paths]


def _kind(config: Config, rank: int) -> str:
    if rank == 2:
        return "dense"
    return "deconv" if isinstance(config, GeneratorConfig) else "conv"


def _kernel(config: Config, layer: str, weight: np.ndarray) -> tuple[np.ndarray, str]:
    kind = _kind(config, weight.ndim)
    if kind == "deconv":
        return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), "IOHW flipped -> HWIO"
    if kind == "conv":
        return weight.transpose(2, 3, 1, 0), "OIHW -> HWIO"
    if isinstance(config, AlexNetConfig) and layer == config.dense[0][0]:
        last = config.convs[-1]
        height, width, channels = activation_shapes(config)[last.norm or last.pool or last.name]
        rows = weight.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
        return rows.reshape(-1, weight.shape[0]), "OI -> IO, I from CHW to HWC"
    return weight.T, "OI -> IO"


def _same_but_leading_ones(found: Shape, expected: Shape) -> bool:
    extra = len(found) - len(expected)
    return extra >= 0 and found == (1,) * extra + tuple(expected)
