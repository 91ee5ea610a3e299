"""Activation maximisation through a generator network, in JAX."""

from jaxsynth.files.weights import load_network

__all__ = ["load_network"]
