r"""Times a step: ours and PyTorch's in turn, on the same weights, with the machine's limits.

  python -m experiments.benchmark_speed --peer=torch
  python -m experiments.benchmark_speed --cases=trio --precisions=bfloat16,float32 \
    --batches=1,8,64,256 --peer=torch.compile

A step is the forward pass and the gradient of its input. Cases: `trio` (the networks of 2016 at
their own size with random weights), `pocket` (the shipped pair and open_nsfw), or one network by
its name. Each is measured in a process of its own; with a peer both gradients are compared first,
in float64. Writes speed.md and speed.csv (every time taken) into --out. Six minutes on two cores
with PyTorch, which is an extra: pip install 'jaxsynth[peer]'.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags

from benchmarks import check_flags_only, parse_counts, parse_some_of
from benchmarks.speed.compare import COMPILED, TORCH, Limits, Measured
from benchmarks.speed.table import second_rows, speed_rows
from benchmarks.speed_cases import (
    CASES,
    compare_gradients,
    in_own_process,
    measure_case,
    measure_machine,
)
from experiments.launch import command_line, run_main
from jaxsynth.disk import write_atomic
from jaxsynth.report.tables import format_markdown, write_csv
from jaxsynth.runs.processes import lock

_PEERS = {"none": (), TORCH: (TORCH,), COMPILED: (TORCH, COMPILED)}
_PRECISIONS = ("float32", "bfloat16")

_CASES = flags.DEFINE_list("cases", list(CASES), f"Some of {', '.join(CASES)}.")
_BATCHES = flags.DEFINE_list("batches", ["8", "1"], "Runs in a step.")
_PRECISION = flags.DEFINE_list("precisions", ["float32"], "Some of float32, bfloat16.")
_PEER = flags.DEFINE_enum(
    "peer", "none", list(_PEERS), "torch.compile is measured in addition to torch."
)
_REPEATS = flags.DEFINE_integer("repeats", 100, "Rounds at most.", lower_bound=3)
_SECONDS = flags.DEFINE_float(
    "seconds", 15.0, "No round begins after so many, but three are made.", lower_bound=0.0
)
_OUT = flags.DEFINE_string("out", "out/benchmark_speed", "Folder for speed.md and speed.csv.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier run's files.")


def main(argv: Sequence[str]) -> int:
    check_flags_only("benchmark_speed", argv)
    cases = parse_some_of("cases", _CASES.value, CASES)
    precisions = parse_some_of("precisions", _PRECISION.value, _PRECISIONS)
    batches = parse_counts("batches", _BATCHES.value, "numbers of runs such as 1,8")
    if not math.isfinite(_SECONDS.value):
        raise ValueError(f"--seconds={_SECONDS.value}: expected seconds from 0 up")
    folder = _folder()
    with lock(folder):
        machine, limits = in_own_process(measure_machine, precisions, _PEERS[_PEER.value])
        measured = []
        for one in _measure_all(cases, precisions, batches):
            measured.append(one)
            print(_line(one), flush=True)
            write_csv(folder / "speed.csv", second_rows(measured))
            write_atomic(folder / "speed.md", _page(measured, machine, limits).encode())
    print(f"wrote {folder / 'speed.md'}")
    return 0


def _measure_all(
    cases: Sequence[str], precisions: Sequence[str], batches: Sequence[int]
) -> Iterator[Measured]:
    peers = _PEERS[_PEER.value]
    for name in cases:
        agreement = in_own_process(compare_gradients, name) if peers else None
        for precision, batch in itertools.product(precisions, batches):
            settings = (precision, peers, _REPEATS.value, _SECONDS.value, agreement)
            yield in_own_process(measure_case, name, batch, *settings)


def _folder() -> Path:
    if not _OUT.value:
        raise ValueError("--out= names no folder")
    folder = Path(_OUT.value)
    if (folder / "speed.md").exists() and not _OVERWRITE.value:
        raise ValueError(
            f"--out={folder} holds a benchmark: choose another folder, or give --overwrite"
        )
    return folder


def _line(one: Measured) -> str:
    times = ", ".join(f"{name} {1e3 * t.median:.1f} ms" for name, t in one.timings.items())
    return f"{one.case}, batch {one.batch}, {one.precision}: {times}"


def _page(measured: Sequence[Measured], machine: str, limits: Mapping[str, Limits]) -> str:
    peaks = [
        f"* {precision}: matrix product {limit.operations / 1e9:.0f} GFLOP/s, copy "
        f"{limit.bytes / 1e9:.1f} GB/s, measured in the same run"
        for precision, limit in limits.items()
    ]
    return "\n".join(
        [
            f"`{command_line('benchmark_speed')}`",
            "",
            machine,
            *peaks,
            "* times: median (first to third quartile); ratios: median over the rounds",
            "",
            format_markdown(speed_rows(measured, limits)),
        ]
    )


if __name__ == "__main__":
    run_main(main)
