"""Numbers as text: an aligned table for the terminal, CSV for everything else."""

import csv
import numbers
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """The text on one line: control, bidirectional and undecodable characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def format_value(value: Any) -> str:
    """Text of one cell: floats with 6 significant digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{float(value):.6g}"
    return str(value)


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Aligned text, a header and a line per row; numbers to the right.

    `columns` defaults to those of all rows, in the order in which they first appear. A value that a
    row lacks is left blank.
    """
    columns = list(columns) or column_order(rows)
    cells = [[printable(format_value(row.get(c))) for c in columns] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [all(not isinstance(row.get(c), str) for row in rows) for c in columns]
    lines = [list(columns), *cells]
    return "\n".join(_line(line, widths, numeric) for line in lines)


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the first row's columns; a value that a row lacks is left blank."""
    head = list(rows[0])
    cells = [[format_value(row.get(column)) for column in head] for row in rows]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells]) + "\n"
    )


def write_metrics(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes CSV (UTF-8), a line per row; columns in the order in which they first appear."""
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = column_order(rows)
        writer.writerow(columns)
        writer.writerows([format_value(row.get(c)) for c in columns] for row in rows)


def column_order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key of the rows once, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, numeric, strict=True):
        gap = " " * (width - _width(cell))
        padded.append(gap + cell if right else cell + gap)
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns that the text takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
