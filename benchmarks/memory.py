"""Peak memory of the host against the number of runs of a sweep; run from the repository's root.

  python -m benchmarks.memory --runs=1000,3000,10000 --out=benchmarks

Each sweep is `experiments.scene` in a process of its own, on networks that compute next to nothing
but whose arrays per run are of full size: codes of 4096, 205 scenes. Its peak is the kernel's
(ru_maxrss). Writes memory_cpu.md and memory_cpu.png, the latter with matplotlib. A minute on two
cores.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import check_flags_only, parse_counts
from experiments.launch import command_line, run_main
from experiments.run_flags import NSFW, PLACES
from jaxsynth.disk import write_atomic
from jaxsynth.environment import machine_line
from jaxsynth.models.caffe_networks import AlexNetConfig, Conv
from jaxsynth.models.generator import GeneratorConfig, Up
from jaxsynth.models.network import CodeStats, NetworkInfo, build_network
from jaxsynth.models.weights import save_network
from jaxsynth.report.tables import format_markdown
from jaxsynth.system import GENERATOR
from tests.tiny import random_params

_RUNS = flags.DEFINE_list("runs", ["1000", "3000", "10000"], "Numbers of runs.")
_OUT = flags.DEFINE_string("out", "out/memory", "Folder for memory_cpu.md and memory_cpu.png.")
_MORE = flags.DEFINE_string(
    "flags", "--steps=10 --batch=50 --images=none", "Further flags of experiments.scene."
)

_CODE = 4096
_CONVS = (Conv("conv1", 4, 3, 4, 1),)
_NETWORKS = {
    GENERATOR: NetworkInfo(
        "light_generator",
        GeneratorConfig(
            code=_CODE,
            dense=(("defc6", 8), ("defc5", 4 * 4 * 4)),
            seed=(4, 4, 4),
            layers=tuple(
                Up(f"deconv{i}", "deconv", channels, 4, 2)
                for i, channels in ((2, 4), (1, 4), (0, 3))
            ),
        ),
    ),
    PLACES: NetworkInfo(
        "light_places",
        AlexNetConfig(size=32, convs=_CONVS, dense=(("fc6", 8),), classes=205),
        tuple(f"scene {i}" for i in range(205)),
        preprocessing="resize32",
    ),
    NSFW: NetworkInfo(
        "light_nsfw",
        AlexNetConfig(size=32, convs=_CONVS, dense=(("fc6", 8),), classes=2),
        ("SFW", "NSFW"),
        preprocessing="simple",
    ),
}


def main(argv: Sequence[str]) -> int:
    check_flags_only("memory", argv)
    counts = parse_counts("runs", _RUNS.value, "numbers such as 1000,3000")
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        networks = []
        for role, info in _NETWORKS.items():
            path = Path(folder) / f"{role}.safetensors"
            code = CodeStats(np.full(_CODE, 3, np.float32)) if role == GENERATOR else None
            save_network(path, build_network(info, random_params(info.config, 0), code))
            networks.append(f"--{role}={path}")
        rows: list[dict[str, object]] = []
        for runs in counts:
            rows.append(_measure(runs, [*networks, *shlex.split(_MORE.value)], Path(folder)))
            print(rows[-1], flush=True)
    page = (
        f"`{command_line('memory', 'benchmarks')}`\n\n{machine_line()}\n\n{format_markdown(rows)}"
    )
    write_atomic(out / "memory_cpu.md", page.encode())
    _plot(out / "memory_cpu.png", rows)
    print(page)
    return 0


def _measure(runs: int, given: Sequence[str], folder: Path) -> dict[str, object]:
    """A sweep of so many runs: its peak memory, and what it leaves on the disk."""
    out = folder / f"runs{runs}"
    command = [sys.executable, "-m", "experiments.scene", "--noprogress", "--scenes=0", *given]
    begin = time.monotonic()
    child = subprocess.Popen(
        [*command, f"--seeds={runs}", f"--out={out}"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise ValueError(f"the sweep of {runs} runs failed: see above")
    files = {path.name: path.stat().st_size for path in out.iterdir() if path.is_file()}
    return {
        "runs": runs,
        "peak, MB": round(usage.ru_maxrss / 1e3),  # the kernel counts in kB
        "seconds": round(time.monotonic() - begin),
        "results.safetensors, MB": round(files["results.safetensors"] / 1e6),
        "report.html, kB": round(files["report.html"] / 1e3),
        "metrics.csv, kB": round(files["metrics.csv"] / 1e3),
    }


def _plot(path: Path, rows: Sequence[dict[str, object]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    runs = [row["runs"] for row in rows]
    for name, colour in (("peak, MB", "#2f6db3"), ("results.safetensors, MB", "#d1602b")):
        label = name.replace("peak", "peak memory")
        axes.plot(runs, [row[name] for row in rows], color=colour, marker="o", label=label)
    axes.set_xlabel("runs")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    run_main(main)
