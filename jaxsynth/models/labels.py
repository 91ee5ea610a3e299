"""Names of classes: read from files as editors of all systems write them, and made unique."""

import collections
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.disk import check_regular, decoded, expected, kind_of
from jaxsynth.inputs import described

_TEXTS = ("a text", "a JSON", "a prototxt")  # names may look like the last
SENSITIVE_LABELS = ("nsfw", "hentai", "porn", "pornography", "sexy", "explicit", "nudity")
_INDEXED = (r"(?P<name>.*?\S)[\s,;:]+(?P<index>\d+)", r"(?P<index>\d+)[\s,;:]+(?P<name>\S.*)")


def unique_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Tell alike labels apart by their numbers: two classes `crane` become `crane (134)` and so on.

    ImageNet has two classes `crane` and two `maillot`.
    """
    names = tuple(map(str, labels))
    while len(set(names)) < len(names):
        count = collections.Counter(names)
        names = tuple(f"{x} ({i})" if count[x] > 1 else x for i, x in enumerate(names))
    return names


def check_labels(what: str, labels: Any) -> None:
    """Raise ValueError, begun by `what`, unless these are several names in the order of units."""
    said, way = "", ""
    if isinstance(labels, str | bytes):
        said = "a string"
    elif isinstance(labels, Mapping):
        said, way = "a dict", ", in the order of the units"
    elif isinstance(labels, Set) or not isinstance(labels, Iterable):
        said = described(labels)
    if said:
        raise ValueError(f"{what}: labels is {said}, expected a list of names{way}")


def check_sensitive(what: str, sensitive: Any, labels: Sequence[str], classes: int) -> None:
    """Raise ValueError, begun by `what`, unless it is the number of a class, or a tuple of them."""
    for one in sensitive if isinstance(sensitive, tuple) else (sensitive,):
        whole = isinstance(one, int | np.integer) and not isinstance(one, bool)
        if not whole or not 0 <= int(one) < classes:
            number = labels.index(one) if isinstance(one, str) and one in labels else ""
            hint = f" ({one!r} is {number})" if number != "" else ""
            raise ValueError(
                f"{what}: sensitive is {described(sensitive)}, expected the number of a class, 0 "
                f"to {classes - 1}, or a tuple of numbers{hint}"
            )


def sensitive_classes(labels: Sequence[str]) -> int | tuple[int, ...] | None:
    """Return the class, or classes, whose names say that their pictures wait for a click."""
    found = tuple(i for i, label in enumerate(labels) if label.lower() in SENSITIVE_LABELS)
    return found if found[1:] else next(iter(found), None)


def read_labels(path: str | Path, classes: int, network: str) -> tuple[str, ...]:
    """Read the names of a network's classes; ValueError if they are not one for each."""
    try:
        names = parse_labels(read_text(path, "a file of labels"))
    except ValueError as error:
        raise ValueError(f"labels {path}: {error}") from error
    if len(names) != classes:
        raise ValueError(f"labels {path}: {len(names)} names, {network} needs {classes}")
    return names


def parse_labels(text: str) -> tuple[str, ...]:
    """Read names in the order of their units: lines "name index", "index name", "name", or JSON.

    Byte order marks, empty lines and blanks around a name are no part of it. Places205's
    `/c/church/outdoor` becomes `church-outdoor`.

    Raises:
      ValueError: If the indices are not 0 .. n - 1, each once, or only most lines have one.
    """
    if text.lstrip("\ufeff \r\n\t").startswith(("[", "{")):
        return _of_json(text.lstrip("\ufeff"))
    lines = [line for text in text.splitlines() if (line := text.strip(" \t\ufeff\x1a"))]
    for pattern in _INDEXED:
        found = [re.fullmatch(pattern, line) for line in lines]
        indices = [int(m["index"]) for m in found if m]
        if lines and len(indices) == len(lines):
            if sorted(indices) != list(range(len(lines))):
                raise ValueError(f"indices are not 0 to {len(lines) - 1}, each once")
            by_index = {int(m["index"]): _clean(m["name"]) for m in found if m}
            if len(set(by_index.values())) > 1 or len(lines) == 1:  # not "class 0", "class 1", ...
                return tuple(by_index[i] for i in range(len(lines)))
        if len(lines) < 2 * len(indices) and set(indices) < set(range(len(lines))):
            without = next(line for line, m in zip(lines, found, strict=True) if not m)
            raise ValueError(f"line {without[:80]!r} has no index, where most lines have one")
    return tuple(map(_clean, lines))


def _of_json(text: str) -> tuple[str, ...]:
    """Read a list of names, or an object of index and name."""
    try:
        found = json.loads(text)
        found = [found[str(i)] for i in range(len(found))] if isinstance(found, dict) else found
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"they look like JSON, but are no list of names ({error})") from error
    if not all(isinstance(name, str) for name in found):
        raise ValueError("they are JSON, but no list of names")
    return tuple(map(_clean, found))


def read_text(path: str | Path, what: str) -> str:
    """Read a text file in UTF-8, or UTF-16 and UTF-32 by their byte order mark.

    Raises:
      ValueError: One line with the path: it cannot be read, or is no text.
    """
    check_regular(path, str(path), what)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; expected {what}") from error
    text, kind = decoded(data), kind_of(data)
    if kind and not kind.startswith(_TEXTS):
        raise ValueError(f"{path} {expected(what, kind)}")
    if text is None:
        raise ValueError(f"{path} is not text in UTF-8 or UTF-16; expected {what}")
    return text


def _clean(name: str) -> str:
    return re.sub(r"^/[a-z]/", "", name).replace("/", "-") if name.startswith("/") else name
