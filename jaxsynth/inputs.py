"""Checks of user input: names, units, seeds, numbers, and the fields of settings."""

import dataclasses
import difflib
import fnmatch
import math
import numbers
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

MOST_SEEDS = 1_000_000
_FEW = 8  # options that an error lists in full
_LONGEST = 60  # characters of a wrong value in an error
_NO_RULES = {"among": None, "low": None, "above": None, "high": None, "expected": ""}


def described(value: Any) -> str:
    """Describe a wrong value in a few words: models and arrays hold too many numbers."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    if isinstance(name, str):
        return f"{'function' if callable(value) else type(value).__name__} {name!r}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {tuple(value.shape)} of {value.dtype}"
    text = " ".join(repr(value).split())
    if len(text) <= _LONGEST and not callable(value):
        return text
    plain = isinstance(value, str | int | float | list | tuple | dict) or text.startswith("<")
    return f"{text[:_LONGEST]}..." if plain and not callable(value) else f"a {type(value).__name__}"


def reason(error: Exception) -> str:
    """Return the first line of an error, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def near(name: str, options: Collection[str]) -> str:
    """Return ` (did you mean A or B?)` for a name misspelt or borne by several, or nothing."""
    known = {option.lower(): option for option in reversed(list(options))}
    alike = [option for option in options if option.startswith(f"{name} (")]  # crane (134)
    found = alike[:_FEW] or [
        known[n] for n in difflib.get_close_matches(str(name).lower(), list(known), 3, 0.6)
    ]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def check_name(what: str, name: str, options: Collection[str]) -> None:
    """Raise ValueError, with the nearest names, unless `name` is one of the options."""
    if not isinstance(name, str) or name not in options:
        known = "" if len(options) > _FEW else f"; expected one of {', '.join(options)}"
        said = repr(name) if isinstance(name, str) else described(name)
        raise ValueError(f"{what} {said} does not exist{near(name, options)}{known}")


def choose_units(patterns: Sequence[str], labels: Sequence[str], what: str = "scene") -> list[int]:
    """Find units by label, glob, index, range (3:7 is 3..6) or `all`.

    Args:
      patterns: Labels, globs and indices, as typed.
      labels: The label of every unit.
      what: Name of a unit in errors.

    Returns:
      Units in the order asked for, each once.

    Raises:
      ValueError: For a pattern that matches nothing, with the nearest labels.
    """
    chosen: dict[int, None] = {}
    for pattern in patterns:
        found = _matching(pattern, labels)
        if not found:
            raise ValueError(
                f"{what} {pattern!r} is none of the {len(labels)} labels"
                f"{_hint(pattern, labels)}; give a label, a glob such as 'b*', an index "
                f"0..{len(labels) - 1}, a range such as 0:{len(labels)}, or 'all'"
            )
        chosen |= dict.fromkeys(found)
    if not chosen:
        raise ValueError(f"no {what} named: give labels, globs, indices or 'all'")
    return list(chosen)


def _hint(pattern: str, labels: Sequence[str]) -> str:
    """Suggest near labels; a number is no misspelt label."""
    if not re.fullmatch(r"-?\d*(:-?\d*)?", pattern):
        return near(pattern, labels)
    first, colon, last = pattern.partition(":")
    if colon and first.isdecimal() and last.isdecimal() and int(last) <= int(first):
        return f" (a range rises: {last}:{first}?)" if last != first else " (an empty range)"
    return ""


def _matching(pattern: str, labels: Sequence[str]) -> list[int]:
    if pattern == "all":
        return list(range(len(labels)))
    if pattern in labels:
        return [labels.index(pattern)]
    if pattern.removeprefix("-").isdecimal():
        return [int(pattern)] if 0 <= int(pattern) < len(labels) else []
    if pattern.replace(":", "", 1).isdecimal() and pattern.strip(":") == pattern:
        first, last = map(int, pattern.split(":"))
        return list(range(first, last)) if last <= len(labels) else []
    return [i for i, label in enumerate(labels) if fnmatch.fnmatchcase(label, pattern)]


def parse_seeds(text: str, flag: str = "seeds") -> tuple[int, ...]:
    """Read seeds: `8` is 0..7, `3:11` is 3..10, `0,4,7` is these three.

    Raises:
      ValueError: If the text is none of these, or names no seed.
    """
    try:
        if "," in text:
            seeds: Sequence[int] = [int(part) for part in text.split(",") if part.strip()]
        else:
            first, last = (int(part) for part in (text if ":" in text else f"0:{text}").split(":"))
            seeds = range(first, min(last, first + MOST_SEEDS + 1))
    except ValueError:
        seeds = []
    if not seeds or len(seeds) > MOST_SEEDS or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ValueError(
            f"--{flag}={text}: expected a count such as 8, a rising range such as 3:11, or a list "
            f"such as 0,4,7; numbers from 0 to 2**32 - 1, at most {MOST_SEEDS} of them"
        )
    return tuple(dict.fromkeys(seeds))


def parse_numbers(flag: str, values: Sequence[str]) -> list[float]:
    """Read the finite numbers of a comma-separated flag, each once."""
    try:
        found = [float(v) for v in values]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise ValueError(f"--{flag}={','.join(values)}: expected numbers such as 0.5,1,2")
    return list(dict.fromkeys(found))


def printable(text: str) -> str:
    """Return the text on one line: control, bidirectional and undecodable characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def option(
    default: Any,
    help: str,
    *,
    among: Collection[str] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    expected: str = "",
) -> Any:
    """Make a field of a settings dataclass; flags, checks and documentation read its metadata.

    Args:
      default: Its value if nothing is given.
      help: Its effect, in one or two sentences.
      among: The names that it may have.
      low: The least number that it may be.
      above: A number that it must exceed.
      high: The largest number that it may be.
      expected: An error's description of a good value, instead of the bounds.
    """
    rules = {"among": among, "low": low, "above": above, "high": high, "expected": expected}
    return dataclasses.field(default=default, metadata={"help": help} | rules)


def check_options(settings: Any, what: str) -> None:
    """Raise ValueError, which names the first field that `option` made and that cannot work.

    Callables pass wherever a name is expected: a schedule may be given as a function.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if "help" not in field.metadata or (value is None and field.default is None):
            continue
        if expected := refusal(field, value):
            said, among = described(value), field.metadata.get("among")
            hint = near(value, among) if among and isinstance(value, str) else ""
            raise ValueError(f"{what}: {field.name} is {said}, expected {expected}{hint}")


def refusal(field: dataclasses.Field, value: Any) -> str:
    """Return the values that a field expects; nothing if the value is good."""
    if _is_good(field, value):
        return ""
    return field.metadata.get("expected") or _expected(field)


def _is_good(field: dataclasses.Field, value: Any) -> bool:
    rules = _NO_RULES | field.metadata
    if rules["among"] is not None:
        values = value if isinstance(value, tuple) else (value,)
        names = tuple(rules["among"])
        made = (callable(v) and not isinstance(v, type) for v in values)  # a schedule
        return bool(values) and all(m or v in names for m, v in zip(made, values, strict=True))
    low, above, high = rules["low"], rules["above"], rules["high"]
    whole = field.type in (int, "int")
    if field.type in (bool, "bool"):
        return isinstance(value, bool | np.bool_)
    if low is above is high is None and not whole:
        return True
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if whole else numbers.Real
    ):
        return False
    return (
        math.isfinite(value)
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )


def _expected(field: dataclasses.Field) -> str:
    rules = _NO_RULES | field.metadata
    if rules["among"] is not None:
        return f"one of {', '.join(rules['among'])}"
    if field.type in (bool, "bool"):
        return "True or False"
    bounds = [
        "" if rules["low"] is None else f"from {rules['low']} up",
        "" if rules["above"] is None else f"above {rules['above']}",
        "" if rules["high"] is None else f"at most {rules['high']}",
    ]
    kind = "a whole number" if field.type in (int, "int") else "a finite number"
    return " ".join([kind, ", ".join(filter(None, bounds))]).strip()
