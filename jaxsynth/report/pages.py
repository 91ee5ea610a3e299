"""The pages of finished runs: contact sheet, film strip, traces, metrics.csv, index.html."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxsynth import table
from jaxsynth.images import write_png
from jaxsynth.inputs import described
from jaxsynth.models.registry import load
from jaxsynth.report.explorer import EXPLORER, LIVE, MOST_RUNS, write_explorer
from jaxsynth.report.page import Page, ReportImage, ReportRun, write_page
from jaxsynth.report.photographs import PHOTOGRAPH, STRIP, Photograph, Picture, film_strip
from jaxsynth.report.plots import plot_traces
from jaxsynth.report.sheet import (
    PAGE_TILES,
    DrawTile,
    Tile,
    contact_pages,
    place_of,
    placed,
    said_of,
)
from jaxsynth.report.summary import settings_of, summarise
from jaxsynth.report.tables import Rows, write_csv
from jaxsynth.results import Result, Run, SweepResult, shown_file, visible
from jaxsynth.runs.folder import CONFIG, IMAGES, METRICS, RESULTS, image_name, read_config
from jaxsynth.runs.records import read_results
from jaxsynth.table import BLUR_ABOVE

PAGES = ("index.html", "report.html")  # a copy under the name of version 0.1
REPORT_RUNS = 1000  # shown without JavaScript, where a browser holds every picture scrolled to
# Draws pages from (title, runs, rows of the table, tile): names and images.
DrawSheet = Callable[[str, Sequence[Run], Rows, DrawTile], Iterable[tuple[str, Image.Image]]]


class Extras(NamedTuple):
    """Shown in addition to the runs.

    Attributes:
      draw_sheet: draws other pages than the contact sheet.
      paths: pictures from a photograph to the end image, of the first runs.
      photographs: those that are shown with each run.
    """

    draw_sheet: DrawSheet | None = None
    paths: Sequence[Sequence[Picture]] = ()
    photographs: Sequence[Sequence[Photograph]] = ()


NO_EXTRAS = Extras()


class Pages(NamedTuple):
    """The files that `report` has written: rows of the table, their summary, pictures by name."""

    rows: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    pictures: list[str]


def report(
    runs: SweepResult | Result | str | Path,
    folder: str | Path,
    *,
    title: str = "",
    note: str = "",
    blur_sheet: bool = False,
    extras: Extras = NO_EXTRAS,
) -> Pages:
    """Write index.html, a copy report.html, explorer/, metrics.csv and the pictures.

    The pictures are the contact sheet, traces.png, and strip.png if there are `paths`. The report
    shows the image files of a sweep that has a folder; of one in memory it writes them.
    It blurs images that a classifier scores above 0.5 as sensitive until they are clicked.

    Args:
      runs: finished runs, or one, or the folder that holds them, whose models `load` finds by name.
      folder: where the pages go.
      title: heading of the pages.
      note: a text above the gallery.
      blur_sheet: blurs such images on contact sheet and film strip, too.
      extras: what else is shown.

    Returns:
      The rows of the table, and the names of the pictures that were drawn.

    Raises:
      ValueError: if these are not finished runs, or were read without their models.
    """
    sweep = _sweep_of(runs)
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row | {"shown": look} for row, look in zip(sweep.table, sweep.which, strict=True)]
    which = _image_files(sweep, folder)

    def tile(run: int, lines: Sequence[str]) -> Tile:
        status, look = rows[run]["status"], sweep.which[run]
        hidden = blur_sheet and _is_hidden(table.sensitive_of(rows[run], sweep.classifiers, look))
        flag = "" if status == "ok" else status
        return Tile(sweep.image_of(run, look), tuple(lines), hidden, flag)

    write_csv(folder / METRICS, rows)
    sheets = []
    for name, sheet in (extras.draw_sheet or _contact_pages(sweep))(title, sweep.runs, rows, tile):
        sheet.save(folder / name)
        sheets.append(name)
    strip, strip_nsfw = STRIP if extras.paths else "", None
    if extras.paths:
        strip_nsfw = write_strip(
            sweep, extras.paths, folder, f"{title}, from a photograph", blur_sheet
        )
    shown = range(min(len(rows), REPORT_RUNS) if which else 0)
    links = [name for name in (METRICS, CONFIG, RESULTS) if (folder / name).is_file()]
    summary = summarise(rows, sweep.classifiers)
    page = Page(
        title or "Finished runs",
        summary,
        [_report_run(sweep, i, which) for i in shown],
        note=" ".join(filter(None, (note, "" if which else _no_files(len(rows))))),
        more=_more(len(rows)),
        command=sweep.config.get("command", ""),
        settings=settings_of(sweep.config),
        traces=_write_traces(folder, sweep),
        strip=strip,
        strip_nsfw=strip_nsfw,
        links=(*sheets, *links),
        explorer=f"{EXPLORER}/data.js",
    )
    write_explorer(sweep, folder, page.title, rows[:MOST_RUNS], which, extras.photographs)
    for name in PAGES:
        write_page(folder / name, page)
    (folder / EXPLORER / LIVE).unlink(missing_ok=True)  # so the page of a sweep under way reloads
    return Pages(rows, summary, [*sheets, *filter(None, [strip])])


def read_sweep(folder: Path) -> SweepResult:
    """Read a folder with the models that it names; ValueError if one is not found by name."""
    networks = read_config(folder).get("networks", {})
    try:
        generator, *classifiers = (
            load(record["name"]).named(role) for role, record in networks.items()
        )
    except ValueError as error:
        raise ValueError(
            f"the models of {folder} cannot all be loaded ({error}): register own ones first, "
            "js.register(name, lambda: model), or report js.read_results(folder, generator, "
            "[classifier])"
        ) from error
    return read_results(folder, generator, classifiers)


def _sweep_of(runs: Any) -> SweepResult:
    if isinstance(runs, str | Path):
        return read_sweep(Path(runs).expanduser())
    sweep = runs.sweep if isinstance(runs, Result) else runs
    if not isinstance(sweep, SweepResult):
        raise ValueError(f"report: {described(runs)} is no finished run, nor the folder of some")
    if sweep.generator is None:
        raise ValueError(
            f"report: the runs of {sweep.folder} were read without their models: give "
            "js.read_results(folder, generator, [classifier]), or the folder itself"
        )
    return sweep


def _image_files(sweep: SweepResult, folder: Path) -> tuple[str, ...]:
    """Name the image files of each run, which are written where the sweep is not in the folder."""
    which = IMAGES[sweep.config.get("images", "all")]
    which = which if sweep.objective.shape[1] else which[:1]
    if sweep.folder is None or sweep.folder.resolve() != folder.resolve():
        (folder / "images").mkdir(exist_ok=True)
        for i in range(min(len(sweep), REPORT_RUNS)):
            for look in which:
                path, text = folder / image_name(i, look), sweep.png_text(i, look)
                image = shown_file(sweep.raw_of(i, look), sweep.generator, sweep.config)
                write_png(path, image, text)
    return which


def _is_hidden(p: float | None) -> bool:
    return p is not None and p > BLUR_ABOVE


def _contact_pages(sweep: SweepResult) -> DrawSheet:
    def said(run: int, row: Mapping[str, Any]) -> tuple[str, ...]:
        captions = table.captions(sweep.runs[run], row, sweep.classifiers, row["shown"])
        named = any("best, step" in line for line in captions)
        return (*captions, f"run {row['run']}" if named else said_of(row))

    return lambda title, runs, rows, tile: contact_pages(title, runs, rows, tile, said)


def write_strip(
    sweep: SweepResult,
    paths: Sequence[Sequence[Picture]],
    folder: Path,
    title: str,
    blur: bool = False,
) -> float | None:
    """Draw the paths of the first runs; return the highest P of a sensitive class, if known."""
    drawn, seen = [], []
    for run, path, row in zip(sweep.runs, paths, sweep.table, strict=False):
        tiles = []
        for picture in path:
            scores = table.scores(run.objective, sweep.classifiers, {"last": picture.watched})
            p = table.sensitive_of(scores, sweep.classifiers)
            seen += [] if p is None or not np.isfinite(p) else [p]
            config = {} if picture.name == PHOTOGRAPH else sweep.config
            lines = table.score_lines(run.objective, scores, sweep.classifiers)
            flag = row["status"] if picture is path[-1] and row["status"] != "ok" else ""
            image = visible(picture.image, sweep.generator, config)
            tiles.append(Tile(image, (picture.name, *lines), blur and _is_hidden(p), flag))
        drawn.append(tiles)
    film_strip(title, sweep.runs, drawn).save(folder / STRIP)
    return max(seen, default=None)


def _report_run(sweep: SweepResult, i: int, which: Sequence[str]) -> ReportRun:
    """Run i with those of its images; its caption is about the first of them."""
    run, row, judges = placed(sweep.runs[i]), sweep.table[i], sweep.classifiers
    status = () if row["status"] == "ok" else (row["status"],)
    images = [ReportImage(image_name(i, w), w, table.sensitive_of(row, judges, w)) for w in which]
    lines = (
        place_of(run),
        *table.captions(run, row, judges, which[0]),
        *status,
    )
    return ReportRun(tuple(images), (*lines, f"run {row['run']}"))


def _no_files(runs: int) -> str:
    shown = "all" if runs <= PAGE_TILES else f"the first {PAGE_TILES}"
    return (
        f"No image files were written (--images=none): the contact sheet shows {shown} runs. "
        "metrics.csv has the scores of all, results.safetensors the pixels."
    )


def _more(runs: int) -> str:
    """Say what a page without JavaScript does not show; "" where it shows all."""
    if runs <= REPORT_RUNS:
        return ""
    said = f"The first {REPORT_RUNS} of {runs} runs"
    return f"{said}: metrics.csv has a row for each run, images/ all pictures."


def _write_traces(folder: Path, sweep: SweepResult) -> str:
    """Draw the traces; the file's name, or "" where nothing moved or matplotlib is missing."""
    if not sweep.objective.shape[1]:
        return ""
    runs, found = sweep.runs, sweep.curves
    probabilities: dict[str, np.ndarray] = {}
    for n in range(max(map(len, found))):
        with_term = [i for i in range(len(runs)) if n < len(found[i]) and found[i][n] is not None]
        names = {sweep.table[i][f"target_{n + 1}"] for i in with_term}
        if with_term:
            label = f"P({names.pop()})" if len(names) == 1 else f"P(target {n + 1})"
            probabilities[label] = np.stack([found[i][n] for i in with_term])
    names = [" ".join(filter(None, (r.row, r.column))) or f"seed {r.seed}" for r in runs]
    problem = plot_traces(
        folder / "traces.png", sweep.objective, names=names, probabilities=probabilities
    )
    if problem:
        print(problem, file=sys.stderr)
    return "" if problem else "traces.png"
