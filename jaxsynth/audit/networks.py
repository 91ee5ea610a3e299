"""The programs of an audit: two of each network, whatever is asked of it.

One reads a classifier: its log-odds, log-probabilities, the decision, the means of some channels.
The other also gives the gradient of a weighed sum of these readings. The weights are data, and so
are edits of channels: neurons, pairs, scenes, channels, flips and removals share the programs, and
each network is compiled once forward and once with its gradient.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxsynth.audit.subjects import DECISION
from jaxsynth.devices import batches
from jaxsynth.images import conversion
from jaxsynth.models.base import Classifier, Generator, Params
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.functions import Activations, prepared
from jaxsynth.programs import in_other_thread
from jaxsynth.system import pixels_seen, view

BATCH = 4  # as fast on CPU as more, and little is computed for nothing
LOG_ODDS, LOG_PROB = "log_odds", "log_prob"
Goal = Mapping[str, np.ndarray]  # network -> weights (K,) of its readings, to be maximised
Slopes = tuple[np.ndarray, np.ndarray, dict[str, Any]]
Edits = Mapping[str, tuple[Any, Any]]  # blob -> factor (C,), added (C,)


class Edited:
    """A classifier's function whose maps can be edited, traced once.

    Attributes:
      maps: The blobs (H, W, C) that later layers read, with their shapes, in the order of layers.
    """

    def __init__(self, model: Classifier, params: Params):
        """Trace it for one input; `params` are its own, or prepared."""
        x = jax.ShapeDtypeStruct((model.size, model.size, 3), jnp.float32)
        self._closed, shapes = jax.make_jaxpr(model.activations, return_shape=True)(params, x)
        names, self._tree = sorted(shapes), jax.tree.structure(shapes)
        outs = dict(zip(names, self._closed.jaxpr.outvars, strict=True))
        read = {id(v) for eqn in self._closed.jaxpr.eqns for v in eqn.invars}
        self._places = {id(v): name for name, v in outs.items() if id(v) in read}
        made = [self._places.get(id(v)) for eqn in self._closed.jaxpr.eqns for v in eqn.outvars]
        self.maps = {name: shapes[name].shape for name in made if name}
        self.maps = {name: shape for name, shape in self.maps.items() if len(shape) == 3}

    def __call__(self, edits: Edits, params: Any, x: jax.Array) -> dict[str, jax.Array]:
        """Compute all blobs of one input, those of `edits` multiplied and added to by channel."""
        jaxpr, values = self._closed.jaxpr, {}

        def read(v: Any) -> Any:
            return v.val if isinstance(v, core.Literal) else values[id(v)]

        given = jax.tree.leaves((params, x))
        for v, value in zip(jaxpr.constvars, self._closed.consts, strict=True):
            values[id(v)] = value
        for v, value in zip(jaxpr.invars, given, strict=True):
            values[id(v)] = value
        for eqn in jaxpr.eqns:
            named = eqn.primitive.get_bind_params(eqn.params)
            functions, named = named if isinstance(named, tuple) else ((), named)  # before jax 0.10
            out = eqn.primitive.bind(*functions, *map(read, eqn.invars), **named)
            out = out if eqn.primitive.multiple_results else [out]
            for v, value in zip(eqn.outvars, out, strict=True):
                name = self._places.get(id(v), "")
                if name in edits:
                    factor, added = edits[name]
                    value = value * factor + added
                values[id(v)] = value
        return jax.tree.unflatten(self._tree, map(read, jaxpr.outvars))

    def deepest(self, most: int = 4) -> tuple[str, ...]:
        """Name the last map of each resolution, of the lowest above 1; the deepest comes last."""
        places = {n: shape[0] for n, shape in self.maps.items() if shape[0] > 1}  # no averages
        last = {side: n for n, side in places.items() if not n.endswith("_pre")}
        return tuple(last[side] for side in sorted(last)[:most][::-1])


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
        self._params = prepared(model)
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
        program = partial(_read, self._reader, self._params, edits)
        return _batched(program, np.asarray(inputs, np.float32))

    def probabilities(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Score pictures (H, W, 3) uint8 RGB of any sizes as files are: (N, classes)."""
        found, waiting = [np.zeros((0, self.model.classes), np.float32)], iter(pictures)
        while some := [self.model.input_of(rgb) for rgb in itertools.islice(waiting, BATCH)]:
            found.append(np.exp(self.part(self.read(np.stack(some)), LOG_PROB)))
        return np.concatenate(found)

    def slopes(self, inputs: np.ndarray, weights: np.ndarray) -> Slopes:
        """Differentiate a sum of readings, weighed (..., K), of inputs (N, size, size, 3).

        Returns readings (N, K), the gradient by inputs, and for each of `blobs` gradients (N, C) by
        a factor and by a sum of its channels.
        """
        inputs = np.asarray(inputs, np.float32)
        weights = np.broadcast_to(weights, (len(inputs), self.count))
        program = partial(_slopes, self._reader, self._params, self.edits())
        return _batched(program, inputs, weights)


class Prior:
    """A generator and its two programs, and how classifiers see its images.

    Codes are (N, D), images (N, H, H, 3) in the generator's units.
    """

    def __init__(self, generator: Generator):
        """Prepare its parameters; nothing is compiled."""
        self.generator = generator
        self._static, self._params = (generator.activations, generator.image), prepared(generator)

    def draw(self, codes: np.ndarray) -> np.ndarray:
        """Return the images of codes."""
        return _batched(partial(_draw, self._static, self._params), codes)

    def draw_back(self, codes: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient by images into one by codes."""
        return _batched(partial(_draw_back, self._static, self._params), codes, gradient)

    def view(self, network: Network, images: np.ndarray) -> np.ndarray:
        """Show images to a classifier: its inputs (N, size, size, 3), in its units."""
        return _batched(partial(_view, self._how(network)), images)

    def view_back(self, network: Network, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient by a classifier's inputs into one by images."""
        program = partial(_view_back, self._how(network), self.generator.image_size)
        return _batched(program, gradient)

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
    with in_other_thread(*tasks):
        yield


def _batched(program: Callable[..., Any], *rows: np.ndarray) -> Any:
    """Call a program with batches of arrays (N, ...) and join its results, trees of arrays."""
    made = [(program(*some), count) for some, count in batches(rows, BATCH)]
    parts = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[:n], found) for found, n in made]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


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
