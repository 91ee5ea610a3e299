"""A chunk in parts that go through the compiled step in turn, where memory does not hold it whole.

A chunk's rows are laid out share by share (one a device), each share `share_rows(batch)` rows. A
part has fewer rows a share in the same layout. What is kept of a chunk under way is in the chunk's
own layout, so that it may go on in other parts, or whole.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsynth.models.cpu_convolution import rounds_by_place

_SPARE = 1  # rows that a share may carry at its end and throw away


class Parts(NamedTuple):
    """How a chunk is cut into parts and put together again.

    Attributes:
      takes: per part, its rows among those of the chunk; None for a chunk that is whole.
      back: for every row of the chunk, its place among the rows of all parts.
    """

    takes: tuple[np.ndarray, ...] | None
    back: np.ndarray

    def cut(self, tree: Any) -> list[Any]:
        """A tree of arrays (rows, ...) -> one for every part."""
        if self.takes is None:
            return [tree]
        return [jax.tree.map(lambda leaf, i=take: leaf[i], tree) for take in self.takes]

    def join(self, trees: Sequence[Any], axis: int = 0) -> Any:
        """Inverse of `cut`, host arrays; `axis` is that of the rows."""
        if self.takes is None:
            return trees[0]
        return jax.tree.map(
            lambda *leaves: np.take(np.concatenate(leaves, axis), self.back, axis), *trees
        )


def make_parts(batch: int, at_once: int, shares: int) -> Parts:
    """Parts of at most `at_once` runs a share, all of one size."""
    whole, rows = share_rows(batch), share_rows(at_once)
    if at_once == batch:
        return Parts(None, np.arange(shares * whole))
    begin = whole * np.arange(shares)[:, None]
    takes = tuple(
        (begin + np.minimum(first + np.arange(rows), batch - 1)).ravel()
        for first in range(0, batch, at_once)
    )
    part, place = np.divmod(np.minimum(np.arange(whole), batch - 1), at_once)
    back = part * shares * rows + place + rows * np.arange(shares)[:, None]
    return Parts(takes, back.ravel())


def share_rows(batch: int) -> int:
    """Rows in which a device computes `batch` runs.

    Where the last row of a batch is rounded differently, a spare row takes that place in every
    share: runs are chaotic, and a run's result must not depend on its place in the chunk.
    """
    return batch + (_SPARE if batch > 1 and rounds_by_place() else 0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a runtime error of JAX says that a device's memory is full."""
    return "RESOURCE_EXHAUSTED" in str(error)
