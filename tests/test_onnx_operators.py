"""Every ONNX operator and attribute against onnxruntime, in float32, and in float64 against
onnxruntime or onnx's reference implementation; NCHW and NHWC in memory."""

import collections
import contextlib
import functools
import math

import jax
import numpy as np
import pytest
from onnx import defs, helper
from onnx_cases import CASES, GROUPS, Case, F
from onnx_models import ours, reference, run_many, save, slopes, theirs

from jaxsynth.models.onnx_call import OPERATORS, laid
from jaxsynth.models.onnx_file import read_onnx
from jaxsynth.models.onnx_graph import evaluate
from jaxsynth.models.onnx_wiring import wire


def build(case: Case, path, wide: bool = False):
    """The model's file, its feeds and its outputs' names."""
    widen = lambda a: a.astype(np.float64) if wide and a.dtype == F else a  # noqa: E731
    feeds = {f"x{i}": widen(np.asarray(a)) for i, a in enumerate(case.feeds)}
    keep = case.op in ("Resize", "Upsample")
    arrays = {
        f"c{i}": np.asarray(a) if keep else widen(np.asarray(a))
        for i, a in enumerate(case.arrays)
        if a is not None and not (case.op == "Resize" and np.size(a) == 0)
    }
    constants = [f"c{i}" if f"c{i}" in arrays else "" for i in range(len(case.arrays))]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, [*feeds, *constants], outputs, **case.attributes)
    inputs = {name: (a.dtype, a.shape) for name, a in feeds.items()}
    return save(path, [node], inputs, outputs, arrays, case.opset), feeds, outputs


def agree(made, expected, rtol):
    for a, b in zip(made, expected, strict=True):
        assert a.shape == b.shape
        if b.dtype == bool or b.dtype.kind in "iu":
            np.testing.assert_array_equal(a, b)
        else:
            scale = np.abs(b[np.isfinite(b)]).max(initial=1e-30)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


NUMBERED = [(group, i) for group, cases in GROUPS.items() for i in range(len(cases))]
FLOATING = [
    (group, i)
    for group, i in NUMBERED
    if (feeds := GROUPS[group][i].feeds)
    and all(np.asarray(a).dtype == F for a in feeds)
    and GROUPS[group][i].wide  # `test_formula_in_float64` has LRN
]


# Their kernels of float64 have constants in float32, or round to it.
COARSE = ("Erf", "Gelu", "HardSigmoid", "HardSwish", "GroupNormalization", "Resize")
COARSE += ("Attention",)
WITHOUT_SLOPE = ("Round", "Hardmax", "CastLike", "Cast", "QuantizeLinear")


def name_of(place):
    return str(GROUPS[place[0]][place[1]])


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """(group, wide) -> what ours gives for each of its cases, NCHW and NHWC, in one program."""
    return functools.cache(functools.partial(_compute, tmp_path_factory.mktemp("models")))


def _compute(folder, group: str, wide: bool):
    built = []
    for i, case in enumerate(GROUPS[group]):
        if wide and (group, i) not in FLOATING:
            built.append(None)
            continue
        built.append(build(case, folder / f"{group}{i}{wide}.onnx", wide))
    out = run_many([one for one in built if one])
    results = iter(out)
    return [None if one is None else (*one, next(results)) for one in built]


@pytest.mark.parametrize("place", NUMBERED, ids=name_of)
def test_operator_equals_onnxruntime(place, computed):
    path, feeds, _, made = computed(place[0], False)[place[1]]
    expected = theirs(path, feeds)
    for layout in made:
        agree(layout, expected, GROUPS[place[0]][place[1]].rtol)


@pytest.mark.parametrize("place", FLOATING, ids=name_of)
def test_operator_in_float64(place, computed):
    with jax.enable_x64(True):
        path, feeds, _, made = computed(place[0], True)[place[1]]
    expected = None
    for other in (theirs, reference):
        with contextlib.suppress(Exception):
            expected = other(path, feeds)
            break
    case = GROUPS[place[0]][place[1]]
    coarse = case.op in COARSE or expected is None
    if expected is None:  # neither computes it in float64
        narrow, feeds, _ = build(case, path.with_suffix(".narrow.onnx"))
        expected = theirs(narrow, feeds)
    agree(made[0], expected, max(case.rtol, 1e-5) if coarse or case.rtol > 1e-5 else 1e-9)


def _response_norm(x):
    squares = np.pad(x * x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return x / np.sqrt(2 + 0.25 * (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]))


def test_attention_in_float64(tmp_path):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 3, 5, 4))
    case = Case("Attention", (F(q), F(k), F(v)), (), {}, 23)
    with jax.enable_x64(True):
        path, _, outputs = build(case, tmp_path / "m.onnx", wide=True)
        [made] = ours(path, {"x0": q, "x1": k, "x2": v}, outputs)
    p = np.exp(q @ k.swapaxes(-1, -2) / 2)
    np.testing.assert_allclose(made, p / p.sum(-1, keepdims=True) @ v, rtol=1e-9)


@pytest.mark.parametrize(
    ("op", "attributes", "formula"),
    [
        ("Erf", {}, np.vectorize(math.erf)),
        ("Gelu", {}, lambda x: x * (1 + np.vectorize(math.erf)(x / 2**0.5)) / 2),
        ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        ("HardSigmoid", {"alpha": 0.25}, lambda x: np.clip(x / 4 + 0.5, 0, 1)),
        ("LRN", {"size": 3, "alpha": 0.75, "beta": 0.5, "bias": 2.0}, _response_norm),
    ],
)
def test_formula_in_float64(op, attributes, formula, tmp_path):
    """What others compute in float32 inside."""
    x = np.linspace(-4, 4, 30).reshape(1, 2, 3, 5)
    case = Case(op, (x.astype(F),), (), attributes, 20)
    with jax.enable_x64(True):
        path, _, outputs = build(case, tmp_path / "m.onnx", wide=True)
        [[made], *_] = run_many([(path, {"x0": x}, outputs)])[0]
    np.testing.assert_allclose(made, formula(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("op", ["ReduceL2", "LpNormalization", "GlobalLpPool"])
def test_a_norm_of_zeros_has_a_gradient_of_zero(op, tmp_path):
    """Behind a ReLU, say: a square root's would be none."""
    x = np.zeros((1, 2, 3, 4), F)
    path, _, [output] = build(Case(op, (x,)), tmp_path / "m.onnx")
    file = read_onnx(path)
    wiring, params = wire(file, [output])

    def total(x):
        return evaluate(file, wiring, params, {"x0": laid(x)})[output].array.sum()

    value, gradient = jax.value_and_grad(total)(x)
    assert value == 0 and np.isfinite(gradient).all()


UNJUDGED = [("GlobalLpPool", 22)]  # which neither onnxruntime nor onnx computes


def _versions():
    """(op, opset) of each version of an operator from opset 7 to 22 that no case has."""
    versions = collections.defaultdict(set)
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain and schema.since_version <= 22:
            versions[schema.name].add(schema.since_version)

    def version(op, opset):
        return max((v for v in versions[op] if v <= opset), default=0)

    tested = {(case.op, version(case.op, case.opset)) for case in CASES}
    for op in sorted({case.op for case in CASES if "domain" not in case.attributes}):
        seen = {v for o, v in tested if o == op}
        for opset in range(7, 23):
            now = version(op, opset)
            if now not in {0, *seen} and not defs.get_schema(op, now).deprecated:
                seen.add(now)
                yield op, opset


def test_every_version_of_an_operator(tmp_path):
    """Opsets 7 to 22, where an operator's form may change; by the first case that is valid."""
    built, expected, left = [], [], []
    for number, (op, opset) in enumerate(_versions()):
        for i, case in enumerate(c for c in CASES if c.op == op and "domain" not in c.attributes):
            case = case._replace(opset=opset)
            path, feeds, outputs = build(case, tmp_path / f"{number}_{i}.onnx")
            with contextlib.suppress(Exception):
                expected.append((case, theirs(path, feeds)))
                built.append((path, feeds, outputs))
                break
        else:
            left.append((op, opset))
    for (case, values), [made, *_] in zip(expected, run_many(built), strict=True):
        count = 1 if case.op == "Dropout" else None  # old masks differ, of what nothing is dropped
        agree(made[:count], values[:count], case.rtol)
    assert len(built) > 90 and left == UNJUDGED


@pytest.mark.parametrize("group", GROUPS)
def test_gradients_equal_finite_differences(group, tmp_path):
    """But for Clip, whose gradient at a bound is a convention, no input lies on a kink."""
    with jax.enable_x64(True):
        cases = [GROUPS[g][i] for g, i in FLOATING if g == group]
        cases = [case for case in cases if case.op not in WITHOUT_SLOPE]
        built = [build(case, tmp_path / f"{i}.onnx", True) for i, case in enumerate(cases)]
        for case, (made, expected) in zip(cases, slopes(built), strict=True):
            assert made == pytest.approx(expected, rel=1e-5, abs=1e-5), str(case)


def test_every_operator_of_the_table_is_tested():
    assert set(OPERATORS) <= {case.op for case in CASES}
