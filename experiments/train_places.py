r"""Trains the pocket scene network, or a judge, and exports it.

  python -m experiments.train_places --data=DIR --images=600000 --out=out/places
  python -m experiments.train_places --data=DIR --network=pocket_judge --seed=1 --images=600000
  python -m experiments.train_places --data=DIR --network=linear_judge --images=16000

The scene network is another classifier (--trunk): its last layer is fitted, then all is fine-tuned.
Two judges take no part in a search. pocket_judge is a residual network trained from fresh weights.
linear_judge is a linear layer on the frozen features of VGG16, trained on --images photographs,
equally many of each class. DIR holds zips, class folders, or `train` and `val`, see
docs/howto/train_prior.md. The same command resumes a run that was stopped. Writes
OUT/NETWORK.safetensors.
"""

import dataclasses
from typing import Any

from jaxsynth.training.finetune import FineTuning
from jaxsynth.training.scene_run import SETTINGS, SceneRun, train_scene

from .flags import changes_of
from .launch import run_experiment
from .train_generator import train


@dataclasses.dataclass(frozen=True)
class Flags(SceneRun):
    """A run; of `settings` only typed flags, since each kind of network has its own defaults."""

    settings: dict[str, Any] = changes_of(FineTuning)

    def __post_init__(self) -> None:
        known = {field.name for field in dataclasses.fields(SETTINGS[self.network])}
        if wrong := sorted(self.settings.keys() - known):
            raise ValueError(
                f"--{wrong[0]} has no effect with --network={self.network}: leave it out"
            )


def main(flags: Flags) -> int:
    """Train a scene network or a judge."""
    fields = {field.name: getattr(flags, field.name) for field in dataclasses.fields(SceneRun)}
    fields["settings"] = SETTINGS[flags.network](**fields["settings"])
    return train(SceneRun(**fields), train_scene)


if __name__ == "__main__":
    run_experiment(main, Flags)
