"""Figures as SVG inside the page, and pictures as data of it: nothing is loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import markupsafe
import numpy as np
from PIL import Image

from jaxsynth.report.sheet import webp_url

_COLOURS = ("#2f6db3", "#d1602b", "#3b8f5a", "#8a5bb0", "#b8912b", "#c04472", "#3a9ca6", "#777b80")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 250, 46, 10, 40
_MOST_SIDE = 320  # of an embedded picture
_TICKS = {value: f"{value:g}" for value in (0, 0.25, 0.5, 0.75, 1)}


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


def picture_data(rgb: np.ndarray) -> str:
    """Encode a picture (H, W, 3) uint8 as a data URL, no side longer than 320 pixels."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
    return webp_url(image, quality=82)


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
