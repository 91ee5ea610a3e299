"""ONNX's quantised numbers, and the operators on them as products of plain ones.

Sources: onnx.ai/onnx/operators, and onnxruntime's ContribOperators.md for those of com.microsoft.
A quantised tensor stays a float with the value of an integer, so that gradients pass straight
through its rounding; where a number is out of range they are 0, as in PyTorch.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.models.onnx_call import (
    Call,
    Laid,
    Value,
    as_graph,
    in_memory,
    laid,
    operator,
    ordered,
)
from jaxsynth.models.onnx_file import OnnxNode, dtype_of

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


def _as_tensor(c: Call, value: Value, order: Sequence[int]) -> Any:
    """A scale or zero point, one or of an axis or of blocks along it, as the tensor lies."""
    array, shape = as_graph(value), c.shape()
    if array.size == 1:
        return array.reshape(())
    axis = c.axis(1)
    if array.ndim == 1:
        array = array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    elif array.ndim == len(shape) and (block := c.attr("block_size", 0)):
        array = c.xp.take(c.xp.repeat(array, block, axis=axis), np.arange(shape[axis]), axis=axis)
    else:
        raise ValueError(f"a scale of shape {array.shape} without block_size")
    return ordered(array if isinstance(array, np.ndarray) else laid(array), order)


def _parts(c: Call) -> tuple[Any, tuple[int, ...], Any]:
    """The first input and its scale as they lie in memory, and the order of their axes."""
    array, order = in_memory(c.value(0))
    return array, order, _as_tensor(c, c.value(1), order)


@operator("DequantizeLinear", folds=True)
def _dequantize(c: Call) -> Value:
    x, order, scale = _parts(c)
    x = x.astype(scale.dtype)
    if c.has(2):
        x = x - _as_tensor(c, c.value(2), order).astype(scale.dtype)
    return c.result(x * scale, order)


@operator("QuantizeLinear")
def _quantize(c: Call) -> Value:
    x, order, scale = _parts(c)
    zero = c.values[2] if c.has(2) else np.zeros((), dtype_of(c.attr("output_dtype", 0) or 2))
    if not isinstance(zero, np.ndarray):
        raise ValueError("its zero point must be known beforehand")
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    zero = _as_tensor(c, zero.astype(c.dtype), order)
    y = x / scale
    rounded = jax.lax.stop_gradient(jnp.round(y)) + zero
    through = rounded + (y - jax.lax.stop_gradient(y))
    inside = (rounded >= low) & (rounded <= high)
    return c.result(jnp.where(inside, through, jnp.clip(rounded, low, high)), order)


@operator("DynamicQuantizeLinear")
def _quantize_by_range(c: Call) -> tuple[Value, ...]:
    """To 0 to 255 by the least and the largest number; all are within, so all have a gradient."""
    x = c.value(0)
    x = x if isinstance(x, Laid) else laid(jnp.asarray(x))
    given = jax.lax.stop_gradient(x.array)
    low, high = jnp.minimum(given.min(), 0), jnp.maximum(given.max(), 0)
    scale = (high - low) / 255
    scale = jnp.where(scale == 0, 1, scale)
    zero = jnp.clip(jnp.round(-low / scale), 0, 255)
    rounded = jnp.clip(jnp.round(given / scale) + zero, 0, 255)
    y = rounded + (x.array - given) / scale
    return x._replace(array=y), laid(scale), laid(zero)
