"""Flags made from dataclasses: kinds, defaults, what is typed, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from absl import flags as absl_flags

from experiments import flags
from jaxsynth.inputs import option


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = option(0.5, "A rate.", above=0)
    deep: bool = option(True, "A switch.")


@dataclasses.dataclass(frozen=True)
class Steps:
    steps: int = option(300, "A count.", low=0)
    args: tuple[tuple[str, float], ...] = option((), "Pairs.")


@dataclasses.dataclass(frozen=True)
class Kinds:
    count: int | None = option(None, "A count.", low=1)
    word: str = option("a", "A word.", among=("a", "b"))
    file: Path = option(Path("x/y"), "A file.")
    numbers: tuple[int, ...] = option((1, 2), "Numbers.", expected="steps such as 1,2")
    names: tuple[str, ...] = option(("p",), "Names.")
    term: tuple[str, ...] = flags.repeated("A term.")
    inner: Inner = Inner()
    changes: dict[str, Any] = flags.changes_of(Steps)
    name: str = ""


pytestmark = pytest.mark.usefixtures("no_flags_left")


def _read(*argv: str, **given: Any) -> Kinds:
    flags.define(Kinds)
    absl_flags.FLAGS(["program", *argv])
    return flags.read(Kinds, **given)


def test_defaults_are_those_of_the_dataclass():
    assert _read() == Kinds()
    assert flags.typed() == frozenset()
    values = flags.values_of(_read(name="me"))
    assert values["file"] == "x/y" and values["rate"] == 0.5 and values["steps"] is None
    assert "name" not in values and "inner" not in values


def test_every_kind_is_read():
    found = _read(
        *("--count=3", "--word=b", "--file=z", "--numbers=4,5", "--names=q,r", "--nodeep"),
        *("--term=one,two", "--term=three", "--rate=2", "--steps=7", "--args=momentum=0.9,b=1"),
    )
    assert found == Kinds(
        3,
        "b",
        Path("z"),
        (4, 5),
        ("q", "r"),
        ("one,two", "three"),
        Inner(2.0, False),
        {"steps": 7, "args": (("momentum", 0.9), ("b", 1.0))},
    )
    assert {"count", "deep", "steps", "term"} <= flags.typed()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--count=0", "--count=0: expected a finite number from 1 up"),
        ("--rate=0", "--rate=0.0: expected a finite number above 0"),
        ("--rate=nan", "--rate=nan"),
        ("--numbers=x,2", "--numbers=x,2: expected steps such as 1,2"),
        ("--args=momentum", "--args=momentum: expected name=number"),
    ],
)
def test_a_wrong_value_names_its_flag(typed, said):
    with pytest.raises(ValueError) as error:
        _read(typed)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_field_may_have_another_default():
    @dataclasses.dataclass(frozen=True)
    class Other(Kinds):
        word: str = flags.like(Kinds, "word", "b")

    flags.define(Other)
    absl_flags.FLAGS(["program"])
    assert flags.read(Other).word == "b"
