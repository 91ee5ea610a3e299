r"""How fast a step is: ours and PyTorch in turn, on the same weights, beside the machine's limits.

  python -m experiments.benchmark_speed --peer=torch
  python -m experiments.benchmark_speed --cases=trio --precisions=bfloat16,float32 \
    --batches=1,8,64,256 --peer=torch.compile

A step is the forward pass and the gradient of its input. Cases: `trio` (the networks of 2016 at
their own size with random weights), `pocket` (the shipped pair and open_nsfw), or one network by
its name. With a peer both gradients are compared first, in float64. Writes speed.md and speed.csv
(every time taken) into --out. Three minutes on two cores with PyTorch, which is an extra:
pip install 'jaxsynth[peer]'.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from absl import flags

from experiments.launch import (
    check_flags_only,
    check_some_of,
    command_line,
    keep_compiled,
    run_main,
)
from jaxsynth.engine.objective import GENERATOR
from jaxsynth.experiment import NSFW, PLACES
from jaxsynth.files.results import machine_line
from jaxsynth.files.weights import cache_dir, load_network
from jaxsynth.files.whole import write_whole
from jaxsynth.networks.network import Network
from jaxsynth.report.tables import format_markdown, write_metrics
from jaxsynth.speed.cases import Case, network_case, random_network, trio_case
from jaxsynth.speed.compare import (
    COMPILED,
    TORCH,
    Limits,
    Measured,
    check_agreement,
    machine_limits,
    measure,
)
from jaxsynth.speed.table import second_rows, speed_rows

_FULL = {GENERATOR: "dgn_fc6", NSFW: "open_nsfw", PLACES: "places205"}
_POCKET = {GENERATOR: "pocket_generator", NSFW: "open_nsfw", PLACES: "pocket_places"}
_TRIOS = {"trio": _FULL, "pocket": _POCKET}
CASES = ("trio", *_FULL.values(), "pocket", "pocket_generator", "pocket_places")
_PEERS = {"none": (), TORCH: (TORCH,), COMPILED: (TORCH, COMPILED)}
_PRECISIONS = ("float32", "bfloat16")

_CASES = flags.DEFINE_list("cases", list(CASES), f"Some of {', '.join(CASES)}.")
_BATCHES = flags.DEFINE_list("batches", ["8", "1"], "Runs in a step.")
_PRECISION = flags.DEFINE_list("precisions", ["float32"], "Some of float32, bfloat16.")
_PEER = flags.DEFINE_enum("peer", "none", list(_PEERS), "torch.compile is measured beside torch.")
_REPEATS = flags.DEFINE_integer("repeats", 25, "Rounds at most.", lower_bound=3)
_SECONDS = flags.DEFINE_float("seconds", 15.0, "No round begins after so many, but three are made.")
_OUT = flags.DEFINE_string("out", "out/benchmark_speed", "Folder for speed.md and speed.csv.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier run's files.")


def main(argv: Sequence[str]) -> int:
    check_flags_only("benchmark_speed", argv)
    check_some_of("cases", _CASES.value, CASES)
    check_some_of("precisions", _PRECISION.value, _PRECISIONS)
    batches = _batches(_BATCHES.value)
    folder = _folder(Path(_OUT.value))
    keep_compiled(cache_dir())
    limits = {precision: machine_limits(precision) for precision in _PRECISION.value}
    measured = []
    for name in _CASES.value:
        case, peers = make_case(name), _PEERS[_PEER.value]
        agreement = check_agreement(case) if peers else None
        for precision in _PRECISION.value:
            for batch in batches:
                budget = (_REPEATS.value, _SECONDS.value)
                one = measure(case, batch, precision, peers, *budget, agreement)
                measured.append(one)
                print(_line(one), flush=True)
                write_metrics(folder / "speed.csv", second_rows(measured))
                write_whole(folder / "speed.md", _page(measured, limits).encode())
    print(f"wrote {folder / 'speed.md'}")
    return 0


def make_case(name: str) -> Case:
    """A case by its name."""
    if name in _TRIOS:
        return trio_case(name, {role: _network(n) for role, n in _TRIOS[name].items()})
    return network_case(_network(name))


def _network(name: str) -> Network:
    """A shipped network, or one of 2016 with random weights."""
    return random_network(name) if name in _FULL.values() else load_network(name)


def _folder(folder: Path) -> Path:
    if (folder / "speed.md").exists() and not _OVERWRITE.value:
        raise ValueError(
            f"--out={folder} holds a benchmark: choose another folder, or give --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _batches(values: Sequence[str]) -> list[int]:
    if not values or not all(v.isdecimal() and int(v) > 0 for v in values):
        raise ValueError(f"--batches={','.join(values)}: expected numbers of runs such as 1,8")
    return [int(v) for v in values]


def _line(one: Measured) -> str:
    times = ", ".join(f"{name} {1e3 * t.median:.1f} ms" for name, t in one.timings.items())
    return f"{one.case}, batch {one.batch}, {one.precision}: {times}"


def _page(measured: Sequence[Measured], limits: Mapping[str, Limits]) -> str:
    peer = {} if _PEER.value == "none" else {TORCH: version(TORCH)}
    peaks = [
        f"* {precision}: matrix product {limit.operations / 1e9:.0f} GFLOP/s, copy "
        f"{limit.bytes / 1e9:.1f} GB/s, measured in the same run"
        for precision, limit in limits.items()
    ]
    return "\n".join(
        [
            f"`{command_line('benchmark_speed')}`",
            "",
            machine_line(peer),
            *peaks,
            "* times: median (first to third quartile); ratios: median over the rounds",
            "",
            format_markdown(speed_rows(measured, limits)),
        ]
    )


if __name__ == "__main__":
    run_main(main)
