"""Times a step in several commits of this project; run from the repository's root, a clone.

  python -m benchmarks.commits --commits=f6bdbb9,HEAD --cases=trio,pocket

Every commit is unpacked into a temporary folder, where its own `experiments.benchmark_speed` times
one case after another, the commits in turn. What counts is the lowest of a commit's medians. How
that launcher times is a commit's own, too: where it differs, so may the times. Prints a table, and
writes it to --out after every measurement. A minute a round for each commit on two cores.
"""

import csv
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from benchmarks import check_flags_only, parse_counts, parse_some_of
from benchmarks.speed.table import commit_rows
from benchmarks.speed_cases import CASES
from experiments.launch import command_line, run_main
from jaxsynth.disk import write_atomic
from jaxsynth.environment import machine_line
from jaxsynth.report.tables import format_markdown

_COMMITS = flags.DEFINE_list("commits", None, "Commits, the one to compare with first.")
_CASES = flags.DEFINE_list("cases", list(CASES), f"Some of {', '.join(CASES)}.")
_BATCHES = flags.DEFINE_list("batches", ["8", "1"], "Runs in a step.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "So long a case and batch is timed in a round.")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Times that every commit has its turn.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "out/commits", "Folder for commits.md.")


def main(argv: Sequence[str]) -> int:
    check_flags_only("commits", argv)
    cases = parse_some_of("cases", _CASES.value, CASES)
    parse_counts("batches", _BATCHES.value, "numbers such as 8,1")
    if not _COMMITS.value:
        raise ValueError("--commits: expected some of this clone's, such as f6bdbb9,HEAD")
    names = list(dict.fromkeys(map(_short, _COMMITS.value)))
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    lowest: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        trees = {name: _unpack(name, Path(folder) / name) for name in names}
        for _, case, name in itertools.product(range(_ROUNDS.value), cases, trees):
            for batch, seconds in _measure(trees[name], name, case).items():
                before = lowest[case, batch].get(name, seconds)
                lowest[case, batch][name] = min(before, seconds)
                print(f"{case}, batch {batch}, {name}: {1e3 * seconds:.1f} ms", flush=True)
            write_atomic(out / "commits.md", _page(lowest, names).encode())
    print(_page(lowest, names))
    return 0


def _page(lowest: Mapping[tuple[str, str], Mapping[str, float]], names: Sequence[str]) -> str:
    command = command_line("commits", "benchmarks")
    return f"`{command}`\n\n{machine_line()}\n\n{format_markdown(commit_rows(lowest, names))}"


def _short(commit: str) -> str:
    asked = ["git", "rev-parse", "--verify", "--short", f"{commit}^{{commit}}"]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise ValueError(f"--commits: {commit!r} is no commit of this clone ({', '.join(said)})")
    return done.stdout.strip()


def _unpack(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def _measure(tree: Path, name: str, case: str) -> dict[str, float]:
    """Median seconds of a case's step by its batch, by the tree's own code."""
    out = tree / "out" / "commits"
    command = [
        *(sys.executable, "-m", "experiments.benchmark_speed", f"--cases={case}", "--overwrite"),
        *(f"--batches={','.join(_BATCHES.value)}", "--repeats=100", f"--out={out}"),
        f"--seconds={_SECONDS.value}",
    ]
    if subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL).returncode:
        raise ValueError(f"benchmark_speed of commit {name} failed on {case}: see above")
    times = defaultdict(list)
    with (out / "speed.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            times[row["batch"]].append(float(row["seconds"]))
    return {batch: statistics.median(seconds) for batch, seconds in times.items()}


if __name__ == "__main__":
    run_main(main)
