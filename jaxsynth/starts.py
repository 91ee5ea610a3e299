"""Start codes of many seeds that are never in memory at once: drawn where rows of them are read."""

from collections.abc import Callable

import jax
import numpy as np

_BLOCK = 64  # seeds drawn at once, so that every read runs the same compiled programs


class StartCodes:
    """Reads like an array (R, D): a number, a slice or an array of numbers gives rows, drawn anew.

    Attributes:
      shape: (R, D).
      dtype: of the codes.
    """

    def __init__(
        self, draw: Callable[[np.ndarray], jax.Array], seeds: np.ndarray, size: int, dtype: np.dtype
    ):
        """`draw` gives the codes (B, size) of seeds (B,), each a function of its seed alone."""
        self._draw, self._seeds = draw, seeds
        self.shape, self.dtype = (len(seeds), size), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        seeds = np.atleast_1d(self._seeds[rows])
        blocks = np.pad(seeds, (0, -len(seeds) % _BLOCK), mode="edge").reshape(-1, _BLOCK)
        codes = np.concatenate([np.asarray(self._draw(block), self.dtype) for block in blocks])
        return codes[0] if np.ndim(self._seeds[rows]) == 0 else codes[: len(seeds)]
