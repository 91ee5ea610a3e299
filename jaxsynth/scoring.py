"""Scores image files: P(NSFW) by one network, the top scenes by another.

Files are read in chunks of a fixed size, padded at the end, so that each network is compiled once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxsynth.images import check_resize, preprocess, read_image
from jaxsynth.maximize import NSFW, NSFW_UNIT, PLACES, check_roles
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Network


class Score(NamedTuple):
    """One file's result; `nsfw` is None and `scenes` empty if `error` says why it has none."""

    file: Path
    nsfw: float | None
    scenes: tuple[tuple[str, float], ...]  # (label, probability), the likeliest first
    error: str = ""


def score_images(
    paths: Sequence[Path],
    nsfw: Network,
    places: Network,
    preprocess_name: str = "yahoo",
    top: int = 5,
    batch: int = 16,
) -> Iterator[Score]:
    """Scores files one chunk after another; a bad file gives a row that says so.

    Args:
      paths: image files, see `jaxsynth.images.list_images`.
      nsfw: two outputs, [SFW, NSFW]; its files are prepared as `preprocess_name` says.
      places: the scene network; its files are prepared as its own `info.preprocessing` says, or
        `simple` if that says nothing.
      top: how many scenes a row has (at most as many as the network knows).
      batch: files per call of the networks.

    Returns:
      An iterator over as many rows as paths, in their order.

    Raises:
      ValueError: at once, before any file is read, for networks or options that do not fit.
    """
    check_roles({NSFW: nsfw, PLACES: places})
    for option, value in (("top", top), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{option} is {value}, expected 1 or more")
    places_preprocessing = places.info.preprocessing or "simple"
    check_resize(preprocess_name, nsfw.info.config.size)
    check_resize(places_preprocessing, places.info.config.size)
    return _scores(paths, nsfw, places, (preprocess_name, places_preprocessing), top, batch)


def _scores(
    paths: Sequence[Path],
    nsfw: Network,
    places: Network,
    preprocessings: tuple[str, str],
    top: int,
    batch: int,
) -> Iterator[Score]:
    batch = max(1, min(batch, len(paths)))
    networks = (nsfw, places)
    functions = [_probabilities(network) for network in networks]
    for start in range(0, len(paths), batch):
        chunk = paths[start : start + batch]
        read = [_read(path, networks, preprocessings) for path in chunk]
        good = [inputs for inputs in read if not isinstance(inputs, str)]
        columns = zip(*good, strict=True)  # one a network; none if no file is good
        probs = [f(_pad(x, batch)) for f, x in zip(functions, columns, strict=False)]
        results = zip(*probs, strict=True)
        for path, inputs in zip(chunk, read, strict=True):
            if isinstance(inputs, str):
                yield Score(path, None, (), error=inputs)
            else:
                p_nsfw, p_places = next(results)
                scenes = _top_scenes(p_places, places.labels, top)
                yield Score(path, float(p_nsfw[NSFW_UNIT]), scenes)


def _read(
    path: Path, networks: tuple[Network, ...], preprocessings: tuple[str, ...]
) -> tuple[np.ndarray, ...] | str:
    """The file as each network wants it, or why that is impossible."""
    try:
        rgb = read_image(path)
    except ValueError as error:
        return str(error)
    pairs = zip(networks, preprocessings, strict=True)
    return tuple(preprocess(rgb, how, network.info.config.size) for network, how in pairs)


def _probabilities(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """(B, H, W, 3) -> (B, classes). The weights are arguments: constants would be folded."""
    forward = network_jit(jax.vmap(lambda p, x: network.apply(p, x)["prob"], in_axes=(None, 0)))
    return lambda x: np.asarray(forward(network.params, x))


def _pad(inputs: Sequence[np.ndarray], batch: int) -> np.ndarray:
    padding = batch - len(inputs)
    return np.pad(np.stack(inputs), ((0, padding), (0, 0), (0, 0), (0, 0)))  # (batch, H, W, 3)


def _top_scenes(
    probs: np.ndarray, labels: Sequence[str], top: int
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probs, kind="stable")[:top]
    return tuple((labels[i] if labels else f"scene {i}", float(probs[i])) for i in order)
