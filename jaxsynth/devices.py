"""Runs over several devices: weights on each of them, every device maps its own share of the runs.

Runs are independent, so nothing is exchanged. A device computes exactly what it would compute alone
with the same number of runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_RUNS = "runs"


def runs_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
    """One axis of runs (or of a training batch) over these devices; None for a single one, which
    needs no mesh."""
    if len(devices) < 2:
        return None
    return jax.make_mesh((len(devices),), (_RUNS,), (AxisType.Auto,), devices=devices)


def over_runs(
    mesh: Mesh | None, function: Callable[..., Any], axes: Sequence[int | None]
) -> Callable[..., Any]:
    """`vmap` of one run's function, its runs split evenly over the mesh.

    axes: per argument, 0 for a leading axis of runs, None for what all runs share.
    """
    mapped = jax.vmap(function, in_axes=tuple(axes))
    if mesh is None:
        return mapped
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(_RUNS) for axis in axes)
    return jax.shard_map(
        mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(_RUNS), check_vma=False
    )


def on_all(mesh: Mesh | None, tree: Any) -> Any:
    """The arrays on every device of the mesh, so that no call has to send them again."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(mesh: Mesh | None, tree: Any) -> Any:
    """Arrays with a leading axis of runs (or of a training batch), split over the mesh."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(_RUNS)))
