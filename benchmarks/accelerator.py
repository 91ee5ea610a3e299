"""Takes all measurements of an accelerator, most important first.

  python -m benchmarks.accelerator --out=out/accelerator
  python -m benchmarks.accelerator --tiny --out=out/tiny      (the same on CPU, in a minute or two)

Run from the repository's root, in an environment with jax[cuda13] and PyTorch; --nopeer does
without PyTorch. Each part is a process, has a limit of its own, and writes its output to
OUT/PART.txt as it goes, so a stop loses no earlier output. The parts are:

* the table of speed: trio and pocket, float32 and bfloat16, four batches, against torch.compile
* one sweep from end to end
* the fast part of the suite
* a short training of a prior, if --data names photographs

Prints a line for each part; the exit code is 1 if one of them failed.
"""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from experiments.launch import run_experiment
from jaxsynth.inputs import option
from jaxsynth.report.tables import format_markdown


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    out: Path = option(Path("out/accelerator"), "Folder of the parts' output.")
    tiny: bool = option(False, "Small networks, batches and limits: tries the script.")
    peer: bool = option(True, "Measure torch.compile as well.")
    data: str = option("", "Photographs of the training; without them it is left out.")
    seconds: int = option(800, "For all parts together.", low=1)


class Part(NamedTuple):
    """A process: its name, the words after `python -m`, the share of the time it may take."""

    name: str
    words: tuple[str, ...]
    share: float


def parts(out: Path, tiny: bool, peer: bool, data: str) -> list[Part]:
    """Return the commands to run, in order."""
    cases = "pocket_generator" if tiny else "trio,pocket"
    precisions = "float32" if tiny else "float32,bfloat16"
    batches = "1" if tiny else "8,64,256,1024"
    speed = ["experiments.benchmark_speed", f"--cases={cases}", f"--precisions={precisions}"]
    speed += [f"--batches={batches}", f"--seconds={0 if tiny else 5}", f"--out={out / 'speed'}"]
    speed += ["--overwrite", *(["--repeats=3"] if tiny else [])]
    speed += ["--peer=torch.compile"] if peer else []
    sweep = ["experiments.scene", f"--scenes={'mountain' if tiny else 'all'}", "--overwrite"]
    sweep += [f"--seeds={1 if tiny else 64}", f"--out={out / 'sweep'}", "--noprogress"]
    sweep += ["--steps=2", "--batch=1"] if tiny else ["--batch=256", "--images=none"]
    tests = ["pytest", "-p", "no:xdist", "-q", "-m", "not full_size"]
    tests += ["tests/test_optimizers.py", "tests/test_engine.py", "tests/test_trajectories.py"]
    if tiny:
        tests = ["pytest", "-p", "no:xdist", "-q", "tests/test_transforms.py"]
    found = [
        Part("speed", tuple(speed), 0.5),
        Part("sweep", tuple(sweep), 0.15),
        Part("tests", tuple(tests), 0.2),
    ]
    if data:
        training = ["experiments.train_generator", f"--data={data}", f"--out={out / 'prior'}"]
        training += ["--minutes=1.5"]
        found.append(Part("training", tuple(training), 0.15))
    return found


def run(part: Part, out: Path, limit: float) -> dict[str, str]:
    """Run a part; return its row of the table. This process leaves the accelerator alone."""
    begin = time.monotonic()
    command = [sys.executable, "-m", *part.words]
    with open(out / f"{part.name}.txt", "wb") as log:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=limit
            ).returncode
            ended = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
    seconds = f"{time.monotonic() - begin:.0f}"
    return {"part": part.name, "ended": ended, "seconds": seconds, "command": " ".join(command[1:])}


def main(flags: Flags) -> int:
    """Run all parts."""
    flags.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in parts(flags.out, flags.tiny, flags.peer, flags.data):
        rows.append(run(part, flags.out, flags.seconds * part.share))
        print(f"{part.name}: {rows[-1]['ended']}, {rows[-1]['seconds']} s", flush=True)
        (flags.out / "parts.md").write_text(format_markdown(rows) + "\n")
    return int(any(row["ended"] != "done" for row in rows))


if __name__ == "__main__":
    run_experiment(main, Flags)
