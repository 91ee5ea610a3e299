"""Hidden units: the channels whose removal changes a decision most.

A channel is removed by holding it at its mean over all pictures and places. Gradients rank all
channels of several blobs at once, to first order; those that come first are removed in earnest.
Sources: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient
inference" (the first-order estimate); Bau et al. 2020, "Understanding the role of individual units
in a deep neural network" (removal of units).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsynth.audit.networks import Network
from jaxsynth.audit.subjects import DECISION


class Unit(NamedTuple):
    """A channel and what its removal does.

    Attributes:
      blob, channel: Which one.
      change: (N,) of the decision on each picture when it is removed.
      estimate: The mean size of that change to first order.
      response: (N,) its mean over places.
    """

    blob: str
    channel: int
    change: np.ndarray
    estimate: float
    response: np.ndarray


def important_units(network: Network, inputs: np.ndarray, count: int) -> list[Unit]:
    """Find the channels whose removal changes the decision most, on average over inputs.

    Args:
      network: The classifier.
      inputs: (N, size, size, 3) in its units.
      count: How many to find.
    """
    decision = network.weights(DECISION)
    readings, _, slopes = network.slopes(inputs, decision)
    ranked, means = [], {}
    for blob in network.blobs:
        by_factor, by_sum = slopes[blob]
        means[blob] = network.part(readings, blob)
        effect = np.abs(by_factor - means[blob].mean(0) * by_sum).mean(0)
        ranked += [(float(size), blob, channel) for channel, size in enumerate(effect)]
    found = []
    for estimate, blob, channel in sorted(ranked, reverse=True)[:count]:
        response = means[blob][:, channel]
        removed = network.edits({(blob, channel): float(response.mean())})
        change = (network.read(inputs, removed) - readings) @ decision
        found.append(Unit(blob, channel, change, estimate, response))
    return sorted(found, key=lambda unit: -float(np.abs(unit.change).mean()))


def names_of(units: Sequence[Unit]) -> list[str]:
    """Name units, `conv5 12`."""
    return [f"{unit.blob} {unit.channel}" for unit in units]
