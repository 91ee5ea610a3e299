"""Numbers as text: an aligned table for the terminal, Markdown, and CSV for everything else."""

import csv
import io
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from jaxsynth.disk import write_atomic
from jaxsynth.inputs import printable

Rows = Sequence[Mapping[str, Any]]


def format_value(value: Any) -> str:
    """Return the text of one value: floats with 6 significant digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{float(value):.6g}"
    return str(value)


def format_probability(p: float, digits: int = 3) -> str:
    """Return a probability with so many decimals; a smaller one as 1e-10, none as 0."""
    return "0" if p == 0 else f"{p:.0e}" if p < 0.5 * 10**-digits else f"{p:.{digits}f}"


def format_table(rows: Rows, columns: Sequence[str] = ()) -> str:
    """Align rows for a terminal: a header and a line per row, columns of numbers to the right."""
    columns = list(columns) or column_order(rows)
    texts = [[printable(format_value(row.get(c))) for c in columns] for row in rows]
    sides = ["left" if any(isinstance(r.get(c), str) for r in rows) else "right" for c in columns]
    table = tabulate([columns, *texts], (), "plain", colalign=sides, disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.split("\n"))


def format_markdown(rows: Rows) -> str:
    """Return a Markdown table of the first row's columns; a value that a row lacks is blank."""
    columns = list(rows[0])
    texts = [[format_value(row.get(c)).replace("|", r"\|") for c in columns] for row in rows]
    return tabulate(texts, columns, "github", disable_numparse=True) + "\n"


def write_csv(path: str | os.PathLike[str], rows: Rows) -> None:
    """Write CSV (UTF-8), a line per row; columns in the order in which they first appear.

    A kill leaves the whole file, or none.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = column_order(rows)
    writer.writerow(columns)
    writer.writerows([format_value(row.get(c)) for c in columns] for row in rows)
    write_atomic(Path(path), text.getvalue().encode("utf-8", "backslashreplace"))


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read what `write_csv` has written: numbers, texts, None for nothing."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: _read_number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _read_number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def column_order(rows: Rows) -> list[str]:
    """Return every key of the rows once, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))
