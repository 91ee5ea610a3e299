"""Depthwise convolution against XLA's grouped one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsynth.models.depthwise import depthwise_conv, same_padding


@pytest.mark.parametrize(
    ("side", "kernel", "strides", "pads"),
    [
        (8, (3, 3), (1, 1), "SAME"),
        (7, (5, 5), (1, 1), "SAME"),
        (8, (3, 3), (2, 2), "SAME"),
        (9, (5, 5), (2, 2), "SAME"),
        (9, (3, 2), (2, 3), ((0, 3), (2, 1))),
        (9, (3, 3), (1, 1), ((0, 0), (5, 4))),
        (9, (2, 2), (3, 3), ((0, 0), (0, 0))),
        (9, (3, 3), (2, 1), ((1, 2), (2, 1))),
    ],
)
def test_values_and_gradients_are_those_of_lax(side, kernel, strides, pads):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    weights = jax.random.normal(jax.random.key(1), (*kernel, 3))
    if pads == "SAME":
        pads = tuple(same_padding(side, k, s) for k, s in zip(kernel, strides, strict=True))

    def ours(x, weights):
        return jnp.sum(jnp.sin(depthwise_conv(x, weights, strides, pads)))

    def theirs(x, weights):
        layout = ("NHWC", "HWIO", "NHWC")
        how = {"dimension_numbers": layout, "feature_group_count": 3}
        y = lax.conv_general_dilated(x, weights[:, :, None], strides, pads, **how)
        return jnp.sum(jnp.sin(y))

    made, expected = (jax.jit(jax.value_and_grad(f, (0, 1)))(x, weights) for f in (ours, theirs))
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
