"""The flags of how a code climbs, and the recipe that they say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments.continuing import Earlier
from jaxsynth.recipes import BOXES, LAST_IMAGES, RECIPES, SCHEDULES, STARTS, Recipe, check_recipe

_RECIPE = flags.DEFINE_enum(
    "recipe",
    None,
    list(RECIPES),
    "Named recipe that further flags override; by default pocket for the pocket generator, else "
    "goh; from a photograph pocket_image, else dgn_am_image.",
)
_STEPS = flags.DEFINE_integer("steps", None, "Number of updates.")
_OPTIMIZER = flags.DEFINE_string("optimizer", None, "Name of an optax optimizer.")
_OPTIMIZER_ARGS = flags.DEFINE_list(
    "optimizer_args", None, "Its arguments but the rate, such as momentum=0.9,nesterov=1."
)
_NORMALIZE = flags.DEFINE_bool("normalize", None, "Divide the gradient by its mean |g|.")
_SCHEDULE = flags.DEFINE_enum("schedule", None, list(SCHEDULES), "Step size over time.")
_LR_START = flags.DEFINE_float("lr_start", None, "Step size at the first update.")
_LR_END = flags.DEFINE_float("lr_end", None, "Step size that the schedule ends in.")
_DECAY = flags.DEFINE_float("decay", None, "Factor on the code at every step.")
_DECAY_WHEN = flags.DEFINE_enum(
    "decay_when", None, ["before", "after"], "Decay before or after the projection."
)
_BOX = flags.DEFINE_enum(
    "box", None, list(BOXES), "Projection: [0, upper bound per unit], [-1, 1], or none."
)
_LAST_IMAGE = flags.DEFINE_enum(
    "last_image",
    None,
    list(LAST_IMAGES),
    "The run's last image: of the final code, or of the last forward pass (one update before).",
)
_START = flags.DEFINE_enum(
    "start",
    None,
    list(STARTS),
    "Start codes drawn from a seed; `code` draws them like those of the generator's training "
    "images, by their mean and sigma.",
)
_PRIOR = flags.DEFINE_float(
    "prior", None, "Pull towards E(G(z)) at every step, E the generator's encoder: 0 to 1."
)
_JITTER = flags.DEFINE_integer(
    "jitter", None, "At every step the classifiers see the image moved by up to so many pixels."
)
_EXTEND = flags.DEFINE_integer(
    "extend_steps",
    None,
    "With --continue_from: so many steps more of the same objectives, with that run's recipe and "
    "flags unless given. The schedule and the optimizer start anew.",
    lower_bound=1,
)


def read_recipe(default: str, override: Mapping[str, Any], earlier: Earlier | None) -> Recipe:
    """The recipe by the flags: --recipe as published, else `default` with `override`, or that of an
    earlier run which is extended; single flags come on top.

    Raises:
      ValueError: naming the first thing that cannot work.
    """
    asked = {
        "steps": _EXTEND.value or _STEPS.value,
        "optimizer": _OPTIMIZER.value,
        "optimizer_args": _optimizer_args(),
        "normalize": _NORMALIZE.value,
        "schedule": _SCHEDULE.value,
        "lr_start": _LR_START.value,
        "lr_end": _LR_END.value,
        "decay": _DECAY.value,
        "decay_when": _DECAY_WHEN.value,
        "box": _BOX.value,
        "start": _START.value,
        "last_image": _LAST_IMAGE.value,
        "prior": _PRIOR.value,
        "jitter": _JITTER.value,
    }
    override = override if _RECIPE.value is None else {}
    given = {k: v for k, v in asked.items() if v is not None}
    if given.get("optimizer") and "optimizer_args" not in given:
        given["optimizer_args"] = ()
    if earlier and earlier.extends and _RECIPE.value is None:
        recipe, override = earlier.recipe, {}
    else:
        recipe = RECIPES[_RECIPE.value or default]
    recipe = dataclasses.replace(recipe, **(dict(override) | given))
    check_recipe(recipe)
    return recipe


def steps_to_extend() -> int | None:
    """--extend_steps.

    Raises:
      ValueError: if --steps is given as well.
    """
    if _EXTEND.value and _STEPS.value is not None:
        raise ValueError("--extend_steps and --steps are two numbers of steps: give one of them")
    return _EXTEND.value


def _optimizer_args() -> tuple[tuple[str, float], ...] | None:
    if _OPTIMIZER_ARGS.value is None:
        return None
    pairs = [part.partition("=") for part in _OPTIMIZER_ARGS.value]
    try:
        return tuple((key, float(value)) for key, _, value in pairs)
    except ValueError:
        raise ValueError(
            f"--optimizer_args={','.join(_OPTIMIZER_ARGS.value)}: expected name=number,..."
        ) from None
