"""The report of an audit as one HTML page, JSON and CSV, from sections that say what they show.

Figures are SVG inside the page, and pictures data of it: nothing is loaded from elsewhere.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from jaxsynth.disk import write_atomic
from jaxsynth.report.page import templates
from jaxsynth.report.plots import COLOURS
from jaxsynth.report.sheet import webp_url
from jaxsynth.report.tables import format_value, write_csv

PAGE, NUMBERS = "index.html", "audit.json"
Row = Mapping[str, Any]
_INTERVAL = ("n", "count", "share", "median", "low", "high")
_WIDE, _HIGH, _LEFT, _FLOOR = 364, 200, 46, 210  # of the axes of a figure, in its own units
_MOST_SIDE = 320  # of an embedded picture
_SHARES = {value: f"{value:g}" for value in (0, 0.25, 0.5, 0.75, 1)}


class Picture(NamedTuple):
    """A picture (H, W, 3) uint8 with lines below it; `p` above 0.5 blurs it until it is clicked."""

    image: np.ndarray
    lines: tuple[str, ...]
    p: float = 0.0

    @property
    def data(self) -> str:
        """The picture as a data URL, no side longer than 320 pixels."""
        image = Image.fromarray(np.ascontiguousarray(self.image))
        image.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
        return webp_url(image, quality=82)


class Table(NamedTuple):
    """A table: its file's name, what it shows, its rows, and rows for people if they differ."""

    name: str
    caption: str
    rows: Sequence[Row]
    shown: Sequence[Row] = ()


@dataclasses.dataclass
class Section:
    """A part of the report.

    Attributes:
      title: Its heading.
      made: How its figures were made.
      limits: What they do not mean.
      findings: Sentences for the summary.
      figures: Drawings with captions.
      tables: With captions; each is a CSV file, too.
      galleries: Headings with pictures.
    """

    title: str
    made: str
    limits: str
    findings: list[str] = dataclasses.field(default_factory=list)
    figures: list[tuple["Chart", str]] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)
    galleries: list[tuple[str, list[Picture]]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a report's page.

    Attributes:
      title: Its heading.
      subject: Sentences on what was audited, on what.
      limits: What no audit of this kind can say.
      sections: In order.
      facts: Command, networks, settings, versions.
      warnings: Lines on what is missing.
    """

    title: str
    subject: Sequence[str]
    limits: Sequence[str]
    sections: Sequence[Section]
    facts: Mapping[str, Any]
    warnings: Sequence[str] = ()


def write_report(out: Path, report: Report) -> Path:
    """Write index.html, audit.json and a CSV file for each table; return the page."""
    for table in (table for section in report.sections for table in section.tables):
        write_csv(out / f"{table.name}.csv", table.rows)
    numbers = {
        "facts": report.facts,
        "summary": list(report.subject),
        "limits": [*report.limits, *report.warnings],
        "sections": [
            {
                "title": section.title,
                "how_it_was_made": section.made,
                "what_it_does_not_mean": section.limits,
                "findings": section.findings,
                "tables": {table.name: list(table.rows) for table in section.tables},
            }
            for section in report.sections
        ],
    }
    text = json.dumps(numbers, indent=1, ensure_ascii=False)
    write_atomic(out / NUMBERS, text.encode("utf-8", "backslashreplace"))
    page = _templates().get_template("audit.html.jinja").render(report=report, numbers=NUMBERS)
    write_atomic(out / PAGE, page.encode("utf-8", "xmlcharrefreplace"))
    return out / PAGE


def _templates() -> jinja2.Environment:
    found = templates(Path(__file__).parent)
    found.filters |= {"text": _text, "readable": readable}
    found.globals |= {"at": _at, "shares": _SHARES, "colours": COLOURS}
    return found


def percent(share: float) -> str:
    """Return a share as text: `12.5 %`."""
    return f"{100 * share:.1f} %"


def side_by_side(
    rows: Sequence[Row], key: str, column: Callable[[Row], str], text: Callable[[Row], str]
) -> list[Row]:
    """Put rows that share `key` side by side: a row for each, a column for each of them."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row[key], {key: row[key]})[column(row)] = text(row)
    return list(found.values())


def share_text(row: Row) -> str:
    """Return a share with its interval: `12.5 % (4.3 to 31.0; 3 of 24)`."""
    if not row["n"]:
        return "none seen"
    low, high = 100 * row["low"], 100 * row["high"]
    return f"{percent(row['share'])} ({low:.1f} to {high:.1f}; {row['count']} of {row['n']})"


def median_text(row: Row) -> str:
    """Return a median with its interval: `0.98 (0.91 to 1)`."""
    if not row["n"]:
        return "none"
    if row["n"] == 1:
        return _number(row["median"])
    return f"{_number(row['median'])} ({_number(row['low'])} to {_number(row['high'])})"


def readable(rows: Sequence[Row]) -> list[Row]:
    """Join the columns of shares and medians with their intervals for people."""
    found = []
    for row in rows:
        text = {k: v for k, v in row.items() if k not in _INTERVAL or "low" not in row}
        if "share" in row:
            text["share (95 % interval)"] = share_text(row)
        elif "low" in row:
            text |= {"n": row["n"], "median (95 % interval)": median_text(row)}
        found.append(text)
    return found


def _text(value: Any) -> str:
    return _number(float(value)) if isinstance(value, float | np.floating) else format_value(value)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 5e-4 or value == 0 else f"{value:.0e}"


# --- figures --------------------------------------------------------------------------------------


class Series(NamedTuple):
    """One line of a figure: values (N,) and, if known, their intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    @property
    def line(self) -> list[tuple[float, float]]:
        """Its points in the figure."""
        return [_at(*place) for place in zip(self.x, self.y, strict=True)]

    @property
    def band(self) -> list[tuple[float, float]]:
        """The border of its intervals: the upper ends, and back along the lower ones."""
        low, high = ([_at(*p) for p in zip(self.x, y, strict=False)] for y in (self.low, self.high))
        return high + low[::-1]


class Chart(NamedTuple):
    """A figure, which the template draws; both axes go from 0 to 1.

    Attributes:
      title: For those who cannot see it.
      x_label, y_label: Of the axes.
      names: The legend.
      ticks: Names of places of x.
      series: Its lines.
      bars: For each name the heights of its bars.
      diagonal: Whether the diagonal is drawn.
    """

    title: str
    x_label: str
    y_label: str
    names: Sequence[str]
    ticks: Mapping[float, str] = _SHARES
    series: Sequence[Series] = ()
    bars: Sequence[Sequence[float]] = ()
    diagonal: bool = False


def curves(series: Sequence[Series], x_label: str, y_label: str, **how: Any) -> Chart:
    """Draw lines with their intervals; `how` are further fields of `Chart`."""
    title, names = f"{y_label} against {x_label}", [one.name for one in series]
    return Chart(title, x_label, y_label, names, series=series, **how)


def histograms(values: Sequence[tuple[str, np.ndarray]], x_label: str, bins: int = 20) -> Chart:
    """Draw how many values (N,) of 0..1 fall into each of equal bins, as shares of all."""
    counts = [np.histogram(found, bins, (0, 1))[0] / max(1, len(found)) for _, found in values]
    bars: Any = [shares.tolist() for shares in counts]
    names = [name for name, _ in values]
    return Chart(f"histogram of {x_label}", x_label, "share", names, bars=bars)


def _at(x: float, y: float) -> tuple[float, float]:
    return round(_LEFT + x * _WIDE, 1), round(_FLOOR - y * _HIGH, 1)
