"""Operators of random shapes and attributes against onnxruntime, and the algebra of layouts."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import run_many, save, theirs

from jaxsynth.models.onnx_call import Laid, as_graph, reshape, shape_of, transpose

SIDES = st.integers(5, 9)


@st.composite
def windows(draw):
    """A convolution or a pool: its operator, attributes and weights' shape for 4 channels."""
    two = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * 2))  # noqa: E731
    kernel, strides = two(1, 3), two(1, 3)
    op = draw(st.sampled_from(["Conv", "Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
    how = {"kernel_shape": kernel, "strides": strides}
    begin, end = ([draw(st.integers(0, k // 2)) for k in kernel] for _ in range(2))
    if op == "Conv" and draw(st.booleans()):
        how["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        how["pads"] = (*begin, *end)
    if not op.startswith("Conv"):
        how["ceil_mode"] = draw(st.integers(0, 1))
        if op == "AveragePool":
            how["count_include_pad"] = draw(st.integers(0, 1))
        return op, how, None
    how["group"] = groups = draw(st.sampled_from([1, 2, 4]))
    if "auto_pad" not in how:
        how["dilations"] = two(1, 2)
    shape = (4, 4 // groups, *kernel)
    return op, how, shape if op == "Conv" else (4, 8 // groups, *kernel)


@st.composite
def moves(draw):
    """An operator that moves numbers of a (2, 4, H, W) tensor: name, constants, attributes."""
    op = draw(st.sampled_from(["Slice", "Pad", "Transpose", "Resize", "Split"]))
    if op == "Slice":
        axes = draw(st.lists(st.integers(-4, 3), min_size=1, max_size=2, unique_by=lambda a: a % 4))
        row = lambda one: draw(st.tuples(*[one] * len(axes)))  # noqa: E731
        columns = [row(st.integers(-10, 10)) for _ in range(2)]
        steps = row(st.sampled_from([1, 2, -1, -2]))
        return op, [np.array(c, np.int64) for c in (*columns, axes, steps)], {}
    if op == "Pad":
        pads = draw(st.lists(st.integers(-1, 3), min_size=8, max_size=8))
        mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
        if mode != "constant":
            pads = [max(0, min(p, 1)) for p in pads]
        return op, [np.array(pads, np.int64)], {"mode": mode}
    if op == "Transpose":
        return op, [], {"perm": draw(st.permutations(range(4)))}
    if op == "Split":
        sizes = draw(st.sampled_from([(1, 3), (2, 2), (4, 0)]))
        return op, [np.array(sizes, np.int64)], {"axis": 1}
    scales = [1, 1, *draw(st.tuples(*[st.sampled_from([0.5, 0.75, 1.5, 2.0])] * 2))]
    rules = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    how = {"mode": draw(st.sampled_from(["nearest", "linear", "cubic"]))}
    how["coordinate_transformation_mode"] = draw(st.sampled_from(rules))
    return op, [None, np.array(scales, np.float32)], how


def check(op, constants, attributes, height, width, outputs=1):
    with tempfile.TemporaryDirectory() as folder:
        names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
        arrays = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
        made = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op, ["x", *names], made, **attributes)
        shape = (2, 4, height, width)
        path = save(Path(folder, "m.onnx"), [node], {"x": (np.float32, shape)}, made, arrays, 18)
        feeds = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
        try:
            expected = theirs(path, feeds)
        except Exception:  # windows or cuts that leave nothing, which onnxruntime refuses
            return
        if any(0 in one.shape for one in expected):
            return
        for layout in run_many([(path, feeds, made)])[0]:
            for a, b in zip(layout, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max()))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(windows(), SIDES, SIDES)
def test_windows_of_any_shape(window, height, width):
    op, attributes, shape = window
    weights = [] if shape is None else [np.random.default_rng(1).normal(size=shape).astype("f4")]
    check(op, weights, attributes, height, width)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(moves(), SIDES, SIDES)
def test_moves_of_any_shape(move, height, width):
    op, constants, attributes = move
    check(op, constants, attributes, height, width, 2 if op == "Split" else 1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_transposes_and_reshapes_of_layouts_are_those_of_arrays(data):
    """Whatever order the axes have in memory; numpy stands for JAX, which compiles slowly."""
    sides = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=5))
    array = np.arange(np.prod(sides), dtype=np.float32).reshape(sides)
    order = data.draw(st.permutations(range(len(sides))))
    value = Laid(array.transpose(np.argsort(order)), tuple(order))
    np.testing.assert_array_equal(as_graph(value), array)
    for _ in range(4):
        if data.draw(st.booleans()):
            perm = data.draw(st.permutations(range(array.ndim)))
            value, array = transpose(value, perm), array.transpose(perm)
        else:
            shape = data.draw(factors(array.size))
            value, array = reshape(value, shape), array.reshape(shape)
        assert shape_of(value) == array.shape
    np.testing.assert_array_equal(as_graph(value), array)


@st.composite
def factors(draw, size):
    """A shape of that many numbers."""
    shape = []
    for prime in (2, 3):
        while size % prime == 0:
            shape.append(prime)
            size //= prime
    shape = draw(st.permutations([*shape, size, 1]))
    parts = draw(st.integers(1, len(shape)))
    edges = [0, *sorted(draw(st.permutations(range(1, len(shape))))[: parts - 1]), len(shape)]
    return [int(np.prod(shape[a:b])) for a, b in itertools.pairwise(edges)]
