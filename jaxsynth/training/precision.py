"""Precision of activations in training: float32 on CPU, bfloat16 on accelerators."""

from typing import Any

import jax
import jax.numpy as jnp

ACTIVATIONS = ("float32", "bfloat16")


def default_activations() -> str:
    """What trains fastest here: bfloat16 on an accelerator."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def cast(tree: Any, activations: str) -> Any:
    """The tree's float32 leaves in the precision of the activations; gradients flow back through.

    Weights are kept in float32 and cast where they are used.
    """
    return jax.tree.map(
        lambda leaf: leaf.astype(activations) if leaf.dtype == jnp.float32 else leaf, tree
    )
