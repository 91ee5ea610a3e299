"""What is derived from kernels once gives the same results, is used, and is not made again."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params, tiny_models, tiny_networks

from jaxsynth.models.caffe_networks import ResNetConfig
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.grid_generator import GridGeneratorConfig
from jaxsynth.models.network import (
    Network,
    NetworkInfo,
    build_network,
    image_blob,
    is_generator,
    logits_blob,
    prepare_params,
)
from jaxsynth.system import GENERATOR, system_params

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="on accelerators nothing is derived"
)
# all kinds of layers: deconvolutions, doubled maps, groups, strides, residual blocks
NAMES = ("generator", "places", "nsfw", "resnet", "grid")


def _network(name: str) -> Network:
    if name == "grid":
        config = GridGeneratorConfig((2, 2, 4), size=8, width=4)
        network = build_network(NetworkInfo("tiny_grid", config), random_params(config, 5))
    elif name == "resnet":
        config = ResNetConfig(size=32, stem=8, stages=((1, 4), (1, 8)), classes=2)
        network = build_network(NetworkInfo("tiny_resnet", config), random_params(config, 4))
    else:
        network = tiny_networks()[name]
    return network._replace(params={path: jnp.asarray(p) for path, p in network.params.items()})


def _derived(network: Network) -> set[str]:
    return prepare_params(network.info.config, network.params).keys() - network.params.keys()


def _value(network: Network):
    config = network.info.config
    blob = image_blob(config) if is_generator(config) else logits_blob(config)
    return lambda params, x: (network.apply(params, x)[blob].astype(jnp.float32) ** 2).sum()


def _climb(network: Network):
    gradient = jax.grad(_value(network), 1)
    return network_jit(lambda params, x: jax.vmap(lambda x: gradient(params, x))(x))


def _inputs(network: Network) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, *network.input_shape))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_same_and_nothing_is_turned_again(name, optimised_programs):
    network = _network(name)
    climb, x = _climb(network), _inputs(network)
    more = prepare_params(network.info.config, network.params)
    np.testing.assert_array_equal(climb(more, x), climb(network.params, x))
    programs = (climb.jitted().lower(given, x).as_text() for given in (more, network.params))
    again, anew = (len(re.findall(r"reverse .*dims = \[0, 1\]", text)) for text in programs)
    assert again == 0 < anew


@pytest.mark.parametrize("name", NAMES)
def test_each_of_them_is_used(name):
    network = _network(name)
    climb, x = _climb(network), _inputs(network)
    more = prepare_params(network.info.config, network.params)
    for path in _derived(network):
        damaged = climb(more | {path: jnp.full_like(more[path], jnp.nan)}, x)
        assert not jnp.isfinite(damaged).all(), path


def test_what_is_derived_of_which_layer():
    doubling = {f"derived/{layer}_phases" for layer in ("deconv1", "deconv0")}
    doubling |= {f"derived/{layer}_turned" for layer in ("deconv1", "deconv0")}
    assert _derived(_network("generator")) == doubling
    grouped = {"derived/conv1_turned", "derived/conv2_turned_0", "derived/conv2_turned_1"}
    assert _derived(_network("places")) == grouped
    assert "derived/conv_1_blocks" in _derived(_network("resnet"))


def test_a_sweep_is_given_it():
    networks, models = tiny_networks(), tiny_models()
    given = system_params(models[GENERATOR], [models["places"]])
    for role, params in given.items():
        assert _derived(networks[role]) < set(params)
    again = networks[GENERATOR]._replace(params=given[GENERATOR])
    assert prepare_params(again.info.config, again.params) is again.params


def test_prepared_parameters_have_no_gradients():
    """Some would be missing, as what was derived from a kernel stands for it."""
    network = _network("places")
    gradient = jax.jit(jax.grad(_value(network)))
    x = _inputs(network)[0]
    assert jnp.abs(gradient(network.params, x)["conv2/kernel"]).max() > 0
    with pytest.raises(ValueError, match="prepared parameters have no gradients"):
        gradient(prepare_params(network.info.config, network.params), x)


def test_a_layer_of_that_name_is_refused():
    generator = tiny_networks()["generator"]
    config = generator.info.config
    layers = (config.layers[0]._replace(name="derived"), *config.layers[1:])
    info = NetworkInfo("odd", type(config)(config.code, config.dense, config.seed, layers))
    params = {path.replace("deconv1/", "derived/"): p for path, p in generator.params.items()}
    with pytest.raises(ValueError, match="no layer may be called derived"):
        build_network(info, params)


def test_bfloat16_is_prepared_in_bfloat16():
    network = _network("generator")
    half = network._replace(params={k: p.astype(jnp.bfloat16) for k, p in network.params.items()})
    more = prepare_params(half.info.config, half.params)
    assert len(more) > len(half.params) and {str(p.dtype) for p in more.values()} == {"bfloat16"}
    climb, x = _climb(half), _inputs(half)
    np.testing.assert_array_equal(climb(more, x), climb(half.params, x))
