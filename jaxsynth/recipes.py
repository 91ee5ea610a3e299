"""Recipes: how a code climbs. Start, gradient step, decay, box, all by name or by hand.

Sources: `goh` is Goh 2016 ("Image Synthesis from Yahoo's open_nsfw"); `dgn_am` is Nguyen et al.
2016 as their `act_max.py` runs it; `cnnpref` is Kamitani Lab's generator descent. `adam` is ours,
and so is `pocket`: `goh` in fewer and smaller steps, as larger ones drive the pocket generator's
pixels far out of range, with a prior term (Nguyen et al. 2017, "Plug & play generative networks");
an independent judge chose it (BUILD_NOTES.md). `jitter` is from Olah et al. 2017 ("Feature
visualization").
Steps ascend: optimizers are given the gradient of -objective.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsynth.models.network import CodeStats

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


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a trajectory but the objective. Static under jit.

    Attributes:
      steps: number of updates T; 0 only looks at the start codes.
      optimizer: name of an optax optimizer that takes a learning rate (`sgd`, `adam`, `lion`...).
      optimizer_args: its further arguments as (name, value) pairs.
      normalize: divide the gradient by its mean absolute value before the optimizer.
      schedule: a name in `SCHEDULES`, or an optax schedule (step -> rate), which then ignores
        `lr_start` and `lr_end`; `linear` is lr_start + (lr_end - lr_start) * t / T.
      decay: factor on the code at every step, `decay_when` "before" or "after" the projection.
      box: projection after each step: `upper` [0, upper bound per unit], `unit` [-1, 1], `none`.
      start: `normal` N(0, 1); `clipped_normal` the same projected; `positive10` 10 max(N(0, 1), 0);
        `code` mean + sigma N(0, 1) projected, with the statistics of the generator's own code.
      last_image: which image is the run's last: of the `final` code, or of the `last_forward` pass
        (the code before the final update, as DGN-AM reports it).
      prior: pull towards codes that the generator's encoder E gives back, 0 to 1: every update of a
        code z adds prior * (E(G(z)) - z), before the projection. 0 needs no encoder.
      jitter: at every step the classifiers see the image moved by up to so many of its pixels along
        each axis, borders replicated, by another random offset. Finished images are judged as they
        are; the objective and activations recorded on the way, and the best code that is chosen by
        them, are of the moved images.
    """

    steps: int = 300
    optimizer: str = "sgd"
    optimizer_args: tuple[tuple[str, float], ...] = ()
    normalize: bool = True
    schedule: str | optax.Schedule = "linear"
    lr_start: float = 1.0
    lr_end: float = 1e-10
    decay: float = 1.0
    decay_when: str = "after"
    box: str = "upper"
    start: str = "clipped_normal"
    last_image: str = "final"
    prior: float = 0.0
    jitter: int = 0


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
}


class Box(NamedTuple):
    """Bounds of the code, each (D,); infinite where there is none."""

    lower: jax.Array
    upper: jax.Array


def make_box(recipe: Recipe, size: int, upper: np.ndarray | None, dtype) -> Box:
    """The box that a recipe asks for, for codes of `size` units.

    Raises:
      ValueError: if the recipe needs the generator's upper bounds and there are none.
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
    return Box(jnp.zeros(size, dtype), jnp.asarray(upper, dtype))


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError naming the first field of a recipe that cannot work."""
    rules = [
        ("steps", recipe.steps >= 0, "0 (only look at the start codes) or more"),
        ("decay_when", recipe.decay_when in ("before", "after"), "'before' or 'after'"),
        ("box", recipe.box in BOXES, f"one of {', '.join(BOXES)}"),
        ("start", recipe.start in STARTS, f"one of {', '.join(STARTS)}"),
        (
            "last_image",
            recipe.last_image in LAST_IMAGES,
            f"one of {', '.join(LAST_IMAGES)}",
        ),
        ("lr_start", np.isfinite(recipe.lr_start) and recipe.lr_start > 0, "a positive number"),
        ("lr_end", np.isfinite(recipe.lr_end) and recipe.lr_end >= 0, "a number from 0 up"),
        ("decay", 0 < recipe.decay <= 1, "in (0, 1]"),
        ("prior", 0 <= recipe.prior <= 1, "in [0, 1]"),
        (
            "jitter",
            isinstance(recipe.jitter, int) and recipe.jitter >= 0,
            "a whole number of pixels from 0 up",
        ),
        (
            "schedule",
            callable(recipe.schedule) or recipe.schedule in SCHEDULES,
            f"one of {', '.join(SCHEDULES)}",
        ),
    ]
    for field, good, expected in rules:
        if not good:
            raise ValueError(f"recipe: {field} is {getattr(recipe, field)!r}, expected {expected}")
    if recipe.schedule in ("cosine", "exponential", "warmup_cosine") and recipe.lr_end == 0:
        raise ValueError(f"recipe: schedule {recipe.schedule!r} needs an lr_end above 0")
    code = jax.ShapeDtypeStruct((2,), jnp.float32)
    try:
        transform = make_transform(recipe)  # tried on shapes only: nothing compiles
        jax.eval_shape(lambda code: transform.update(code, transform.init(code), code), code)
    except TypeError as error:
        raise ValueError(
            f"optimizer {recipe.optimizer!r} needs more than gradients ({error}): choose one such "
            "as sgd, adam, rmsprop, lion"
        ) from None


def make_transform(recipe: Recipe) -> optax.GradientTransformation:
    """The recipe's optax chain, from the gradient of -objective to an update of the code.

    Raises:
      ValueError: if optax has no such optimizer, or it does not take these arguments.
    """
    schedule = recipe.schedule
    if isinstance(schedule, str):
        schedule = SCHEDULES[schedule](recipe.lr_start, recipe.lr_end, max(1, recipe.steps))
    make = getattr(optax, recipe.optimizer, None)
    try:
        optimizer = make(learning_rate=_precise(schedule), **dict(recipe.optimizer_args))
        optimizer.init, optimizer.update  # noqa: B018
    except (TypeError, AttributeError) as error:
        given = ", ".join(f"{k}={v}" for k, v in recipe.optimizer_args)
        raise ValueError(
            f"optimizer {recipe.optimizer!r} ({given}): expected the name of an optax optimizer "
            f"that takes a learning_rate, such as sgd, adam, rmsprop, lion ({error})"
        ) from None
    return optax.chain(_normalise() if recipe.normalize else optax.identity(), optimizer)


def _precise(schedule: optax.Schedule) -> optax.Schedule:
    """Gives the schedule a floating-point step: an int32 one divides in float32 even under x64."""
    return lambda count: schedule(jnp.asarray(count, jnp.result_type(float)))


def _normalise() -> optax.GradientTransformation:
    """g -> g / mean |g|, without an epsilon (a saturated softmax has gradients of 1e-13)."""
    return optax.stateless_with_tree_map(lambda g, _: g / jnp.abs(g).mean())


def start_codes(
    recipe: Recipe, box: Box, root: jax.Array, seeds: np.ndarray, code: CodeStats | None = None
) -> jax.Array:
    """Start codes (R, D), one per seed, each a function of (root key, its seed) alone.

    Raises:
      ValueError: if the recipe needs the statistics `code` of the generator's code and there are
        none.
    """
    size, dtype = box.upper.shape[0], box.upper.dtype
    if recipe.start == "code" and (code is None or code.mean is None or code.sigma is None):
        raise ValueError(
            "the generator's file has no mean and sigma of its code and start 'code' needs them: "
            "take a generator of experiments.train_generator, which measures them, or choose "
            "--start=clipped_normal"
        )

    def draw(seed):
        # Drawn in float32 whatever the precision: a seed is the same start in both.
        z = jax.random.normal(jax.random.fold_in(root, seed), (size,), jnp.float32).astype(dtype)
        if recipe.start == "code":
            z = jnp.asarray(code.mean, dtype) + jnp.asarray(code.sigma, dtype) * z
        if recipe.start in ("clipped_normal", "code"):
            return optax.projections.projection_box(z, box.lower, box.upper)
        return 10.0 * jnp.maximum(z, 0.0) if recipe.start == "positive10" else z

    return jax.vmap(draw)(jnp.asarray(seeds, jnp.uint32))
