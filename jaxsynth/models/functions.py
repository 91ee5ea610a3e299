"""Parts of a model: its function in standard form, its shapes, its code, its origin."""

import dataclasses
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsynth.images import Preprocess
from jaxsynth.inputs import described, near, reason
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
FEW = 8  # blobs that an error names
ONE_A_CLASS = "return one number a class (N,), without an axis of the batch"
_NAME = re.compile(r"[\w.\-' ]+")  # nothing that the text of a term gives a meaning


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


def prepared(model: Any) -> Params:
    """Return a model's parameters with what `prepare` derives from them for many steps."""
    return model.params if model.prepare is None else model.prepare(model.params)


def check_model_name(name: Any) -> None:
    """Raise ValueError unless it can be a model's name in the text of a term."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        said = repr(name) if isinstance(name, str) else described(name)
        raise ValueError(f"name {said}: a name has letters, digits, _, - and .")


def check_given(model: Any, what: str, size: str) -> None:
    """Raise ValueError, begun by `what`, for what cannot be a model; its shapes are not looked at.

    `size` names the field that is the size of its input.
    """
    apply, units, number = model.apply, model.preprocess, getattr(model, size)
    if hasattr(apply, "init") and hasattr(apply, "apply"):
        raise ValueError(f"{what}: apply is a Flax module: pass module.apply and its variables")
    if not callable(apply):
        swapped = ": apply comes first, then params" if callable(model.params) else ""
        said = "a dict" if isinstance(apply, dict) else described(apply)
        raise ValueError(f"{what}: apply is {said}, expected a function{swapped}")
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < 1:
        kind = "units, such as 128" if size == "code_size" else "pixels, such as 224"
        raise ValueError(
            f"{what}: {size} is {described(number)}, expected a whole number of {kind}"
        )
    if not isinstance(units, Preprocess):
        raise ValueError(
            f"{what}: preprocess is {described(units)}, expected a Preprocess such as "
            "Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) of ImageNet"
        )
    if model.info == UNKNOWN:  # those of files are checked as they are read
        _check_finite(what, model.params)


def _check_finite(what: str, params: Params) -> None:
    """Raise ValueError with the path of the first array on this host that is not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, Tracer) or not isinstance(leaf, np.ndarray | jax.Array):
            continue
        here = isinstance(leaf, np.ndarray) or {d.platform for d in leaf.devices()} == {"cpu"}
        if here and jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            place = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{what}: {place} holds numbers that are not finite: give trained parameters"
            )


def find_shapes(model: Any, example: tuple[int, ...]) -> Shapes:
    """Find the shapes of a model's blobs; ValueError if its function fails for one example."""
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
    except Exception as error:  # a user's function can raise anything
        why = reason(error)
        why = f"params is None, expected its parameters ({why})" if model.params is None else why
        raise ValueError(
            f"{kind} {model.name!r}: {called}(params, x) fails for one x of shape {example}: {why}"
        ) from error
    logits = getattr(model, "logits", None)
    if logits in out and not jnp.issubdtype(out[logits].dtype, jnp.floating):
        raise ValueError(
            f"{kind} {model.name!r}: its logits {logits!r} are {out[logits].dtype}, which have no "
            "gradient: return the floats before they are rounded"
        )
    return {blob: tuple(out[blob].shape) for blob in order}


def check_logits(classifier: Any, shapes: Shapes) -> None:
    """Raise ValueError if a classifier has no such logits, or not one for each label."""
    name, logits, labels = classifier.name, classifier.logits, classifier.labels
    if logits not in shapes:
        hint, known = near(str(logits), shapes), ", ".join(list(shapes)[-FEW:])
        raise ValueError(
            f"classifier {name!r} has no blob {logits!r} of logits{hint}; it has {known}"
        )
    if len(shape := shapes[logits]) != 1:
        raise ValueError(f"classifier {name!r}: its {logits!r} has shape {shape}: {ONE_A_CLASS}")
    if labels and len(labels) != shape[0]:
        raise ValueError(
            f"classifier {name!r} has {len(labels)} labels, but its {logits!r} has shape {shape}"
        )
