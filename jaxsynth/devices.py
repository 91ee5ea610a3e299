"""Rows of a batch: over several devices, in slices that memory holds, padded to a fixed number.

Runs are independent, so nothing is exchanged between devices. A device computes exactly what it
would compute alone with the same number of rows.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxsynth.models.compiled import rounds_by_place

_SHARES = "devices"
_SPARE = 1  # rows that a share may carry at its end and throw away


def runs_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
    """Make one axis of runs (or of a training batch) over devices; None for a single one."""
    if len(devices) < 2:
        return None
    return jax.make_mesh((len(devices),), (_SHARES,), (AxisType.Auto,), devices=devices)


def over_shares(
    mesh: Mesh | None, function: Callable[..., Any], axes: Sequence[int | None]
) -> Callable[..., Any]:
    """Call a function of a share of the rows on every device of the mesh.

    `axes` has per argument 0 for a leading axis of rows, None for what all rows share, or a tree of
    both. Results have a leading axis of rows.
    """
    if mesh is None:
        return function

    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(_SHARES)

    specs = jax.tree.map(spec, tuple(axes), is_leaf=lambda axis: axis is None)
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(_SHARES), check_vma=False
    )


def on_all(mesh: Mesh | None, tree: Any) -> Any:
    """Put arrays on every device of the mesh, so that no call has to send them again."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(mesh: Mesh | None, tree: Any) -> Any:
    """Split arrays with a leading axis of runs (or of a training batch) over the mesh."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(_SHARES)))


def committed(mesh: Mesh | None, tree: Any) -> Any:
    """Pin arrays without a mesh to the device that they are on, as a saved program's results are.

    A program compiles again for arrays that are not pinned.
    """

    def pin(leaf: Any) -> jax.Array:
        array = jax.numpy.asarray(leaf)
        return jax.device_put(array, array.sharding)

    return tree if mesh is not None else jax.tree.map(pin, tree)


def padded(rows: Any, size: int) -> Any:
    """Cut or pad arrays (N, ...) to `size` rows: the last one is repeated."""
    return jax.tree.map(lambda leaf: leaf[np.minimum(np.arange(size), len(leaf) - 1)], rows)


def batches(rows: Any, size: int) -> Iterator[tuple[Any, int]]:
    """Yield batches of `size` rows, the last one padded, with the number of rows that count."""
    total = len(jax.tree.leaves(rows)[0])
    for first in range(0, total, size):
        part = jax.tree.map(lambda leaf, i=first: leaf[i : i + size], rows)
        yield padded(part, size), min(size, total - first)


def share_rows(batch: int) -> int:
    """Return the rows in which a device computes `batch` codes.

    Where the last row of a batch is rounded differently, a spare row takes that place in every
    share: runs are chaotic, and a run's result must not depend on its place in the chunk.
    """
    return batch + (_SPARE if batch > 1 and rounds_by_place() else 0)


class Slices(NamedTuple):
    """How a chunk of `shares` x `runs` rows is cut into slices of `at_once` runs a share.

    Slices go through the compiled step in turn, where memory does not hold the whole chunk. The
    last one is padded with the share's last run. Checkpoints hold the whole chunk, so that it may
    be resumed in other slices, or whole.
    """

    shares: int
    runs: int
    at_once: int

    def cut(self, tree: Any) -> list[Any]:
        """Cut arrays (shares x runs, ...) into (shares x at_once, ...) for every slice."""
        if self.at_once >= self.runs:
            return [tree]
        begin = self.runs * np.arange(self.shares)[:, None]
        places = [
            (begin + np.minimum(first + np.arange(self.at_once), self.runs - 1)).ravel()
            for first in range(0, self.runs, self.at_once)
        ]
        return [jax.tree.map(lambda leaf, i=place: leaf[i], tree) for place in places]

    def join(self, trees: Sequence[Any], axis: int = 0) -> Any:
        """Undo `cut`, on the host; `axis` is that of the rows."""
        if self.at_once >= self.runs:
            return trees[0]
        return jax.tree.map(lambda *leaves: self._join(leaves, axis), *trees)

    def _join(self, leaves: Sequence[np.ndarray], axis: int) -> np.ndarray:
        before, after = leaves[0].shape[:axis], leaves[0].shape[axis + 1 :]
        slices = [leaf.reshape(*before, self.shares, self.at_once, *after) for leaf in leaves]
        whole = np.concatenate(slices, axis + 1)
        whole = np.take(whole, np.arange(self.runs), axis + 1)
        return whole.reshape(*before, self.shares * self.runs, *after)
