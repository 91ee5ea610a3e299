"""What is made of kernels once gives the same results, and is not made again at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params, tiny_networks

from jaxsynth.files.weights import load_network
from jaxsynth.networks.convolution import network_jit
from jaxsynth.networks.network import (
    Network,
    NetworkInfo,
    build_network,
    image_blob,
    is_generator,
    logits_blob,
    prepared,
)
from jaxsynth.networks.resnet import ResNetConfig

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="on accelerators nothing is made of kernels"
)


def _networks() -> dict[str, Network]:
    """All kinds of layers: deconvolutions, doubled maps, groups, strides, residual blocks."""
    shipped = {name: load_network(name) for name in ("pocket_generator", "pocket_places")}
    config = ResNetConfig(size=32, stem=8, stages=((1, 4), (1, 8)), classes=2)
    resnet = build_network(NetworkInfo("tiny_resnet", config), random_params(config, 4))
    return tiny_networks() | shipped | {"resnet": resnet}


def _gradient(network: Network):
    config = network.info.config
    blob = image_blob(config) if is_generator(config) else logits_blob(config)

    def climb(params, x):
        return jax.vmap(jax.grad(lambda x: (network.apply(params, x)[blob] ** 2).sum()))(x)

    x = jax.random.normal(jax.random.key(0), (2, *network.input_shape))
    return network_jit(climb), x


@pytest.mark.parametrize("name", _networks())
def test_prepared_parameters_give_the_same_gradient_and_turn_no_kernel(name):
    network = _networks()[name]
    climb, x = _gradient(network)
    params = {path: jnp.asarray(p) for path, p in network.params.items()}
    more = prepared(network)
    made = {path for path in more if path not in params}
    assert made and all(path.startswith("forms/") for path in made)
    np.testing.assert_array_equal(climb(more, x), climb(params, x))
    turned, anew = (
        climb.jitted().lower(given, x).as_text().count("stablehlo.reverse")
        for given in (more, params)
    )
    assert (turned, anew > 0) == (0, True)


def test_bfloat16_is_prepared_in_bfloat16():
    network = tiny_networks()["generator"]
    half = {path: jnp.asarray(p, jnp.bfloat16) for path, p in network.params.items()}
    more = prepared(network._replace(params=half))
    assert len(more) > len(half) and {str(p.dtype) for p in more.values()} == {"bfloat16"}
