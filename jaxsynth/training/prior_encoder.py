"""The encoder of a generator in training: a network's blob, whitened into a code.

The whitening is measured over training photographs: principal components, then ZCA.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.disk import atomic_file, file_sha256
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.grid_generator import EncoderConfig, grid_features
from jaxsynth.models.names import resolve
from jaxsynth.models.network import Network, NetworkInfo, activation_shapes, build_network
from jaxsynth.models.packaged import EfficientNetConfig
from jaxsynth.models.weights import load_network
from jaxsynth.system import view
from jaxsynth.training.data import Batch, ImageSet, batches
from jaxsynth.training.setup import to_input

ENCODER = "pocket_encoder"
BATCH = 100  # of photographs that are only looked at
_PHOTOGRAPHS = 16_000  # that the whitening is measured on
_LAYERS = ("project", "whiten", "colour")
_LEAST = 1e-4  # share of the mean eigenvalue below which a direction is not amplified further


class Whitening(NamedTuple):
    """Dense layers, each (kernel, bias).

    project: features at one place (C + 3,) -> components (K,). whiten: components of the whole grid
    (D,) -> code (D,). colour: the inverse of `whiten`.
    """

    project: tuple[np.ndarray, np.ndarray]
    whiten: tuple[np.ndarray, np.ndarray]
    colour: tuple[np.ndarray, np.ndarray]
    explained: float  # share of the features' variance that the components hold


class Encoding(NamedTuple):
    """The encoder of a run, whitened."""

    config: EncoderConfig
    params: Any  # tree
    whitening: Whitening


def trunk_of(name: str, wanted: tuple[str, ...], size: int) -> Network:
    """The encoder's network for images of this size, without a head that nothing reads.

    Raises:
      ValueError: if it has not the wanted blobs.
    """
    network = load_network(name)
    config = network.info.config
    if isinstance(config, EfficientNetConfig):
        config = dataclasses.replace(config, size=size)
        if all(blob.startswith("block") for blob in wanted):
            config = dataclasses.replace(config, classes=0)
    info = dataclasses.replace(network.info, config=config)
    heads = ("conv_head/", "logits/") if getattr(config, "classes", 1) == 0 else ()
    params = {k: v for k, v in network.params.items() if not k.startswith(heads)}
    blobs = activation_shapes(config)
    for blob in wanted:
        if blob not in blobs:
            raise ValueError(f"{name!r} has no blob {blob!r}: choose from {', '.join(blobs)}")
    return build_network(info, params)


def code_grid(network: Network, blob: str, channels: int, size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the code.

    Raises:
      ValueError: if doubling the blob's grid does not reach the images' size.
    """
    shape = activation_shapes(network.info.config)[blob]
    side = shape[0] if len(shape) == 3 else 1
    ratio = size / side
    if (len(shape) == 3 and shape[0] != shape[1]) or ratio < 2 or np.log2(ratio) % 1:
        raise ValueError(
            f"size is {size}, but {blob!r} has a grid of {shape[:2]}: expected that side "
            f"doubled any number of times, such as {side * 16}, {side * 32}"
        )
    return side, side, channels


def whitened(
    network: Network, blob: str, grid: tuple[int, int, int], file: Path, train: ImageSet
) -> Encoding:
    """Measure the whitening, or read it, and build the encoder."""
    side, apply = network.input_shape[0], network.apply

    @network_jit
    def features(params, rgb):
        x = view(to_input(rgb), side)
        return grid_features(jax.vmap(apply, (None, 0))(params, x)[blob], x, grid[:2])

    rows = train.rows[:: max(1, len(train.rows) // _PHOTOGRAPHS)]
    some = train._replace(rows=rows)
    whitening = saved_whitening(
        file,
        lambda: measure_whitening(
            lambda rgb: features(network.params, rgb), lambda: batches(some, BATCH), grid[2]
        ),
    )
    flat = {f"trunk/{path}": value for path, value in network.params.items()}
    layers = {"project": whitening.project, "whiten": whitening.whiten}
    for name, (kernel, bias) in layers.items():
        flat |= {f"{name}/kernel": jnp.asarray(kernel), f"{name}/bias": jnp.asarray(bias)}
    config = EncoderConfig(network.info.config, blob, grid)
    return Encoding(config, flat, whitening)


def encoder_network(encoding: Encoding, source: str, licence: str) -> Network:
    """Describe the encoder for its weights file."""
    info = NetworkInfo(
        network=ENCODER,
        config=encoding.config,
        licence=licence,
        source=f"{source}, whitened by experiments.train_generator",
        notes=f"{encoding.config.blob}, {encoding.whitening.explained:.1%} of its variance",
    )
    return build_network(info, half_precision(encoding.params))


def half_precision(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Parameters in the precision of a shipped file."""
    return {path: np.asarray(value, np.float16) for path, value in params.items()}


def trained_pair(start: str, wanted: tuple[Any, Any]) -> tuple[Network, Network]:
    """Load a generator, by its name or file, and the encoder in the same folder.

    Raises:
      ValueError: if the generator does not invert that encoder, or their settings are not `wanted`.
    """
    generator, file = load_network(start), resolve(start).with_name(f"{ENCODER}.safetensors")
    encoder = load_network(str(file))
    if file_sha256(file) != generator.info.encoder_sha256:
        raise ValueError(f"start is {start!r}, but it was not trained for {str(file)!r}")
    for network, config in zip((generator, encoder), wanted, strict=True):
        if network.info.config != config:
            raise ValueError(
                f"start is {start!r}, of other settings: its {network.name} has "
                f"{network.info.config}, expected {config}"
            )
    return generator, encoder


def encoding_of(generator: Network, encoder: Network) -> Encoding:
    """Return the encoding of a trained pair; the share of variance is not known."""

    def layer(network: Network, name: str) -> tuple[np.ndarray, np.ndarray]:
        kernel, bias = (np.asarray(network.params[f"{name}/{k}"]) for k in ("kernel", "bias"))
        return kernel, bias

    layers = layer(encoder, "project"), layer(encoder, "whiten"), layer(generator, "colour")
    return Encoding(encoder.info.config, encoder.params, Whitening(*layers, float("nan")))


def measure_whitening(
    features: Callable[[np.ndarray], jax.Array],
    batches: Callable[[], Iterable[Batch]],
    channels: int,
) -> Whitening:
    """Measure a whitening over photographs, which are read twice.

    Args:
      features: RGB (B, S, S, 3) uint8 -> (B, h, w, C), `encoder.grid_features`.
      batches: A function that gives batches (rgb, labels, count).
      channels: Of the code at each place.

    Raises:
      ValueError: If the blob has fewer features than `channels`.
    """

    def places(rgb, count):
        made = np.asarray(features(rgb), np.float64)[:count]
        return made.reshape(count, -1, made.shape[-1])

    mean, covariance = _moments(
        x.reshape(-1, x.shape[-1]) for x in (places(rgb, n) for rgb, _, n in batches())
    )
    if len(mean) < channels:
        raise ValueError(
            f"the blob has {len(mean)} features with colour, fewer than the code's {channels}: "
            "choose fewer channels"
        )
    scaled = _heard_colours(covariance)
    values, vectors = np.linalg.eigh(scaled.T @ covariance @ scaled)
    order = np.argsort(values)[::-1][:channels]
    basis = scaled @ vectors[:, order] / np.sqrt(values[order])  # (C, K), unit variance
    bias = -mean @ basis

    mean_grid, grid = _moments(
        (x @ basis + bias).reshape(len(x), -1) for x in (places(rgb, n) for rgb, _, n in batches())
    )
    values_grid, vectors_grid = np.linalg.eigh(grid)
    root = np.sqrt(np.maximum(values_grid, _LEAST * values_grid.mean()))
    whiten = vectors_grid / root @ vectors_grid.T  # C^-1/2, (D, D)
    colour = vectors_grid * root @ vectors_grid.T
    layers = ((basis, bias), (whiten, -mean_grid @ whiten), (colour, mean_grid))
    single = (tuple(np.asarray(a, np.float32) for a in layer) for layer in layers)
    return Whitening(*single, explained=float(values[order].sum() / values.sum()))


def saved_whitening(path: Path, measure: Callable[[], Whitening]) -> Whitening:
    """Read a whitening from a file; measure and save it first if the file is missing.

    A resumed run reads what its first part measured.
    """
    if not path.is_file():
        made = measure()
        layers = {f"{n}_{k}": a for n in _LAYERS for k, a in enumerate(getattr(made, n))}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as part:
            np.savez(part, explained=made.explained, **layers)
    with np.load(path) as saved:
        layers = {n: (saved[f"{n}_0"], saved[f"{n}_1"]) for n in _LAYERS}
        return Whitening(**layers, explained=float(saved["explained"]))


def _heard_colours(covariance: np.ndarray) -> np.ndarray:
    """Scales features (C + 3,), the last three colours, so that colours are principal components.

    Features stay; colours are whitened and get the variance of the strongest feature.
    """
    scaled = np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance[-3:, -3:])
    strongest = np.linalg.eigvalsh(covariance[:-3, :-3])[-1]
    scaled[-3:, -3:] = vectors * np.sqrt(strongest / np.maximum(values, 1e-12))
    return scaled


def _moments(rows: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N,) and covariance (N, N) of batches of rows (B, N)."""
    total, square, count = 0.0, 0.0, 0
    for x in rows:
        total, square, count = total + x.sum(0), square + x.T @ x, count + len(x)
    mean = total / count
    return mean, square / count - np.outer(mean, mean)
