r"""Trains the pocket scene network, or a judge, and exports it.

  python -m experiments.train_places --data=DIR --images=600000 --out=out/places
  python -m experiments.train_places --data=DIR --network=pocket_judge --seed=1 --images=600000

The scene network is another classifier (--trunk), fine-tuned with a fresh last layer. The judge is
a residual network from fresh weights. DIR holds zips (`*train*.zip`, `*val*.zip`, a folder per
class inside) or class folders. The same command resumes a run that was stopped. Writes
OUT/NETWORK.safetensors.
"""

import dataclasses
from functools import partial
from typing import Any

from jaxsynth.environment import cache_dir, keep_compiled
from jaxsynth.training.finetune import FineTuning
from jaxsynth.training.loop import format_line
from jaxsynth.training.scene import SceneTraining
from jaxsynth.training.scene_run import JUDGE, SceneRun, train_scene

from .flags import changes_of
from .launch import run_experiment

say = partial(print, flush=True)


@dataclasses.dataclass(frozen=True)
class Flags(SceneRun):
    """A run; of `tuning` only what is typed, since the judge has other defaults."""

    tuning: dict[str, Any] = changes_of(FineTuning)


def main(flags: Flags) -> int:
    """Train a scene network or a judge."""
    keep_compiled(flags.cache or cache_dir())
    fields = {field.name: getattr(flags, field.name) for field in dataclasses.fields(SceneRun)}
    typed = fields.pop("tuning")
    if flags.network == JUDGE:
        of_judge = {field.name for field in dataclasses.fields(SceneTraining)}
        if wrong := sorted(typed.keys() - of_judge):
            raise ValueError(f"--{wrong[0]} has no effect with --network={JUDGE}: leave it away")
        fields["training"] = SceneTraining(**typed)
    else:
        fields["tuning"] = FineTuning(**typed)
    path, metrics = train_scene(SceneRun(**fields), say)
    say(format_line(f"wrote {path}", metrics))
    return 0


if __name__ == "__main__":
    run_experiment(main, Flags)
