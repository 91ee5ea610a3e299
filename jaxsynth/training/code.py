"""The code's statistics over training images, and its scale.

The box of the recipes is [0, mean + 3 sigma] per unit (Nguyen et al. 2016). The published fc6 code
has a mean bound of 11.85; ours is scaled to the same, so that the published step sizes and N(0, 1)
starts mean the same thing. ReLU is positively homogeneous: the network's function stays.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import CodeStats, Params
from jaxsynth.training.augment import to_input
from jaxsynth.training.data import ImageSet, batches

PUBLISHED_MEAN_BOUND = 11.85
_BATCH = 100


def measure_code(
    encode: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    images: ImageSet,
    size: int,
    limit: int = 10_000,
) -> CodeStats:
    """Mean, sigma and mean + 3 sigma of the code over `limit` images at even distances, each (D,).

    Each image is its centre crop of `size`, half of them mirrored as in training.

    Args:
      encode: (params, x (B, size, size, 3) BGR mean-subtracted) -> codes (B, D).

    Raises:
      ValueError: if the code takes negative values: the recipes' box starts at 0.
    """

    @network_jit
    def moments(params, rgb, weight):
        margin = (rgb.shape[1] - size) // 2
        x = to_input(rgb[:, margin : margin + size, margin : margin + size])
        x = x.at[::2].set(x[::2, :, ::-1])
        code = encode(params, x)  # (B, D)
        return jnp.stack([weight @ code, weight @ code**2]), code.min()

    total, count = 0.0, 0
    rows = images.rows[:: max(1, len(images.rows) // limit)]
    for rgb, _, n in batches(images._replace(rows=rows), _BATCH):
        weight = jnp.asarray(np.arange(_BATCH) < n, jnp.float32)
        sums, least = moments(params, rgb, weight)
        if least < 0:
            raise ValueError(
                f"the code takes negative values ({float(least):.3g}), but the recipes' box is "
                "[0, mean + 3 sigma]: choose a blob after a ReLU or a pooling, such as fc6"
            )
        total = total + np.asarray(sums, np.float64)
        count += n
    mean, square = total / count
    sigma = np.sqrt(np.maximum(square - mean**2, 0.0))
    return CodeStats(*(np.float32(v) for v in (mean + 3 * sigma, mean, sigma)))


def rescale_code(
    params: Mapping[str, jax.Array], stats: CodeStats, bound: float = PUBLISHED_MEAN_BOUND
) -> dict[str, jax.Array]:
    """Scales fc6 by k and fc8's kernel by 1 / k so that the mean of `stats.upper` is `bound`."""
    k = bound / float(stats.upper.mean())
    out = dict(params)
    out["fc6/kernel"], out["fc6/bias"] = params["fc6/kernel"] * k, params["fc6/bias"] * k
    out["fc8/kernel"] = params["fc8/kernel"] / k
    return out
