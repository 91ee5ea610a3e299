"""Pages of the pictures behind the figures, and the plot of their spectra."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxsynth.ascent import Evaluation
from jaxsynth.evaluation.figures import nsfw_probability
from jaxsynth.images import to_rgb
from jaxsynth.report.pages import BLUR_ABOVE
from jaxsynth.report.plots import WITHOUT_MATPLOTLIB
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.short import PLACES, Run

PAGE_ROWS = 25  # categories on a page of scenes
WITHIN_DB = 3.0
_COLUMNS = 8
_CURVES = (("photographs x", "#22252a"), ("G(E(x))", "#2f6db3"), ("scene images", "#d1602b"))


def scene_pages(
    runs: Sequence[Run], rgb: np.ndarray, p: np.ndarray, seen: np.ndarray
) -> list[Image.Image]:
    """A row per category, a column per seed, each with P(target) and whether the judge sees it.

    Args:
      runs: those of every category together, as many for each.
      rgb: (R, S, S, 3) uint8. p, seen: (R,).
    """
    columns = len({run.seed for run in runs})
    tiles = [
        Tile(image, (f"P {q:.2f}, judge {'sees it' if s else 'does not'}",))
        for image, q, s in zip(rgb, p, seen, strict=True)
    ]
    names = [run.row for run in runs[::columns]]
    pages = []
    for first in range(0, len(names), PAGE_ROWS):
        rows = names[first : first + PAGE_ROWS]
        own = tiles[first * columns :][: len(rows) * columns]
        heads = [run.column for run in runs[:columns]]
        title = f"scene, categories {first} to {first + len(rows) - 1} of {len(names)}"
        pages.append(contact_sheet(own, columns, title, rows, heads))
    return pages


def reconstruction_page(photographs: np.ndarray, made: np.ndarray) -> Image.Image:
    """Rows of photographs above rows of their reconstructions, (N, S, S, 3) uint8 each."""
    tiles, labels, columns = [], [], min(_COLUMNS, len(photographs))
    for first in range(0, len(photographs) - columns + 1, columns):  # full rows only
        part = slice(first, first + columns)
        for name, images in (("photographs", photographs), ("G(E(x))", made)):
            tiles += [Tile(image) for image in images[part]]
            labels.append(name)
    return contact_sheet(tiles, columns, "Photographs and their reconstructions", labels)


def nsfw_page(
    title: str, runs: Sequence[Run], look: Evaluation, p_scene: np.ndarray | None = None
) -> Image.Image:
    """Runs with their scores; pictures of P(NSFW) above 0.5, or of no finite one, are blurred.

    Runs that climb scenes get a row for each, and must be as many for each.
    """
    nsfw = nsfw_probability(look)
    tiles = []
    for i, image in enumerate(to_rgb(look.image)):
        lines = [f"seed {runs[i].seed}, NSFW {nsfw[i]:.3f}"]
        if p_scene is not None:
            lines.append(f"scene {p_scene[i]:.2f}")
        bad = not np.isfinite(nsfw[i])
        blur = bad or nsfw[i] > BLUR_ABOVE
        tiles.append(Tile(image, tuple(lines), blur=bool(blur), flag="non-finite" if bad else ""))
    names = dict.fromkeys(t.name for run in runs for t in run.terms if t.network == PLACES)
    if not names:
        return contact_sheet(tiles, _COLUMNS, title)
    return contact_sheet(tiles, len(runs) // len(names), title, list(names))


def plot_spectra(
    path: str | os.PathLike[str],
    reconstructions: Mapping[str, Any] | None,
    scenes: Mapping[str, Any] | None,
) -> str:
    """Draws the spectra of `compare_spectra`, and the differences from photographs.

    Returns:
      "" when written, else one line that says why not.
    """
    found = [s for s in (reconstructions, scenes) if s]
    if not found:
        return "no plot: no spectra were measured"
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return WITHOUT_MATPLOTLIB
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    power, difference = figure.subplots(1, 2)
    first = found[0]
    curves = [(first["cycles_per_pixel"], first["photographs_db"], None)]
    for spectra in (reconstructions, scenes):
        empty = ([], [], None)
        keys = ("cycles_per_pixel", "made_db", "difference_db")
        curves.append(tuple(spectra[k] for k in keys) if spectra else empty)
    for (name, colour), (x, y, delta) in zip(_CURVES, curves, strict=True):
        if len(x):
            power.plot(x, y, color=colour, label=name)
        if delta is not None:
            difference.plot(x, delta, color=colour, label=name)
    difference.axhspan(-WITHIN_DB, WITHIN_DB, color="#3b8f5a", alpha=0.15, label="within 3 dB")
    for axes, label in ((power, "power, dB"), (difference, "difference from photographs, dB")):
        axes.set_xlabel("cycles per pixel")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.6)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
    return ""
