"""Finished runs that nobody has computed, for tests of pages: any number, any labels, at once."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tiny import tiny_networks

from jaxsynth.ascent import ChunkResult, Evaluation
from jaxsynth.models.registry import to_model
from jaxsynth.problem import Settings
from jaxsynth.recipes import Recipe
from jaxsynth.results import Run, SweepResult
from jaxsynth.runs.checkpoint import from_arrays, map_arrays
from jaxsynth.runs.folder import RESULTS


def read_arrays(folder: str | Path) -> ChunkResult:
    """The results of a finished run."""
    return from_arrays(map_arrays(Path(folder) / RESULTS))


def finished_runs(labels, seeds=2, weights=(1.0,), side=16, steps=4, record=()) -> SweepResult:
    """A run for each label, weight of NSFW and seed. Run i has P(its label) (i + 1) / (R + 1), and
    P(NSFW) that falls with it; the best image is the better one."""
    networks = tiny_networks()
    generator = to_model(networks["generator"])
    labels = tuple(labels)
    places = to_model(networks["places"]).named("places")
    given = {"apply": _many(len(labels)), "params": {}, "labels": labels, "logits": "fc8"}
    places = dataclasses.replace(places, **given, prepare=None)
    nsfw = to_model(networks["nsfw"]).named("nsfw")
    runs = []
    for unit, label in enumerate(labels):
        for weight in weights:
            goal = places.log_prob(unit) + weight * nsfw.log_prob("NSFW")
            column = f"NSFW x {weight:g}" if len(weights) > 1 else ""
            for seed in range(seeds):
                row = f"{label}, seed {seed}" if column else label
                runs.append(Run(seed, goal, row, column or f"seed {seed}"))
    count = len(runs)
    p = (np.arange(count) + 1) / (count + 1)
    units = np.repeat(np.arange(len(labels)), count // len(labels))
    rng = np.random.default_rng(0)
    colours = (
        rng.uniform(-90, 90, (count, 1, 1, 3)) * np.linspace(0.3, 1, side)[None, :, None, None]
    )
    image = np.broadcast_to(colours, (count, side, side, 3)).astype(np.float32)

    def watched(p, shape=()):
        prob = np.zeros((count, *shape, len(labels)))
        prob[np.arange(count), ..., units] = p.reshape(-1, *(1 for _ in shape))
        both = np.broadcast_to(np.stack([p, 1 - p], -1).reshape(count, *(1 for _ in shape), 2),
                               (count, *shape, 2))  # fmt: skip
        return {
            "places": {"prob": prob, "log_prob": np.log(np.maximum(prob, 1e-9))},
            "nsfw": {"prob": both, "log_prob": np.log(both)},
        }

    look = Evaluation(np.log(p), watched(p), image)
    worse = Evaluation(np.log(p) - 1, watched(p * 0.5), image * 0.8)
    objective = np.log(p)[:, None] - np.linspace(2, 0, steps)
    arrays = ChunkResult(
        start_codes=np.zeros((count, generator.code_size), np.float32),
        codes=np.ones((count, generator.code_size), np.float32),
        best_codes=np.ones((count, generator.code_size), np.float32),
        recorded_codes=np.ones((count, len(record), generator.code_size), np.float32),
        objective=objective,
        watched=watched(p, (steps,)),
        last=worse,
        best=look,
        ended=np.full(count, -1),
        sound=np.ones(count, bool),
    )
    settings = Settings(Recipe(steps=steps), record=tuple(record))
    config = {"experiment": "scene", "command": "python -m experiments.scene --seeds=2"}
    config |= {"versions": {"jax": "0.10"}, "sweep": {"recipe": {"steps": steps}, "record": record}}
    config["runs"] = [{"seed": run.seed, "objective": str(run.objective)} for run in runs]
    return SweepResult(runs, arrays, generator, (places, nsfw), settings, config)


def _many(classes):
    """A classifier's function that is only asked for its shapes."""
    return lambda params, image: {"fc8": jnp.zeros(classes) + image.mean()}
