"""Scores image files by any classifiers: the likeliest classes of each.

Files are read in batches of one size, padded at the end, so that each network is compiled once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from jaxsynth.devices import padded
from jaxsynth.disk import expand
from jaxsynth.image_files import MAX_PIXELS, read_picture
from jaxsynth.image_search import ImageFile
from jaxsynth.images import check_resize, resize_to
from jaxsynth.inputs import check_name
from jaxsynth.models.base import Activations, Classifier, Params, check_classifiers
from jaxsynth.models.compiled import network_jit

Classes = tuple[tuple[str, float], ...]


class Score(NamedTuple):
    """The classifiers' probabilities of one file.

    Attributes:
      file: The image file; of a zip's member ZIP/MEMBER.
      values: Name of a classifier -> its likeliest classes with their probabilities, the likeliest
        first; the `sensitive` ones are always among them. Empty if `error` says why.
      error: Why it could not be read, in one line.
      warning: A doubt about the pixels that were scored: a damaged JPEG, half of it grey.
      probabilities: Name of a classifier -> those of all its classes.
    """

    file: Path
    values: Mapping[str, Classes]
    error: str = ""
    warning: str = ""
    probabilities: Mapping[str, np.ndarray] = MappingProxyType({})


def score(
    paths: Sequence[str | Path | ImageFile] | str | Path,
    classifiers: Sequence[Classifier] | Classifier,
    *,
    resize: str | Mapping[str, str] = "",
    top: int = 5,
    batch: int = 16,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Score]:
    """Score image files; a bad file gives a row that says so.

    Args:
      paths: Image files, or one; `jaxsynth.image_search.find_images` finds those in folders and
        zips.
      classifiers: Their judges, or one; names must differ.
      resize: How a file reaches a classifier's size, for all of them or by name; by default as each
        classifier says. See `jaxsynth.images.resize_to`.
      top: How many classes a row has of each classifier (at most as many as it knows).
      batch: Files per call of a network.
      max_pixels: A file of more is not read.

    Returns:
      An iterator over as many rows as paths, in their order.

    Raises:
      ValueError: At once, before any file is read, for options that do not fit.
    """
    for option, value in (("top", top), ("batch", batch), ("max_pixels", max_pixels)):
        if value < 1:
            raise ValueError(f"{option} is {value}, expected 1 or more")
    paths = [paths] if isinstance(paths, str | Path | ImageFile) else paths
    classifiers = check_classifiers("score", classifiers)
    ways = _ways(classifiers, resize)
    for classifier in classifiers:
        check_resize(ways[classifier.name], classifier.size)
    files = [path if isinstance(path, ImageFile) else ImageFile(expand(path)) for path in paths]
    read = partial(_read, classifiers=classifiers, ways=ways, max_pixels=max_pixels)
    return _scores(files, classifiers, read, top, max(1, min(batch, len(files))))


def sensitive_score(classifiers: Iterable[Classifier]) -> Callable[[np.ndarray], float]:
    """Make the function picture (H, W, 3) uint8 RGB -> largest probability of sensitive classes.

    It is 0 where no classifier has such classes.
    """
    judges = [(c, _probabilities(c)) for c in classifiers if c.sensitive_classes]

    def largest(rgb: np.ndarray) -> float:
        found = (c.sensitive_probability(p(c.input_of(rgb)[None]))[0] for c, p in judges)
        return float(max(found, default=0.0))

    return largest


def _ways(classifiers: Sequence[Classifier], resize: str | Mapping[str, str]) -> dict[str, str]:
    """Name -> how a file reaches its size."""
    ways = {c.name: c.preprocess.resize for c in classifiers}
    if len(ways) < len(classifiers):
        names = [c.name for c in classifiers]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two classifiers are called {twice!r}: give one another name, classifier.named(...)"
        )
    if isinstance(resize, str):
        return dict.fromkeys(ways, resize) if resize else ways
    for name in resize:
        check_name("resize: classifier", name, ways)
    return ways | dict(resize)


def _scores(
    files: Sequence[ImageFile],
    classifiers: Sequence[Classifier],
    read: Callable[[ImageFile], tuple[Score, tuple[np.ndarray, ...]]],
    top: int,
    batch: int,
) -> Iterator[Score]:
    functions = [_probabilities(classifier) for classifier in classifiers]
    for start in range(0, len(files), batch):
        chunk = [read(file) for file in files[start : start + batch]]
        columns = zip(*(inputs for _, inputs in chunk if inputs), strict=True)  # one a classifier
        found = [f(padded(np.stack(x), batch)) for f, x in zip(functions, columns, strict=False)]
        results = zip(*found, strict=True)
        for row, inputs in chunk:
            if inputs:
                p = dict(zip([c.name for c in classifiers], next(results), strict=True))
                values = {c.name: _likeliest(c, p[c.name], top) for c in classifiers}
                row = row._replace(values=values, probabilities=p)
            yield row


def _read(
    file: ImageFile, classifiers: Sequence[Classifier], ways: Mapping[str, str], max_pixels: int
) -> tuple[Score, tuple[np.ndarray, ...]]:
    """Return a file's row without scores, and the file as each classifier wants it."""
    path = Path(str(file))
    try:
        rgb, complaint = read_picture(file, max_pixels)
    except ValueError as error:
        return Score(path, {}, error=str(error)), ()
    inputs = [c.preprocess.to_input(resize_to(rgb, ways[c.name], c.size)) for c in classifiers]
    return Score(path, {}, warning=complaint), tuple(inputs)


def _probabilities(classifier: Classifier) -> Callable[[np.ndarray], np.ndarray]:
    """(B, H, W, 3) -> (B, classes). The weights are arguments: constants would be folded."""
    return lambda x: np.asarray(_forward(classifier.activations, classifier.params, x))


@partial(network_jit, static_argnums=0)
def _forward(activations: Activations, params: Params, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda one: activations(params, one)["prob"])(x)


def _likeliest(classifier: Classifier, p: np.ndarray, top: int) -> Classes:
    order = np.argsort(-p, kind="stable").tolist()
    chosen = order[:top] + [i for i in order[top:] if i in classifier.sensitive_classes]
    return tuple((classifier.class_names[i], float(p[i])) for i in chosen)
