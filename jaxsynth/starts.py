"""Start codes, given or drawn by seed where they are read, and the box that codes stay in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsynth.arithmetic import arithmetic, is_double, root_key
from jaxsynth.ask_tell import Box
from jaxsynth.recipes import RECIPES, Recipe, make_recipe

_BLOCK = 64  # seeds drawn at once, so that every read runs the same compiled programs


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

    with arithmetic(is_double(box.upper)):
        return jax.vmap(draw)(jnp.asarray(seeds, jnp.uint32))


def still(generator: Any) -> Recipe:
    """Make the recipe without steps, for random codes.

    They are N(0, 1) as in Goh 2016, whatever the bounds; for a generator with latent statistics
    they are like the codes of its training images.
    """
    code = generator.code
    own = code is not None and (code.sigma is not None or code.factor is not None)
    start = {"start": "code"} if own else {"start": "normal", "box": "none"}
    return make_recipe(RECIPES[generator.recipe], steps=0, prior=0.0, **start)


class StartCodes:
    """Start codes of many seeds that are never in memory at once.

    Reads like an array (R, D): a number, a slice or an array of numbers draws these rows.

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


def drawn_codes(recipe: Recipe, box: Box, seeds: np.ndarray, code: Any) -> StartCodes:
    """Return the start codes (R, D) of seeds (R,), drawn where they are read."""
    root = root_key(0)

    def draw(some: np.ndarray) -> jax.Array:
        return start_codes(recipe, box, root, some, code)

    codes = StartCodes(draw, seeds, len(box.upper), box.upper.dtype)
    codes[0]  # raises
    return codes


def checked_codes(start: Any, count: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Return given start codes, of this type; ValueError unless (count, size) and finite."""
    if np.shape(start) != (count, size):
        raise ValueError(f"start codes have shape {np.shape(start)}, expected {(count, size)}")
    if not np.isfinite(start).all():
        raise ValueError("start codes hold numbers that are not finite")
    return np.asarray(start, dtype)


def make_box(
    recipe: Recipe, size: int, upper: np.ndarray | None, dtype, lower: np.ndarray | None = None
) -> Box:
    """Make the box that a recipe asks for, of the generator's bounds (D,), 0 for no lower ones."""
    if recipe.box == "none":
        return Box(jnp.full(size, -jnp.inf, dtype), jnp.full(size, jnp.inf, dtype))
    if recipe.box == "unit":
        return Box(jnp.full(size, -1.0, dtype), jnp.full(size, 1.0, dtype))
    if upper is None:
        raise ValueError(
            "the generator has no code bounds and box 'upper' needs them: make it with box=(low, "
            "high), port its file again with --bounds=FILE (act_range/3x/fc6.txt), or choose the "
            "recipe's box 'unit' or 'none' (--box)"
        )
    low = jnp.zeros(size, dtype) if lower is None else jnp.asarray(lower, dtype)
    return Box(low, jnp.asarray(upper, dtype))
