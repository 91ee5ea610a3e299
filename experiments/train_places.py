r"""Trains the pocket scene network, or the judge, and exports it.

  python -m experiments.train_places --data=DIR --images=600000 --out=out/places
  python -m experiments.train_places --data=DIR --network=pocket_judge --seed=1 --images=600000

The scene network is another classifier (--trunk), fine-tuned with a fresh last layer; the judge is
a residual network from fresh weights. DIR holds zips (`*train*.zip`, `*val*.zip`, a folder per
class inside) or class folders. The same command resumes a run that was stopped. Writes
OUT/NETWORK.safetensors.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from jaxsynth.environment import cache_dir, keep_compiled
from jaxsynth.training.loop import LoopConfig
from jaxsynth.training.scene_run import SceneRun, train_scene

from .launch import run_experiment

Flags = SceneRun


def carry_out(train: Callable[..., tuple[Path, dict[str, float]]], run: Any, name: str) -> int:
    """Train with these settings, and print the file and its metrics.

    Args:
      train: takes the settings, and a function that prints a line.
      run: the settings; without --out the folder is out/NAME.
      name: of the launcher.
    """
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of every save
    keep_compiled(run.cache or cache_dir())
    if run.loop.out == LoopConfig.out:
        loop = dataclasses.replace(run.loop, out=Path("out") / name)
        run = dataclasses.replace(run, loop=loop)
    path, metrics = train(run, say)
    say(f"wrote {path}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()))
    return 0


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


def main(run: SceneRun) -> int:
    """Train the scene network or the judge."""
    return carry_out(train_scene, run, "train_places")


if __name__ == "__main__":
    run_experiment(main, Flags)
