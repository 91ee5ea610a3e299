"""Parameters with the arrays that CPU steps derive from them, computed once (`derived`)."""

import functools

import jax.numpy as jnp
from flax import traverse_util

from jaxsynth.models.cpu_convolution import network_conv
from jaxsynth.models.derived import DERIVED
from jaxsynth.models.network import (
    Config,
    Network,
    Params,
    input_shape,
    make_module,
    variables,
)
from jaxsynth.models.traced import saved_jit


def prepared(network: Network) -> Params:
    """Prepare a network's parameters for many gradients of its input: see `prepare_params`."""
    return prepare_params(network.info.config, network.params)


def prepare_params(config: Config, params: Params) -> Params:
    """Add, on CPU, the arrays that steps derive from parameters alone: `derived/...`.

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
