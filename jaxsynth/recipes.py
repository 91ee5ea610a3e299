"""Recipes: the start of a code, its gradient step, decay and box, by name or by hand.

Sources: `goh` is Goh 2016 ("Image Synthesis from Yahoo's open_nsfw"); `dgn_am` is Nguyen et al.
2016 as their `act_max.py` runs it; `cnnpref` is Kamitani Lab's generator descent. `adam` and
`pocket` are ours. `pocket` is `goh` in fewer and smaller steps, with jitter and decay: larger steps
drive the pocket generator's pixels far out of range. It is an independent judge's choice
(BUILD_NOTES.md). The prior term is from Nguyen et al. 2017 ("Plug & play generative networks"),
`jitter` from Olah et al. 2017 ("Feature visualization"). Steps ascend: optimizers are given the
gradient of -objective.
"""

import dataclasses
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsynth.inputs import check_name, check_options, described, near, option

STARTS = ("normal", "clipped_normal", "positive10", "code")
BOXES = ("upper", "unit", "none")
LAST_IMAGES = ("final", "last_forward")
SCHEDULES: dict[str, Callable[[float, float, int], optax.Schedule]] = {
    "linear": optax.linear_schedule,
    "constant": lambda start, end, steps: optax.constant_schedule(start),
    "cosine": lambda start, end, steps: optax.cosine_decay_schedule(start, steps, end / start),
    "exponential": lambda start, end, steps: optax.exponential_decay(start, steps, end / start),
    "warmup_cosine": lambda start, end, steps: optax.warmup_cosine_decay_schedule(
        0.0, start, max(1, steps // 10), max(2, steps), end
    ),
}
_NO_NUMBERS = ("mask", "dtype", "key", "linesearch")  # arguments of optimizers


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a trajectory but the objective. Static under jit."""

    steps: int = option(
        300,
        "Number of updates; 0 only looks at the start codes.",
        low=0,
        expected="0 (only look at the start codes) or more",
    )
    optimizer: str = option(
        "sgd", "Name of an optax optimizer that takes a learning rate, such as sgd, adam or lion."
    )
    optimizer_args: tuple[tuple[str, float], ...] = option(
        (), "Its arguments but the rate, such as momentum=0.9,nesterov=1."
    )
    normalize: bool = option(
        True, "Divide the gradient by its mean absolute value before the optimizer."
    )
    schedule: str | optax.Schedule = option("linear", "Step size over time.", among=SCHEDULES)
    lr_start: float = option(
        1.0, "Step size at the first update.", above=0, expected="a positive number"
    )
    lr_end: float = option(
        1e-10, "Step size that the schedule ends in.", low=0, expected="a number from 0 up"
    )
    decay: float = option(
        1.0, "Factor on the code at every step.", above=0, high=1, expected="in (0, 1]"
    )
    decay_when: str = option(
        "after",
        "Decay before or after the projection.",
        among=("before", "after"),
        expected="'before' or 'after'",
    )
    box: str = option(
        "upper",
        "Projection after each step: the generator's bounds per unit (from 0 up unless it has "
        "lower ones), [-1, 1], or none.",
        among=BOXES,
    )
    start: str = option(
        "clipped_normal",
        "Start codes, drawn by seed: N(0, 1), the same projected, 10 max(N(0, 1), 0), or `code`, "
        "like those of the generator's training images, by their mean and sigma.",
        among=STARTS,
    )
    last_image: str = option(
        "final",
        "The run's last image: of the final code, or of the last forward pass (the code before the "
        "final update, as DGN-AM reports it).",
        among=LAST_IMAGES,
    )
    prior: float = option(
        0.0,
        "Pull towards E(G(z)) at every step, E the generator's encoder: 0 to 1. Every update of a "
        "code z adds prior * (E(G(z)) - z), before the projection; 0 needs no encoder.",
        low=0,
        high=1,
        expected="in [0, 1]",
    )
    prior_scaled: bool = option(
        False,
        "Let the pull shrink as the step size does: a constant pull outweighs the last steps.",
    )
    jitter: int = option(
        0,
        "At every step the classifiers see the image moved by up to this many pixels.",
        low=0,
        expected="a whole number of pixels from 0 up",
    )
    zoom: float = option(
        1.0,
        "At every step the classifiers see a random crop, enlarged by up to this factor.",
        low=1,
        expected="a number from 1 up",
    )
    rotate: float = option(
        0.0,
        "At every step the classifiers see the image turned by up to this many degrees.",
        low=0,
        high=180,
        expected="degrees from 0 to 180",
    )

    def __post_init__(self):
        """Let the optimizer's arguments be a dict or a list: a recipe is a key of compilations."""
        given = self.optimizer_args
        if isinstance(given, Mapping | list):
            pairs = given.items() if isinstance(given, Mapping) else given
            object.__setattr__(self, "optimizer_args", tuple(map(tuple, pairs)))


_PIXELS: dict[str, Any] = {
    "optimizer": "adam",
    "normalize": False,
    "schedule": "constant",
    "box": "none",
    "start": "normal",
    "jitter": 16,
    "rotate": 5.0,
}
RECIPES: dict[str, Recipe] = {
    "goh": Recipe(),
    "pocket": Recipe(steps=40, lr_start=0.3, lr_end=0.03, decay=0.95, jitter=8),
    "dgn_am": Recipe(
        steps=200, lr_start=8.0, decay=0.99, start="normal", last_image="last_forward"
    ),
    "dgn_am_image": Recipe(steps=30, lr_start=1.0, decay=0.99, last_image="last_forward"),
    "pocket_image": Recipe(steps=30, lr_start=0.1, prior=0.05, prior_scaled=True),
    "cnnpref": Recipe(
        steps=200,
        optimizer_args=(("momentum", 0.9),),
        lr_start=2.0,
        decay=0.99,
        decay_when="before",
        start="positive10",
    ),
    "adam": Recipe(optimizer="adam", normalize=False, lr_start=0.3, lr_end=0.003),
    "fourier": Recipe(steps=256, lr_start=5.0, zoom=1.2, **_PIXELS),
    "maco": Recipe(steps=256, lr_start=0.1, zoom=3.0, **_PIXELS),
}


def make_recipe(base: str | Recipe, **changes: Any) -> Recipe:
    """Make a recipe from one, or from the name of one, with some of its fields changed.

    Another optimizer starts without the arguments of the one before.

    Raises:
      ValueError: For a name that is no recipe or no field, with the near ones.
    """
    if isinstance(base, str):
        check_name("recipe", base, RECIPES)
        base = RECIPES[base]
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for name in changes:
        if name not in fields:
            raise ValueError(f"recipe: {name!r} is no setting of one{near(name, fields)}")
    if "optimizer" in changes:
        changes = {"optimizer_args": ()} | changes
    return dataclasses.replace(base, **changes)


# A function a recipe: `goh(steps=60)` is RECIPES["goh"] with another number of steps.
goh, pocket, dgn_am, dgn_am_image, pocket_image, cnnpref, adam, fourier, maco = (
    functools.partial(make_recipe, name) for name in RECIPES
)


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError naming the first field of a recipe that cannot work."""
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe: {described(recipe)} is none: expected a Recipe, or its name")
    check_options(recipe, "recipe")
    if recipe.schedule in ("cosine", "exponential", "warmup_cosine") and recipe.lr_end == 0:
        raise ValueError(f"recipe: schedule {recipe.schedule!r} needs an lr_end above 0")
    check_transform(make_transform(recipe), f"optimizer {recipe.optimizer!r}")


def check_transform(transform: optax.GradientTransformation, what: str) -> None:
    """Raise ValueError if a transformation needs more than gradients; tried on shapes only."""
    code = jax.ShapeDtypeStruct((2,), jnp.float32)
    try:
        jax.eval_shape(lambda code: transform.update(code, transform.init(code), code), code)
    except TypeError as error:
        raise ValueError(
            f"{what} needs more than gradients ({error}): choose one such "
            "as sgd, adam, rmsprop, lion"
        ) from None


def make_transform(recipe: Recipe) -> optax.GradientTransformation:
    """Make the optax chain of a recipe, from the gradient of -objective to an update of the code.

    Raises:
      ValueError: If optax has no such optimizer, or it does not take these arguments, with the near
        names.
    """
    name, args = recipe.optimizer, _optimizer_args(recipe)
    try:
        optimizer = getattr(optax, name)(learning_rate=_precise(schedule_of(recipe)), **args)
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{k}={v}" for k, v in args.items())
        raise ValueError(f"optimizer {name!r} ({said}): {error}") from error
    return optax.chain(normalise() if recipe.normalize else optax.identity(), optimizer)


def _optimizer_args(recipe: Recipe) -> dict[str, Any]:
    """The arguments of a recipe's optimizer, apart from its rate.

    Raises:
      ValueError: If there is no such optimizer or argument, or an argument is no number.
    """
    name, known = recipe.optimizer, optax_optimizers()
    if name not in known:
        hint = near(name, [*known]) or ", such as sgd, adam, rmsprop, lion"
        raise ValueError(
            f"optimizer {described(name)} is no optax optimizer that takes a learning_rate{hint}"
        )
    try:
        args = dict(recipe.optimizer_args)
    except (TypeError, ValueError):
        args = {described(recipe.optimizer_args): None}
    for key, value in args.items():
        if key not in known[name]:
            takes = f"it takes {', '.join(known[name])}" if known[name] else "it takes none"
            raise ValueError(
                f"optimizer {name!r}: no argument {key!r}{near(key, known[name])}: {takes}"
            )
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"optimizer {name!r}: {key} is {described(value)}, expected a number")
    return args


@functools.cache
def optax_optimizers() -> dict[str, tuple[str, ...]]:
    """Return the optax optimizers that take a rate, each with the other numbers that it takes."""
    found = {}
    for name, make in vars(optax).items():
        known = inspect.isfunction(getattr(make, "func", make))
        taken = inspect.signature(make).parameters if known else {}
        if "learning_rate" in taken and not name.startswith(("_", "scale_by")):
            others = (arg for arg in taken if arg != "learning_rate")
            found[name] = tuple(arg for arg in others if not arg.endswith(_NO_NUMBERS))
    return found


def schedule_of(recipe: Recipe) -> optax.Schedule:
    """Return the step size of a recipe by the number of the step."""
    if callable(recipe.schedule):
        return recipe.schedule
    return SCHEDULES[recipe.schedule](recipe.lr_start, recipe.lr_end, max(1, recipe.steps))


def _precise(schedule: optax.Schedule) -> optax.Schedule:
    """Give the schedule a floating-point step: an int32 one divides in float32 even under x64."""
    return lambda count: schedule(jnp.asarray(count, jnp.result_type(float)))


def normalise() -> optax.GradientTransformation:
    """Make g -> g / mean |g|, without an epsilon (a saturated softmax has gradients of 1e-13)."""
    return optax.stateless_with_tree_map(lambda g, _: g / jnp.abs(g).mean())
