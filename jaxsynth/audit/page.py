"""The report of an audit as one HTML page, JSON and CSV, from sections that say what they show.

Figures are SVG inside the page, and pictures data of it: nothing is loaded from elsewhere.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from jaxsynth.disk import write_atomic
from jaxsynth.report.sheet import webp_url
from jaxsynth.report.tables import column_order, format_probability, format_value, write_csv
from jaxsynth.table import BLUR_ABOVE

PAGE, NUMBERS = "index.html", "audit.json"
Row = Mapping[str, Any]
_INTERVAL = ("n", "count", "share", "median", "low", "high")
_COLOURS = ("#2f6db3", "#d1602b", "#3b8f5a", "#8a5bb0", "#b8912b", "#c04472", "#3a9ca6", "#777b80")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 250, 46, 10, 40
_MOST_SIDE = 320  # of an embedded picture
_TICKS = {value: f"{value:g}" for value in (0, 0.25, 0.5, 0.75, 1)}


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
    figures: list[tuple[markupsafe.Markup, str]] = dataclasses.field(default_factory=list)
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
      words: Terms of the page, and what they mean.
    """

    title: str
    subject: Sequence[str]
    limits: Sequence[str]
    sections: Sequence[Section]
    facts: Mapping[str, Any]
    warnings: Sequence[str] = ()
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)


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
    here = Path(__file__).parent
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(here), autoescape=True)
    templates.filters |= {"text": _text, "columns": column_order, "readable": readable}
    templates.filters |= {"probability": format_probability, "anchor": _anchor}
    page = templates.get_template("audit.html.jinja").render(
        report=report,
        css=markupsafe.Markup((here.parent / "report" / "explorer.css").read_text("utf-8")),
        blur_above=BLUR_ABOVE,
        numbers=NUMBERS,
    )
    write_atomic(out / PAGE, page.encode("utf-8", "xmlcharrefreplace"))
    return out / PAGE


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


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


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


def curves(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    diagonal: bool = False,
    ticks: Mapping[float, str] = _TICKS,
) -> markupsafe.Markup:
    """Draw lines with their intervals; both axes go from 0 to 1, `ticks` name places of x."""
    parts = _axes(x_label, y_label, ticks)
    if diagonal:
        (x0, y0), (x1, y1) = _at(0, 0), _at(1, 1)
        parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="currentColor" opacity=".3"/>')
    for i, one in enumerate(series):
        colour = _COLOURS[i % len(_COLOURS)]
        if len(one.low):
            there = [_at(*p) for p in zip(one.x, one.high, strict=True)]
            back = [_at(*p) for p in zip(one.x, one.low, strict=True)][::-1]
            parts.append(
                f'<polygon points="{_points(there + back)}" fill="{colour}" opacity=".2"/>'
            )
        line = [_at(*p) for p in zip(one.x, one.y, strict=True)]
        parts.append(f'<polyline points="{_points(line)}" stroke="{colour}" stroke-width="2"/>')
        if len(line) <= 20:
            parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in line]
    return _svg(parts, [one.name for one in series], f"{y_label} against {x_label}")


def histograms(
    values: Sequence[tuple[str, np.ndarray]], x_label: str, bins: int = 20
) -> markupsafe.Markup:
    """Draw how many values (N,) of 0..1 fall into each of equal bins, as shares of all."""
    parts = _axes(x_label, "share")
    width = (_WIDTH - _LEFT - 10) / bins / (len(values) + 0.4)
    for i, (_, found) in enumerate(values):
        counts, _ = np.histogram(found, bins, (0, 1))
        for k, share in enumerate(counts / max(1, len(found))):
            x, y = _at(k / bins, share)
            size = f'width="{width:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}"'
            fill = _COLOURS[i % len(_COLOURS)]
            parts.append(f'<rect x="{x + i * width:.1f}" y="{y}" {size} fill="{fill}"/>')
    return _svg(parts, [name for name, _ in values], f"histogram of {x_label}")


def _at(x: float, y: float) -> tuple[float, float]:
    wide, high = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM
    return round(_LEFT + x * wide, 1), round(_HEIGHT - _BOTTOM - y * high, 1)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _axes(x_label: str, y_label: str, ticks: Mapping[float, str] = _TICKS) -> list[str]:
    parts, said = [], markupsafe.escape
    for value, text in _TICKS.items():
        (left, y), (right, _) = _at(0, value), _at(1, 0)
        parts.append(f'<path d="M{left} {y}H{right}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
    for value, text in ticks.items():
        x, bottom = _at(value, 0)
        parts.append(f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{said(text)}</text>')
    middle = _at(0.5, 0)[0]
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{said(x_label)}</text>'
    )
    return [*parts, f'<text x="{_LEFT}" y="{_TOP - 1}">{said(y_label)}</text>']


def _svg(parts: Sequence[str], names: Sequence[str], title: str) -> markupsafe.Markup:
    body = "".join(parts)
    box = f'viewBox="0 -12 {_WIDTH} {_HEIGHT + 12}" role="img" fill="none"'
    legend = markupsafe.Markup("").join(
        markupsafe.Markup('<span><i style="background:{}"></i>{}</span> ').format(
            _COLOURS[i % len(_COLOURS)], name
        )
        for i, name in enumerate(names)
    )
    return markupsafe.Markup('<div class="chart"><svg {} aria-label="{}">{}</svg>{}</div>').format(
        markupsafe.Markup(box), title, markupsafe.Markup(body), legend
    )
