"""The adversary of Dosovitskiy & Brox 2016: a small critic that sees an image and its code.

It looks at patches of some 30 pixels and scores each as photograph or reconstruction; the code
enters by a projection (Miyato & Koyama 2018, "cGANs with projection discriminator"). Kernels are
spectrally normalised (Miyato et al. 2018), the loss is the hinge. As in Dosovitskiy & Brox its
training pauses while it wins by too much.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.layers import leaky_relu
from jaxsynth.training.convolution import training_conv
from jaxsynth.training.initial import initial_variables

PIXEL_SCALE = 64.0  # generators in training paint in units of so many grey levels
_BETAS = (0.5, 0.9)
_LEAST_LOSS = 0.5  # hinge loss below which the critic waits; 2 is chance
_SLOPE = 0.2
_RAMP = 0.05  # share of the run in which the adversary's weight rises


class CriticState(NamedTuple):
    """What a checkpoint holds of the adversary."""

    params: Any
    stats: Any  # of the spectral normalisation
    opt: Any


class Critic(nn.Module):
    """(image (B, S, S, 3), code (B, D)) -> scores (B, S / 8, S / 8), higher for photographs.

    `activations` is the precision of the convolutions; weights and their norms stay float32.
    """

    width: int
    activations: str = "float32"

    @nn.compact
    def __call__(self, image: jax.Array, code: jax.Array, update: bool = False) -> jax.Array:
        conv = training_conv()
        x = image
        for i in range(3):
            x = _space_to_depth(x)
            layer = nn.Conv(
                self.width << i,
                (3, 3),
                padding=1,
                dtype=self.activations,
                conv_general_dilated=conv,
                name=f"conv{i}",
            )
            x = leaky_relu(nn.SpectralNorm(layer)(x, update_stats=update), _SLOPE)
        match = nn.SpectralNorm(nn.Dense(x.shape[-1], use_bias=False, name="match"))
        direction = match(code, update_stats=update)  # (B, C)
        score = nn.SpectralNorm(nn.Dense(1, name="score"))(x, update_stats=update)
        return score[..., 0] + jnp.einsum("bijc,bc->bij", x, direction)


def init_critic(seed: int, size: int, code: int, width: int) -> CriticState:
    """Fresh weights and an empty optimiser."""
    variables = initial_variables(Critic(width), seed, (1, size, size, 3), (1, code))
    params, stats = variables["params"], variables["batch_stats"]
    return CriticState(params, stats, _optimiser().init(params))


def score(
    width: int, state: CriticState, image: jax.Array, code: jax.Array, activations: str
) -> jax.Array:
    """Scores of images, the critic left as it is."""
    variables = {"params": state.params, "batch_stats": state.stats}
    return Critic(width, activations).apply(variables, image, code)


def adversary_pull(
    training: Any, critic: CriticState, image, code, activations: str, progress, other
) -> jax.Array:
    """The critic's gradient at images (B, S, S, 3), scaled to its share of the gradient `other`.

    training: has `adversary`, `adversary_start` and `critic_width`. Images in grey levels.
    """

    def loss(image):
        scores = score(training.critic_width, critic, image / PIXEL_SCALE, code, activations)
        return -scores.mean()

    gradient = jax.grad(loss)(image)
    ramp = jnp.clip((progress - training.adversary_start) / _RAMP, 0.0, 1.0)
    size = jnp.linalg.norm(other.ravel()) / jnp.maximum(jnp.linalg.norm(gradient.ravel()), 1e-20)
    return training.adversary * ramp * size * gradient


def critic_step(
    width: int,
    state: CriticState,
    photo: jax.Array,
    made: jax.Array,
    code: jax.Array,
    rate: jax.Array,
    activations: str,
) -> tuple[CriticState, dict[str, jax.Array]]:
    """One update on photographs and reconstructions (B, S, S, 3) of the same codes (B, D)."""
    both, codes = jnp.concatenate([photo, made]), jnp.concatenate([code, code])

    def loss_fn(params):
        critic = Critic(width, activations)
        variables = {"params": params, "batch_stats": state.stats}
        out, new = critic.apply(variables, both, codes, True, mutable=["batch_stats"])
        real, fake = jnp.split(out, 2)
        loss = jnp.maximum(1.0 - real, 0.0).mean() + jnp.maximum(1.0 + fake, 0.0).mean()
        right = 0.5 * ((real > 0).mean() + (fake < 0).mean())
        return loss, (new["batch_stats"], right)

    (loss, (stats, right)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt = _optimiser().update(grads, state.opt, state.params)
    trained = CriticState(
        jax.tree.map(lambda p, u: p - rate * u, state.params, updates), stats, opt
    )
    waits = loss < _LEAST_LOSS
    new = jax.tree.map(lambda a, b: jnp.where(waits, b, a), trained, state)
    return new, {"critic": loss, "critic right": right}


def contest(
    training: Any, critic: CriticState, photo, image, code, activations: str, progress, rate, other
) -> tuple[jax.Array, CriticState, dict[str, jax.Array]]:
    """The critic's part in a step: its pull at the images, its own update, metrics.

    training: as for `adversary_pull`, with `critic_rate`. photo, image: (B, S, S, 3) in grey
    levels. rate: what the schedule leaves of `critic_rate`. other: the other losses' gradient.
    """
    pull = adversary_pull(training, critic, image, code, activations, progress, other)
    photo, image = photo / PIXEL_SCALE, image / PIXEL_SCALE
    rate = training.critic_rate * rate
    critic, seen = critic_step(training.critic_width, critic, photo, image, code, rate, activations)
    return pull, critic, seen


def join_late(make: Callable[[bool], Callable], training: Any) -> Callable:
    """A training step without the critic until it joins: two compilations, no work for nothing.

    make: whether the critic takes part -> the step. training: as for `adversary_pull`.
    """
    plain, adversarial = (network_jit(make(flag), donate_argnums=0) for flag in (False, True))

    def step(state, frozen, rgb, labels, key, progress):
        late = training.adversary > 0 and progress >= training.adversary_start
        return (adversarial if late else plain)(state, frozen, rgb, labels, key, progress)

    return step


def _space_to_depth(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, H / 2, W / 2, 4 C): stride 2 without a strided convolution."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def _optimiser() -> optax.GradientTransformation:
    """Without the step size."""
    return optax.scale_by_adam(*_BETAS)
