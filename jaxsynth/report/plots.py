"""Plots of finished runs by matplotlib, an extra. A plot that fails costs a line, no results."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.disk import write_atomic
from jaxsynth.inputs import reason
from jaxsynth.report.fonts import files_for, readable

FEW = 8  # runs up to which each has its own colour and a name in the legend
LINES = 300  # more are a blot, and each costs memory
WITHOUT_MATPLOTLIB = "no plot: matplotlib is not installed (pip install 'jaxsynth[plots]')"
COLOURS = ("#2f6db3", "#d1602b", "#3b8f5a", "#8a5bb0", "#b8912b", "#c04472", "#3a9ca6", "#777b80")


_SPECTRA = (("photographs x", "#22252a"), ("G(E(x))", "#2f6db3"), ("scene images", "#d1602b"))
_WITHIN_DB = 3.0
_FILES = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}  # while matplotlib is imported


def save_figure(
    path: str | os.PathLike[str],
    size: tuple[float, float],
    draw: Callable[[Any], None],
    texts: Sequence[str] = (),
) -> str:
    """Draw a figure as PNG, whatever matplotlib is set to be; return why not, or "".

    The size is in inches, and `texts` that it shows decide which fonts are used.
    """
    try:
        with _own_style(texts) as figure_of:
            figure = figure_of(figsize=size, dpi=120, layout="constrained")
            draw(figure)
            picture = io.BytesIO()
            figure.savefig(picture, format="png")
    except ImportError as error:
        missing = (error.name or "").startswith("matplotlib") or not error.name
        return WITHOUT_MATPLOTLIB if missing else f"no plot: matplotlib cannot start ({error})"
    except Exception as error:  # a help: whatever is wrong with it, the results are written
        why = reason(error)
        return f"no plot: matplotlib cannot draw it ({type(error).__name__}: {why})"
    write_atomic(Path(path), picture.getvalue())
    return ""


@contextlib.contextmanager
def _own_style(texts: Sequence[str]) -> Iterator[Any]:
    """Yield matplotlib's Figure, in its own default style, without its warnings."""
    log = logging.getLogger("matplotlib")
    level, before = log.level, {name: os.environ.get(name) for name in _FILES}
    log.setLevel(logging.ERROR)
    try:
        os.environ.update(_FILES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import matplotlib as mpl
            from matplotlib import font_manager
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            with mpl.rc_context():
                mpl.rcdefaults()
                names = []
                for file in files_for("".join(texts)):
                    font_manager.fontManager.addfont(file)
                    names.append(font_manager.FontProperties(fname=file).get_name())
                mpl.rcParams["font.family"] = names

                def figure_of(**options: Any) -> Any:
                    figure = Figure(**options)
                    FigureCanvasAgg(figure)
                    return figure

                yield figure_of
    finally:
        log.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def plot_traces(
    path: str | os.PathLike[str],
    objective: np.ndarray,
    names: Sequence[str] = (),
    probabilities: Mapping[str, np.ndarray] | None = None,
    objective_label: str = "objective",
) -> str:
    """Draw objectives, and probabilities next to them, against the step; return why not.

    Few runs get a colour and a legend each; many are thin lines (of more than 300, as many evenly
    spaced ones) with the median of all on top. Arrays are (runs, steps); numbers that are not
    finite leave a gap.
    """
    objective = _finite(objective, "objective")
    panels = {label: _finite(p, label) for label, p in (probabilities or {}).items()}
    if names and len(names) != len(objective):
        raise ValueError(f"{len(names)} names for {len(objective)} runs")
    count = 2 if panels else 1

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, count, squeeze=False)[0]
        _style(axes[0], "step", objective_label)
        _draw_objective(axes[0], objective, names)
        if panels:
            _style(axes[1], "step", "probability")
            axes[1].set_ylim(-0.03, 1.03)
            for colour, (label, runs) in zip(_cycle(len(panels)), panels.items(), strict=True):
                _draw_runs(axes[1], runs, colour, _shorten(label))
            _legend(axes[1])

    return save_figure(path, (1.2 + 5.4 * count, 3.9), draw, [*names[:FEW], *panels])


def _draw_objective(axes, objective: np.ndarray, names: Sequence[str]) -> None:
    if len(objective) > FEW:
        _draw_runs(axes, objective, COLOURS[0], "objective")
    else:
        names = names or [f"run {i}" for i in range(len(objective))]
        for colour, name, run in zip(_cycle(len(names)), names, objective, strict=True):
            axes.plot(_steps(run), run, color=colour, lw=1.4, label=_shorten(name), **_marker(run))
    _legend(axes)


def _draw_runs(axes, runs: np.ndarray, colour: str, label: str) -> None:
    """Thin lines, and their median where there is more than one."""
    drawn = runs[np.unique(np.linspace(0, len(runs) - 1, LINES).astype(int))]
    alpha = float(np.clip(4 / len(drawn), 0.08, 0.45))
    if len(runs) > 1:
        axes.plot(_steps(runs[0]), drawn.T, color=colour, lw=0.8, alpha=alpha)
    middle = _median(runs)
    label = f"{label}, median of {len(runs)} runs" if len(runs) > 1 else label
    axes.plot(_steps(middle), middle, color=colour, lw=2, label=label, **_marker(middle))


def _median(runs: np.ndarray) -> np.ndarray:
    """Over the runs that are finite at a step; NaN where none is."""
    columns = [column[np.isfinite(column)] for column in runs.T]
    return np.array([np.median(c) if c.size else np.nan for c in columns])  # (steps,)


def _finite(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{what} has shape {array.shape}, expected (runs, steps)")
    return np.where(np.isfinite(array), array, np.nan)


def _steps(run: np.ndarray) -> np.ndarray:
    return np.arange(len(run))


def _marker(run: np.ndarray) -> dict[str, str]:
    return {"marker": "o"} if len(run) == 1 else {}  # one step would draw no line


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _shorten(text: str, length: int = 32) -> str:
    """A legend's entry: short, and `$` or a leading `_` means nothing to matplotlib."""
    text = readable(text)
    text = text if len(text) <= length else text[: length - 1] + "…"
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")


def _style(axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _legend(axes) -> None:
    axes.legend(
        loc="lower right",
        frameon=True,
        framealpha=0.85,
        edgecolor="none",
        fontsize=8,
        handlelength=1.6,
    )


def plot_spectra(
    path: str | os.PathLike[str],
    reconstructions: Mapping[str, Any] | None,
    scenes: Mapping[str, Any] | None,
) -> str:
    """Draw power spectra, and their differences from those of photographs; return why not, or "".

    They are metrics of `evaluation.measures.compare_spectra`.
    """
    if not (reconstructions or scenes):
        return "no plot: no spectra were measured"
    pair = reconstructions, scenes
    return save_figure(path, (11, 4.2), lambda figure: _draw_spectra(figure, *pair))


def _draw_spectra(figure: Any, reconstructions, scenes) -> None:
    found = [s for s in (reconstructions, scenes) if s]
    power, difference = figure.subplots(1, 2)
    curves = [(found[0]["cycles_per_pixel"], found[0]["photographs_db"], None)]
    for spectra in (reconstructions, scenes):
        keys = ("cycles_per_pixel", "made_db", "difference_db")
        curves.append(tuple(spectra[k] for k in keys) if spectra else ([], [], None))
    for (name, colour), (x, y, delta) in zip(_SPECTRA, curves, strict=True):
        if len(x):
            power.plot(x, y, color=colour, label=name)
        if delta is not None:
            difference.plot(x, delta, color=colour, label=name)
    difference.axhspan(-_WITHIN_DB, _WITHIN_DB, color="#3b8f5a", alpha=0.15, label="within 3 dB")
    for axes, label in ((power, "power, dB"), (difference, "difference from photographs, dB")):
        axes.set_xlabel("cycles per pixel")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.6)
        axes.legend(frameon=False, fontsize=8)
