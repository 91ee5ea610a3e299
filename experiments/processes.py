"""The flags of one run by several processes, see `jaxsynth.runs.processes`."""

import jax
from absl import flags

from jaxsynth.runs import processes
from jaxsynth.runs.processes import Processes

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several processes share the run."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes share the run.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0 on.", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes share the run, and the cluster's manager (Slurm, Open MPI, Kubernetes, a "
    "TPU pod) says which: no further flags are needed.",
)
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Use so many of this machine's devices; by default all.", lower_bound=1
)


def join_processes() -> Processes:
    """`jaxsynth.runs.processes.join_processes` of the flags."""
    return processes.join_processes(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _DISTRIBUTED.value
    )


def chosen_devices() -> tuple[jax.Device, ...]:
    """`jaxsynth.runs.processes.chosen_devices` of the flag."""
    return processes.chosen_devices(_DEVICES.value)
