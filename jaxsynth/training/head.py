"""The last layer of a scene network by itself, so that G(E(x)) is named as x is.

The layer learns on codes of photographs and on the codes that are read in G(E(x)); both networks
stay as they are. It names both, and each prediction follows the sharpened one of the other, so it
looks at those units that come back. Pure.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.training.scene import following_prediction, label_loss


class Head(NamedTuple):
    """logits = code @ kernel + bias. kernel: (D, K); bias: (K,)."""

    kernel: jax.Array
    bias: jax.Array


@dataclasses.dataclass(frozen=True)
class HeadTraining:
    """Adam's peak step size (for codes of an rms of 1; a cosine leads to 0), steps and losses.

    Attributes:
      steps: of `batch` examples each; 0 leaves the layer as it is.
      photographs: at most so many are coded, evenly spaced.
      agreement: weight of following, against 1 for naming x and 1 for naming G(E(x)). Where it is
        too large for so many steps, nearly everything is given one of a few names.
      temperature: of the predictions that are followed, below 1 they are sharpened.
      dropout: share of the code's units that an example lacks.
      smoothing: of the labels.
    """

    steps: int = 800
    photographs: int = 64_000
    batch: int = 512
    rate: float = 1e-4
    agreement: float = 11.0
    temperature: float = 0.4
    dropout: float = 0.4
    smoothing: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"head: steps is {self.steps}, expected 0 or more")
        if self.temperature <= 0:
            raise ValueError(f"head: temperature is {self.temperature:g}, expected more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head: dropout is {self.dropout:g}, expected a share from 0 below 1")


@partial(jax.jit, static_argnums=0)
def fit_head(
    training: HeadTraining,
    head: Head,
    codes: jax.Array,
    readings: jax.Array,
    labels: jax.Array,
    key: jax.Array,
) -> Head:
    """Goes on from `head`.

    Args:
      codes: of photographs x (N, D). readings: of G(E(x)) (N, D). labels: of x (N,) int32.
    """
    rms = jnp.sqrt(jnp.mean(codes**2))
    schedule = optax.cosine_decay_schedule(training.rate, training.steps)
    optimiser = optax.adam(schedule)
    begin = Head(rms * head.kernel, head.bias)

    def step(carry, i):
        now, state = carry
        row_key, drop_key = jax.random.split(jax.random.fold_in(key, i))
        rows = jax.random.randint(row_key, (training.batch,), 0, len(labels))
        shape, share = (training.batch, codes.shape[1]), 1 - training.dropout
        kept = jax.random.bernoulli(drop_key, share, shape) / (rms * share)
        grads = jax.grad(_loss, argnums=1)(
            training, now, kept * codes[rows], kept * readings[rows], labels[rows]
        )
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(now, updates), state), None

    carry = (begin, optimiser.init(begin))
    (end, _), _ = jax.lax.scan(step, carry, jnp.arange(training.steps))
    return Head(end.kernel / rms, end.bias)


def _loss(training: HeadTraining, head: Head, codes, readings, labels) -> jax.Array:
    both = [code @ head.kernel + head.bias for code in (codes, readings)]
    named = sum(label_loss(logits, labels, training.smoothing)[0] for logits in both)
    followed = sum(
        following_prediction(logits, other, training.temperature)
        for logits, other in (both, both[::-1])
    )
    return named + training.agreement / 2 * followed
