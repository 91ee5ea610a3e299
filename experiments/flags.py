"""Flags made from the fields of dataclasses: names, kinds, defaults and help texts.

A field made by `jaxsynth.inputs.option` is a flag; its annotation says of which kind:

  bool, int, float, str              with `among` an enum
  Path                               ~ and $VARIABLES are expanded as in a shell
  tuple[str, ...], tuple[int, ...]   a list, comma-separated; with `repeated` one flag a value
  tuple[tuple[str, float], ...]      a list of name=number
  a dataclass                        its fields are flags
  `changes_of(kind)`                 likewise, but only the fields that are typed are read
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from jaxsynth.disk import expand
from jaxsynth.inputs import refusal

FLAGS = flags.FLAGS
# Flags of version 0.1, and today's; a value here replaces the typed one.
RENAMED = {
    "export_only": "max_steps=0",
    "adversary_loss": "adversary",
    "critic_rate": "adversary_rate",
    "code_loss": "code",
    "image_loss": "pixels",
}
_UNUSED = "flags without an effect here"  # stands for their module, so that --help leaves them out
_SCALARS = {int: flags.IntegerParser, float: flags.FloatParser, str: flags.ArgumentParser}
_defined: list[str] = []  # by the launcher before, where a process runs several


def repeated(help: str) -> Any:
    """Make a field of values that are typed one by one: --term=A --term=B."""
    return dataclasses.field(default=(), metadata={"help": help, "repeated": True})


def changes_of(kind: type) -> Any:
    """Make a field for those of a dataclass's fields that are typed, name -> value."""
    return dataclasses.field(default_factory=dict, metadata={"changes": kind})


def like(kind: type, name: str, default: Any = dataclasses.MISSING) -> Any:
    """Make a field like that of another dataclass, perhaps with another default."""
    [field] = [field for field in dataclasses.fields(kind) if field.name == name]
    default = field.default if default is dataclasses.MISSING else default
    return dataclasses.field(default=default, metadata=field.metadata)


def define(kind: type, without: Collection[str] = ()) -> None:
    """Define the flags of a dataclass, instead of those of the launcher before.

    --help leaves out those `without` an effect.
    """
    for name in _defined:
        delattr(FLAGS, name)
    _defined.clear()
    for field, hint, optional in _leaves(kind):
        module = _UNUSED if field.name in without else sys.argv[0]
        flags.DEFINE_flag(_flag(field, hint, optional), module_name=module)
        _defined.append(field.name)
        if field.default is dataclasses.MISSING:
            flags.mark_flag_as_required(field.name)


def typed() -> frozenset[str]:
    """Return the names of the flags that were typed."""
    return frozenset(name for name in _defined if FLAGS[name].present)


def read(kind: type, **given: Any) -> Any:
    """Make a dataclass of the flags; fields that are given are taken as they are."""
    values: dict[str, Any] = {}
    for field, hint in _fields(kind):
        if field.name in given:
            values[field.name] = given[field.name]
        elif "changes" in field.metadata:
            found = [(f.name, _value(f, h)) for f, h, _ in _leaves(field.metadata["changes"])]
            values[field.name] = {name: value for name, value in found if value is not None}
        elif _has_fields(hint):
            values[field.name] = read(hint)
        elif "help" in field.metadata:
            values[field.name] = _checked(field, _value(field, hint))
    return kind(**values)


def values_of(settings: Any) -> dict[str, Any]:
    """Return a read dataclass as flag name -> value; None for those left open."""
    found: dict[str, Any] = {}
    for field, hint in _fields(type(settings)):
        value = getattr(settings, field.name)
        if "changes" in field.metadata:
            names = [f.name for f, _, _ in _leaves(field.metadata["changes"])]
            found |= {name: value.get(name) for name in names}
        elif _has_fields(hint):
            found |= values_of(value)
        elif "help" in field.metadata:
            found[field.name] = str(value) if isinstance(value, Path) else value
    return found


def _has_fields(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _fields(kind: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    """Every field with its annotation, `X | None` as X."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(one for one in typing.get_args(hint) if one is not type(None))
        yield field, hint


def _leaves(kind: type, optional: bool = False) -> Iterator[tuple[dataclasses.Field, Any, bool]]:
    """The fields that are flags, nested ones too; whether None says that one is not typed."""
    for field, hint in _fields(kind):
        if "changes" in field.metadata:
            yield from _leaves(field.metadata["changes"], True)
        elif _has_fields(hint):
            yield from _leaves(hint, optional)
        elif "help" in field.metadata:
            yield field, hint, optional


def _flag(field: dataclasses.Field, hint: Any, optional: bool) -> flags.Flag:
    name, help, among = field.name, field.metadata["help"], field.metadata.get("among")
    default = None if optional or field.default is dataclasses.MISSING else field.default
    if hint is bool:
        return flags.BooleanFlag(name, default, help)
    if typing.get_origin(hint) is tuple:
        if field.metadata.get("repeated"):
            return flags.MultiFlag(
                flags.ArgumentParser(), flags.ArgumentSerializer(), name, (), help
            )
        texts = None if default is None else [_text(value) for value in default]
        return flags.Flag(flags.ListParser(), flags.CsvListSerializer(","), name, texts, help)
    if among is not None:
        return flags.EnumFlag(name, default, help, list(among))
    parser = _SCALARS[str if hint is Path else hint]()
    default = str(default) if isinstance(default, Path) else default
    return flags.Flag(parser, flags.ArgumentSerializer(), name, default, help)


def _text(value: Any) -> str:
    return "=".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(field: dataclasses.Field, hint: Any) -> Any:
    """A flag's value as its field wants it."""
    value = FLAGS[field.name].value
    if hint is Path and value is not None:
        if not value:
            raise ValueError(f"--{field.name}= names no folder and no file")
        return expand(value)
    if value is None or typing.get_origin(hint) is not tuple:
        return value
    kind = typing.get_args(hint)[0]
    make, expected = (_pair, "name=number,...") if typing.get_origin(kind) is tuple else (kind, "")
    try:
        return tuple(make(one) for one in value)
    except ValueError:
        expected = field.metadata.get("expected") or expected or "numbers such as 1,2"
        typed = ",".join(value)
        raise ValueError(f"--{field.name}={typed}: expected {expected}") from None


def _pair(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    return name, float(number)


def _checked(field: dataclasses.Field, value: Any) -> Any:
    if value is not None and (expected := refusal(field, value)):
        text = ",".join(map(_text, value)) if isinstance(value, tuple) else value
        raise ValueError(f"--{field.name}={text}: expected {expected}")
    return value
