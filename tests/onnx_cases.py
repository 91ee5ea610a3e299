"""One node of every ONNX operator and attribute; a line each."""
# ruff: noqa: E501

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper

RNG = np.random.default_rng(0)
F = np.float32


class Case(NamedTuple):
    """One node: traced inputs first, then constants, then attributes.

    `wide` says whether others compute it rightly in float64, too.
    """

    op: str
    feeds: tuple
    arrays: tuple = ()
    attributes: Mapping = MappingProxyType({})
    opset: int = 17
    outputs: int = 1
    rtol: float = 1e-5
    wide: bool = True

    def __str__(self):
        shapes = "-".join("x".join(map(str, np.shape(a))) for a in self.feeds)
        said = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}{self.opset}:{shapes}:{said}"


def normal(*shape, low=None):
    x = RNG.normal(size=shape).astype(F)
    return x if low is None else np.abs(x) + F(low)


def ints(*values):
    return np.array(values, np.int64)


X4, Y4, X2 = normal(2, 4, 6, 5), normal(2, 4, 6, 5), normal(3, 6)
UNIT = np.clip(normal(2, 4, 6, 5), -0.9, 0.9)

UNARY = [
    *(Case(op, (X4,)) for op in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid",
       "HardSwish", "LeakyRelu", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
       "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu", "Celu", "Sinh",
       "Cosh", "Atan", "Identity", "IsNaN", "IsInf")),
    *(Case(op, (UNIT,)) for op in ("Acos", "Asin")),
    *(Case(op, (normal(2, 4, 6, 5, low=0.1),)) for op in ("Log", "Sqrt")),
    Case("Round", (F([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]]),)),
    Case("Elu", (X4,), (), {"alpha": 0.7}),
    Case("Celu", (X4,), (), {"alpha": 0.7}),
    Case("Selu", (X4,), (), {"alpha": 1.2, "gamma": 0.9}),
    Case("LeakyRelu", (X4,), (), {"alpha": 0.3}),
    Case("HardSigmoid", (3 * X4,), (), {"alpha": 0.3, "beta": 0.4}),
    Case("ThresholdedRelu", (X4,), (), {"alpha": 0.3}),
    Case("Mish", (X4,), (), {}, 18),
    Case("Gelu", (X4,), (), {}, 20),
    Case("Gelu", (X4,), (), {"approximate": "tanh"}, 20),
    Case("Dropout", (X4,), (), {}, 13, 2),
    Case("Dropout", (X4,), (), {"ratio": 0.3}, 7),
    Case("Clip", (X4,), (), {"min": -0.5, "max": 0.5}, 6 + 1),
    Case("Clip", (X4,), (), {"max": 0.5}, 10),
    Case("Clip", (X4,), (F(-0.5), F(0.5)), {}, 13),
    Case("Clip", (X4,), (F(-0.5),), {}, 13),
    Case("PRelu", (X4,), (normal(4, 1, 1),)),
    Case("Cast", (X4,), (), {"to": TensorProto.INT64}),
    Case("Cast", (X4,), (), {"to": TensorProto.BOOL}),
    Case("Cast", (X4,), (), {"to": TensorProto.FLOAT}),
    Case("Cast", (np.arange(12).reshape(3, 4) % 2 == 0,), (), {"to": TensorProto.FLOAT}),
]  # fmt: skip
BINARY = [
    *(Case(op, (X4, Y4)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less",
       "GreaterOrEqual", "LessOrEqual", "Equal")),
    *(Case(op, (X4,), (normal(4, 1, 1),)) for op in ("Add", "Sub", "Mul", "Div", "Max")),
    *(Case(op, (X4, normal(5))) for op in ("Add", "Mul")),
    Case("Add", (normal(5),), (normal(2, 4, 6, 5),)),
    Case("Mul", (X4,), (F(0.5),)),
    Case("Pow", (X4,), (F(2.0),)),
    Case("Pow", (X4,), (F(3.0),)),
    Case("Pow", (normal(3, 4, low=0.1),), (F(0.5),)),
    Case("Pow", (normal(3, 4, low=0.1),), (F(-1.3),)),
    Case("Pow", (normal(3, 4, low=0.1), normal(3, 4))),
    Case("Pow", (normal(3, 4, low=0.1),), (ints(2),)),
    Case("Max", (X4, Y4, normal(2, 4, 6, 5))),
    Case("Min", (X4,)),
    Case("Sum", (X4, Y4, normal(5))), Case("Sum", (X4, Y4), (), {}, 7),
    Case("Mean", (X4, Y4, normal(5))),
    Case("Where", (X4 > 0, X4, Y4)),
    Case("Where", (X4 > 0,), (F(1.0), F(-1.0))),
    *(Case(op, (X4 > 0, Y4 > 0)) for op in ("And", "Or", "Xor")),
    Case("Not", (X4 > 0,)),
    Case("Mod", (np.arange(-6, 6), np.full(12, 5))),
    Case("Mod", (X4, Y4), (), {"fmod": 1}),
    Case("Div", (np.arange(-6, 6), np.full(12, 4))),
]  # fmt: skip
REDUCE = [
    *(Case(f"Reduce{op}", (normal(2, 4, 6, 5, low=0.2),), (), {"axes": (2, 3), "keepdims": keep})
      for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
      for keep in (0, 1)),
    *(Case(f"Reduce{op}", (normal(2, 4, 6, 5, low=0.2),), (ints(-1, 1),), {"keepdims": 0}, 18)
      for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")),
    Case("ReduceSum", (X4,), (ints(1),), {"keepdims": 0}),
    Case("ReduceSum", (X4,), (ints(3),)),
    Case("ReduceSum", (X4,), (), {"axes": (-1,)}, 11),
    Case("ReduceSum", (X4,), (), {"keepdims": 0}),
    Case("ReduceSum", (X4,), (), {"noop_with_empty_axes": 1}),
    Case("ReduceMean", (X4,)),
    *(Case(op, (X4,), (), {"axis": axis, "keepdims": keep}) for op in ("ArgMax", "ArgMin")
      for axis, keep in ((1, 1), (-1, 0))),
    Case("ArgMax", (F([[1, 2, 2, 0]]),), (), {"axis": 1, "select_last_index": 1}),
    *(Case("CumSum", (X4,), (ints(2)[0],), {"exclusive": e, "reverse": r}) for e in (0, 1) for r in (0, 1)),
    *(Case(op, (X4,), (), {"axis": axis}, opset) for op in ("Softmax", "LogSoftmax")
      for axis, opset in ((1, 11), (2, 11), (-1, 13), (1, 13))),
    Case("Softmax", (X4,), (), {}, 7), Case("Softmax", (X4,), (), {}, 13),
    Case("Hardmax", (X4,), (), {"axis": 1}),
    *(Case("TopK", (X4,), (ints(3),), {"axis": axis, "largest": largest}, 17, 2) for axis, largest in ((-1, 1), (1, 0))),
    Case("TopK", (X4,), (), {"k": 2}, 9, 2),
]  # fmt: skip
MATRICES = [
    Case("MatMul", (normal(3, 4), normal(4, 5))),
    Case("MatMul", (normal(2, 3, 4),), (normal(4, 5),)),
    Case("MatMul", (normal(2, 3, 4), normal(2, 4, 5))),
    Case("MatMul", (normal(2, 2, 3, 4), normal(2, 2, 4, 5))),
    Case("MatMul", (normal(4), normal(4, 5))),
    Case("MatMul", (normal(3, 4), normal(4))),
    Case("Gemm", (normal(3, 4),), (normal(4, 5), normal(5))),
    Case("Gemm", (normal(3, 4),), (normal(5, 4), normal(5)), {"transB": 1}),
    Case("Gemm", (normal(4, 3),), (normal(4, 5),), {"transA": 1}, 13),
    Case("Gemm", (normal(3, 4),), (normal(5, 4), normal(3, 1)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (normal(3, 4),), (normal(4, 5), normal(1)), {}, 7),
    Case("Einsum", (normal(2, 3, 4), normal(2, 4, 5)), (), {"equation": "bij, bjk -> bik"}),
    Case("Einsum", (normal(2, 3, 4),), (normal(4, 2, 6),), {"equation": "btc,chd->bhtd"}),
]  # fmt: skip
SHAPES = [
    Case("Reshape", (X4,), (ints(0, -1),)),
    Case("Reshape", (X4,), (ints(2, 2, 2, 6, 5),)),
    Case("Reshape", (X4,), (ints(2, 4, 30),)),
    Case("Reshape", (X4,), (ints(2, 24, 5),)),
    Case("Reshape", (X4,), (ints(240),)),
    Case("Reshape", (normal(1, 4, 1, 1),), (ints(4),)),
    Case("Reshape", (X4,), (ints(2, 4, 6, 5),), {"allowzero": 1}),
    *(Case("Flatten", (X4,), (), {"axis": a}) for a in (0, 1, 2, 4, -1)),
    Case("Squeeze", (normal(2, 4, 1, 1),), (ints(2, 3),)),
    Case("Squeeze", (normal(2, 4, 1, 1),), (), {"axes": (-1,)}, 11),
    Case("Squeeze", (normal(1, 4, 1, 2),)),
    Case("Unsqueeze", (X2,), (ints(0, -1),)),
    Case("Unsqueeze", (X2,), (), {"axes": (1, 2)}, 11),
    Case("Transpose", (X4,)),
    Case("Transpose", (X4,), (), {"perm": (0, 2, 3, 1)}),
    *(Case("Concat", (X4, Y4), (), {"axis": a}) for a in (0, 1, 2, -1)),
    Case("Concat", (X4,), (normal(2, 1, 6, 5),), {"axis": 1}),
    Case("Split", (X4,), (ints(1, 3),), {"axis": 1}, 17, 2),
    Case("Split", (X4,), (), {"axis": 2}, 13, 3),
    Case("Split", (X4,), (), {"axis": 1, "split": (1, 1, 2)}, 11, 3),
    Case("Split", (X4,), (), {"axis": -1, "num_outputs": 2}, 18, 2),
    Case("Slice", (X4,), (), {"starts": (1, 0), "ends": (3, 100), "axes": (1, 2)}, 9),
    Case("Slice", (X4,), (ints(1), ints(4), ints(2))),
    Case("Slice", (X4,), (ints(-2), ints(2**63 - 1), ints(-1))),
    Case("Slice", (X4,), (ints(0, 1), ints(6, 5), ints(2, 3), ints(2, 3))),
    Case("Slice", (X4,), (ints(-1), ints(-(2**63) + 1), ints(2), ints(-1))),
    Case("Slice", (X4,), (ints(4), ints(0), ints(2), ints(-2))),
    Case("Slice", (X4,), (ints(0, 0), ints(1, 2))),
    Case("Gather", (X4,), (ints(2)[0],), {"axis": 1}),
    Case("Gather", (X4,), (ints(-1, 0),), {"axis": 2}),
    Case("Gather", (X2,), (np.array([[0, 1], [2, -1]]),)),
    Case("Gather", (), (X2, ints(1, 2)), {"axis": 1}),
    Case("GatherElements", (X2,), (np.array([[0, 1], [2, -1]]),), {"axis": 0}),
    Case("GatherElements", (X2, np.array([[0, 1], [2, 1]])), (), {"axis": 1}),
    Case("GatherElements", (), (X2, np.array([[0, 1], [2, 1]])), {"axis": 1}),
    Case("GatherND", (X4,), (np.array([[0, 1], [1, -1]]),)),
    Case("ScatterND", (X2,), (np.array([[0], [2]]), normal(2, 6))),
    Case("ScatterND", (X2,), (np.array([[0, 1], [2, 3]]), normal(2)), {"reduction": "add"}, 18),
    Case("Expand", (normal(1, 4, 1, 1),), (ints(2, 1, 6, 5),)),
    Case("Expand", (normal(4, 1),), (ints(2, 4, 3),)),
    Case("Tile", (X4,), (ints(1, 2, 1, 3),)),
    Case("Trilu", (X4,)), Case("Trilu", (X4,), (ints(1)[0],), {"upper": 0}),
    Case("OneHot", (np.array([0, 2, -1]),), (ints(3)[0], F([0, 1]))),
    Case("OneHot", (np.array([0, 2, 1]),), (ints(3)[0], F([-1, 2])), {"axis": 0}),
    Case("Pad", (X4,), (ints(0, 0, 1, 2, 0, 0, 3, 0), F(0.5)), {}),
    Case("Pad", (X4,), (ints(0, 0, 1, 2, 0, 0, 3, 0),), {}),
    Case("Pad", (X4,), (ints(0, 0, -1, 2, 0, 0, 1, -2),), {}),
    Case("Pad", (X4,), (ints(0, 0, 1, 2, 0, 0, 3, 1),), {"mode": "reflect"}),
    Case("Pad", (X4,), (ints(0, 0, 1, 2, 0, 0, 3, 1),), {"mode": "edge"}),
    Case("Pad", (X4,), (ints(1, 2, 3, 1), F(0.0), ints(2, -1)), {"mode": "wrap"}, 19),
    Case("Pad", (X4,), (ints(1, 2, 3, 1), F(0.0), ints(2, -1)), {}, 18),
    Case("Pad", (X4,), (), {"pads": (0, 0, 1, 1, 0, 0, 2, 2), "value": 0.3}, 10),
    *(Case("DepthToSpace", (normal(2, 8, 3, 5),), (), {"blocksize": 2, "mode": m}) for m in ("DCR", "CRD")),
    Case("DepthToSpace", (normal(2, 8, 3, 5),), (), {"blocksize": 2}, 7),
    Case("SpaceToDepth", (normal(2, 3, 4, 6),), (), {"blocksize": 2}),
    Case("Shape", (X4,)), Case("Shape", (X4,), (), {"start": 1, "end": -1}), Case("Size", (X4,)),
    Case("Range", (), (ints(1)[0], ints(9)[0], ints(3)[0])),
    Case("Range", (), (F(1), F(-2), F(-0.5))),
    Case("ConstantOfShape", (), (ints(2, 3),), {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
    Case("ConstantOfShape", (), (ints(2, 3),)),
    Case("NonZero", (), (np.array([[1, 0], [2, 3]]),)),
    Case("Constant", (), (), {"value_floats": [1.0, 2.0]}),
    Case("Constant", (), (), {"value_int": 3}),
    Case("Constant", (), (), {"value_float": 3.5}),
    Case("Constant", (), (), {"value_ints": [3, 4]}),
]  # fmt: skip
W, B = normal(6, 4, 3, 3), normal(6)
CONVS = [
    Case("Conv", (X4,), (W,)), Case("Conv", (X4,), (W, B), {"pads": (1, 1, 1, 1)}),
    Case("Conv", (X4,), (W, B), {"pads": (1, 0, 2, 1), "strides": (2, 1)}),
    Case("Conv", (X4,), (W, B), {"pads": (2, 2, 2, 2), "dilations": (2, 2)}),
    Case("Conv", (X4,), (normal(6, 4, 1, 1), B), {"strides": (2, 2)}),
    Case("Conv", (X4,), (normal(6, 4, 1, 3), B), {"pads": (0, 1, 0, 1)}),
    Case("Conv", (X4,), (normal(6, 2, 3, 3), B), {"group": 2, "pads": (1, 1, 1, 1)}),
    Case("Conv", (X4,), (normal(4, 1, 3, 3), normal(4)), {"group": 4, "pads": (1, 1, 1, 1)}),
    Case("Conv", (X4,), (normal(4, 1, 3, 3),), {"group": 4, "pads": (0, 2, 1, 1), "strides": (2, 2)}),
    Case("Conv", (X4,), (normal(4, 1, 5, 5),), {"group": 4, "auto_pad": "SAME_UPPER", "strides": (2, 2)}),
    Case("Conv", (X4,), (normal(4, 1, 3, 3),), {"group": 4, "dilations": (2, 2), "pads": (2, 2, 2, 2)}),
    Case("Conv", (X4,), (normal(8, 1, 3, 3),), {"group": 4, "pads": (1, 1, 1, 1)}),
    *(Case("Conv", (X4,), (W, B), {"auto_pad": a, "strides": (2, 2)}) for a in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    Case("Conv", (normal(2, 3, 9, 9),), (normal(6, 3, 7, 7),), {"pads": (3, 3, 3, 3), "strides": (2, 2)}),
    Case("Conv", (normal(2, 3, 8, 8),), (normal(6, 3, 4, 4),), {"strides": (4, 4), "kernel_shape": (4, 4)}),
    Case("Conv", (normal(2, 4, 9),), (normal(6, 4, 3), B), {"pads": (1, 1)}),
    Case("Conv", (normal(1, 2, 4, 5, 6),), (normal(3, 2, 3, 3, 3),)),
    Case("Conv", (X4, W)),
    Case("ConvTranspose", (X4,), (normal(4, 6, 3, 3), B)),
    Case("ConvTranspose", (X4,), (normal(4, 6, 3, 3),), {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)}),
    Case("ConvTranspose", (X4,), (normal(4, 6, 4, 4),), {"strides": (2, 2), "pads": (1, 0, 1, 2)}),
    Case("ConvTranspose", (X4,), (normal(4, 3, 3, 3), B), {"group": 2, "strides": (2, 3)}),
    Case("ConvTranspose", (X4,), (normal(4, 6, 3, 3),), {"dilations": (2, 2)}),
    Case("ConvTranspose", (X4,), (normal(4, 6, 3, 3),), {"strides": (2, 2), "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", (X4,), (normal(4, 6, 3, 3),), {"strides": (2, 2), "output_shape": (12, 11)}),
    *(Case("MaxPool", (X4,), (), {"kernel_shape": (3, 3), "strides": (2, 2), "pads": p}) for p in ((0,) * 4, (1, 1, 1, 1), (1, 0, 0, 1))),
    *(Case(f"{op}Pool", (normal(2, 4, 9, 8),), (), {"kernel_shape": (3, 2), "strides": (2, 2), "ceil_mode": 1, "pads": p})
      for op in ("Max", "Average") for p in ((0,) * 4, (1, 0, 1, 1))),
    Case("MaxPool", (X4,), (), {"kernel_shape": (2, 2)}),
    Case("MaxPool", (normal(2, 4, 7, 7),), (), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    Case("MaxPool", (X4,), (), {"kernel_shape": (2, 2), "dilations": (2, 1)}),
    Case("MaxPool", (normal(2, 4, 9),), (), {"kernel_shape": (3,), "strides": (2,)}),
    *(Case(f"{op}Pool", (X4,), (), {"kernel_shape": (3, 3), "strides": (2, 2), "auto_pad": a}) for op in ("Max", "Average")
      for a in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    *(Case("AveragePool", (X4,), (), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": i}) for i in (0, 1)),
    Case("AveragePool", (normal(2, 4, 9, 8),), (), {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "count_include_pad": 1, "ceil_mode": 1}, 19),
    Case("AveragePool", (X4,), (), {"kernel_shape": (2, 2), "dilations": (2, 2)}, 19),
    *(Case("LpPool", (X4,), (), {"kernel_shape": (2, 3), "p": p}) for p in (1, 2, 3)),
    *(Case(op, (X4,)) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    Case("GlobalLpPool", (X4,), (), {"p": 1}),
]  # fmt: skip
C4 = (normal(4), normal(4))
NORMS = [
    Case("BatchNormalization", (X4,), (*C4, normal(4), normal(4, low=0.1)), {"epsilon": 1e-3}),
    Case("BatchNormalization", (X4,), (*C4, normal(4), normal(4, low=0.1)), {}, 7),
    Case("BatchNormalization", (normal(3, 4),), (*C4, normal(4), normal(4, low=0.1)), {}),
    Case("InstanceNormalization", (X4,), C4), Case("InstanceNormalization", (normal(2, 4, 9),), C4, {"epsilon": 1e-2}),
    Case("LayerNormalization", (X4,), (normal(5), normal(5))),
    Case("LayerNormalization", (X4,), (normal(5),), {"epsilon": 1e-2}),
    Case("LayerNormalization", (X4,), (normal(4, 6, 5), normal(4, 6, 5)), {"axis": 1}),
    Case("GroupNormalization", (X4,), (normal(2), normal(2)), {"num_groups": 2, "epsilon": 1e-3}, 18),
    Case("GroupNormalization", (X4,), C4, {"num_groups": 2}, 21),
    Case("MeanVarianceNormalization", (X4,)),
    *(Case("LpNormalization", (X4,), (), {"p": p, "axis": a}) for p, a in ((1, 1), (2, -1))),
    *(Case("LRN", (X4,), (), how, wide=False) for how in ({"size": 3}, {"size": 5, "alpha": 0.2, "beta": 0.6, "bias": 2.0})),
]  # fmt: skip


def resize(how: dict, shape=(2, 3, 6, 5), scales=(), sizes=(), opset: int = 18) -> Case:
    arrays = [None, np.array(scales, F)] + ([np.array(sizes, np.int64)] if sizes else [])
    return Case("Resize", (normal(*shape),), tuple(arrays), how, opset)


RULES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
RESIZES = [
    *(resize({"mode": m, "coordinate_transformation_mode": r}, scales=s) for r in RULES
      for m in ("nearest", "linear", "cubic") for s in ((1, 1, 2, 2), (1, 1, 0.5, 0.6))),
    *(resize({"mode": "nearest", "nearest_mode": n, "coordinate_transformation_mode": "asymmetric"}, sizes=(2, 3, 4, 9))
      for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    resize({"mode": "linear"}, sizes=(2, 3, 9, 7), opset=13),
    resize({"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, scales=(1, 1, 1.7, 0.7), opset=19),
    resize({"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}, scales=(1, 1, 2, 1.5)),
    *(resize({"mode": m, "antialias": 1}, (2, 3, 12, 10), scales=(1, 1, 0.5, 0.4)) for m in ("linear", "cubic")),
    resize({"mode": "nearest", "axes": (2, 3)}, sizes=(12, 10)),
    resize({"mode": "linear", "axes": (2, 3), "keep_aspect_ratio_policy": "not_larger"}, sizes=(12, 12)),
    resize({"mode": "linear", "axes": (2, 3), "keep_aspect_ratio_policy": "not_smaller"}, sizes=(12, 12)),
    Case("Resize", (X4,), (F([1, 1, 2, 2]),), {"mode": "nearest"}, 10),
    Case("Resize", (X4,), (F([1, 1, 2, 2]),), {"mode": "linear"}, 10),
    *(Case("Upsample", (X4,), (F([1, 1, 2, 3]),), {"mode": m}, 9) for m in ("nearest", "linear")),
    Case("Upsample", (X4,), (), {"mode": "nearest", "scales": (1.0, 1.0, 2.0, 2.0)}, 8),
]  # fmt: skip
Q8, S8 = RNG.integers(-128, 128, (3, 6)).astype(np.int8), normal(6, low=0.1)
QUANTISED = [
    Case("DequantizeLinear", (), (Q8, F(0.1), np.int8(3))),
    Case("DequantizeLinear", (), (Q8, S8, np.arange(6, dtype=np.int8)), {"axis": 1}),
    Case("DequantizeLinear", (), (Q8, F(0.1))),
    Case("DequantizeLinear", (), (Q8.view(np.uint8), normal(3, low=0.1)), {"axis": 0}),
    Case("DequantizeLinear", (), (Q8, normal(3, 3, low=0.1)), {"axis": 1, "block_size": 2}, 21),
]
U8, MS = RNG.integers(0, 256, (2, 4, 6, 5)).astype(np.uint8), {"domain": "com.microsoft"}
V8, W8 = (
    U8[::-1].copy(),
    RNG.integers(-60, 60, (6, 4, 3, 3)).astype(np.int8),
)  # larger ones overflow in theirs
ZERO, OUT = np.uint8(120), (F(0.3), np.uint8(128))
TWO = (F(0.02), ZERO, V8, F(0.043), np.uint8(9))
ROWS, COLUMNS = U8[0, 0], RNG.integers(-9, 9, (5, 3)).astype(np.int8)
QUANTISED += [  # of uint8 levels, some may be rounded the other way
    Case("QLinearConv", (U8,), (F(0.02), ZERO, W8, F(0.01), np.int8(0), *OUT), {"pads": (1, 1, 1, 1)}),
    Case("QLinearConv", (U8,), (F(0.02), ZERO, W8, normal(6, low=0.5) / 50, np.zeros(6, np.int8), *OUT, np.arange(6, dtype=np.int32) * 500), {"strides": (2, 2)}),
    Case("QLinearMatMul", (ROWS,), (F(0.02), ZERO, COLUMNS, F(0.05), np.int8(2), *OUT)),
    Case("QLinearMatMul", (ROWS,), (F(0.02), ZERO, COLUMNS, normal(3, low=0.05), np.zeros(3, np.int8), *OUT)),
    Case("ConvInteger", (U8,), (W8.view(np.uint8), ZERO, np.uint8(100)), {"pads": (1, 0, 1, 0)}),
    Case("ConvInteger", (U8,), (W8.view(np.uint8),)),
    Case("MatMulInteger", (ROWS,), (COLUMNS, ZERO, np.arange(3, dtype=np.int8))),
    Case("MatMulInteger", (ROWS,), (COLUMNS,)),
    *(Case("DynamicQuantizeLinear", (x,), (), {}, 17, 3, wide=False) for x in (X4, np.abs(X4))),
    *(Case(op, (U8,), (*TWO, *OUT), MS) for op in ("QLinearAdd", "QLinearMul")),
    Case("QLinearGlobalAveragePool", (U8,), (F(0.02), ZERO, F(0.01), ZERO), MS),
    Case("QLinearAveragePool", (U8,), (F(0.02), ZERO, F(0.015), ZERO), {"kernel_shape": (2, 3), "strides": (2, 1), **MS}),
    Case("QLinearLeakyRelu", (U8,), (F(0.02), ZERO, F(0.015), ZERO), {"alpha": 0.3, **MS}),
    Case("QLinearSigmoid", (U8,), (F(0.02), ZERO, F(1 / 256), np.uint8(0)), MS),
    Case("QLinearSoftmax", (ROWS,), (F(0.02), ZERO, F(1 / 256), np.uint8(0)), {"axis": -1, "opset": 13, **MS}),
    Case("QLinearConcat", (), (*OUT, U8, *TWO), {"axis": 1, **MS}),
    Case("QGemm", (ROWS,), (F(0.02), ZERO, COLUMNS, F(0.05), np.int8(2), ints(9, -20, 3).astype(np.int32), *OUT), MS),
    Case("QGemm", (ROWS,), (F(0.02), ZERO, COLUMNS.T.copy(), F(0.05), np.int8(2)), {"transB": 1, "alpha": 0.5, **MS}),
    Case("DequantizeLinear", (U8,), (F(0.02), ZERO), MS), Case("QuantizeLinear", (X4,), (F(0.02), ZERO), MS),
    Case("QuantizeLinear", (X4,), (normal(4, low=0.01), np.zeros(4, np.int8)), {"axis": 1}),
    Case("QuantizeLinear", (X4,), (F(0.05),)),
]  # fmt: skip
MODERN = [
    Case("CastLike", (np.array([[1, 2, 3]]),), (F([1]),)),
    Case("CastLike", (X4, np.array([[1, 2, 3]]))),
    Case("RMSNormalization", (X4,), (normal(5),), {"epsilon": 1e-2}, 23),
    Case("Swish", (X4,), (), {"alpha": 0.7}, 24),
    Case("Attention", (normal(2, 3, 5, 4), normal(2, 3, 6, 4), normal(2, 3, 6, 4)), (), {}, 23),
    Case("Attention", (normal(2, 4, 5, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 4)), (), {"is_causal": 1, "scale": 0.3}, 23),
    Case("Attention", (normal(2, 5, 12), normal(2, 6, 12), normal(2, 6, 12)), (normal(5, 6),), {"q_num_heads": 3, "kv_num_heads": 3}, 23),
    Case("Attention", (normal(1, 2, 3, 4), normal(1, 2, 3, 4), normal(1, 2, 3, 4)), (np.tri(3) > 0,), {}, 23),
]  # fmt: skip
X0, BOX = normal(2, 0, 3), normal(2, 3, 4)
ROI = F([0, 0, 0.2, -0.3, 1, 1, 0.7, 1.4])
EMPTY = [  # tensors without numbers
    *(Case(op, (X0,)) for op in ("Relu", "Neg", "Shape", "Size", "Transpose", "Identity", "Flatten", "Sigmoid")),
    *(Case(op, (X0, normal(2, 0, 1))) for op in ("Add", "Mul", "Max", "Greater")),
    Case("Add", (X0,), (normal(3),)), Case("Where", (X0 > 0, X0, X0)),
    Case("Concat", (X0, normal(2, 2, 3)), (), {"axis": 1}), Case("Concat", (X0, X0), (), {"axis": -1}),
    Case("Slice", (X2,), (ints(2), ints(2), ints(1))), Case("Slice", (X2,), (ints(9), ints(20))),
    Case("Slice", (X0,), (ints(-1), ints(-9), ints(1), ints(-1))),
    Case("Gather", (X2,), (np.zeros((0,), np.int64),)), Case("Gather", (X0,), (ints(1),), {"axis": -1}),
    *(Case(f"Reduce{op}", (X0,), (), {"axes": (1,)}, 17) for op in ("L1", "SumSquare", "Prod")),
    Case("ReduceSum", (X0,), (ints(1),)), Case("ReduceSum", (X0,), (ints(-1),), {"keepdims": 0}),
    Case("MatMul", (normal(3, 0), normal(0, 4))), Case("MatMul", (normal(0, 3),), (normal(3, 4),)),
    Case("Gemm", (normal(0, 3),), (normal(3, 4), normal(4))),
    Case("Reshape", (X0,), (ints(0, 3, 0),), {"allowzero": 1}),
    Case("Squeeze", (normal(0, 1, 3),), (ints(-2),)), Case("Unsqueeze", (X0,), (ints(-1, 0),)),
    Case("Expand", (normal(1, 3),), (ints(0, 3),)), Case("Tile", (X2,), (ints(0, 2),)),
    Case("Pad", (X0,), (ints(0, 1, 0, 0, 2, 1), F(0.3))),
    Case("Split", (normal(2, 3),), (ints(0, 3),), {"axis": 1}, 13, 2),
    Case("CumSum", (X0,), (ints(1)[0],)), Case("OneHot", (np.zeros((0, 2), np.int64),), (ints(3)[0], F([0, 1]))),
    Case("Range", (), (ints(5)[0], ints(5)[0], ints(1)[0])), Case("Range", (), (ints(5)[0], ints(9)[0], ints(-1)[0])),
    Case("ConstantOfShape", (), (ints(0, 3),)), Case("NonZero", (), (np.zeros((2, 2), np.int64),)),
    Case("Conv", (normal(0, 4, 6, 5),), (normal(6, 4, 3, 3),)), Case("Softmax", (normal(0, 3),)),
    Case("GlobalAveragePool", (normal(0, 4, 6, 5),)), Case("MaxPool", (normal(0, 4, 6, 5),), (), {"kernel_shape": (2, 2)}),
    Case("TopK", (X2,), (ints(0),), {}, 17, 2),
]  # fmt: skip
AXES = [  # counted from the end, and broadcasting
    *(Case(op, (BOX,), (), {"axis": -2}, opset) for op, opset in (("Softmax", 13), ("LogSoftmax", 11), ("Hardmax", 13),
       ("ArgMax", 13), ("ArgMin", 12), ("LpNormalization", 17), ("Softmax", 12))),
    Case("Hardmax", (BOX,), (), {"axis": -2}, 11, wide=False),
    Case("Concat", (BOX, BOX), (), {"axis": -3}), Case("Split", (BOX,), (ints(1, 2),), {"axis": -2}, 13, 2),
    Case("Gather", (BOX,), (ints(-1, 0),), {"axis": -1}), Case("Gather", (BOX,), (ints(-2)[0],), {"axis": -3}),
    Case("GatherElements", (BOX,), (np.full((2, 1, 4), -2),), {"axis": -2}),
    Case("Flatten", (BOX,), (), {"axis": -2}), Case("Unsqueeze", (BOX,), (), {"axes": (-1, -3)}, 12),
    Case("CumSum", (BOX,), (ints(-2)[0],)), Case("TopK", (BOX,), (ints(2),), {"axis": -2, "largest": 0}, 17, 2),
    Case("OneHot", (np.array([[0, 5, -3]]),), (ints(3), F([0, 1])), {"axis": -2}),
    Case("LayerNormalization", (BOX,), (normal(3, 4),), {"axis": -2}), Case("MeanVarianceNormalization", (X4,), (), {"axes": (0, -1)}),
    Case("LayerNormalization", (BOX,), (normal(4), None), {"axis": -1}),
    Case("Shape", (BOX,), (), {"start": -2}), Case("Shape", (BOX,), (), {"start": -9, "end": 9}),
    Case("Trilu", (BOX,), (ints(-1)[0],)), Case("Pad", (BOX,), (ints(1, 2, 0, 1), None, ints(-1, 0)), {}, 18),
    Case("ReduceMax", (BOX,), (), {"axes": (-1, -2)}, 12), Case("ReduceMean", (BOX,), (ints(),), {}, 18),
    Case("ReduceSum", (BOX,), (np.zeros(0, np.int64),), {"noop_with_empty_axes": 1}),
    Case("ReduceL2", (X4,), (ints(-3, 3),), {"keepdims": 0}, 18),
    Case("DequantizeLinear", (), (RNG.integers(0, 9, (3, 6)).astype(np.int8), normal(6, low=0.1)), {"axis": -1}),
    Case("Where", (np.array([[[True], [False]]]), normal(2, 1, 3)), (F(0.5),)),
    Case("Where", (normal(2, 1) > 0,), (normal(3), normal(4, 1, 1))),
    Case("Pow", (normal(3, 1, low=0.1), normal(4))), Case("PRelu", (X4,), (normal(1),)), Case("PRelu", (X4,), (normal(5),)),
    Case("PRelu", (X4,), (normal(1, 4, 1, 1),)), Case("Equal", (np.array([[True], [False]]), np.array([True, False, True]))),
    Case("Max", (np.arange(6).reshape(2, 3), ints(3)), (ints(1, 2, 9),)), Case("Min", (X4, normal(4, 1, 1)), (F(0.2),)),
    Case("Mod", (np.arange(-6, 6).reshape(4, 3),), (ints(-5, 5, 2),)), Case("Mod", (np.arange(-6, 6),), (ints(4)[0],), {"fmod": 1}),
    Case("Div", (np.arange(-6, 6).reshape(4, 3),), (ints(-5, 5, 2),)), Case("Expand", (BOX,), (ints(4),)),
    Case("Sub", (F(1.5),), (normal(2, 3),)), Case("Mul", (normal(1),), (normal(2, 4, 1, 1),)),
    Case("Gemm", (normal(3, 4),), (normal(4, 5), F(0.7))), Case("Gemm", (normal(3, 4),), (normal(4, 5), normal(1, 5)), {"beta": 0.0}),
    Case("Gemm", (normal(4, 3),), (normal(5, 4), None), {"transA": 1, "transB": 1, "alpha": 2.0}),
    Case("MatMul", (normal(2, 1, 3, 4), normal(5, 4, 2))), Case("MatMul", (normal(4), normal(4))),
    Case("MatMul", (normal(2, 3, 4),), (normal(4),)), Case("MatMul", (normal(4), normal(2, 4, 3))),
    Case("Einsum", (normal(2, 3, 4), normal(4, 5)), (), {"equation": "...j,jk->...k"}),
    Case("Einsum", (normal(3, 4), normal(4, 5)), (), {"equation": "ij,jk"}), Case("Einsum", (normal(3, 3),), (), {"equation": "ii->i"}),
    Case("Attention", (normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 4)), (normal(3, 5), None, None), {"softcap": 0.8}, 23),
    Case("GatherND", (X4,), (np.array([[[0], [2]], [[3], [-1]]]),), {"batch_dims": 1}, 13),
]  # fmt: skip
FORMS = [  # attributes and types that are rare
    *(Case(op, (X4,)) for op in ("Asinh",)), Case("Acosh", (normal(3, 4, low=1.1),)), Case("Atanh", (UNIT,)),
    Case("Shrink", (X4,)), Case("Shrink", (X4,), (), {"lambd": 0.25, "bias": 0.125}),
    *(Case("IsInf", (F([1, np.inf, -np.inf, np.nan]),), (), {"detect_positive": p, "detect_negative": n}) for p, n in ((1, 0), (0, 1))),
    Case("Clip", (X4,), (None, F(0.3))), Case("Clip", (X4,), (None, None)), Case("Clip", (X4,), (F(0.5), F(-0.5))),
    Case("Clip", (np.arange(-4, 5),), (ints(-2)[0], ints(3)[0])), Case("Clip", (np.arange(-4, 5),), (ints(-2)[0],)),
    Case("Cast", (F([-1.7, -0.5, 0.0, 0.5, 1.7, 200]),), (), {"to": TensorProto.INT32}),
    Case("Cast", (F([0.0, 0.5, 1.7, 200]),), (), {"to": TensorProto.UINT8}),
    Case("Cast", (X4,), (), {"to": TensorProto.DOUBLE}), Case("Cast", (X4,), (), {"to": TensorProto.FLOAT16}, rtol=1e-3),
    Case("Cast", (np.arange(-3, 3),), (), {"to": TensorProto.BOOL}), Case("Cast", (normal(2, 3).astype(np.float16),), (), {"to": TensorProto.FLOAT}),
    Case("Cast", (), (normal(2, 3).astype(np.float16),), {"to": TensorProto.FLOAT}), Case("Cast", (), (np.float64([0.1, 2]),), {"to": TensorProto.FLOAT}),
    Case("Mul", (normal(2, 3).astype(np.float16),), (normal(3).astype(np.float16),), rtol=2e-3),
    Case("Dropout", (X4,), (F(0.3), np.array(False))), Case("Dropout", (X4,), (None, None), {"seed": 3}),
    Case("ReduceMean", (np.arange(12).reshape(3, 4),), (), {"axes": (1,)}), Case("ReduceMax", (np.arange(12).reshape(3, 4),)),
    Case("Abs", (np.arange(-3, 3),)), Case("Neg", (np.arange(-3, 3),)), Case("Sign", (np.arange(-3, 3),)), Case("Relu", (np.arange(-3, 3, dtype=np.int32),), (), {}, 14),
    Case("Pow", (np.arange(5),), (ints(2)[0],)), Case("Pow", (np.arange(5),), (F(0.5),)), Case("Pow", (X4,), (ints(3)[0],)),
    Case("EyeLike", (X2,)), Case("EyeLike", (X2,), (), {"k": -1, "dtype": TensorProto.INT64}),
    *(Case("ScatterElements", (X2,), (np.array([[0, 1], [2, -1]]), normal(2, 2)), {"axis": axis}) for axis in (0, -1)),
    *(Case("ScatterElements", (X2,), (np.array([[0, 1], [2, 1]]), normal(2, 2)), {"axis": 1, "reduction": how}, 18) for how in ("add", "mul", "max", "min")),
    Case("Scatter", (X2,), (np.array([[0, 1], [2, 1]]), normal(2, 2)), {"axis": 1}, 9),
    Case("ScatterElements", (), (X2, np.array([[0, 1], [2, 1]]), normal(2, 2)), {"axis": 1}),
    *(Case("ScatterND", (), (X2, np.array([[0], [2]]), normal(2, 6)), {} if how == "none" else {"reduction": how}, 18) for how in ("none", "add", "mul", "max")),
    *(Case("ScatterND", (X2,), (np.array([[-1]]), normal(1, 6)), {"reduction": how}, 18) for how in ("min", "mul")),
    *(Case("Resize", (normal(1, 2, 6, 5),), (ROI, F([1, 1, 1.5, 0.8])), {"mode": m, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.4}, 13) for m in ("linear", "nearest")),
    Case("Resize", (normal(1, 2, 6, 5),), (None, F([1, 1, 2, 2])), {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "mode": "nearest"}, 13),
    Case("Resize", (normal(1, 2, 6, 5),), (None, None, ints(7, 1)), {"mode": "linear", "axes": (-2, -1), "coordinate_transformation_mode": "pytorch_half_pixel"}, 18),
    Case("ConvTranspose", (X4,), (normal(4, 3, 2, 2), None), {"strides": (2, 2), "auto_pad": "VALID"}),
    Case("ConvTranspose", (normal(2, 4, 7),), (normal(4, 3, 3), normal(3)), {"strides": (2,), "pads": (1, 0), "output_padding": (1,)}),
    Case("Conv", (X4,), (normal(6, 4, 3, 3), None), {"auto_pad": "NOTSET", "kernel_shape": (3, 3), "group": 1, "dilations": (1, 2)}),
    Case("Conv", (normal(2, 4, 9),), (normal(4, 1, 3), normal(4)), {"group": 4, "auto_pad": "SAME_LOWER"}),
    Case("LpPool", (normal(2, 4, 9, 8),), (), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1, "dilations": (2, 1)}, 18, wide=False),
    Case("AveragePool", (normal(1, 2, 4, 5, 6),), (), {"kernel_shape": (2, 2, 3), "strides": (1, 2, 2), "pads": (1, 0, 1, 0, 1, 1), "count_include_pad": 1}),
    Case("MaxPool", (normal(1, 2, 4, 5, 6),), (), {"kernel_shape": (2, 2, 3), "ceil_mode": 1, "strides": (2, 2, 2)}),
    Case("LRN", (X4,), (), {"size": 11, "alpha": 0.2}, wide=False),
    *(Case("DepthToSpace", (normal(0, 8, 3, 5),), (), {"blocksize": 2, "mode": m}) for m in ("CRD",)),
    Case("Upsample", (normal(2, 3, 5),), (F([1, 1, 1.5]),), {"mode": "nearest"}, 9), Case("Softmax", (X4,), (), {"axis": 0}, 9),
    Case("Slice", (X4,), (ints(-100), ints(100), None, ints(2))),
    Case("BatchNormalization", (normal(2, 4, 9),), (normal(4), normal(4), normal(4), normal(4, low=0.1)), {"momentum": 0.8}, 9),
    Case("InstanceNormalization", (normal(1, 4, 3, 4, 2),), (normal(4), normal(4))),
    *(Case("Pad", (X2,), (ints(1, 2, 1, 3), None), {"mode": m}, 13) for m in ("reflect", "edge", "constant")),
    Case("Pad", (np.arange(6).reshape(2, 3),), (ints(1, 0, 0, 1), ints(7)[0]), {}, 13),
    Case("Gelu", (X4,), (), {"approximate": "none"}, 20), Case("Identity", (np.arange(3),)), Case("Mean", (X4,)),
]  # fmt: skip
GRID, THETA = np.clip(normal(2, 3, 4, 2), -1.37, 1.43), normal(2, 2, 3)
FLAT = np.arange(6)
SAMPLES = [  # places that are read and written
    *(Case("GridSample", (X4, GRID), (), {"mode": m, "padding_mode": p, "align_corners": (i + j) % 2}, 16)
      for i, m in enumerate(("bilinear", "nearest", "bicubic")) for j, p in enumerate(("zeros", "border", "reflection"))),
    *(Case("GridSample", (X4, GRID), (), {"mode": m, "align_corners": 1}, 20) for m in ("linear", "cubic")),
    Case("GridSample", (normal(1, 2, 3, 4, 5), np.clip(normal(1, 2, 3, 4, 3), -1.17, 1.23)), (), {}, 20),
    *(Case("AffineGrid", (THETA,), (ints(2, 4, 3, 5),), {"align_corners": a}, 20) for a in (0, 1)),
    Case("AffineGrid", (normal(1, 3, 4),), (ints(1, 2, 3, 4, 5),), {}, 20),
    Case("MaxPool", (X4,), (), {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1)}, 17, 2),
    Case("MaxPool", (F(np.round(X4)),), (), {"kernel_shape": (2, 2)}, 17, 2, wide=False),
    Case("MaxPool", (X4,), (), {"kernel_shape": (2, 2), "storage_order": 1, "ceil_mode": 1, "strides": (2, 2)}, 12, 2),
    Case("MaxPool", (normal(2, 4, 9),), (), {"kernel_shape": (3,), "dilations": (2,)}, 12, 2),
    Case("MaxUnpool", (normal(1, 1, 2, 2),), (np.array([[[[5, 7], [13, 15]]]]),), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    Case("MaxUnpool", (normal(1, 1, 2, 2),), (np.array([[[[6, 8], [16, 18]]]]), ints(1, 1, 5, 5)), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    Case("Col2Im", (normal(2, 12, 20),), (ints(6, 5), ints(2, 2)), {"pads": (0, 0, 0, 0)}, 18),
    Case("Col2Im", (normal(1, 18, 12),), (ints(7, 6), ints(3, 2)), {"strides": (2, 2), "pads": (1, 1, 0, 1), "dilations": (1, 1)}, 18),
    *(Case("CenterCropPad", (X4,), (ints(*to),), {"axes": (-2, 3)}, 18) for to in ((3, 4), (9, 8), (8, 2), (5, 5))),
    *(Case("Compress", (X2,), (np.array([False, True, True]),), how) for how in ({"axis": 0}, {"axis": -1}, {})),
    *(Case(op, (FLAT.astype(np.int32),), (np.int32(3),), {}, 18) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    Case("BitwiseNot", (FLAT.astype(np.int32),), (), {}, 18),
    *(Case("BitShift", (FLAT.astype(np.uint8),), (np.uint8(1),), {"direction": d}) for d in ("LEFT", "RIGHT")),
]  # fmt: skip
EDGES = {"samples": SAMPLES, "empty": EMPTY, "axes": AXES, "forms": FORMS}
CASES = [
    *UNARY,
    *BINARY,
    *REDUCE,
    *MATRICES,
    *SHAPES,
    *CONVS,
    *NORMS,
    *RESIZES,
    *QUANTISED,
    *MODERN,
    *SAMPLES,
    *EMPTY,
    *AXES,
    *FORMS,
]
GROUPS = {"unary": UNARY, "binary": BINARY, "reduce": REDUCE, "matrices": MATRICES}
GROUPS |= {"shapes": SHAPES, "convs": CONVS, "norms": NORMS, "resizes": RESIZES}
GROUPS |= {"quantised": QUANTISED, "modern": MODERN}
GROUPS |= EDGES
