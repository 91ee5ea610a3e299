"""Arrays that depend on a kernel alone, computed once for many steps.

On CPU, convolutions run on kernels that are turned for the input gradient or split into phases
(`cpu_convolution`), again at every step. A layer asks a `Derive` for them; they are variables of
the flax module, in a collection of their own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax

DERIVED = "derived"  # the collection

# derive(name, make): the array made before; made now, if it is to be stored; else None
Derive = Callable[[str, Callable[[], jax.Array]], jax.Array | None]


def derive_nothing(name: str, make: Callable[[], jax.Array]) -> None:
    """Store nothing (a `Derive`): the caller makes the array itself."""


def derive_now(derive: Derive, name: str, make: Callable[[], jax.Array]) -> jax.Array:
    """Return the stored array, or make it now, as the forward pass needs it."""
    derived = derive(name, make)
    return make() if derived is None else derived


def derived_of(module: nn.Module, layer: str) -> Derive:
    """Return the `Derive` of a layer.

    It reads the module's variables, and writes them if `DERIVED` is mutable.
    """

    def derive(name, make):
        key = f"{layer}_{name}"
        if module.has_variable(DERIVED, key):
            return module.get_variable(DERIVED, key)
        if not module.is_mutable_collection(DERIVED) or module.is_initializing():
            return None
        module.put_variable(DERIVED, key, make())
        return module.get_variable(DERIVED, key)

    return derive


def layer_conv(module: Any, layer: str) -> Callable[..., jax.Array] | None:
    """Return the module's hook `conv` for one of its layers."""
    return None if module.conv is None else partial(module.conv, derive=derived_of(module, layer))


def conv(module: Any, name: str, features: int, kernel: int | Sequence[int], **how: Any) -> nn.Conv:
    """Make a convolution that a module's hook `conv` computes; `how` as `nn.Conv` takes it."""
    sides = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    how |= {"conv_general_dilated": layer_conv(module, name), "name": name}
    return nn.Conv(features, sides, **how)


def part(derive: Derive, index: int) -> Derive:
    """Return the `Derive` of one of several parts of a layer."""
    return lambda name, make: derive(f"{name}_{index}", make)
