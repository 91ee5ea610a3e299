"""A soak: a long sweep, killed and resumed, against the same one left alone.

  python -m tests.soak --runs=2000 --kills=3 --out=out/soak

The sweep is `scene`: --runs / 20 categories by 20 seeds of the pocket networks, 3 steps, 50 runs a
chunk. Both sweeps take the same folder by the same command in turn, so every file that they leave
must be the same, byte for byte. Prints that, and what memory the process held while it computed.
Some ten minutes on two cores.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
UNFINISHED = "unfinished"
SEEDS = 20  # a row
_EVERY = 0.02  # seconds between two looks at the process


class Sample(NamedTuple):
    """A look at a process under way: seconds since it began, its resident memory in MB (1e6), and
    its finished chunks."""

    seconds: float
    memory: float
    chunks: int


class Peaks(NamedTuple):
    """Largest resident memory in MB: in the first quarter of the chunks (after the first one, which
    compiles), in the last quarter, and while the pages were made."""

    first: float
    last: float
    pages: float


def sweep_command(out: Path, runs: int, batch: int, *flags: str) -> list[str]:
    """The sweep's command. It begins the sweep, and continues it."""
    if runs < SEEDS or runs % SEEDS:
        raise ValueError(f"--runs={runs}: expected a multiple of {SEEDS}")
    given = [f"--scenes=0:{runs // SEEDS}", f"--seeds={SEEDS}", "--steps=3", f"--batch={batch}"]
    given += ["--noprogress", "--save_seconds=1", "--resume", f"--out={out}"]
    return [sys.executable, "-m", "experiments.scene", *given, *flags]


def run_whole(command: Sequence[str], out: Path, chunks: int) -> list[Sample]:
    """Runs the command to its end; looks at it all the while.

    Raises:
      RuntimeError: if it does not end well.
    """
    process, samples, begun = _start(command), [], time.monotonic()
    while process.poll() is None:
        seconds = time.monotonic() - begun
        samples.append(Sample(seconds, _resident(process.pid), _finished(out, chunks)))
        time.sleep(_EVERY)
    err = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"the sweep ended with {process.returncode}: {err[-2000:]}")
    return samples


def run_killed(
    command: Sequence[str], out: Path, chunks: int, moments: Sequence[float], pause: float
) -> list[int]:
    """Kills the command once for each moment (chunks that are finished by then, the fraction being
    that of `pause` seconds, which is what a chunk takes), then lets it end.

    Gives how many chunks were finished at each kill.
    """
    found = []
    for moment in sorted(moments):
        process = _start(command)
        while _finished(out, chunks) < int(moment) and process.poll() is None:
            time.sleep(_EVERY)
        time.sleep(moment % 1 * pause)
        if process.poll() is not None:
            raise RuntimeError(f"the sweep ended before it was killed: {process.communicate()[1]}")
        process.kill()
        process.communicate()
        found.append(_finished(out, chunks))
    run_whole(command, out, chunks)
    return found


def peaks(samples: Sequence[Sample], chunks: int) -> Peaks:
    """See `Peaks`."""

    def most(first: int, last: int) -> float:
        return max((s.memory for s in samples if first <= s.chunks < last), default=np.nan)

    return Peaks(
        most(1, 1 + max(1, chunks // 4)), most(chunks - max(1, chunks // 4), chunks),
        most(chunks, chunks + 1),
    )  # fmt: skip


def differences(one: Path, other: Path) -> list[str]:
    """Names of the files that only one folder has, or whose bytes differ."""
    files = [{str(p.relative_to(f)): p for p in f.rglob("*") if p.is_file()} for f in (one, other)]
    return sorted(
        name
        for name in {*files[0], *files[1]}
        if not all(name in found for found in files)
        or files[0][name].read_bytes() != files[1][name].read_bytes()
    )


def soak(
    folder: Path, runs: int, kills: int, batch: int = 50, flags: Sequence[str] = (), seed: int = 0
) -> tuple[Peaks, list[int], list[str], int]:
    """Peaks of the sweep that was left alone; chunks at each kill; the files that differ; and how
    many files there are."""
    out, chunks = folder / "run", -(-runs // batch)
    command = sweep_command(out, runs, batch, *flags)
    folder.mkdir(parents=True)
    samples = run_whole(command, out, chunks)
    out.rename(folder / "whole")
    moments = np.random.default_rng(seed).uniform(0, chunks, kills)
    computing = [s.seconds for s in samples if 0 < s.chunks < chunks]
    pause = (computing[-1] - computing[0]) / chunks
    killed = run_killed(command, out, chunks, moments, pause)
    count = sum(p.is_file() for p in (folder / "whole").rglob("*"))
    return peaks(samples, chunks), killed, differences(folder / "whole", out), count


def _start(command: Sequence[str]) -> subprocess.Popen:
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finished(out: Path, chunks: int) -> int:
    """Chunks that the folder keeps; all of them once the results are joined."""
    if (out / "results.safetensors").is_file():
        return chunks
    return len(list((out / UNFINISHED).glob("run*.safetensors")))


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help=f"a multiple of {SEEDS}")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="must not exist")
    given = parser.parse_args()
    begun = time.monotonic()
    found, killed, wrong, count = soak(given.out.resolve(), given.runs, given.kills, given.batch)
    print(f"killed after {killed} of {-(-given.runs // given.batch)} chunks")
    print(f"{count} files, of which {len(wrong)} differ {wrong[:5] or ''}")
    print(
        f"resident memory at most: first quarter {found.first:.0f} MB, last quarter "
        f"{found.last:.0f} MB, pages {found.pages:.0f} MB; {time.monotonic() - begun:.0f} s in all"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
