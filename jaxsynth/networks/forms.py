"""What a network's steps make of a kernel alone, made once for many steps.

On CPU convolutions run on kernels that are turned for the input gradient, or taken apart into
phases (`convolution`): a tenth of a step of one run, made anew at every step. A layer asks a `Keep`
for them; they are kept as variables of the flax module, in a collection beside its parameters.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

FORMS = "forms"  # the collection

# keep(name, make) is the array of that name, which was made before or is made now
Keep = Callable[[str, Callable[[], jax.Array]], jax.Array]


def make_now(name: str, make: Callable[[], jax.Array]) -> jax.Array:
    """A `Keep` that keeps nothing."""
    return make()


def kept_forms(module: nn.Module, layer: str) -> Keep:
    """A `Keep` of a layer: looks into the module's variables, and puts there what it has made if
    the module is applied with `FORMS` mutable."""

    def keep(name, make):
        path = f"{layer}_{name}"
        if module.has_variable(FORMS, path):
            return module.get_variable(FORMS, path)
        form = make()
        if module.is_mutable_collection(FORMS) and not module.is_initializing():
            module.put_variable(FORMS, path, form)
        return form

    return keep


def layer_conv(module: nn.Module, layer: str) -> Callable[..., jax.Array] | None:
    """The module's hook `conv` for one of its layers."""
    return module.conv and partial(module.conv, keep=kept_forms(module, layer))
