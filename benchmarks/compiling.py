"""How long the full-size trio's step compiles, and in a second process, which finds it on the disk.

  python -m benchmarks.compiling

Run from the repository's root. The trio is that of benchmark_speed (the
networks of 2016 at their own size, random weights), at batch 8; both processes share a new cache,
kept as the launchers keep theirs. CPU time counts the work of all threads whatever else the machine
does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter

import jax

from benchmarks.speed.cases import inputs, step_params
from benchmarks.speed_cases import make_case
from jaxsynth.environment import cache_dir, keep_compiled, machine_line
from jaxsynth.models.compiled import compiler_options, network_jit
from jaxsynth.report.tables import format_markdown

_BATCH = 8
_MEASURED = "--measured"  # what a process is told that measures


def main() -> None:
    if sys.argv[1:] == [_MEASURED]:
        print(json.dumps(_measure()))
        return
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for process in ("first", "second"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.compiling", _MEASURED],
                env=dict(os.environ, JAXSYNTH_CACHE=cache),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows.append({"process": process} | json.loads(done.stdout.splitlines()[-1]))
    print("`python -m benchmarks.compiling`\n")
    print(f"{machine_line()}\n\n{format_markdown(rows)}")


def _measure() -> dict[str, object]:
    """Of this process: seconds of tracing and of compiling, programs compiled and found."""
    keep_compiled(cache_dir())
    case = make_case("trio")
    x = jax.device_put(inputs(case.first.info.config, _BATCH))
    params = step_params(case, "float32")
    compiler_options()  # tries them, which is a program of its own
    counts: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
    begin = time.perf_counter()
    lowered = network_jit(case.step).jitted().lower(params, x)
    traced, cpu = time.perf_counter(), time.process_time()
    lowered.compile()
    return {
        "tracing, s": f"{traced - begin:.1f}",
        "compiling, s": f"{time.perf_counter() - traced:.1f}",
        "compiling, CPU s": f"{time.process_time() - cpu:.1f}",
        "programs": counts["/jax/compilation_cache/compile_requests_use_cache"],
        "found on the disk": counts["/jax/compilation_cache/cache_hits"],
    }


if __name__ == "__main__":
    main()
