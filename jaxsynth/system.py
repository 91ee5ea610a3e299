"""The one objective: a weighted sum over any activations of a generator and its classifiers.

Pure. `System` is the static structure (which functions, how they meet); parameters, codes and
weights are arguments. Weights are a pytree shaped like the activations that they weigh,
{network: {blob: array}}, so another unit, category or mixture is data and never recompiles.

Codes, images, logits and the objective are float32 at least; the networks compute in the precision
of their parameters (bfloat16 is the speed mode).

Images meet as in DGN-AM (`act_max.py`): the generator's pixels already are in the classifiers'
units; a classifier sees a centre crop, offset (side - size) // 2. Where the sides are too far apart
for a crop (the pocket generator under open_nsfw) it sees a bilinear resize.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsynth.models.network import (
    Activations,
    Network,
    Params,
    activation_shapes,
    image_blob,
    is_generator,
    prepared,
)

GENERATOR = "generator"
ENCODER = "encoder"  # not a classifier: it is neither weighed nor does it judge
_LARGEST_CROP = 1.25  # 256 -> 224 and 227 are crops; anything larger is resized

Weights = Mapping[str, Mapping[str, jax.Array]]
AllActivations = dict[str, Activations]


class Classifier(NamedTuple):
    """A classifier in a system: the word it goes by, its pure `apply`, the side of its input."""

    role: str
    apply: Callable[[Params, jax.Array], Activations]
    size: int


class Encoder(NamedTuple):
    """The network whose blob is the code: its pure `apply`, that blob, the side of its input."""

    apply: Callable[[Params, jax.Array], Activations]
    blob: str
    size: int


class System(NamedTuple):
    """Static structure of an objective; hashable, so it is a static argument of jit.

    The objective does not use the encoder; a recipe's prior term does.
    """

    generate: Callable[[Params, jax.Array], Activations]
    image: str
    classifiers: tuple[Classifier, ...]
    encoder: Encoder | None = None


def make_system(
    generator: Network, classifiers: Mapping[str, Network], encoder: Network | None = None
) -> System:
    """Joins a generator and classifiers (role -> network), and the generator's encoder if needed.

    Raises:
      ValueError: if the generator is none, or the encoder does not give its codes.
    """
    if not is_generator(generator.info.config):
        raise ValueError(f"{generator.name!r} is a classifier; the generator must be a generator")
    parts = tuple(
        Classifier(role, network.apply, network.input_shape[0])
        for role, network in classifiers.items()
    )
    reader = None if encoder is None else make_encoder(generator, encoder)
    return System(generator.apply, image_blob(generator.info.config), parts, reader)


def make_encoder(generator: Network, encoder: Network) -> Encoder:
    """The encoder of a generator, whose description names the blob that is its code.

    Raises:
      ValueError: if the network has no such blob, or it is not as long as the generator's code.
    """
    blob, wanted = generator.info.encoder_blob, generator.input_shape[0]
    shapes = activation_shapes(encoder.info.config)
    if is_generator(encoder.info.config) or blob not in shapes:
        raise ValueError(
            f"encoder {encoder.name!r} is no classifier with a blob {blob!r}, of which generator "
            f"{generator.name!r} takes the code"
        )
    size = math.prod(shapes[blob])
    if size != wanted:
        raise ValueError(
            f"encoder {encoder.name!r} gives codes of {size} units, generator "
            f"{generator.name!r} takes {wanted}"
        )
    return Encoder(encoder.apply, blob, encoder.input_shape[0])


def system_params(
    generator: Network, classifiers: Mapping[str, Network], encoder: Network | None = None
) -> dict[str, Params]:
    """Parameters of all networks, {role: params}, as a `System` of them takes them: `prepared`,
    which on CPU compiles and runs a little program for each network."""
    networks = {GENERATOR: generator} | dict(classifiers)
    if encoder is not None:
        networks[ENCODER] = encoder
    return {role: prepared(network) for role, network in networks.items()}


def params_of(system: System, params: Mapping[str, Params]) -> dict[str, Params]:
    """Those parameters that a system uses."""
    roles = [GENERATOR, *(c.role for c in system.classifiers)]
    return {role: params[role] for role in (*roles, *([ENCODER] if system.encoder else []))}


def sees_crop(side: int, size: int) -> bool:
    """Whether an image of `side` reaches an input of `size` by a centre crop."""
    return size <= side <= _LARGEST_CROP * size


def view(image: jax.Array, size: int) -> jax.Array:
    """What a classifier of input side `size` sees of an image: (H, H, 3) -> (size, size, 3)."""
    side = image.shape[-2]
    if sees_crop(side, size):
        start = (side - size) // 2
        return image[..., start : start + size, start : start + size, :]
    shape = (*image.shape[:-3], size, size, 3)
    return jax.image.resize(image, shape, method="bilinear", antialias=size < side)


def shift(image: jax.Array, offset: jax.Array, reach: int) -> jax.Array:
    """Moves an image (H, W, 3) down and right by offset (2,), int32 in [-reach, reach].

    What comes in at a border repeats the border's pixels.
    """
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    start = (*(reach - offset), jnp.zeros((), offset.dtype))
    return jax.lax.dynamic_slice(padded, start, image.shape)


def encode(encoder: Encoder, params: Params, image: jax.Array) -> jax.Array:
    """The code (D,) of an image (H, W, 3), BGR, mean-subtracted."""
    code = encoder.apply(params, view(image, encoder.size))[encoder.blob]
    return code.ravel().astype(image.dtype)


def pixels_seen(side: int, size: int) -> int:
    """How many pixels of an image of `side` reach a classifier of `size`."""
    return size * size if sees_crop(side, size) else side * side


def generator_activations(system: System, params: Params, code: jax.Array) -> Activations:
    """All blobs of the generator, and the regularisers `code_l2`, `image_l2`, `image_tv`, (1,).

    `code_l2` and `image_l2` are mean squares, `image_tv` the mean absolute difference of
    neighbouring pixels. A negative weight on them penalises.
    """
    out = dict(system.generate(params, code))
    image = out[system.image] = out[system.image].astype(code.dtype)  # (H, W, 3)
    across = jnp.abs(jnp.diff(image, axis=-2)).mean() + jnp.abs(jnp.diff(image, axis=-3)).mean()
    out["code_l2"] = jnp.mean(code * code)[None]
    out["image_l2"] = jnp.mean(image * image)[None]
    out["image_tv"] = across[None]
    return out


def weigh(activations: Activations, weights: Mapping[str, jax.Array]) -> jax.Array:
    """Sum of weight * activation over the blobs that `weights` names: a scalar."""
    return sum(jnp.vdot(w, activations[blob]) for blob, w in weights.items())


def objective(
    system: System, params: Mapping[str, Params], code: jax.Array, weights: Weights
) -> tuple[jax.Array, AllActivations]:
    """(code (D,), weights) -> (scalar to maximise, activations of every network by role)."""
    activations = {GENERATOR: generator_activations(system, params[GENERATOR], code)}
    image = activations[GENERATOR][system.image]
    for c in system.classifiers:
        activations[c.role] = c.apply(params[c.role], view(image, c.size))
    parts = (weigh(activations[role], w) for role, w in weights.items())
    return sum(parts, jnp.zeros((), code.dtype)), activations
