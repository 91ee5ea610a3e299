"""The training loop that the trainers share: batches, budget, checkpoints, reports.

Seeded: step i sees the rows of (seed, epoch) and the key fold_in(seed, i), so a resumed run makes
the same weights as an uninterrupted one when the budget is given in epochs. With a budget in
minutes the schedule follows the clock, and so do the weights.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxsynth.arithmetic import root_key
from jaxsynth.inputs import option
from jaxsynth.runs.saving import Stopped
from jaxsynth.training.data import ImageSet, epoch_rows
from jaxsynth.training.setup import place_on

State = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]
StepFn = Callable[..., tuple[State, Metrics]]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Exactly one of `minutes`, `epochs` and `images` is positive: the budget, over all resumes."""

    out: Path = option(Path("out/training"), "Folder for checkpoints and weights.")
    batch: int = option(32, "Images a step, split over the devices.", low=2)
    seed: int = option(0, "Seed of weights, order and augmentation.", low=0)
    minutes: float = option(
        0.0,
        "Budget on the clock of training, with compiling; reading photographs, evaluation and "
        "export come on top and are reported.",
        low=0,
    )
    epochs: float = option(0.0, "Budget in passes over the data.", low=0)
    images: int = option(0, "Budget in photographs seen.", low=0)
    checkpoint_minutes: float = option(4.0, "Minutes between checkpoints.", low=0)
    report_steps: int = option(200, "Steps between lines of progress.", low=1)
    max_steps: int | None = option(None, "Stop after this step; 0 exports the last checkpoint.")

    def __post_init__(self) -> None:
        budgets = (self.minutes, self.epochs, self.images)
        if self.max_steps != 0 and sum(budget > 0 for budget in budgets) != 1:
            raise ValueError(
                f"one budget is needed, minutes, epochs or images: got minutes={self.minutes:g}, "
                f"epochs={self.epochs:g} and images={self.images}"
            )


class Training(NamedTuple):
    """What is trained.

    Attributes:
      step: (state, frozen, rgb (B, S, S, 3) uint8, labels (B,), key, progress 0 to 1) -> state and
        metrics; jitted, the state donated. On several devices the batch is split over them.
      settings: what the weights depend on; a checkpoint of other settings is refused.
      evaluate: state -> metrics, at each checkpoint and at the end.
      frozen: weights that the step reads and leaves alone.
    """

    step: StepFn
    settings: dict[str, Any]
    evaluate: Callable[[State], dict[str, float]]
    frozen: Any = None


def run_loop(
    training: Training,
    state: State,
    images: ImageSet,
    config: LoopConfig,
    say: Callable[[str], None] = print,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> State:
    """Train until the budget is spent, resuming from `config.out`/checkpoints if there are any.

    Raises:
      Stopped: if it was asked to; the last step is saved.
      ValueError: if there are fewer images than a batch, the checkpoint is of other settings, or
        while it trains, if a metric or the state to be saved is no longer finite.
    """
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of every save
    per_epoch = len(images.rows) // config.batch
    if per_epoch == 0:
        raise ValueError(
            f"{len(images.rows)} training images make no batch of {config.batch}: give a smaller "
            "batch, or more images"
        )
    place = place_on(jax.devices(), config.batch)
    with _Checkpoints(config.out / "checkpoints", training.settings) as checkpoints:
        state, step, spent = checkpoints.restore(state)
        state, frozen = place.state(state), place.state(training.frozen)
        if config.max_steps == 0 and not step:
            raise ValueError(f"no checkpoint in {str(config.out)!r}: train first")
        if step:
            say(f"resumed at step {step}, {spent / 60:.1f} minutes spent")
        say(
            f"{per_epoch} steps of {config.batch} images a pass, a line every "
            f"{config.report_steps} steps, a checkpoint every {config.checkpoint_minutes:g} "
            "minutes; the first step compiles"
        )
        root = root_key(config.seed)
        zero, rows_of = time.monotonic() - spent, _batch_rows(images, config, per_epoch, step)

        def clock() -> float:  # seconds of training, earlier runs of the same job included
            return time.monotonic() - zero

        saved, mark, metrics = clock(), None, {}
        while (done := _share_spent(config, per_epoch, step, clock)) < 1:
            rows = next(rows_of)
            batch = place.batch(images.images[rows]), place.batch(images.labels[rows])
            key = jax.random.fold_in(root, step)
            state, metrics = training.step(state, frozen, *batch, key, jnp.float32(done))
            step += 1
            if mark is None:  # images per second do not count compiling
                jax.block_until_ready(state)
                mark = (step, clock())
            if step % config.report_steps == 0:
                values = _check_finite(step, metrics, checkpoints)
                say(_report(step, per_epoch, values, config.batch, mark, clock))
                mark = (step, clock())
            if clock() - saved > 60 * config.checkpoint_minutes:
                checkpoints.save(state, step, clock(), metrics)
                say(format_line(f"step {step} checkpoint", training.evaluate(state)))
                saved = clock()
                mark = (step, saved)
            if asked_to_stop():
                checkpoints.save(state, step, clock(), metrics)
                raise Stopped(f"step {step} is saved")
        checkpoints.save(state, step, clock(), metrics)
    say(format_line(f"step {step} end, {clock() / 60:.1f} minutes", training.evaluate(state)))
    return state


def has_checkpoint(out: Path) -> bool:
    """Say whether a run in this folder would be resumed."""
    return any((out / "checkpoints").glob("[0-9]*"))


def _batch_rows(
    images: ImageSet, config: LoopConfig, per_epoch: int, step: int
) -> Iterator[np.ndarray]:
    """Rows of the images of each batch, from that of this step on."""
    epoch, first = divmod(step, per_epoch)
    while True:
        order = epoch_rows(images.rows, config.seed, epoch)
        for i in range(first, per_epoch):
            yield np.sort(order[i * config.batch : (i + 1) * config.batch])
        epoch, first = epoch + 1, 0


def _share_spent(
    config: LoopConfig, per_epoch: int, step: int, clock: Callable[[], float]
) -> float:
    """Progress through the budget; 1 or more says stop. Epochs pay for a step at least."""
    if config.max_steps is not None and step >= config.max_steps:
        return 1.0
    if config.images:
        return step * config.batch / config.images
    if config.epochs:
        return step / max(1, round(config.epochs * per_epoch))
    return clock() / (60 * config.minutes)


class _Checkpoints:
    """The last two states under `folder`, and the settings they belong to."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        path = folder.parent / "settings.json"
        settings = json.loads(json.dumps(settings))
        if path.is_file() and self._manager.latest_step() is not None:
            _check_settings(json.loads(path.read_text()), settings, folder)
        path.write_text(json.dumps(settings, indent=1))

    def __enter__(self) -> "_Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def restore(self, like: State) -> tuple[State, int, float]:
        step = self._manager.latest_step()
        if step is None:
            return like, 0, 0.0
        target = {"state": like, "spent": jnp.float32(0)}
        saved = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        # bound to no device, as the first state is: else all is compiled again
        state = jax.tree.map(jnp.asarray, jax.device_get(saved["state"]))
        return state, step, float(saved["spent"])

    def latest(self) -> int | None:
        """The step of the last one."""
        return self._manager.latest_step()

    def save(self, state: State, step: int, spent: float, metrics: Metrics) -> None:
        """Save a state, when its step is done. Raise ValueError unless all of it is finite."""
        _check_finite(step, metrics, self, state)
        if self._manager.latest_step() != step:
            tree = {"state": state, "spent": jnp.float32(spent)}
            self._manager.save(step, args=ocp.args.StandardSave(tree))


def _check_settings(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{str(folder)!r} holds a run with {key}={old.get(key)!r}, not {new.get(key)!r}: "
                "resume it with the same flags, or choose another --out"
            )


def _check_finite(
    step: int, metrics: Metrics, checkpoints: _Checkpoints, state: State = ()
) -> dict[str, float]:
    """Wait for a step; return its metrics as numbers. All of them and the state must be finite."""
    values = {k: float(v) for k, v in metrics.items()}
    wrong = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
    if not wrong and not _sound(state):
        wrong = ["weights are not finite"]
    if wrong:
        kept = checkpoints.latest()
        left = f"the checkpoint of step {kept} is kept" if kept else "no checkpoint was made yet"
        raise ValueError(
            f"step {step}: {wrong[0]}, training cannot go on: give smaller step sizes and another "
            f"--out; {left}"
        )
    return values


@jax.jit
def _sound(state: State) -> jax.Array:
    """Whether all numbers of a pytree are finite."""
    numbers = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in numbers], bool))


def _report(step, per_epoch, values: dict[str, float], batch, mark, clock) -> str:
    rate = (step - mark[0]) * batch / max(clock() - mark[1], 1e-9)
    head = f"step {step} epoch {step / per_epoch:.2f} {clock() / 60:.1f} min"
    return format_line(f"{head} {rate:.0f} img/s", values)


def format_line(head: str, values: dict[str, float]) -> str:
    """Format a line of progress."""
    return head + "  " + "  ".join(f"{k} {v:.4g}" for k, v in values.items())
