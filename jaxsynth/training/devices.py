"""Where training happens: one device, or all of them with the batch split between them.

Data-parallel by sharding: weights are replicated over a mesh of one axis, each batch is split along
it, and jit adds the sums that this takes (batch norm's among them). The same step function.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsynth.devices import on_all, runs_mesh, split


class Placement(NamedTuple):
    """How to put a batch (leading axis split) and a state (replicated) onto the devices."""

    batch: Callable[[np.ndarray], jax.Array]
    state: Callable[[Any], Any]


def place_on(devices: list[jax.Device], batch: int) -> Placement:
    """Placement over `devices`.

    Raises:
      ValueError: if a batch of this size does not split evenly.
    """
    if batch % len(devices):
        raise ValueError(
            f"a batch of {batch} images does not split over {len(devices)} devices: give a "
            "multiple of that"
        )
    mesh = runs_mesh(devices)
    return Placement(partial(split, mesh), partial(on_all, mesh))
