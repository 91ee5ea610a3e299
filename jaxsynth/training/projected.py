"""The adversary of Projected GANs (Sauer et al. 2021): small heads on fixed features.

Features at several scales are mixed by fixed random projections, from the coarsest to the finest,
so that each scale knows of the coarser ones. A head per scale scores patches, higher for
photographs; its kernels are spectrally normalised (Miyato et al. 2018), the loss is the hinge.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxsynth.models.layers import leaky_relu
from jaxsynth.training.setup import initial_variables, training_conv

_CHANNELS = 64  # of the mixed features
_FINE, _FINE_CHANNELS = 32, 16  # maps of a longer side have fewer
_WIDEST = 128
_SLOPE = 0.2


class Adversary(NamedTuple):
    """What a checkpoint holds of the heads.

    params: of the heads. stats: of the spectral normalisation.
    """

    params: Any
    stats: Any


class _Mix(nn.Module):
    """Features of several scales (B, s, s, C), finest first -> the same scales, mixed."""

    @nn.compact
    def __call__(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        made, coarser = [], None
        for i, x in reversed(list(enumerate(features))):
            channels = _channels(x.shape)
            x = nn.Dense(channels, use_bias=False, name=f"project{i}")(x)
            if coarser is not None:
                if coarser.shape[-1] != channels:
                    coarser = nn.Dense(channels, use_bias=False, name=f"narrow{i}")(coarser)
                x = (x + jax.image.resize(coarser, x.shape, "nearest")) * 0.7
            coarser = _conv(channels, 3, 1, f"mix{i}", use_bias=False)(x)
            made.insert(0, coarser)
        return made


def _channels(shape: Sequence[int]) -> int:
    """Channels of mixed features (B, s, s, C)."""
    return _CHANNELS if shape[1] <= _FINE else _FINE_CHANNELS


class _Head(nn.Module):
    """Mixed features (B, s, s, C) -> scores (B, s', s'), s' about 4."""

    @nn.compact
    def __call__(self, x: jax.Array, update: bool = False) -> jax.Array:
        def layer(features, kernel, stride, name):
            return nn.SpectralNorm(_conv(features, kernel, stride, name), name=f"{name}_norm")

        number = 0
        while x.shape[1] > 4:
            features = min(_WIDEST, x.shape[-1] * (2 if number else 1))
            x = leaky_relu(layer(features, 4, 2, f"down{number}")(x, update_stats=update), _SLOPE)
            number += 1
        x = leaky_relu(layer(_WIDEST, 3, 1, "last")(x, update_stats=update), _SLOPE)
        return layer(1, 3, 1, "score")(x, update_stats=update)[..., 0]


class _Heads(nn.Module):
    @nn.compact
    def __call__(self, mixed: Sequence[jax.Array], update: bool = False) -> list[jax.Array]:
        return [_Head(name=f"head{i}")(x, update) for i, x in enumerate(mixed)]


def _conv(features: int, kernel: int, stride: int, name: str, **kwargs: Any) -> nn.Conv:
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=1,
        conv_general_dilated=training_conv(),
        name=name,
        **kwargs,
    )


def init_adversary(seed: int, shapes: Sequence[tuple[int, ...]]) -> tuple[Adversary, Any]:
    """Draw heads for features of these shapes (B, s, s, C), and the fixed projections."""
    projections = initial_variables(_Mix(), seed + 1, shapes)["params"]
    mixed = [(*shape[:3], _channels(shape)) for shape in shapes]
    heads = initial_variables(_Heads(), seed + 2, mixed)
    return Adversary(heads["params"], heads["batch_stats"]), projections


def mix(projections: Any, features: Sequence[jax.Array]) -> list[jax.Array]:
    """Mix features for the heads."""
    return _Mix().apply({"params": projections}, features)


def realism(adversary: Adversary, mixed: Sequence[jax.Array]) -> jax.Array:
    """Sum the heads' mean scores over scales: what the generator maximises."""
    variables = {"params": adversary.params, "batch_stats": adversary.stats}
    return sum(s.mean() for s in _Heads().apply(variables, mixed))


def hinge_loss(
    params: Any, stats: Any, photographs: Sequence[jax.Array], made: Sequence[jax.Array]
) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    """Compute the heads' loss on mixed features, new stats, and the share of right scores."""
    both = [jnp.concatenate(pair) for pair in zip(photographs, made, strict=True)]
    scores, new = _Heads().apply(
        {"params": params, "batch_stats": stats}, both, True, mutable=["batch_stats"]
    )
    count = photographs[0].shape[0]
    real, fake = [s[:count] for s in scores], [s[count:] for s in scores]
    loss = sum(
        jnp.maximum(1 - r, 0).mean() + jnp.maximum(1 + f, 0).mean()
        for r, f in zip(real, fake, strict=True)
    )
    right = sum((r > 0).mean() + (f < 0).mean() for r, f in zip(real, fake, strict=True))
    return loss, (new["batch_stats"], right / (2 * len(real)))
