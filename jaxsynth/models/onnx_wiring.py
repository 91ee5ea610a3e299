"""An ONNX graph before any image: its nodes in order, its constants, its parameters.

Quantised operators become plain ones. Sources: onnx.ai/onnx/operators, and onnxruntime's
ContribOperators.md for those of com.microsoft.
"""

import graphlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.inputs import near, reason
from jaxsynth.models import (
    onnx_axes,
    onnx_math,
    onnx_nn,
    onnx_pool,
    onnx_resize,
    onnx_shapes,
)
from jaxsynth.models.onnx_call import MOST_NUMBERS, OPERATORS, Call, Value, is_float, shape_of
from jaxsynth.models.onnx_file import OnnxFile, OnnxNode, Subgraph

# Imported so that OPERATORS is full.
_TABLES = (onnx_axes, onnx_math, onnx_nn, onnx_pool, onnx_resize, onnx_shapes)
_STATIC = {"Resize": (1, 2, 3), "Upsample": (1,), "Pad": (2,), "Clip": (1, 2)}  # float inputs
_IN_PLACE = ("Concat", "Split", "Pad", "Slice", "Clip", "Cast", "Identity", "Dropout")
_IN_PLACE += ("DequantizeLinear", "QuantizeLinear")
_LOOPS = ("If", "Loop", "Scan", "SequenceMap")
OPSETS = (7, 25)


class Wiring(NamedTuple):
    """A graph's parts that no image changes.

    Attributes:
      nodes: In an order in which they can be computed.
      known: Numpy arrays that are no parameters: integers, single numbers, sizes.
      params: Names of the parameters.
      images: Names of the tensors that are (N, C, H, W).
    """

    nodes: tuple[OnnxNode, ...]
    known: dict[str, np.ndarray]
    params: tuple[str, ...]
    images: frozenset[str]


def wire(file: OnnxFile, outputs: Iterable[str]) -> tuple[Wiring, dict[str, np.ndarray]]:
    """Sort a graph, compute what its initialisers alone decide, drop what no output needs.

    Returns the wiring, and the parameters: arrays of floats, of more than one number.
    """
    if not OPSETS[0] <= file.opset <= OPSETS[1]:
        raise ValueError(
            f"{file.path} has opset {file.opset}, expected {OPSETS[0]} to {OPSETS[1]}: convert it "
            "with onnx.version_converter"
        )
    file = file._replace(nodes=plain(file.nodes))
    nodes, arrays, left = _sorted(file, outputs), dict(file.arrays), []
    for node in nodes:
        _check(file, node)
        if OPERATORS[node.op].folds and all(n in arrays for n in node.inputs if n):
            values = [arrays[n] if n else None for n in node.inputs]
            with np.errstate(all="ignore"):
                made = compute(file, node, Call(node, file.opset, values, np.float32))
            named = zip(node.outputs, made, strict=False)
            arrays |= {n: a for n, a in named if n and isinstance(a, np.ndarray)}
        else:
            left.append(node)
    used = {n for node in left for n in node.inputs} | set(outputs)
    static = {n for node in left for i in _STATIC.get(node.op, ()) for n in node.inputs[i : i + 1]}
    arrays = {n: a for n, a in arrays.items() if n in used}
    params = {n: a for n, a in arrays.items() if is_float(a) and a.size > 1 and n not in static}
    known = {n: a for n, a in arrays.items() if n not in params}
    return Wiring(tuple(left), known, tuple(params), _image_tensors(left, arrays)), params


def compute(file: OnnxFile, node: OnnxNode, call: Call) -> tuple[Value, ...]:
    """Compute a node; ValueErrors name it."""
    try:
        made = call.compute()
    except Exception as error:  # a damaged node can make jax or numpy raise anything
        why = reason(error)
        raise _error(file, node, f"cannot be computed: {why:.300}") from error
    for value in made:
        if np.prod(shape_of(value), dtype=float) > MOST_NUMBERS:
            raise _error(file, node, f"makes a tensor of shape {shape_of(value)}: too large")
    return made


def check_inputs(file: OnnxFile, node: OnnxNode, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a node's inputs; ValueError if one is an output that is not computed."""
    if missing := [name for name in node.inputs if name and name not in known]:
        raise _error(file, node, f"reads {missing[0]!r}, an optional output that is not computed")
    return node.inputs


def _check(file: OnnxFile, node: OnnxNode) -> None:
    if node.op in _LOOPS or any(isinstance(a, Subgraph) for a in node.attributes.values()):
        raise _error(
            file,
            node,
            "is control flow, which has no gradient here: export with fixed sizes in evaluation "
            "mode, or simplify the file (onnxsim)",
        )
    if node.op not in OPERATORS or node.domain:
        where = f" of {node.domain}" if node.domain else ""
        hint = "" if node.domain else near(node.op, OPERATORS)
        raise _error(
            file,
            node,
            f"{where} is not known{hint}: export with another opset, in evaluation mode, without "
            "fused operators, or cut the graph before it (onnx.utils.extract_model)",
        )


def _error(file: OnnxFile, node: OnnxNode, what: str) -> ValueError:
    name = node.name or next(iter(node.outputs), "")
    space = "" if what.startswith(" ") else " "
    where = f"{file.path}: operator {node.op} (node {name!r}, opset {file.opset})"
    return ValueError(f"{where}{space}{what}")


def _sorted(file: OnnxFile, outputs: Iterable[str]) -> list[OnnxNode]:
    """Sort the nodes that outputs need by their data flow."""
    makers: dict[str, OnnxNode] = {}
    for node in file.nodes:
        for name in filter(None, node.outputs):
            if name in makers or name in file.arrays or name in file.inputs:
                raise _error(file, node, f"makes {name!r}, which is there already")
            makers[name] = node
    known = {*file.arrays, *file.inputs}
    needed: dict[str, OnnxNode] = {}
    open_names = list(outputs)
    while open_names:
        name = open_names.pop()
        if name in known or name in needed:
            continue
        if name not in makers:
            hint = near(name, makers)
            raise ValueError(f"{file.path}: no node makes the tensor {name!r}{hint}")
        node = makers[name]
        needed |= dict.fromkeys(filter(None, node.outputs), node)
        open_names += filter(None, node.inputs)
    place = {id(node): i for i, node in enumerate(file.nodes)}
    before = {
        place[id(node)]: {place[id(needed[n])] for n in node.inputs if n in needed}
        for node in needed.values()
    }
    sorter = graphlib.TopologicalSorter(before)
    try:
        return [file.nodes[i] for i in _in_file_order(sorter)]
    except graphlib.CycleError as error:
        node = file.nodes[error.args[1][0]]
        raise _error(file, node, "takes part in a circle of nodes") from error


def _in_file_order(sorter: graphlib.TopologicalSorter) -> Iterator[int]:
    sorter.prepare()
    while sorter:
        ready = sorted(sorter.get_ready())
        sorter.done(*ready)
        yield from ready


def _image_tensors(nodes: Iterable[OnnxNode], arrays: Any) -> frozenset[str]:
    """Find the tensors whose axes are (N, C, H, W): those of image operators, and their like."""
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    images = set()
    for node in nodes:
        known = OPERATORS[node.op]
        if known.image:
            images |= {*node.inputs[:1], *node.outputs[:1]}
        if known.pointwise or node.op in _IN_PLACE or node.op.startswith("Reduce"):
            alike = [n for n in (*node.inputs, *node.outputs) if n and n not in arrays]
            for name in alike[1:]:
                group[root(name)] = root(alike[0])
    roots = {root(n) for n in images}
    return frozenset(n for n in (*group, *images) if root(n) in roots)


# --- quantised operators as products of plain ones ------------------------------------------------

_MICROSOFT = "com.microsoft"


class _Form(NamedTuple):
    """A quantised operator as a plain one.

    Attributes:
      op: The plain operator.
      parts: Index of each quantised input, its scale and its zero point; no scale is 1.
      out: Index of the result's scale, before its zero point; None if the result stays a number.
      bias: Index of an input whose scale is the product of the parts'.
      axes: Axis of each part's scale, where that is a vector.
      domain: Where the operator is from.
    """

    op: str
    parts: Sequence[tuple[int, int | None, int]]
    out: int | None
    bias: int | None = None
    axes: tuple[int, int] = (1, 1)
    domain: str = ""


_ONE, _TWO = ((0, 1, 2),), ((0, 1, 2), (3, 4, 5))
_WHOLE = ((0, None, 2), (1, None, 3))  # integers whose product stays one
_FORMS = {
    "QLinearConv": _Form("Conv", _TWO, 6, 8, (1, 0)),
    "QLinearMatMul": _Form("MatMul", _TWO, 6, axes=(-2, -1)),
    "ConvInteger": _Form("Conv", _WHOLE, None, axes=(1, 0)),
    "MatMulInteger": _Form("MatMul", _WHOLE, None, axes=(-2, -1)),
    "QGemm": _Form("Gemm", _TWO, 7, 6, (-2, -1), _MICROSOFT),
    "QLinearAdd": _Form("Add", _TWO, 6, domain=_MICROSOFT),
    "QLinearMul": _Form("Mul", _TWO, 6, domain=_MICROSOFT),
    "QLinearConcat": _Form("Concat", (), 0, domain=_MICROSOFT),  # of any number of parts
    **{
        f"QLinear{op}": _Form(op, _ONE, 3, domain=_MICROSOFT)
        for op in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    },
}


def plain(nodes: Iterable[OnnxNode]) -> list[OnnxNode]:
    """Write each quantised operator as DequantizeLinear, a plain operator and QuantizeLinear.

    The new tensors are `x/real`, what the integers x stand for, and `y/exact`, which rounds to y.
    """
    out: list[OnnxNode] = []
    reals: dict[tuple[str, ...], str] = {}
    for node in nodes:
        form = _FORMS.get(node.op)
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            out.append(node._replace(domain=node.domain.removeprefix(_MICROSOFT)))
        elif form is None or form.domain != node.domain or node.attributes.get("channels_last"):
            out.append(node)
        else:
            out += _plain(node, form, reals)
    return out


def _plain(node: OnnxNode, form: _Form, reals: dict[tuple[str, ...], str]) -> list[OnnxNode]:
    """The nodes of one; `reals` has a name for each triple that is dequantised already."""
    made: list[OnnxNode] = []
    y = node.outputs[0]
    attributes = dict(node.attributes)
    inputs = (*node.inputs, *("",) * 9)  # optional ones may be left out

    def add(op: str, names: Sequence[str], output: str, **how: Any) -> str:
        made.append(OnnxNode(op, tuple(names), (output,), how, node.name))
        return output

    def real(names: tuple[str, str, str], axis: int) -> str:
        if names not in reals:
            reals[names] = f"{names[0]}/real" + "_" * sum(n[0] == names[0] for n in reals)
            add("DequantizeLinear", names, reals[names], axis=axis)
        return reals[names]

    def constant(name: str, number: float) -> str:
        return add("Constant", (), f"{y}/{name}", value=np.asarray(number, np.float32))

    parts = form.parts or [(i, i + 1, i + 2) for i in range(2, len(node.inputs), 3)]
    scales = [inputs[s] if s else "" for _, s, _ in parts]
    if not all(scales):
        scales = [constant("one", 1.0)] * len(parts)
    if (alpha := attributes.pop("alpha", 1.0)) != 1 and form.op == "Gemm":
        scales[0] = add("Mul", (scales[0], constant("alpha", alpha)), f"{y}/scale")
    elif form.op != "Gemm" and alpha != 1:
        attributes["alpha"] = alpha
    axes = form.axes if form.parts else (1,) * len(parts)
    values = [
        real((inputs[x], scale, inputs[zero]), axis)
        for (x, _, zero), scale, axis in zip(parts, scales, axes, strict=False)
    ]
    if form.bias is not None and inputs[form.bias]:
        product = add("Mul", scales, f"{y}/bias_scale")
        values.append(real((inputs[form.bias], product, ""), -1))
    level = () if form.out is None else inputs[form.out : form.out + 2]
    rounds = any(level)
    add(form.op, values, f"{y}/exact" if rounds else y, **attributes)
    if rounds:
        add("QuantizeLinear", (f"{y}/exact", *level), y)
    return made
