"""Studies of speed and optimizers: of the checkout, not of the wheel."""

from collections.abc import Sequence


def check_flags_only(name: str, argv: Sequence[str]) -> None:
    """Raise ValueError for a word on the command line that is no flag."""
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: {name} takes flags only")


def parse_some_of(flag: str, values: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the values of a list flag, each once; ValueError unless all are known."""
    if not values or not set(values) <= set(known):
        raise ValueError(f"--{flag}={','.join(values)}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(values))


def parse_counts(flag: str, values: Sequence[str], expected: str) -> list[int]:
    """Return a list flag's numbers from 1 up, each once.

    Raises:
      ValueError: if there is none, or one is no such number; `expected` says what it takes.
    """
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        raise ValueError(f"--{flag}={','.join(values)}: expected {expected}")
    return list(dict.fromkeys(int(value) for value in values))
