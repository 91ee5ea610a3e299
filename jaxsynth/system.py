"""The networks of a run joined: a generator, the classifiers that see its images, an encoder.

Pure. `System` is the static structure: which functions there are and how they meet. Parameters,
codes and objectives (`jaxsynth.goals`) are arguments, so another unit, category or mixture is data
and never recompiles.

Codes, images, logits and objectives are float32 at least; the networks compute in the precision of
their parameters (bfloat16 is the speed mode).

Images meet as in DGN-AM (`act_max.py`): a classifier sees a centre crop, offset (side - size) // 2.
Where the sides are too far apart for a crop (the pocket generator under open_nsfw) it sees a
bilinear resize. Pixels are converted only where the two networks have different units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxsynth.goals import Function, RunData
    from jaxsynth.images import Conversion
    from jaxsynth.models.base import Classifier, Generator
    from jaxsynth.transforms import Transforms

GENERATOR = "generator"
ENCODER = "encoder"  # no classifier: no term weighs it and it does not judge
START_CODE, START_IMAGE = "start_code_l2", "start_image_l2"
_LARGEST_CROP = 1.25  # 256 -> 224 and 227 are crops; anything larger is resized

Params = Any  # a pytree of arrays
Activations = dict[str, jax.Array]
AllActivations = dict[str, Activations]


class Viewer(NamedTuple):
    """A classifier in a system: its name, its pure `apply`, its input's side and units."""

    name: str
    apply: Callable[[Params, jax.Array], Activations]
    size: int
    units: Conversion | None = None


class Encoder(NamedTuple):
    """The network whose blob is the code: its pure `apply`, that blob, its input's side, units."""

    apply: Callable[[Params, jax.Array], Activations]
    blob: str
    size: int
    units: Conversion | None = None


class System(NamedTuple):
    """Static structure of an objective; hashable, so it is a static argument of jit.

    The objective does not use the encoder; a recipe's prior term does. `functions` are those terms
    of the objective that are not linear, see `jaxsynth.goals`.
    """

    generate: Callable[[Params, jax.Array], Activations]
    image: str
    classifiers: tuple[Viewer, ...]
    encoder: Encoder | None = None
    functions: tuple[Function, ...] = ()


class Request(NamedTuple):
    """The evaluation of a code that a step requests; static.

    Attributes:
      system: the networks that the objective needs.
      asks: `value`, `gradient` or `gradient and prior`, as an optimizer says.
      balance: how several classifiers' gradients are joined.
      transforms: random transformations of the classifiers' view of the image.
      record: blobs, as (network, blob), that are recorded in full.
    """

    system: System
    asks: str
    balance: str
    transforms: Transforms
    record: tuple[tuple[str, str], ...]


def make_system(
    generator: Generator,
    classifiers: Sequence[Classifier],
    encoder: Classifier | None = None,
) -> System:
    """Join a generator and classifiers, and the generator's encoder if it is needed."""
    from jaxsynth.images import conversion

    viewers = tuple(
        Viewer(c.name, c.activations, c.size, conversion(generator.preprocess, c.preprocess))
        for c in classifiers
    )
    reader = None if encoder is None else make_encoder(generator, encoder)
    return System(generator.activations, generator.image, viewers, reader)


def make_encoder(generator: Generator, encoder: Classifier) -> Encoder:
    """Make the encoder of a generator, which names the blob that is its code."""
    from jaxsynth.images import conversion

    blob, wanted = generator.encoder_blob, generator.code_size
    if not hasattr(encoder, "size") or blob not in encoder.shapes:
        raise ValueError(
            f"encoder {encoder.name!r} is no classifier with a blob {blob!r}, of which generator "
            f"{generator.name!r} takes the code"
        )
    size = math.prod(encoder.shapes[blob])
    if size != wanted:
        raise ValueError(
            f"encoder {encoder.name!r} gives codes of {size} units, generator "
            f"{generator.name!r} takes {wanted}"
        )
    units = conversion(generator.preprocess, encoder.preprocess)
    return Encoder(encoder.activations, blob, encoder.size, units)


def system_params(
    generator: Generator, classifiers: Sequence[Classifier], encoder: Classifier | None = None
) -> dict[str, Params]:
    """Return the parameters of all networks, {name: params}, as their `System` takes them.

    A model's `prepare` derives from them what every step needs; on CPU that compiles and runs a
    small program for each network.
    """
    models = {GENERATOR: generator} | {c.name: c for c in classifiers}
    if encoder is not None:
        models[ENCODER] = encoder
    return {
        name: model.params if model.prepare is None else model.prepare(model.params)
        for name, model in models.items()
    }


def params_of(system: System, params: Mapping[str, Params]) -> dict[str, Params]:
    """Return those parameters that a system uses."""
    names = [GENERATOR, *(c.name for c in system.classifiers)]
    return {name: params[name] for name in (*names, *([ENCODER] if system.encoder else []))}


def sees_crop(side: int, size: int) -> bool:
    """Return whether an image of `side` reaches an input of `size` by a centre crop."""
    return size <= side <= _LARGEST_CROP * size


def pixels_seen(side: int, size: int) -> int:
    """Count the pixels of an image of `side` that reach a classifier of `size`."""
    return size * size if sees_crop(side, size) else side * side


def view(image: jax.Array, size: int, units: Conversion | None = None) -> jax.Array:
    """Crop or resize an image (..., H, H, 3) for a network of `size`: (..., size, size, 3).

    `units` converts the pixels after that; None leaves their bits alone.
    """
    side = image.shape[-2]
    if sees_crop(side, size):
        start = (side - size) // 2
        seen = image[..., start : start + size, start : start + size, :]
    else:
        shape = (*image.shape[:-3], size, size, 3)
        seen = jax.image.resize(image, shape, method="bilinear", antialias=size < side)
    return seen if units is None else units(seen)


def encode(encoder: Encoder, params: Params, image: jax.Array) -> jax.Array:
    """Return the code (D,) of an image (H, W, 3) in the generator's units."""
    code = encoder.apply(params, view(image, encoder.size, encoder.units))[encoder.blob]
    return code.ravel().astype(image.dtype)


def generator_activations(
    system: System, params: Params, code: jax.Array, run: RunData | None = None
) -> Activations:
    """Return all blobs of the generator and the measures of its code and image, (1,) each.

    `code_l2` and `image_l2` are mean squares, `image_tv` the mean absolute difference of
    neighbouring pixels; `start_code_l2` and `start_image_l2` are mean squared differences from the
    run's start, where the run has one. A negative weight on them penalises.
    """
    out = dict(system.generate(params, code))
    image = out[system.image] = out[system.image].astype(code.dtype)  # (H, W, 3)
    across = jnp.abs(jnp.diff(image, axis=-2)).mean() + jnp.abs(jnp.diff(image, axis=-3)).mean()
    out["code_l2"] = jnp.mean(code * code)[None]
    out["image_l2"] = jnp.mean(image * image)[None]
    out["image_tv"] = across[None]
    if run is not None and run.start is not None:
        out[START_CODE] = jnp.mean((code - run.start) ** 2)[None]
    if run is not None and run.start_image is not None:
        out[START_IMAGE] = jnp.mean((image - run.start_image) ** 2)[None]
    return out
