"""Objectives read from text: the inverse of `str(objective)`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jaxsynth.inputs import check_name, described
from jaxsynth.objectives import diversity, linear, unit_number
from jaxsynth.terms import FUNCTION, GENERATOR, LARGEST, MEASURES, Objective, labels_of, shape_of

HOWS = ("mean", "match", "cosine", "square", "diversity")
SYNTAX = "network:blob:unit[@y,x][:how]:weight"
_POSITION = re.compile(r"\d+(,\d+)*")


def parse(text: str, models: Mapping[str, Any]) -> Objective:
    """Read an objective: MODEL:BLOB:WHICH[:HOW]:WEIGHT, several joined by ` + `.

    | part  | text                                                                             |
    |-------|----------------------------------------------------------------------------------|
    | WHICH | a label or a number; `@y,x` after it for a place of a spatial blob (else centre) |
    |       | `@FILE.npy` for a vector: weights of the blob, or of its channels; `*` for all   |
    | HOW   | `mean`: over positions, WHICH is a channel                                       |
    |       | `match`, `cosine`: likeness to the activation in FILE.npy                        |
    |       | `square`, `diversity`: WHICH is `*`                                              |

    Examples: `places:logits:volcano:1`, `places:conv_head:12@2,2:1`, `places:conv_head:12:mean:1`,
    `places:pool:@vector.npy:1`, `places:pool:@recorded.npy:match:0.5`,
    `places:conv4:*:diversity:0.3`, `generator:image_tv:0:-0.1`. A number names a unit by its index.

    Args:
      text: What to read; the inverse of `str`.
      models: Classifiers by name; the generator as `generator`.

    Raises:
      ValueError: Naming the mistake and the way out, in one line.
    """
    if not isinstance(text, str) or not isinstance(models, Mapping):
        raise ValueError(
            f"parse: expected a text {SYNTAX} and models by name, not {described(text)} and "
            f"{described(models)}"
        )
    return Objective(tuple(t for part in _split(text, models) for t in _term(part, models).terms))


def _split(text: str, models: Mapping[str, Any]) -> Iterator[str]:
    """The terms of a text: one ends where a number is followed by a model's name."""
    begun, *pieces = text.split(" + ")
    for piece in pieces:
        if _number(begun.rpartition(":")[2]) is not None or piece.partition(":")[0] in models:
            yield begun.strip()
            begun = piece
        else:
            begun = f"{begun} + {piece}"
    yield begun.strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _term(text: str, models: Mapping[str, Any]) -> Objective:
    parts = text.split(":")
    what = f"term {text!r}"
    if parts[0] == FUNCTION and FUNCTION not in models:
        raise ValueError(f"{what} is a Python function: give it to maximize or sweep itself")
    if len(parts) < 4:
        raise ValueError(
            f"{what}: expected {SYNTAX}, such as places:logits:abbey:1 or "
            "nsfw:conv_stage2_block3:17@6,6:0.5"
        )
    role, blob, which, weight = parts[0], parts[1], ":".join(parts[2:-1]), _number(parts[-1])
    check_name(f"{what}: network", role, {GENERATOR: None, **models})
    if weight is None or not abs(weight) <= LARGEST:
        raise ValueError(f"{what}: weight {parts[-1]!r} is not a finite number in float32")
    try:
        return _target(role, models.get(role), blob, which) * weight
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _target(role: str, model: Any, blob: str, which: str) -> Objective:
    """The target of a term, from the text of its unit."""
    if role == GENERATOR and (model is None or blob in MEASURES):
        shape_of(None, blob)
        unit_number(f"{role}:{blob}", which, 1, ())
        return linear(None, blob, "0", [0], [1.0])
    shape_of(model, blob)  # its name is checked before the unit
    labels = labels_of(model, blob)
    rest, _, how = which.rpartition(":")
    if which in labels or how not in HOWS or not rest:
        rest, how = which, ""
    if how in ("square", "diversity"):
        if rest != "*":
            raise ValueError(f"{how} is of a whole blob: expected *:{how}, not {which}")
        return model.layer(blob) if how == "square" else diversity(model, blob)
    if how == "mean":
        return model.channel(blob, rest)
    if how:
        if not rest.startswith("@"):
            raise ValueError(f"{how} compares with a file: expected @FILE.npy:{how}")
        return model.match(blob, rest[1:], cosine=how == "cosine")
    if rest.startswith("@") and rest not in labels:
        file, _, position = rest[1:].rpartition("@")
        at = position if file and _POSITION.fullmatch(position) else None
        return model.direction(blob, file if at else rest[1:], at)
    unit, _, position = (rest, "", "") if rest in labels else rest.partition("@")
    return model.unit(blob, unit, position or None)
