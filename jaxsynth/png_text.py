"""The origin of an image, in the text of its PNG, or in the EXIF description of a film.

The text `jaxsynth` is JSON. It has the sweep's config.json (settings, networks with hashes,
versions, command) and the run's number, seed and objective. It also has the start code if the seed
did not decide it, and says which image this is.
"""

import base64
import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxsynth.disk import check_regular, expand, file_kind
from jaxsynth.environment import versions
from jaxsynth.inputs import printable

KEYWORD, FILM = "jaxsynth", "film"
DESCRIPTION = 0x010E  # of EXIF
_START, _LARGEST = "start_code", 100_000  # of a start code in a file, in bytes
# Parts of config.json, and flags of the command, that are not about this image: a run that was
# stopped, or shared by several devices or processes, leaves the same bytes as another one.
_OF_OTHERS = ("runs", "flags", "equals", "images", "chunk_runs", "device", "title")
_OF_THE_WAY = re.compile(
    r"--?(no)?(out|resume|overwrite|progress|save_seconds|images|devices|coordinator|num_processes|"
    r"process_id|distributed|watch|film|tensorboard|debug)(=|$)"
)
# Settings of a recipe's steps, and of the moves that it also makes of an optax transformation.
_STEPS = ("optimizer", "optimizer_args", "schedule", "lr_start", "lr_end")
_MOVES = ("normalize", "decay", "decay_when", "prior", "prior_scaled")


def describe(config: Mapping[str, Any], run: Mapping[str, Any], which: str) -> str:
    """Return the text of an image: of config.json, its run, and `last`, `best` or `film`."""
    said = {name: value for name, value in config.items() if name not in _OF_OTHERS}
    words = shlex.split(str(config.get("command", "")))
    said["command"] = shlex.join(word for word in words if not _OF_THE_WAY.match(word))
    return json.dumps({"which": which, **run, "versions": versions()} | said, default=_plain)


def text_of(
    config: Mapping[str, Any], run: int, which: str, start: np.ndarray | None = None
) -> str:
    """Return the text of a sweep's image, by the number of its run and its start code (D,)."""
    own = {"run": run} | config["runs"][run]
    if start is not None and start.nbytes <= _LARGEST and origin_of(dict(config) | own):
        buffer = io.BytesIO()
        np.save(buffer, start)
        own[_START] = base64.b64encode(buffer.getvalue()).decode("ascii")
    return describe(config, own, which)


def origin_of(said: Mapping[str, Any]) -> str:
    """Return the file or run that an image's start code is of; "" where its seed decided it."""
    vectors = {term.partition("@")[2] for term in str(said["objective"]).split(":")}
    others = set(said.get("inputs", {})) - {"encoder"} - vectors
    return said.get("origin") or next(iter(sorted(others)), "")


def start_of(said: Mapping[str, Any]) -> np.ndarray | None:
    """Read the start code (D,) of a text; None where it has none."""
    if _START not in said:
        return None
    return np.load(io.BytesIO(base64.b64decode(said[_START])), allow_pickle=False)


def read_text(path: str | Path) -> dict[str, Any]:
    """Read what made an image; ValueError if the file does not tell."""
    path = expand(path)
    check_regular(path, repr(str(path)), "a PNG made by jaxsynth")
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image:
            image.load()
            film = image.getexif().get(DESCRIPTION) if image.format == "WEBP" else ""
            text = film or getattr(image, "text", {}).get(KEYWORD)
    except (OSError, SyntaxError, ValueError) as error:
        kind = file_kind(path) or "of no known kind"
        raise ValueError(f"{str(path)!r} is {kind}, expected a PNG made by jaxsynth") from error
    try:
        found = json.loads(text or "")
        found["seed"], found["objective"], found["sweep"]["recipe"], found["networks"]["generator"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} does not tell how it was made: it is not an image of a run, or another "
            "program has written it again"
        ) from error
    return found


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a config what an own optimizer replaces of the recipe."""
    sweep = dict(config.get("sweep", {}))
    if own := sweep.get("optimizer"):
        replaced = _STEPS if own == "optax" else _STEPS + _MOVES
        recipe = sweep["recipe"].items()
        sweep["recipe"] = {name: value for name, value in recipe if name not in replaced}
    return {**config, "sweep": sweep}


def show(path: str | Path) -> str:
    """Return what made an image, a line for each value."""
    said = deciding(read_text(path))
    if (start := start_of(said)) is not None:
        said[_START] = f"{start.size} numbers"
    lines = dict(_lines("", said))
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in lines.items())


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _lines(f"{name} {key}".strip(), one)
    elif value not in (None, "", [], {}):
        yield printable(name), value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
