"""The CPU's forms of convolutions and pooling compute what XLA's own do, gradients included; and
what runs networks is compiled without the slow library of convolutions."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsynth.models import compiled
from jaxsynth.models.compiled import compiler_options, network_jit
from jaxsynth.models.cpu_convolution import cpu_conv
from jaxsynth.models.layers import (
    LRN_ALPHA,
    SLOPE,
    dense,
    leaky_relu,
    local_response_norm,
    max_pool,
    max_pool_relu,
    relu,
)

LAYOUT = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
CASES = {
    "1x1": ((9, 9, 5), (1, 1, 5, 7), (1, 1), 0, {}),
    "1x1, stride 2, odd side": ((9, 9, 5), (1, 1, 5, 7), (2, 2), 0, {}),
    "3x3": ((9, 8, 5), (3, 3, 5, 7), (1, 1), 1, {}),
    "groups": ((7, 7, 6), (3, 3, 3, 8), (1, 1), 1, {"feature_group_count": 2}),
    "7x7, stride 2, of an image": ((16, 16, 3), (7, 7, 3, 4), (2, 2), 3, {}),
    "5x5, stride 2, odd sides": ((17, 13, 3), (5, 5, 3, 4), (2, 2), 2, {}),
    "3x3, stride 3, padding 2": ((11, 12, 3), (3, 3, 3, 4), (3, 3), 2, {}),
    "3x3, stride 6": ((13, 20, 3), (3, 3, 3, 4), (6, 6), 1, {}),
    "11x11, stride 4, of an image": ((27, 27, 3), (11, 11, 3, 4), (4, 4), 0, {}),
    "pixels that no window reaches": ((13, 13, 3), (3, 3, 3, 4), (4, 4), 0, {}),
    "deconvolution": ((4, 4, 6), (4, 4, 6, 5), (1, 1), 2, {"lhs_dilation": (2, 2)}),
    "deconvolution, odd side": ((32, 33, 6), (4, 4, 6, 5), (1, 1), 2, {"lhs_dilation": (2, 2)}),
    "deconvolution to an image": ((33, 32, 6), (4, 4, 6, 3), (1, 1), 2, {"lhs_dilation": (2, 2)}),
    "3x3, stride 2, asymmetric": ((8, 7, 3), (3, 3, 3, 4), (2, 2), (0, 1), {}),
    "3x3, asymmetric": ((8, 7, 5), (3, 3, 5, 4), (1, 1), (2, 1), {}),
    "4x4, stride 2, of one channel": ((9, 9, 1), (4, 4, 1, 4), (2, 2), 1, {}),
    "anything else": ((8, 8, 5), (3, 3, 5, 4), (2, 2), 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_form_for_cpu_is_the_same_function(name, x64):
    shape, kernel_shape, strides, pad, kwargs = CASES[name]
    pads = [(pad, pad) if isinstance(pad, int) else pad] * 2
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size)) for size in ((3, *shape), kernel_shape))

    def run(conv):
        def one(x, kernel):  # one example of a mapped batch, as in the networks
            y = conv(x[None], kernel, strides, pads, **kwargs, **LAYOUT)[0]
            return jnp.sum(jnp.sin(y)), y

        grad = jax.value_and_grad(one, argnums=(0, 1), has_aux=True)
        (_, y), grads = jax.jit(jax.vmap(grad, (0, None)))(x, kernel)
        return y, *grads

    for ours, theirs in zip(run(cpu_conv), run(lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel, pads", [(1, 0), (3, 1), (3, (2, 1))])
@pytest.mark.parametrize("channels", [8, 128])
def test_bfloat16_is_summed_in_float32(kernel, pads, channels):
    """As near to float32's values and gradients as rounding the result to bfloat16 is."""
    pads = [(pads, pads) if isinstance(pads, int) else pads] * 2
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 6, channels)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=(kernel, kernel, channels, 128)), jnp.bfloat16)

    def run(conv, x, weights):
        def total(x):
            y = conv(x, weights, (1, 1), pads, **LAYOUT)
            return jnp.sum(y.astype(jnp.float32) ** 2) / 2, y

        (_, y), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
        return y, slope

    ours = run(cpu_conv, x, weights)
    theirs = run(lax.conv_general_dilated, *(a.astype(jnp.float32) for a in (x, weights)))
    for made, exact in zip(ours, theirs, strict=True):
        assert made.dtype == jnp.bfloat16
        error = np.linalg.norm(made.astype(jnp.float32) - exact) / np.linalg.norm(exact)
        assert error < 2**-8  # half a unit in the last place is 2**-9
    program = jax.jit(lambda x: cpu_conv(x, weights, (1, 1), pads, **LAYOUT)).lower(x).as_text()
    assert ("convolution" in program) == (kernel > 1 and channels < 128)


@pytest.mark.parametrize("height, width", [(7, 8), (8, 7), (3, 3), (55, 4), (2, 2)])
def test_pooling_is_reduce_window(height, width):
    """Without ties the two agree to the bit, values and gradient."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.permutation(2 * height * width * 3).reshape(2, height, width, 3), "float32")

    def reduce(x):
        pads = [(0, 0), *((0, (n - 3) % 2 if n > 2 else 1) for n in x.shape[1:3]), (0, 0)]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    y, pull = jax.vjp(max_pool, x)
    expected, pull_expected = jax.vjp(reduce, x)
    np.testing.assert_array_equal(y, expected)
    dy = jnp.asarray(rng.integers(1, 9, y.shape), jnp.float32)
    np.testing.assert_array_equal(pull(dy)[0], pull_expected(dy)[0])


def test_of_equal_values_the_first_gets_the_gradient():
    x = jnp.ones((5, 5, 1))
    (dx,) = jax.vjp(max_pool, x)[1](jnp.ones((2, 2, 1)))
    expected = np.zeros((5, 5, 1))
    expected[0:4:2, 0:4:2] = 1
    np.testing.assert_array_equal(dx, expected)
    across = jnp.zeros((3, 3, 1)).at[0, 1].set(1).at[1, 0].set(1)  # the upper one is read first
    (dx,) = jax.vjp(max_pool, across)[1](jnp.ones((1, 1, 1)))
    assert dx[0, 1, 0] == 1 and dx.sum() == 1


def test_pooling_before_the_relu_is_pooling_after_it():
    """Values and gradients, to the bit; a quarter of the windows have nothing above 0."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(-1.0, 1.0, (2, 9, 8, 3)), jnp.float32)
    y, pull = jax.vjp(max_pool_relu, x)
    expected, pull_expected = jax.vjp(lambda x: max_pool(jax.nn.relu(x)), x)
    assert 0.1 < float(jnp.mean(y == 0)) < 0.9
    np.testing.assert_array_equal(y, expected)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    np.testing.assert_array_equal(pull(dy)[0], pull_expected(dy)[0])


@pytest.mark.parametrize("function, slope", [(relu, 0.0), (leaky_relu, SLOPE)])
def test_rectifiers_and_their_gradient_at_zero(function, slope):
    x = jnp.asarray([-2.0, -0.0, 0.0, 1e-30, 3.0])
    y, pull = jax.vjp(function, x)
    np.testing.assert_array_equal(y, np.where(x > 0, x, np.float32(slope) * x))
    np.testing.assert_array_equal(pull(jnp.ones(5))[0], np.float32([slope, slope, slope, 1, 1]))


@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 3)])
def test_a_dense_layer_and_its_gradients(leading, x64):
    keys = jax.random.split(jax.random.key(0), 2)
    x, layer = jax.random.normal(keys[0], (*leading, 7)), dense(4, "fc")
    shapes = jax.eval_shape(layer.init, keys[1], x)
    given = jax.tree.map(lambda s: jax.random.normal(keys[1], s.shape), shapes)
    y, pull = jax.vjp(layer.apply, given, x)
    expected, pull_expected = jax.vjp(nn.Dense(4, name="fc").apply, given, x)
    assert jnp.array_equal(y, expected)
    for ours, plain in zip(*map(jax.tree.leaves, (pull(y), pull_expected(y))), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-12)


def test_the_gradient_of_a_dense_layer_leaves_the_kernel_where_it_is(optimised_programs):
    """On CPU a product with a transposed kernel transposes all of it first."""
    if jax.default_backend() != "cpu":
        pytest.skip("only on CPU a product shows how it was written")
    layer, x = dense(64, "fc"), jnp.ones((8, 128))
    given = layer.init(jax.random.key(0), x[0])

    def gradient(given, x):
        return jax.vmap(jax.grad(lambda x: (layer.apply(given, x) ** 2).sum()))(x)

    text = network_jit(gradient).jitted().lower(given, x).compile().as_text()
    products = re.findall(r"= f32\[(\d+),(\d+)\]\S* dot\(", text)
    assert sorted(products) == [("128", "8"), ("8", "64")]


def test_the_gradient_of_response_normalisation():
    """Against the formula as JAX differentiates it, in float64."""
    rng = np.random.default_rng(0)

    def plain(x):
        padded = jnp.pad(x * x, ((0, 0), (2, 2)))
        return x / (1 + LRN_ALPHA / 5 * sum(padded[:, i : i + 12] for i in range(5))) ** 0.75

    with jax.enable_x64(True):
        x, dy = (jnp.asarray(scale * rng.normal(size=(7, 12))) for scale in (100.0, 1.0))
        y, pull = jax.vjp(local_response_norm, x)
        expected, pull_expected = jax.vjp(plain, x)
        np.testing.assert_allclose(y, expected, rtol=1e-12)
        np.testing.assert_allclose(pull(dy)[0], pull_expected(dy)[0], rtol=1e-9, atol=1e-12)
        assert np.abs(pull(dy)[0] - dy).max() > 0.1  # it is far from linear here


def _conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, **LAYOUT)


def test_on_cpu_convolutions_are_not_left_to_ynnpack(optimised_programs):
    given = jnp.ones((8, 28, 28, 32)), jnp.ones((3, 3, 32, 32))
    theirs = jax.jit(lambda *xk: _conv(*xk)).lower(*given).compile()
    if "ynn_fusion" not in theirs.as_text():
        pytest.skip("this XLA gives no convolution to YNNPACK here")
    ours = network_jit(_conv)
    assert "ynn_fusion" not in ours.jitted().lower(*given).compile().as_text()
    np.testing.assert_allclose(ours(*given), theirs(*given), rtol=1e-5)


def test_what_a_rectifier_puts_out_is_computed_once(optimised_programs):
    """Else a sum that five blocks add to is five times a sum of all before it."""

    def chain(x):
        for _ in range(3):
            x = relu(x + jnp.roll(x, 1))
        return x

    if compiler_options() is None:
        pytest.skip("this XLA knows no such option")
    program = network_jit(chain).jitted().lower(jnp.ones(64)).compile().as_text()
    assert program.count("opt-barrier(") == 3


def test_double_precision_is_compiled_as_jax_does(monkeypatch):
    """XLA's own convolutions of it are ten times slower than YNNPACK's."""

    def asked():
        raise AssertionError("options are for less than double precision")

    ours = network_jit(_conv)
    with monkeypatch.context() as patch, jax.enable_x64(True):
        patch.setattr(compiled, "_known_options", asked)
        given = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
        assert ours(*given).dtype == jnp.float64
        wide = ours.jitted()
    assert ours.jitted() is not wide


def test_within_another_transformation_it_is_jax_jit():
    """JAX takes options at the outermost jit only."""
    ours = network_jit(lambda x, scale: scale * jnp.sum(x * x))
    np.testing.assert_array_equal(jax.grad(ours)(jnp.arange(3.0), 2.0), [0.0, 4.0, 8.0])
    assert jax.jit(lambda x: ours(x, scale=3.0))(jnp.ones(2)) == 6.0
    assert jax.jit(lambda x: x * ours(jnp.ones(2), 3.0))(2.0) == 12.0  # by constants

    @network_jit
    def refuses(x):
        raise ValueError("not this")

    with pytest.raises(ValueError, match="not this"):
        refuses(1.0)


def test_an_xla_that_does_not_know_an_option_compiles_without(monkeypatch):
    unknown = {"xla_cpu_of_another_year": "yes"}
    known = compiled._WITHOUT_BARRIERS
    monkeypatch.setattr(compiled, "_CPU_OPTIONS", known | unknown)
    for fewer, expected in ((known, known), (unknown, None)):
        compiled._known_options.cache_clear()
        monkeypatch.setattr(compiled, "_WITHOUT_BARRIERS", fewer)
        try:
            assert compiler_options() == expected
            assert network_jit(lambda x: x + 1)(1.0) == 2.0
        finally:
            compiled._known_options.cache_clear()
