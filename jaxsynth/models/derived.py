"""What a network's steps derive from a kernel alone, made once for many steps.

On CPU convolutions run on kernels that are turned for the input gradient, or taken apart into
phases (`convolution`), anew at every step. A layer asks a `Derive` for them; they are kept as
variables of the flax module, in a collection of their own.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

DERIVED = "derived"  # the collection

# derive(name, make): the array that was made before; made now, where it is to be kept; else None
Derive = Callable[[str, Callable[[], jax.Array]], jax.Array | None]


def derive_nothing(name: str, make: Callable[[], jax.Array]) -> None:
    """A `Derive` where nothing is kept: whoever needs the array makes it."""


def derive_now(derive: Derive, name: str, make: Callable[[], jax.Array]) -> jax.Array:
    """What `derive` has, or else made now: for what the forward pass needs."""
    derived = derive(name, make)
    return make() if derived is None else derived


def derived_of(module: nn.Module, layer: str) -> Derive:
    """A `Derive` of a layer: looks into the module's variables, and puts there what is made if the
    module is applied with `DERIVED` mutable."""

    def derive(name, make):
        key = f"{layer}_{name}"
        if module.has_variable(DERIVED, key):
            return module.get_variable(DERIVED, key)
        if not module.is_mutable_collection(DERIVED) or module.is_initializing():
            return None
        module.put_variable(DERIVED, key, make())
        return module.get_variable(DERIVED, key)

    return derive


def layer_conv(module: nn.Module, layer: str) -> Callable[..., jax.Array] | None:
    """The module's hook `conv` for one of its layers."""
    return None if module.conv is None else partial(module.conv, derive=derived_of(module, layer))


def part(derive: Derive, index: int) -> Derive:
    """For one of several parts of a layer."""
    return lambda name, make: derive(f"{name}_{index}", make)
