"""The programs of an audit: two of each network, whatever is asked of it.

One reads a classifier: its log-odds, log-probabilities, the decision, the means of some channels.
The other also gives the gradient of a weighed sum of these readings. The weights are data, and so
are edits of channels: neurons, pairs, scenes, channels, flips and removals share the programs, and
each network is compiled once forward and once with its gradient.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.audit.editing import Edited, Edits
from jaxsynth.audit.subjects import DECISION
from jaxsynth.devices import batches
from jaxsynth.images import conversion
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.functions import Activations
from jaxsynth.system import pixels_seen, view
from jaxsynth.transforms import Transforms

BATCH = 4  # as fast on CPU as more, and little is computed for nothing
LOG_ODDS, LOG_PROB = "log_odds", "log_prob"
Goal = Mapping[str, np.ndarray]  # network -> weights (K,) of its readings, to be maximised
Slopes = tuple[np.ndarray, np.ndarray, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """A classifier's readings (K,) as a function of one input; static."""

    function: Edited | Activations
    readings: tuple[str, ...]
    blobs: tuple[str, ...]

    def __call__(self, edits: Edits, params: Any, x: jax.Array) -> jax.Array:
        function = self.function
        out = function(edits, params, x) if isinstance(function, Edited) else function(params, x)
        parts = [out[blob] for blob in self.readings]
        parts += [out[blob].mean((0, 1)) for blob in self.blobs]
        return jnp.concatenate([part.astype(jnp.float32) for part in parts])


class Network:
    """A classifier and its two programs.

    Attributes:
      model: The classifier.
      blobs: The maps whose channels are read, and can be edited.
      count: K, its readings.
    """

    def __init__(self, model: Classifier):
        """Trace what can be read; the programs are compiled when they are first used."""
        self.model, shapes = model, model.shapes
        self._params = model.params if model.prepare is None else model.prepare(model.params)
        decides, function = DECISION in shapes, model.activations
        self.blobs: tuple[str, ...] = ()
        if decides:
            traced = Edited(model, self._params)
            self.blobs = traced.deepest()
            function = traced if self.blobs else function
        vectors = (LOG_ODDS, LOG_PROB, *([DECISION] if decides else []))
        sizes = {blob: shapes[blob][-1] for blob in (*vectors, *self.blobs)}
        ends = np.cumsum([*sizes.values()]).tolist()
        self._slices = {
            b: slice(end - n, end) for (b, n), end in zip(sizes.items(), ends, strict=True)
        }
        self.count = ends[-1]
        self._reader = _Reader(function, vectors, self.blobs)

    def part(self, readings: np.ndarray, blob: str) -> np.ndarray:
        """Return the readings (..., n) of a blob among all (..., K)."""
        return readings[..., self._slices[blob]]

    def weights(self, blob: str, unit: int = 0) -> np.ndarray:
        """Return weights (K,) that pick a single reading."""
        found = np.zeros(self.count, np.float32)
        self.part(found, blob)[unit] = 1
        return found

    def goal(self, blob: str, unit: int = 0) -> Goal:
        """Return the goal of a single reading."""
        return {self.model.name: self.weights(blob, unit)}

    @property
    def nothing(self) -> np.ndarray:
        """A batch of inputs, all zero."""
        return np.zeros((BATCH, self.model.size, self.model.size, 3), np.float32)

    def edits(self, removed: Mapping[tuple[str, int], float] | None = None) -> Edits:
        """Return edits of all blobs: some channels held at a value, or nothing changed."""
        found = {}
        for blob in self.blobs:
            channels = self.model.shapes[blob][-1]
            found[blob] = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        for (blob, channel), value in (removed or {}).items():
            found[blob][0][channel], found[blob][1][channel] = 0, value
        return found

    def read(self, inputs: np.ndarray, edits: Edits | None = None) -> np.ndarray:
        """Return the readings (N, K) of inputs (N, size, size, 3) in its units."""
        edits = self.edits() if edits is None else edits
        inputs = np.asarray(inputs, np.float32)
        found = [_read(self._reader, self._params, edits, x)[:n] for x, n in batches(inputs, BATCH)]
        return np.concatenate(list(map(np.asarray, found)))

    def probabilities(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Score pictures (H, W, 3) uint8 RGB of any sizes as files are: (N, classes)."""
        found, waiting = [np.zeros((0, self.model.classes), np.float32)], iter(pictures)
        while some := [self.model.input_of(rgb) for rgb in itertools.islice(waiting, BATCH)]:
            found.append(np.exp(self.part(self.read(np.stack(some)), LOG_PROB)))
        return np.concatenate(found)

    def slopes(self, inputs: np.ndarray, weights: np.ndarray) -> Slopes:
        """Differentiate a weighed sum of the readings.

        Args:
          inputs: (N, size, size, 3) in its units.
          weights: (N, K), or (K,) for all.

        Returns:
          Readings (N, K), the gradient by inputs, and for each of `blobs` the gradients (N, C) by
          a factor and by a sum of its channels.
        """
        inputs = np.asarray(inputs, np.float32)
        weights = np.broadcast_to(weights, (len(inputs), self.count))
        found = []
        for (x, w), n in batches((inputs, weights), BATCH):
            made = _slopes(self._reader, self._params, self.edits(), x, w)
            found.append(jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], made))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


class Prior:
    """A generator and its two programs, and how classifiers see its images.

    Codes are (N, D), images (N, H, H, 3) in the generator's units.
    """

    def __init__(self, generator: Generator):
        """Prepare its parameters; nothing is compiled."""
        self.generator = generator
        self._static = generator.activations, generator.image
        prepare = generator.prepare
        self._params = generator.params if prepare is None else prepare(generator.params)

    def draw(self, codes: np.ndarray) -> np.ndarray:
        """Return the images of codes."""
        found = [_draw(self._static, self._params, z)[:n] for z, n in batches(codes, BATCH)]
        return np.concatenate(list(map(np.asarray, found)))

    def draw_back(self, codes: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient by images into one by codes."""
        found = [
            _draw_back(self._static, self._params, z, g)[:n]
            for (z, g), n in batches((codes, gradient), BATCH)
        ]
        return np.concatenate(list(map(np.asarray, found)))

    def view(self, network: Network, images: np.ndarray) -> np.ndarray:
        """Show images to a classifier: its inputs (N, size, size, 3), in its units."""
        how = self._how(network)
        found = [_view(how, x)[:n] for x, n in batches(images, BATCH)]
        return np.concatenate(list(map(np.asarray, found)))

    def view_back(self, network: Network, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient by a classifier's inputs into one by images."""
        how, side = self._how(network), self.generator.image_size
        found = [_view_back(how, side, g)[:n] for g, n in batches(gradient, BATCH)]
        return np.concatenate(list(map(np.asarray, found)))

    def pixels(self, network: Network) -> int:
        """Count the values of an image that reach a classifier."""
        return 3 * pixels_seen(self.generator.image_size, network.model.size)

    def _how(self, network: Network) -> tuple[int, Any]:
        model = network.model
        return model.size, conversion(self.generator.preprocess, model.preprocess)


@contextlib.contextmanager
def compiled_ahead(prior: Prior, networks: Iterable[Network]) -> Iterator[None]:
    """Compile all programs in another thread, while this one begins to compute."""
    programs: tuple[Any, ...] = (_read, _slopes, _draw, _draw_back)
    for program in programs:
        program.jitted()  # made here, so that two threads do not make it twice
    codes = np.zeros((BATCH, prior.generator.code_size), np.float32)
    last_first = list(networks)[::-1]  # this thread begins with the first
    tasks: list[Callable[[], Any]] = [partial(n.read, n.nothing) for n in last_first]
    tasks += [lambda: prior.draw_back(codes, prior.draw(codes))]
    tasks += [partial(n.slopes, n.nothing, n.weights(LOG_ODDS)) for n in last_first]
    beside = concurrent.futures.ThreadPoolExecutor(1)
    for task in tasks:
        beside.submit(task)
    try:
        yield
    finally:
        beside.shutdown(cancel_futures=True)


def moved(transforms: Transforms, seeds: np.ndarray, step: int, images: np.ndarray) -> np.ndarray:
    """Move images (BATCH, H, H, 3) as a step of their seeds does."""
    return (
        np.asarray(_move(transforms, seeds, np.int32(step), images)) if transforms.draws else images
    )


def moved_back(
    transforms: Transforms, seeds: np.ndarray, step: int, gradient: np.ndarray
) -> np.ndarray:
    """Turn a gradient by moved images (BATCH, H, H, 3) into one by images."""
    if not transforms.draws:
        return gradient
    return np.asarray(_move_back(transforms, seeds, np.int32(step), gradient))


def added(*goals: Goal) -> Goal:
    """Add goals up; a factor may be applied before."""
    names = dict.fromkeys(name for goal in goals for name in goal)
    return {n: np.sum([goal[n] for goal in goals if n in goal], axis=0) for n in names}


def negative(goal: Goal) -> Goal:
    """Return the opposite of a goal."""
    return {name: -weights for name, weights in goal.items()}


@partial(network_jit, static_argnums=0)
def _read(reader: _Reader, params: Any, edits: Edits, x: jax.Array) -> jax.Array:
    return jax.vmap(partial(reader, edits, params))(x)


@partial(network_jit, static_argnums=0)
def _slopes(reader: _Reader, params: Any, edits: Edits, x: jax.Array, weights: jax.Array):
    def one(image: jax.Array, w: jax.Array):
        def value(image: jax.Array, edits: Edits):
            readings = reader(edits, params, image)
            return jnp.vdot(w, readings), readings

        gradient = jax.value_and_grad(value, (0, 1), has_aux=True)
        (_, readings), (pixels, by_edits) = gradient(image, edits)
        return readings, pixels, by_edits

    return jax.vmap(one)(x, weights)


def _image(static: tuple, params: Any, code: jax.Array) -> jax.Array:
    return static[0](params, code)[static[1]].astype(jnp.float32)


@partial(network_jit, static_argnums=0)
def _draw(static: tuple, params: Any, codes: jax.Array) -> jax.Array:
    return jax.vmap(partial(_image, static, params))(codes)


@partial(network_jit, static_argnums=0)
def _draw_back(static: tuple, params: Any, codes: jax.Array, gradient: jax.Array) -> jax.Array:
    def one(code: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(partial(_image, static, params), code)[1](g)[0]

    return jax.vmap(one)(codes, gradient)


@partial(jax.jit, static_argnums=0)
def _view(how: tuple, images: jax.Array) -> jax.Array:
    return view(images, *how)


@partial(jax.jit, static_argnums=(0, 1))
def _view_back(how: tuple, side: int, gradient: jax.Array) -> jax.Array:
    zeros = jnp.zeros((len(gradient), side, side, 3), gradient.dtype)  # it is linear
    return jax.vjp(lambda images: view(images, *how), zeros)[1](gradient)[0]


@partial(jax.jit, static_argnums=0)
def _move(transforms: Transforms, seeds: jax.Array, step: jax.Array, images: jax.Array):
    return jax.vmap(lambda seed, image: transforms.view(seed, step)(image))(seeds, images)


@partial(jax.jit, static_argnums=0)
def _move_back(transforms: Transforms, seeds: jax.Array, step: jax.Array, gradient: jax.Array):
    def one(seed: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(transforms.view(seed, step), jnp.zeros_like(g))[1](g)[0]

    return jax.vmap(one)(seeds, gradient)
