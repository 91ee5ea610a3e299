"""Parts of a model: its function in standard form, its shapes, its code, its origin."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.layers import at_least_float32, classifier_outputs

Params = Any  # any pytree of arrays
Apply = Callable[[Params, jax.Array], Mapping[str, jax.Array] | jax.Array]
Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Info:
    """Where a model comes from.

    Attributes:
      network: Its own name, whatever it is called in a run.
      asked: The name or path that `load` was given.
      file: Name of the weights file.
      sha256: Its hash.
      licence: Of the weights.
      source: Of the weights.
      notes: Anything else.
    """

    network: str = ""
    asked: str = ""
    file: str = ""
    sha256: str = ""
    licence: str = ""
    source: str = ""
    notes: str = ""

    @property
    def record(self) -> dict[str, str]:
        """Identifies the weights in a config file."""
        return {"name": self.asked, "file": self.file, "sha256": self.sha256}


UNKNOWN = Info()


class Code(NamedTuple):
    """Bounds and latent statistics of a generator's code, each (D,).

    Attributes:
      upper: Upper bounds of the code box.
      mean: Mean code of photographs.
      sigma: Their standard deviation.
      lower: Lower bounds of the code box; None for 0.
      factor: (D, K), such that mean + factor @ N(0, 1) has their covariance.
    """

    upper: np.ndarray
    mean: np.ndarray | None = None
    sigma: np.ndarray | None = None
    lower: np.ndarray | None = None
    factor: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Activations:
    """A model's function in standard form: (params, one example) -> {blob: array}.

    A bare array becomes a dict of one. The probability family is added from the logits unless the
    model gives it. Equal for equal functions, so that jit recognises it.

    Attributes:
      apply: The model's function.
      alone: Name of the blob where the function gives a bare array.
      logits: Name of the logits' blob; without it nothing is added.
    """

    apply: Apply
    alone: str
    logits: str | None = None

    def __call__(self, params: Params, x: jax.Array) -> dict[str, jax.Array]:
        """Compute every blob of one example."""
        out = self.apply(params, x)
        if not isinstance(out, Mapping):
            if not hasattr(out, "shape"):
                raise TypeError(f"it gives {out!r:.50}, expected an array or a dict of arrays")
            out = {self.alone: out}
        out = dict(out)
        if not self.logits or self.logits not in out:
            return out
        return classifier_outputs(at_least_float32(out[self.logits])) | out


def check_apply(apply: Any, kind: str, name: str) -> None:
    """Raise ValueError if a model's function is no function."""
    if not callable(apply):
        raise ValueError(f"{kind} {name!r}: apply is {apply!r}, expected a function")


def find_shapes(model: Any, example: tuple[int, ...]) -> Shapes:
    """Find the shapes of a model's blobs.

    Raises:
      ValueError: One line with the function's name, if it cannot be applied to one example.
    """
    kind, function = type(model).__name__.lower(), model.apply
    called = getattr(function, "__name__", type(function).__name__)
    x = jax.ShapeDtypeStruct(example, jnp.float32)
    order: list[str] = []  # eval_shape sorts a dict by its keys

    def traced(params, x):
        out = model.activations(params, x)
        order.extend(out)
        return out

    try:
        out = jax.eval_shape(traced, model.params, x)
        return {blob: tuple(out[blob].shape) for blob in order}
    except Exception as error:  # a user's function can raise anything
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{kind} {model.name!r}: {called}(params, x) fails for one x of shape {example}: {why}"
        ) from error
