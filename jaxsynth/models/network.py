"""The content of a weights file: a description, parameters, and the function that they make.

The architecture is rebuilt from a plain-data description (`NetworkInfo`) in the file's metadata.
Parameters are a flat dict path -> array (`conv1/kernel`), independent of the library that applies
them. `ARCHITECTURES` is the table of all kinds of networks; above this package only models
(`jaxsynth.models.base`) are known.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from flax.errors import FlaxError

from jaxsynth.arithmetic import arithmetic
from jaxsynth.inputs import reason
from jaxsynth.models import caffe_networks as caffe
from jaxsynth.models import packaged
from jaxsynth.models.compiled import DERIVED, saved_jit, saved_json
from jaxsynth.models.cpu_convolution import network_conv
from jaxsynth.models.functions import Code as CodeStats  # a name of version 0.1
from jaxsynth.models.generator import DGN, Generator
from jaxsynth.models.graph import Graph
from jaxsynth.models.grid_generator import Encoder, GridGenerator

# What a damaged description makes layers raise.
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)
_DAMAGE += (AssertionError, FlaxError)
Params = dict[str, jax.Array]
Activations = dict[str, jax.Array]
Config = Any  # of a class that `ARCHITECTURES` has


class Architecture(NamedTuple):
    """One kind of network.

    Attributes:
      module: Its flax module.
      output: Configuration -> blob of the logits, or of a generator's image; None for neither.
      generator: Whether its input is a code.
    """

    module: type[nn.Module]
    output: Callable[[Any], str | None]
    generator: bool = False

    @property
    def config(self) -> type:
        """The class of its configuration."""
        return self.module.__annotations__["config"]

    @property
    def rows(self) -> dict[str, type]:
        """Field of the configuration -> class of its rows; other fields are plain data."""
        fields = ((f.name, get_args(f.type)[:1]) for f in dataclasses.fields(self.config))
        return {name: kind for name, kinds in fields for kind in kinds if hasattr(kind, "_fields")}


def _logits_if_any(config: Any) -> str | None:
    return "logits" if config.classes else None


ARCHITECTURES = {
    "generator": Architecture(Generator, lambda c: c.layers[-1].name, generator=True),
    "grid_generator": Architecture(GridGenerator, lambda c: "image", generator=True),
    "alexnet": Architecture(caffe.AlexNet, lambda c: "fc8"),
    "resnet": Architecture(caffe.ResNet, lambda c: "fc_nsfw"),
    "efficientnet": Architecture(packaged.EfficientNet, _logits_if_any),
    "conv_features": Architecture(packaged.ConvFeatures, _logits_if_any),
    "graph": Architecture(Graph, lambda c: c.nodes[-1].name),
    "encoder": Architecture(Encoder, lambda c: _of(c.trunk).output(c.trunk)),
}
KNOWN_CONFIGS: dict[str, Config] = {
    **DGN,
    "places205": caffe.PLACES205,
    "caffenet": caffe.CAFFENET,
    "open_nsfw": caffe.OPEN_NSFW,
    "efficientnet_lite0": packaged.LITE0,
    "alexnet_features": packaged.ALEXNET_FEATURES,
    "vgg16_features": packaged.VGG16_FEATURES,
}


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """Description of a network, all of it plain data (it is the metadata of a weights file).

    Attributes:
      network: Name, e.g. `places205`.
      config: Shapes.
      labels: One name per unit of the last layer; empty for a generator.
      licence: Of the weights.
      source: Where they come from.
      source_sha256: Hash of the original file.
      preprocessing: How a picture reaches the input's size, see `jaxsynth.images.resize_to`.
      encoder: For a generator, the network whose blob is its code; else empty.
      encoder_sha256: Hash of that network's weights file, if known.
      encoder_blob: The blob.
      notes: Anything else that a reader of the file should know.
    """

    network: str
    config: Config
    labels: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    source_sha256: str = ""
    preprocessing: str = ""
    encoder: str = ""
    encoder_sha256: str = ""
    encoder_blob: str = "fc6"
    notes: str = ""


class Network(NamedTuple):
    """A network ready to use: `apply(params, x)` takes one unbatched example.

    A classifier's x is (H, W, 3), BGR, mean-subtracted; a generator's is a code (D,). The result is
    a dict of every named activation, HWC. What the caller does not use costs nothing under jit.
    """

    info: NetworkInfo
    apply: Callable[[Params, jax.Array], Activations]
    params: Params
    code: CodeStats | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.info.network

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class."""
        return self.info.labels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return input_shape(self.info.config)


def _of(config: Config) -> Architecture:
    return ARCHITECTURES[architecture_name(config)]


def architecture_name(config: Config) -> str:
    """Return the key of a configuration in `ARCHITECTURES`."""
    return next(key for key, known in ARCHITECTURES.items() if type(config) is known.config)


def is_generator(config: Config) -> bool:
    """Return whether the network's input is a code."""
    return _of(config).generator


def input_shape(config: Config) -> tuple[int, ...]:
    """Return the shape of one example: (D,) of a generator, (H, W, 3) of a classifier."""
    return (config.code,) if is_generator(config) else (config.size, config.size, 3)


def logits_blob(config: Config) -> str | None:
    """Return the blob of a classifier's logits; None where it has none."""
    return None if is_generator(config) else _of(config).output(config)


def image_blob(config: Config) -> str:
    """Return the blob of a generator's image."""
    return _of(config).output(config)


def make_module(config: Config, **hooks: Any) -> Any:
    """Make the flax module of a configuration; `hooks`: its `norm` (training only) and `conv`."""
    module_class = _of(config).module
    if module_class is packaged.EfficientNet:  # it convolves in one way only
        hooks.pop("conv", None)
    if module_class is Encoder:
        return Encoder(config, functools.partial(make_module, **hooks))
    return module_class(config, **hooks)


@functools.cache
def make_apply(config: Config) -> Callable[[Params, jax.Array], Activations]:
    """Make the pure function (flat params, one example) -> dict of activations.

    The same configuration gives the same function object, so jit recognises it. The parameters'
    precision is that of the arithmetic; with bfloat16 the logits and what follows are float32.
    With `prepared` parameters gradients of the input are faster on CPU.
    """
    module = make_module(config, conv=network_conv())

    def apply(params: Params, x: jax.Array) -> Activations:
        x = x.astype(next(iter(params.values())).dtype)  # the weights' precision is the network's
        return module.apply(variables(params), x)

    apply.text = f"{architecture_name(config)}: {config!r}"  # see `jaxsynth.models.compiled`
    return apply


def variables(params: Params) -> dict[str, Any]:
    """Make the collections of a flax module: `params` and `derived`."""
    tree = traverse_util.unflatten_dict(params, sep="/")
    derived = tree.pop(DERIVED, {})
    return {"params": _fixed(tree) if derived else tree, DERIVED: derived}


@jax.custom_vjp
def _fixed(params: Any) -> Any:
    """Return parameters that refuse gradients: the arrays derived from them would not follow."""
    return params


def _no_gradient(*_: Any) -> Any:
    raise ValueError(
        "prepared parameters have no gradients: take them of the network's own (network.params)"
    )


_fixed.defvjp(lambda params: (params, None), _no_gradient)


def prepare_params(config: Config, params: Params) -> Params:
    """Add, on CPU, the arrays that steps derive from parameters alone (`derived`).

    Results are the same to the bit. Prepared parameters are fixed: gradients of kernels raise
    ValueError, and a kernel that is replaced must be prepared again. Nothing is added twice.
    """
    if any(path.startswith(f"{DERIVED}/") for path in params):
        return params
    return params | (_derive(config, params) if network_conv() else {})


@functools.partial(saved_jit, statics=1)
def _derive(config: Config, params: Params) -> Params:
    x = jnp.zeros(input_shape(config), next(iter(params.values())).dtype)
    module = make_module(config, conv=network_conv())
    _, made = module.apply(variables(params), x, mutable=[DERIVED])
    return traverse_util.flatten_dict(made, sep="/")


def param_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of every parameter, without computing any."""
    return _shapes(config)[1]


def activation_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every activation of one example, without computing any."""
    return _shapes(config)[0]


@functools.cache
def _shapes(config: Config) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Find the shapes of one example's activations and of the parameters; ValueError if none."""
    found = saved_json(f"shapes of {config!r}", lambda: _find_shapes(config))
    return tuple({name: tuple(shape) for name, shape in shapes.items()} for shapes in found)


def _find_shapes(config: Config) -> list[dict[str, tuple[int, ...]]]:
    try:
        x = jax.ShapeDtypeStruct(input_shape(config), jnp.float32)
        with arithmetic():  # shapes are those of float32, whatever the process computes in
            made = jax.eval_shape(make_module(config).init_with_output, jax.random.key(0), x)
    except _DAMAGE as error:
        why = reason(error)
        raise ValueError(f"its description is of no network that can be built: {why}") from error
    trees = made[0], traverse_util.flatten_dict(made[1]["params"], sep="/")
    return [{name: leaf.shape for name, leaf in tree.items()} for tree in trees]


def build_network(
    info: NetworkInfo, params: Mapping[str, Any], code: CodeStats | None = None
) -> Network:
    """Put parameters and description together; ValueError names every one that does not fit."""
    expected = param_shapes(info.config)
    problems = [f"{p} is missing" for p in expected if p not in params]
    problems += [f"{p} is unexpected" for p in params if p not in expected]
    problems += [
        f"{p} has shape {tuple(params[p].shape)}, expected {shape}"
        for p, shape in expected.items()
        if p in params and tuple(params[p].shape) != tuple(shape)
    ]
    if any(path.startswith(f"{DERIVED}/") for path in expected):
        problems.append(f"no layer may be called {DERIVED}")
    if problems:
        raise ValueError(f"weights do not fit network {info.network!r}: " + "; ".join(problems))
    return Network(info, make_apply(info.config), dict(params), code)
