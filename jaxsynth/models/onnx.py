"""ONNX files as classifiers: `load_onnx`, and what a file says of its labels and pixels."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.arithmetic import arithmetic
from jaxsynth.images import Preprocess
from jaxsynth.inputs import near
from jaxsynth.models.base import Classifier, Info
from jaxsynth.models.labels import sensitive_classes
from jaxsynth.models.onnx_call import is_float
from jaxsynth.models.onnx_file import Input, OnnxFile, OnnxNode, read_onnx
from jaxsynth.models.onnx_graph import OnnxGraph
from jaxsynth.models.onnx_layout import Laid, shape_of
from jaxsynth.models.onnx_metadata import metadata_size, read_labels_of, read_preprocess
from jaxsynth.models.onnx_wiring import wire
from jaxsynth.models.weights import check_dtype

_ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "Hardmax", "ArgMax", "TopK")  # logits come before
_PLAIN = ("Identity", "Cast", "Flatten", "Squeeze", "Reshape", "Unsqueeze", "Dropout")
_PLAIN += ("QuantizeLinear", "DequantizeLinear")
_OPTIONS = ("labels", "preprocess", "size", "logits", "mean", "std", "order", "range", "resize")
_FILE = re.compile(r"(.+?\.onnx)(?:,(.*))?", re.DOTALL | re.IGNORECASE)


def is_onnx(name: str) -> bool:
    """Return whether a model's name is an ONNX file, perhaps with options: FILE.onnx,key=value."""
    return _FILE.fullmatch(name) is not None


def load_named(name: str, dtype: Any = "float32") -> Classifier:
    """Load FILE.onnx,key=value,... as the command line names it.

    Keys are labels (a file), preprocess, size, logits; and mean, std, order, range, resize, which
    change the preprocessing. Several numbers are joined by `/`: std=58.4/57.1/57.4.

    Raises:
      ValueError: For an unknown key, or what `load_onnx` refuses.
    """
    path, options = _FILE.fullmatch(name).groups()
    given = dict(part.partition("=")[::2] for part in (options or "").split(",") if part)
    for key, value in given.items():
        if key not in _OPTIONS:
            raise ValueError(
                f"{name}: unknown option {key!r}{near(key, _OPTIONS)}; expected "
                f"{', '.join(_OPTIONS)}, as in model.onnx,labels=labels.txt,preprocess=imagenet"
            )
        if not value or (key == "size" and not value.isdecimal()):
            raise ValueError(f"{name}: {key}={value}: expected a value, as in size=224")
    changes = {key: _change(name, key, given[key]) for key in _OPTIONS[4:] if key in given}
    model = load_onnx(
        path,
        labels=given.get("labels", ()),
        preprocess=(given.get("preprocess", ""), changes),
        size=int(given.get("size", 0)),
        logits=given.get("logits", ""),
        dtype=dtype,
    )
    return dataclasses.replace(model, info=dataclasses.replace(model.info, asked=name))


def load_onnx(
    path: str | Path,
    *,
    labels: Sequence[str] | str | Path = (),
    preprocess: Preprocess | str | tuple[str, dict] = "",
    size: int = 0,
    logits: str = "",
    dtype: Any = "float32",
) -> Classifier:
    """Load an ONNX file of an image classifier.

    Every tensor that a node makes is a blob, channels last; initialisers are parameters.

    Args:
      path: The file. Its external data, if any, lie beside it.
      labels: One name per class, or a file with a name a line; by default what the file says.
      preprocess: Units of the pixels: `Preprocess`, or a name in `PREPROCESS`; by default what the
        file says, else `imagenet`. A pair of a name and changed fields is taken too.
      size: Side of the input in pixels, where the file leaves it open.
      logits: Tensor or blob of the class scores before softmax; by default it is found.
      dtype: Of the parameters: float32, float64 or bfloat16.

    Raises:
      ValueError: One line, for a damaged file, an operator that is not known (with node and opset),
        a graph whose input is no image, or labels that do not fit.
    """
    dtype, file = check_dtype(dtype), read_onnx(path)
    name, given = _input_of(file)
    first, batch, side = _form(file, name, given, size)
    wiring, arrays = wire(file, file.outputs)
    graph = OnnxGraph(file, wiring, name, batch, first)
    graph.side = (side, side)
    with arithmetic(dtype == np.float64):
        params = {n: jnp.asarray(a, dtype) for n, a in arrays.items()}
        blob = _find_logits(graph, params, logits)
    names = read_labels_of(labels, file)
    units, notes = read_preprocess(preprocess, file, given, side)
    model = Classifier(
        graph,
        params,
        size=side,
        labels=names,
        preprocess=units,
        logits=blob,
        name=re.sub(r"[^\w\-.]", "_", file.path.stem) or "onnx",
        sensitive=sensitive_classes(names),
        info=Info(
            network=file.path.stem,
            asked=str(path),
            file=file.path.name,
            sha256=file.sha256(),
            source=f"ONNX, opset {file.opset}, {file.metadata['producer'] or 'unknown producer'}",
            notes=notes,
        ),
        prepare=graph.prepare,
    )
    with arithmetic(dtype == np.float64):
        _ = model.shapes  # checks the labels
    return model


# --- the image ------------------------------------------------------------------------------------


def _input_of(file: OnnxFile) -> tuple[str, Input]:
    if len(file.inputs) != 1:
        names = ", ".join(file.inputs) or "none"
        raise ValueError(
            f"{file.path} has inputs {names}: expected one image (a classifier, not a model of "
            "text or of several inputs)"
        )
    return next(iter(file.inputs.items()))


def _form(file: OnnxFile, name: str, given: Input, size: int) -> tuple[bool, int, int]:
    """Whether channels come first, the size of the batch, and the side of the image."""
    shape = given.shape or ("batch", 3, "height", "width")
    what = f"{file.path}: input {name!r} of shape {_shape_text(shape)}"
    image = len(shape) == 4 and 3 in (shape[1], shape[3])
    if not image and len(shape) == 4 and not any(isinstance(n, int) for n in shape[1:]):
        image = True  # all open: as PyTorch exports
    if not image:
        raise ValueError(f"{what} is no image: expected (N, 3, H, W) or (N, H, W, 3)")
    first = shape[1] == 3 or shape[3] != 3
    sides = shape[2:] if first else shape[1:3]
    told = {n for n in sides if isinstance(n, int)}
    if len(told) > 1:
        raise ValueError(f"{what} is not square, which classifiers are here: export it square")
    if told and size not in (0, *told):
        raise ValueError(f"{what}: size={size} is not what it takes")
    side = size or next(iter(told), 0) or metadata_size(file)
    if not side:
        raise ValueError(f"{what} leaves its size open: give size=224, or {file.path},size=224")
    batch = shape[0] if isinstance(shape[0], int) else 1
    return first, batch, side


def _shape_text(shape: Sequence[Any]) -> str:
    return f"({', '.join(str(n or '?') for n in shape)})"


# --- the logits -----------------------------------------------------------------------------------


def _find_logits(graph: OnnxGraph, params: Any, asked: str) -> str:
    """Trace the graph once; return the blob of the logits.

    Raises:
      ValueError: If the graph cannot be computed, or no output is a vector of class scores.
    """
    file, shapes = graph.file, {}

    def trace(params, x):
        env = graph.tensors(params, x)
        shapes.update(
            {n: shape_of(v) for n, v in env.items() if isinstance(v, Laid) and is_float(v.array)}
        )
        return ()

    jax.eval_shape(trace, params, jax.ShapeDtypeStruct((*graph.side, 3), jnp.float32))
    tensors = {blob: tensor for tensor, blob in graph.names.items()}
    if asked and tensors.get(asked, asked) not in shapes:
        known = [blob for blob, tensor in tensors.items() if tensor in shapes]
        raise ValueError(f"{file.path}: no blob {asked!r} for the logits{near(asked, known)}")
    makers = {n: node for node in graph.wiring.nodes for n in node.outputs}
    starts = [tensors.get(asked, asked)] if asked else [_before(o, makers) for o in file.outputs]
    for tensor in starts:
        shape = shapes.get(tensor, ())
        classes = max(shape, default=0)
        if classes > 1 and np.prod(shape) in (classes, classes * graph.batch):
            graph.logits, graph.flat = tensor, _free("logits", tensors)
            return graph.flat
    found = ", ".join(f"{o} {shapes.get(o, '')}" for o in file.outputs)
    raise ValueError(
        f"{file.path}: no output is a vector of class scores ({found}): name the blob with "
        "logits=BLOB"
    )


def _before(tensor: str, makers: dict[str, OnnxNode]) -> str:
    """Go back from an output over a final softmax to the logits, if there is one."""
    name = tensor
    for _ in range(8):
        node = makers.get(name)
        if node is None or node.op not in (*_ENDS, *_PLAIN):
            return tensor
        if node.op in _ENDS:
            return _before(node.inputs[0], makers)
        name = node.inputs[0]
    return tensor


def _free(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name


def _change(name: str, key: str, text: str) -> Any:
    if key in ("order", "resize"):
        return text
    try:
        return tuple(float(number) for number in text.split("/"))
    except ValueError as error:
        raise ValueError(f"{name}: {key}={text}: expected numbers such as 0.5/0.5/0.5") from error
