"""Tiny networks of the real code, for tests that want whole runs in seconds."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxsynth.models import compiled
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.caffe_networks import AlexNetConfig, Conv
from jaxsynth.models.generator import GeneratorConfig, Up
from jaxsynth.models.network import (
    CodeStats,
    Config,
    Network,
    NetworkInfo,
    build_network,
    param_shapes,
)
from jaxsynth.models.registry import to_model
from jaxsynth.models.weights import save_network
from jaxsynth.programs import evaluate_jit, respond_jit, update_jit

GENERATOR = GeneratorConfig(
    code=12,
    dense=(("defc6", 20), ("defc5", 4 * 4 * 4)),
    seed=(4, 4, 4),
    layers=(Up("deconv1", "deconv", 6, 4, 2), Up("deconv0", "deconv", 3, 4, 2)),
)
PLACES = AlexNetConfig(
    size=16,
    convs=(
        Conv("conv1", 6, 3, 1, 1, pool="pool1", norm="norm1"),
        Conv("conv2", 8, 3, 1, 1, groups=2),
    ),
    dense=(("fc6", 12),),
    classes=5,
)
NSFW = AlexNetConfig(size=14, convs=(Conv("conv1", 4, 3, 1, 1),), dense=(("fc6", 8),), classes=2)
LABELS = ("abbey", "bar", "canyon", "dam", "estuary")


def random_params(config: Config, seed: int, gain: float = 1.0) -> dict[str, np.ndarray]:
    """He-scaled kernels and small biases, float32."""
    rng = np.random.default_rng(seed)
    params = {}
    for path, shape in param_shapes(config).items():
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 100
        scale = gain * np.sqrt(2 / fan_in)
        params[path] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return params


def tiny_networks() -> dict[str, Network]:
    """role -> network: a generator (image 16, linear pixels of some tens), places, nsfw."""
    generator = random_params(GENERATOR, 1)
    generator["deconv0/kernel"] *= 30
    upper = np.linspace(2, 6, GENERATOR.code).astype(np.float32)
    places = NetworkInfo("tiny_places", PLACES, LABELS, preprocessing="resize16")
    nsfw = NetworkInfo("tiny_nsfw", NSFW, ("SFW", "NSFW"), preprocessing="simple")
    return {
        "generator": build_network(
            NetworkInfo("tiny_generator", GENERATOR), generator, CodeStats(upper)
        ),
        "places": build_network(places, random_params(PLACES, 2, 0.3)),
        "nsfw": build_network(nsfw, random_params(NSFW, 3, 0.3)),
    }


def tiny_models() -> dict[str, Classifier | Generator]:
    """Role -> model of these; classifiers go by their roles, the generator by its own name."""
    networks = tiny_networks().items()
    return {role: to_model(n, "" if role == "generator" else role) for role, n in networks}


def save_tiny_networks(folder: Path) -> list[str]:
    """Writes the three, places as the generator's encoder; gives the flags that name them."""
    networks = tiny_networks()
    generator = networks["generator"]
    info = dataclasses.replace(generator.info, encoder=str(folder / "places.safetensors"))
    networks["generator"] = generator._replace(info=info)
    for role, network in networks.items():
        save_network(folder / f"{role}.safetensors", network)
    return [f"--{role}={folder / role}.safetensors" for role in networks]


def in_float64(networks: dict[str, Network]) -> dict[str, Network]:
    """The same networks with float64 parameters (under x64)."""
    return {
        role: n._replace(params={k: np.asarray(v, np.float64) for k, v in n.params.items()})
        for role, n in networks.items()
    }


@contextmanager
def compiles_once() -> Iterator[None]:
    """The block compiles the halves of a step and an evaluation of images exactly once each."""
    before = _compiled()
    yield
    now = _compiled()
    assert now == [size + 1 for size in before], (before, now)


def _compiled() -> list[int]:
    """Return how often each half of a step and an evaluation were compiled, or loaded."""
    counts = [update_jit._cache_size()]
    for program in (respond_jit, evaluate_jit):
        saved = [made for key, made in compiled._ready.items() if key[0] is program.__wrapped__]
        sizes = [made._cache_size() for made in saved if hasattr(made, "_cache_size")]
        counts.append(program.jitted()._cache_size() + sum(sizes))
    return counts
