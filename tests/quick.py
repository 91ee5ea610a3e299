"""Compile tiny networks' programs in a fifth of the time, by XLA's older emitters.

To be imported before anything is compiled. It counts where JAX is told to disable most
optimisations: programs of full size, and those of `optimised_programs`, are as a user's.
"""

import jax
from jax._src import compiler

_QUICK = {
    "xla_cpu_use_fusion_emitters": "False",
    "xla_cpu_parallel_codegen_split_count": "1",
}
_compile_options = compiler.get_compile_options


def _quick_options(*args, env_options_overrides=None, **named):
    quick = _QUICK if jax.config.values["jax_disable_most_optimizations"] else {}
    overrides = quick | (env_options_overrides or {})
    return _compile_options(*args, env_options_overrides=overrides, **named)


compiler.get_compile_options = _quick_options
