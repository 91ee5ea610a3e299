"""Timed cases: a step of a trio, or one network by itself, forward and gradient of its input.

Pure. A case is a function of parameters and a batch. The networks of 2016 get random weights: what
a step costs does not depend on them.

Their arithmetic is counted from the layers and not from how they are computed. A multiplication and
its addition are two operations. A gradient of the input costs what the forward pass costs, but for
the layer that x enters: there it is counted as well, as it is computed.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxsynth.balance import objective
from jaxsynth.goal_arrays import make_goals, make_layout
from jaxsynth.goals import RunData
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.network import (
    KNOWN_CONFIGS,
    Config,
    Network,
    NetworkInfo,
    Params,
    activation_shapes,
    build_network,
    image_blob,
    input_shape,
    is_generator,
    logits_blob,
    make_module,
    param_shapes,
    prepare_params,
)
from jaxsynth.models.registry import to_model
from jaxsynth.system import GENERATOR, System, make_system
from jaxsynth.training.setup import initial_variables

CODE_SCALE = 3.0  # |N(0, 1)| times this, about the size of a real fc6 code
PIXELS = 50.0  # standard deviation of a random image, grey levels


class Case(NamedTuple):
    """step: (params by role, x (B, ...)) -> values (B,), gradients shaped like x.

    networks: by role, one alone or a generator and classifiers. What is climbed is the sum of the
    classifiers' first logits; of a generator alone, its image's sum.
    """

    name: str
    networks: Mapping[str, Network]
    step: Callable[[Mapping[str, Params], jax.Array], tuple[jax.Array, jax.Array]]

    @property
    def params(self) -> dict[str, Params]:
        """The networks' own, by role; for many steps `step_params`."""
        return {role: network.params for role, network in self.networks.items()}

    @property
    def first(self) -> Network:
        """The network that x goes into."""
        return next(iter(self.networks.values()))


def step_params(case: Case, precision: str) -> dict[str, Params]:
    """The prepared parameters of a sweep in this precision, by role."""
    cast = jax.tree.map(lambda p: jnp.asarray(p, precision), case.params)
    return {role: prepare_params(n.info.config, cast[role]) for role, n in case.networks.items()}


def random_network(name: str, seed: int = 0) -> Network:
    """A network of 2016 at its own size, kernels N(0, 2 / fan-in) (He et al. 2015)."""
    config = KNOWN_CONFIGS[name]
    tree = initial_variables(make_module(config), seed, input_shape(config))["params"]
    flat = traverse_util.flatten_dict(tree, sep="/")
    return build_network(
        NetworkInfo(name, config), {k: v * np.float32(np.sqrt(2)) for k, v in flat.items()}
    )


def trio_case(name: str, networks: Mapping[str, Network]) -> Case:
    """A step of the networks by role, the generator first."""
    models = {role: to_model(network, role) for role, network in networks.items()}
    generator = models.pop(GENERATOR)
    weighed = sum(classifier.logit(0) for classifier in models.values())
    goals = make_goals([weighed], (), make_layout([weighed]), np.float32)
    run = RunData(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), goals))
    system = make_system(generator, tuple(models.values()))
    return Case(name, networks, partial(_climb, system, run))


def network_case(network: Network) -> Case:
    """One network by itself; its role is its name."""
    config = network.info.config
    blob = image_blob(config) if is_generator(config) else logits_blob(config)
    step = partial(_ascend, network.apply, network.name, blob)
    return Case(network.name, {network.name: network}, step)


def inputs(config: Config, batch: int, seed: int = 0) -> np.ndarray:
    """Random codes (B, D), or images (B, H, W, 3), BGR mean-subtracted."""
    x = np.random.default_rng(seed).normal(size=(batch, *input_shape(config)))
    return (CODE_SCALE * np.abs(x) if is_generator(config) else PIXELS * x).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def _climb(system: System, run: RunData, params: Mapping[str, Params], code: jax.Array):
    return jax.vmap(jax.value_and_grad(lambda z: objective(system, params, run, z)[0]))(code)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _ascend(apply, role: str, blob: str, params: Mapping[str, Params], x: jax.Array):
    def value(x):
        out = apply(params[role], x)[blob].astype(jnp.float32)
        return out.sum() if out.ndim == 3 else out[0]

    return jax.vmap(jax.value_and_grad(value))(x)


def forward_operations(config: Config) -> int:
    """Operations of one example's forward pass: convolutions and dense layers."""
    blobs, shapes = activation_shapes(config), param_shapes(config)
    kernels = {p.removesuffix("/kernel"): s for p, s in shapes.items() if p.endswith("/kernel")}
    return sum(2 * math.prod(s) * _pixels(config, name, blobs) for name, s in kernels.items())


def step_operations(networks: Mapping[str, Network]) -> int:
    """Operations of one example's step: forward and input gradient of every network."""
    return sum(2 * forward_operations(n.info.config) for n in networks.values())


def parameter_bytes(networks: Mapping[str, Network]) -> int:
    """Bytes of all weights, as stored."""
    return sum(p.size * p.dtype.itemsize for n in networks.values() for p in n.params.values())


def _pixels(config: Config, name: str, blobs: Mapping[str, tuple[int, ...]]) -> int:
    """At how many places a kernel is applied: outputs, or inputs of a stride-2 deconvolution."""
    if isinstance(config, GridGeneratorConfig):
        sides = {"colour": 1, "conv_in": config.grid[0], "paint": config.size, "rgb": config.size}
        side = sides.get(name) or int(name.lstrip("convup"))
        return side * side
    names = (f"{name}_pre", name, name.removesuffix("_project"))
    shape = blobs[next(blob for blob in names if blob in blobs)]
    if len(shape) < 3:
        return 1
    strides = {
        layer.name: layer.stride
        for layer in getattr(config, "layers", ())
        if layer.kind == "deconv"
    }
    return shape[0] * shape[1] // strides.get(name, 1) ** 2
