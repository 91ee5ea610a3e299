"""Where the time of a step goes, by network, pass and kind of work; run from the repository's root.

  python -m benchmarks.profile --case=trio --batch=8

Bytes or arithmetic: beside the time stand two floors, what the arithmetic takes at this machine's
rate of a large matrix product, and what is read and written takes at that of a copy. The times are
JAX's profiler's. On CPU all is of one core, as the profiler does not see what a second one does of
an operation. "not said" is what XLA does not name the source of, such as conversions to bfloat16.
Prints a table, and writes it to --out.
"""

import gzip
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from benchmarks.speed.cases import inputs, step_params
from benchmarks.speed.compare import machine_limits
from benchmarks.speed.profile import profile_rows, read_program
from benchmarks.speed_cases import CASES, make_case
from experiments.launch import check_flags_only, command_line, run_main
from jaxsynth.disk import write_whole
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import make_module
from jaxsynth.report.tables import format_markdown
from jaxsynth.runs.folder import machine_line

_CASE = flags.DEFINE_enum("case", "trio", list(CASES), "What is profiled, as by benchmark_speed.")
_BATCH = flags.DEFINE_integer("batch", 8, "Runs in a step.", lower_bound=1)
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Of a step.")
_STEPS = flags.DEFINE_integer("steps", 5, "Steps that are profiled.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "out/profile", "Folder for profile.md.")


def main(argv: Sequence[str]) -> int:
    check_flags_only("profile", argv)
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    limits = machine_limits(_PRECISION.value)
    case = make_case(_CASE.value)
    infos = [network.info for network in case.networks.values()]
    names = {type(make_module(info.config)).__name__: info.network for info in infos}
    params = step_params(case, _PRECISION.value)
    x = jax.device_put(inputs(case.first.info.config, _BATCH.value))
    step = network_jit(case.step).jitted().lower(params, x).compile()
    seconds = _profile(lambda: jax.block_until_ready(step(params, x)))
    rows = profile_rows(read_program(step.as_text(), names), seconds, names, limits)
    where = "one core" if jax.default_backend() == "cpu" else "one device"
    page = (
        f"`{command_line('profile', 'benchmarks')}`\n\n{machine_line()}\n* {where}: matrix product "
        f"{limits.operations / 1e9:.0f} GFLOP/s, copy {limits.bytes / 1e9:.1f} GB/s\n\n"
        f"{format_markdown(rows)}"
    )
    print(page)
    write_whole(out / "profile.md", page.encode())
    return 0


def _profile(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of a step by operation."""
    for _ in range(2):
        step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_STEPS.value):
                step()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        if name := event.get("args", {}).get("hlo_op"):
            seconds[name] += event["dur"] / 1e6 / _STEPS.value
    return seconds


if __name__ == "__main__":
    run_main(main)
