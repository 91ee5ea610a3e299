"""JAX's settings that decide numbers: a run does not depend on those of its process.

Environment variables (JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL) and host programs change them. What
can be set for a block of code is set by `arithmetic`; `unpinned` tells the rest, for config.json.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

_CPUINFO = Path("/proc/cpuinfo")
_PRNG = "threefry2x32"
_MATMUL = None  # the device's own; the tests say `highest`
_RECORDED = (
    "jax_disable_most_optimizations",
    "jax_exec_time_optimization_effort",
    "jax_optimization_level",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
)
_HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump", "--xla_hlo_profile")


@contextlib.contextmanager
def arithmetic(double: bool = False) -> Iterator[None]:
    """Compute with JAX's usual settings inside the block, in this thread; `double` in 64 bits."""
    with contextlib.ExitStack() as held:
        for setting in (
            jax.enable_x64(double),
            jax.default_prng_impl(_PRNG),
            jax.threefry_partitionable(True),
            jax.default_matmul_precision(_MATMUL),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.transfer_guard("allow"),
            jax.debug_nans(False),  # a run that is not finite freezes, its neighbours continue
            jax.debug_infs(False),
            jax.disable_jit(False),
        ):
            held.enter_context(setting)
        yield


def usable_precision(asked: str) -> tuple[str, str]:
    """Return the precision to compute in, and the reason where it is not the given one.

    A CPU without instructions for bfloat16 converts every number and takes longer than in float32.
    """
    if asked != "bfloat16" or has_bfloat16():
        return asked, ""
    return "float32", (
        "--precision=bfloat16: this processor has no bfloat16 arithmetic (avx512_bf16, amx_bf16), "
        "so float32 is used, which is faster here"
    )


@functools.cache
def has_bfloat16() -> bool:
    """Whether the device has instructions for bfloat16 products; True where nothing is known."""
    if jax.default_backend() != "cpu":
        return True
    try:
        words = set(_CPUINFO.read_text().split())
    except OSError:  # no Linux
        return True
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})  # x86, x86, Arm


def is_double(*trees: Any) -> bool:
    """Whether any array of these trees is float64."""
    leaves = (getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(trees))
    return any(isinstance(kind, np.dtype) and kind == np.float64 for kind in leaves)


def root_key(number: int) -> jax.Array:
    """Make a key of a number below 2**32, whatever PRNG and seed offset the process has."""
    return jax.random.wrap_key_data(np.array([0, number], np.uint32), impl=_PRNG)


def unpinned() -> dict[str, Any]:
    """Return settings of the process that decide numbers, as config.json compares them."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    found = {name: jax.config.values.get(name) for name in _RECORDED}
    found = {name: value if isinstance(value, bool | float) else str(value)
             for name, value in found.items()}  # fmt: skip
    return found | {"xla_flags": sorted(f for f in flags if not f.startswith(_HARMLESS))}
