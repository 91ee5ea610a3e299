"""A study's plots and its page of images."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.study.summary import SOLVED, TOP, Compared, Names, Outcome
from jaxsynth.ask_tell import VALUE
from jaxsynth.report.plots import save_figure
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.table import BLUR_ABOVE

_SIDE = 96


def write_plots(
    path: str | os.PathLike[str], names: Names, outcome: Outcome, compared: Compared
) -> str:
    """Draw one budget: gains and solved problems against cost, ranks, and the judge.

    Returns:
      Nothing when written, else one line that says why not.
    """
    size = (13, 6.4 + 0.15 * len(compared.order))
    return save_figure(path, size, lambda figure: _draw(figure, names, outcome, compared))


def _draw(figure, names: Names, outcome: Outcome, compared: Compared) -> None:
    from matplotlib import colormaps

    order = compared.order
    axes = figure.subplots(2, 2)
    colours = _colours(colormaps, names, order)
    middle = np.median(compared.curve, axis=(1, 2))
    _lines(axes[0, 0], outcome.marks, middle, names, colours, "median gain")
    label = f"solved within {SOLVED[0]:.0%}"
    _lines(axes[0, 1], outcome.marks, compared.profiles, names, colours, label)
    _ranks(axes[1, 0], names, compared, colours)
    _judge(axes[1, 1], names, compared, colours)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
    figure.suptitle(
        f"Budget {outcome.budget:g} forward passes: gradient methods blue, gradient-free ones "
        "orange, the better the darker",
        x=0.01, ha="left", fontsize=12,
    )  # fmt: skip


def images_page(
    names: Names, scenes: Sequence[str], order: np.ndarray, rgb: np.ndarray, nsfw: np.ndarray
) -> Image.Image:
    """Draw one seed's images: a row per optimizer, a column per scene objective.

    Args:
      names: Of optimizers.
      scenes: Headings of the columns.
      order: Of the rows.
      rgb: (M, J, H, W, 3) uint8.
      nsfw: P(NSFW) (M, J); above `BLUR_ABOVE` an image is blurred.
    """
    tiles = [
        Tile(picture, blur=bool(score > BLUR_ABOVE))
        for m in order
        for picture, score in zip(rgb[m], nsfw[m], strict=True)
    ]
    labels = [names.optimizers[m] for m in order]
    return contact_sheet(tiles, len(scenes), "The same seed by every optimizer, ranked", labels,
                         list(scenes), _SIDE)  # fmt: skip


def _colours(colormaps, names: Names, order: np.ndarray) -> dict[int, tuple[float, ...]]:
    """Blues and oranges, the better the darker."""
    colours = {}
    for free, shades in ((False, "Blues"), (True, "Oranges")):
        own = [m for m in order if (names.kinds[m] == VALUE) == free]
        for place, m in enumerate(own):
            colours[m] = colormaps[shades](0.95 - 0.5 * place / max(1, len(own) - 1))
    return colours


def _lines(axis, marks, curves, names: Names, colours, label: str) -> None:
    """A line per optimizer; the best and worst of either kind are named at their ends."""
    for m, colour in colours.items():
        axis.plot(marks, curves[m], color=colour, lw=1.4)
    ends = sorted(colours, key=lambda m: -curves[m, -1])
    named, last = [], np.inf
    for m in ends:
        if last - curves[m, -1] > 0.055 * max(1e-9, curves[:, -1].max() - curves.min()):
            named.append(m)
            last = curves[m, -1]
    for m in named:
        axis.annotate(names.optimizers[m], (marks[-1], curves[m, -1]), (4, 0), fontsize=7,
                      textcoords="offset points", va="center", color=colours[m])  # fmt: skip
    axis.set_xlabel("cost in forward passes")
    axis.set_ylabel(label)


def _ranks(axis, names: Names, compared: Compared, colours) -> None:
    for place, m in enumerate(compared.order):
        value, low, high = compared.ranks[m]
        axis.plot([low, high], [place, place], color=colours[m], lw=2)
        axis.plot([value], [place], "o", color=colours[m], ms=4)
    labels = [names.optimizers[m] for m in compared.order]
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("mean rank (interval: seeds resampled; grey: not told from the first)")
    if compared.test is not None:
        best = compared.ranks[compared.order[0]].value
        axis.axvspan(best, best + compared.test.distance, color="#777", alpha=0.12, lw=0)


def _judge(axis, names: Names, compared: Compared, colours) -> None:
    if compared.recognised is None:
        axis.text(0.5, 0.5, "no scene objective: nothing to judge", ha="center")
        return
    placed: list[tuple[float, float]] = []  # of names: one that would lie on another is left away
    for m, colour in colours.items():
        gain, hits = compared.medians[m].value, compared.recognised[m]
        axis.plot([gain, gain], [hits.low, hits.high], color=colour, lw=1)
        axis.plot([gain], [hits.value], "o", color=colour, ms=4)
        if any(abs(gain - x) < 0.14 and abs(hits.value - y) < 0.045 for x, y in placed):
            continue
        placed.append((gain, hits.value))
        axis.annotate(names.optimizers[m], (gain, hits.value), (4, 2), fontsize=7,
                      textcoords="offset points", color=colour)  # fmt: skip
    axis.set_xlabel("median gain of the objective")
    axis.set_ylabel(f"in the judge's top {TOP}")
    axis.set_ylim(-0.03, 1.03)
