"""Recipes: the start of a code, its gradient step, decay and box, by name or by hand.

Sources: `goh` is Goh 2016 ("Image Synthesis from Yahoo's open_nsfw"); `dgn_am` is Nguyen et al.
2016 as their `act_max.py` runs it; `cnnpref` is Kamitani Lab's generator descent. `adam` and
`pocket` are ours: `pocket` is `goh` in fewer and smaller steps, as larger ones drive the pocket
generator's pixels far out of range, with a prior term (Nguyen et al. 2017, "Plug & play generative
networks"); an independent judge chose it (BUILD_NOTES.md). `jitter` is from Olah et al. 2017
("Feature visualization"). Steps ascend: optimizers are given the gradient of -objective.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsynth.inputs import check_name, check_options, near, option

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
_BLOCK = 64  # seeds drawn at once, so that every read runs the same compiled programs


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
    jitter: int = option(
        0,
        "At every step the classifiers see the image moved by up to so many pixels.",
        low=0,
        expected="a whole number of pixels from 0 up",
    )


_PIXELS: dict[str, Any] = {
    "optimizer": "adam",
    "normalize": False,
    "schedule": "constant",
    "box": "none",
    "start": "normal",
    "jitter": 16,
}
RECIPES: dict[str, Recipe] = {
    "goh": Recipe(),
    "pocket": Recipe(steps=60, lr_start=0.3, lr_end=0.03, prior=0.05),
    "dgn_am": Recipe(
        steps=200, lr_start=8.0, decay=0.99, start="normal", last_image="last_forward"
    ),
    "dgn_am_image": Recipe(steps=30, lr_start=1.0, decay=0.99, last_image="last_forward"),
    "pocket_image": Recipe(steps=30, lr_start=0.1, prior=0.05),
    "cnnpref": Recipe(
        steps=200,
        optimizer_args=(("momentum", 0.9),),
        lr_start=2.0,
        decay=0.99,
        decay_when="before",
        start="positive10",
    ),
    "adam": Recipe(optimizer="adam", normalize=False, lr_start=0.3, lr_end=0.003),
    "fourier": Recipe(steps=256, lr_start=5.0, **_PIXELS),
    "maco": Recipe(steps=256, lr_start=0.1, **_PIXELS),
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


class Box(NamedTuple):
    """Bounds of the code, each (D,); infinite where there is none."""

    lower: jax.Array
    upper: jax.Array


def make_box(
    recipe: Recipe, size: int, upper: np.ndarray | None, dtype, lower: np.ndarray | None = None
) -> Box:
    """Make the box that a recipe asks for.

    Args:
      recipe: Names the box.
      size: Units of the code.
      upper: The generator's upper bounds (D,), if it has any.
      dtype: Of the codes.
      lower: Its lower bounds (D,), 0 if it has none.

    Raises:
      ValueError: If the recipe needs the generator's upper bounds and there are none.
    """
    if recipe.box == "none":
        return Box(jnp.full(size, -jnp.inf, dtype), jnp.full(size, jnp.inf, dtype))
    if recipe.box == "unit":
        return Box(jnp.full(size, -1.0, dtype), jnp.full(size, 1.0, dtype))
    if upper is None:
        raise ValueError(
            "the generator's file has no code bounds and box 'upper' needs them: port it again "
            "with --bounds=FILE (act_range/3x/fc6.txt), or choose --box=unit or --box=none"
        )
    low = jnp.zeros(size, dtype) if lower is None else jnp.asarray(lower, dtype)
    return Box(low, jnp.asarray(upper, dtype))


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError naming the first field of a recipe that cannot work."""
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
      ValueError: If optax has no such optimizer, or it does not take these arguments.
    """
    make = getattr(optax, recipe.optimizer, None)
    schedule = _precise(schedule_of(recipe))
    try:
        optimizer = make(learning_rate=schedule, **dict(recipe.optimizer_args))
        optimizer.init, optimizer.update  # noqa: B018
    except (TypeError, AttributeError) as error:
        given = ", ".join(f"{k}={v}" for k, v in recipe.optimizer_args)
        raise ValueError(
            f"optimizer {recipe.optimizer!r} ({given}): expected the name of an optax optimizer "
            f"that takes a learning_rate, such as sgd, adam, rmsprop, lion ({error})"
        ) from None
    return optax.chain(normalise() if recipe.normalize else optax.identity(), optimizer)


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


def start_codes(
    recipe: Recipe, box: Box, root: jax.Array, seeds: np.ndarray, code: Any = None
) -> jax.Array:
    """Draw start codes (R, D), one per seed, each a function of (root key, its seed) alone.

    Args:
      recipe: Names the distribution.
      box: Bounds that codes are projected into.
      root: Key that every seed is folded into.
      seeds: (R,) unsigned integers.
      code: Statistics of the generator's code, if it has any: `mean`, and `factor` or `sigma`.

    Raises:
      ValueError: If the recipe needs those statistics and there are none.
    """
    size, dtype = box.upper.shape[0], box.upper.dtype
    factor = getattr(code, "factor", None)
    spread = factor if factor is not None else getattr(code, "sigma", None)
    if recipe.start == "code" and (spread is None or code.mean is None):
        raise ValueError(
            "the generator's file has no mean and sigma of its code and start 'code' needs them: "
            "take a generator of experiments.train_generator, which measures them, or choose "
            "--start=clipped_normal"
        )

    def draw(seed):
        # Drawn in float32 whatever the precision: a seed is the same start in both.
        count = size if recipe.start != "code" or factor is None else factor.shape[1]
        z = jax.random.normal(jax.random.fold_in(root, seed), (count,), jnp.float32).astype(dtype)
        if recipe.start == "code":
            scaled = jnp.asarray(spread, dtype)
            scaled = scaled * z if factor is None else scaled @ z
            z = jnp.asarray(code.mean, dtype) + scaled
        if recipe.start in ("clipped_normal", "code"):
            return optax.projections.projection_box(z, box.lower, box.upper)
        return 10.0 * jnp.maximum(z, 0.0) if recipe.start == "positive10" else z

    return jax.vmap(draw)(jnp.asarray(seeds, jnp.uint32))


class StartCodes:
    """Start codes of many seeds that are never in memory at once.

    Reads like an array (R, D): a number, a slice or an array of numbers gives rows, drawn anew.

    Attributes:
      shape: (R, D).
      dtype: Of the codes.
    """

    def __init__(
        self, draw: Callable[[np.ndarray], jax.Array], seeds: np.ndarray, size: int, dtype: np.dtype
    ):
        """Draw with `draw`: seeds (B,) to codes (B, size), each a function of its seed alone."""
        self._draw, self._seeds = draw, seeds
        self.shape, self.dtype = (len(seeds), size), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        seeds = np.atleast_1d(self._seeds[rows])
        blocks = np.pad(seeds, (0, -len(seeds) % _BLOCK), mode="edge").reshape(-1, _BLOCK)
        codes = np.concatenate([np.asarray(self._draw(block), self.dtype) for block in blocks])
        return codes[0] if np.ndim(self._seeds[rows]) == 0 else codes[: len(seeds)]
