"""Pictures beside a sweep: a code's by the generator alone, and how classifiers see any picture.

One example at a time, each function compiled once; networks' parameters are arguments.
"""

from collections.abc import Mapping

import jax

from jaxsynth.ascent import watched_units
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Params
from jaxsynth.system import GENERATOR, System, generator_activations, view

Units = Mapping[str, jax.Array]  # {blob: flat indices (K,)}


def draw(
    system: System, params: Params, watch: Units, code: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The image (H, W, 3) of a code (D,), BGR, mean-subtracted, and the generator's watched units.

    `params` are the generator's; the units are {blob: (K,)}.
    """
    activations = generator_activations(system, params, code)
    image = activations[system.image]
    units = watched_units(image, {GENERATOR: activations}, {GENERATOR: watch})
    return image, units[GENERATOR]


def judge(
    system: System, params: Mapping[str, Params], watch: Mapping[str, Units], image: jax.Array
) -> dict[str, dict[str, jax.Array]]:
    """Watched units of all the system's classifiers, {role: {blob: (K,)}}, for one image (H, W, 3).

    The image, BGR and mean-subtracted, is cropped or resized for each as a generated one is.
    """
    activations = {c.role: c.apply(params[c.role], view(image, c.size)) for c in system.classifiers}
    return watched_units(image, activations, watch)


# Module-level, so that every strip of a process shares their caches.
draw_jit = network_jit(draw, static_argnums=(0,))
judge_jit = network_jit(judge, static_argnums=(0,))
