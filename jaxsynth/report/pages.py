"""The pages of a finished sweep: the contact sheet, the traces, the HTML report."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.images import to_rgb
from jaxsynth.maximize import Run
from jaxsynth.models.network import Network
from jaxsynth.report.digest import Digest
from jaxsynth.report.film_strip import write_strip
from jaxsynth.report.html import BLUR_ABOVE, ReportImage, ReportRun, write_report
from jaxsynth.report.image_files import IMAGES, image_name
from jaxsynth.report.path import Picture
from jaxsynth.report.plots import plot_traces
from jaxsynth.report.rows import captions, is_non_finite
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.report.tables import write_metrics
from jaxsynth.runs.folder import read_last_image

CONTACT_SHEET = "contact_sheet.png"
SHEET_TILES = 400  # a larger sheet is no longer a page
REPORT_RUNS = 1000  # nor is a larger gallery: a browser holds every picture that was scrolled to
_COLUMNS, _MOST_COLUMNS = 8, 40  # of a plain page; of a grid, which is a plain page if it is wider
Visible = Callable[[int], np.ndarray]  # a run's number -> its last image (H, W, 3) uint8, RGB
# Draws pages from (folder, title, runs, rows, visible, blur); the names of its files.
DrawSheet = Callable[
    [Path, str, Sequence[Run], Sequence[Mapping[str, Any]], Visible, bool], list[str]
]


class Pages(NamedTuple):
    """What `write_pages` has written: the metric rows, and the pictures for the eye, by name."""

    rows: list[dict[str, Any]]
    pictures: list[str]


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A few lines over all runs: how the finite scores are spread, how many runs went wrong."""
    out = []
    names = [("P(NSFW), last image", "nsfw_last"), ("P(NSFW), best image", "nsfw_best")]
    most = max(sum(key.startswith("target_") for key in row) for row in rows)
    for n in range(1, most + 1):
        targets = {row[f"target_{n}"] for row in rows if f"target_{n}" in row}
        name = targets.pop() if len(targets) == 1 else f"target {n}"
        names.append((f"P({name}), last image", f"p_{n}_last"))
    names += [("objective, last image", "objective_last")]
    for name, key in names:
        values = np.array([r[key] for r in rows if r.get(key) is not None], float)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        out.append(
            {
                "what": name,
                "runs": values.size,
                "mean": values.mean(),
                "min": low,
                "median": middle,
                "max": high,
            }
        )
    frozen = sum(is_non_finite(row) for row in rows)
    if frozen:
        out.append({"what": "runs that did not stay finite, frozen", "runs": frozen})
    bad = sum(r["status"] != "ok" for r in rows)
    if bad:
        out.append({"what": "runs that did not go well (see status)", "runs": bad})
    return out


def write_pages(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    found: Digest,
    networks: Mapping[str, Network],
    command: str,
    config: Mapping[str, Any],
    blur_sheet: bool = False,
    show: str = "mean",
    images: str = "all",
    paths: Sequence[Sequence[Picture]] = (),
    draw_sheet: DrawSheet | None = None,
) -> Pages:
    """Writes metrics.csv, contact_sheet.png, traces.png, report.html, and strip.png of any paths.

    The folder holds results.safetensors, which the sheet is drawn from, and the image files that
    the choice `images` names (`jaxsynth.report.image_files.IMAGES`); the report shows no others. It
    blurs images of P(NSFW) > 0.5 until they are clicked; sheet and strip do if asked to.
    `draw_sheet` draws something else than the contact sheet.
    """

    def visible(run: int) -> np.ndarray:
        return to_rgb(read_last_image(folder, run), show)

    rows = found.rows
    write_metrics(folder / "metrics.csv", rows)
    sheets = (draw_sheet or _write_sheet)(folder, title, runs, rows, visible, blur_sheet)
    strip = None
    if paths:
        heading = f"{title}, from a photograph"
        statuses = [row["status"] for row in rows]
        strip = write_strip(folder, heading, runs, paths, statuses, networks, show, blur_sheet)
    traces = _write_traces(folder, runs, found)
    which = IMAGES[images] if found.objective.shape[1] else IMAGES[images][:1]
    shown = range(min(len(runs), REPORT_RUNS) if which else 0)
    write_report(
        folder / "report.html",
        title,
        summarise(rows),
        [_report_run(i, runs[i], rows[i], which) for i in shown],
        note=_gallery_note(len(runs), images),
        command=command,
        config=config,
        traces=traces,
        strip=strip.file if strip else "",
        strip_nsfw=strip.nsfw if strip else None,
        links=(*sheets, "metrics.csv", "config.json", "results.safetensors"),
    )
    return Pages(rows, [*sheets, *([strip.file] if strip else [])])


def _report_run(i: int, run: Run, row: Mapping[str, Any], which: Sequence[str]) -> ReportRun:
    """Run i with those of its images; its caption is about the first of them."""
    status = () if row["status"] == "ok" else (row["status"],)
    place = _place(run) or f"run {i}"
    images = tuple(ReportImage(image_name(i, w), w, row.get(f"nsfw_{w}")) for w in which)
    return ReportRun(images, (place, *captions(row, which[0]), *status))


def _place(run: Run) -> str:
    return " · ".join(filter(None, (run.row, run.column)))


def _gallery_note(runs: int, images: str) -> str:
    """What the report does not show, "" where it shows all."""
    if not IMAGES[images]:
        shown = "all" if runs <= SHEET_TILES else f"the first {SHEET_TILES}"
        return (
            f"No image files were written (--images=none): the sheet shows {shown} runs, "
            "metrics.csv says what the classifiers see in all, results.safetensors has the pixels."
        )
    if runs > REPORT_RUNS:
        return (
            f"The first {REPORT_RUNS} of {runs} runs: metrics.csv has a row for each, images/ all "
            "pictures."
        )
    return ""


def _write_sheet(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    visible: Visible,
    blur: bool,
) -> list[str]:
    order, columns, labels = _grid(runs)
    if len(order) > SHEET_TILES:
        order = order[: SHEET_TILES // columns * columns]
        title = f"{title} (first {len(order)} of {len(runs)} runs)"
        labels = (
            {}
            if not labels
            else labels | {"row_labels": labels["row_labels"][: len(order) // columns]}
        )
    tiles = []
    for i in order:
        place = () if labels else filter(None, [_place(runs[i])])  # a grid's labels say it
        tiles.append(run_tile(visible(i), rows[i], (*place, *captions(rows[i])), blur))
    contact_sheet(tiles, columns, title, **labels).save(folder / CONTACT_SHEET)
    return [CONTACT_SHEET]


def run_tile(image: np.ndarray, row: Mapping[str, Any], lines: tuple[str, ...], blur: bool) -> Tile:
    """A run's last image (H, W, 3) RGB with these caption lines, flagged if its status is not
    ok."""
    return Tile(
        image,
        lines,
        blur=blur and (row.get("nsfw_last") or 0) > BLUR_ABOVE,
        flag="" if row["status"] == "ok" else row["status"],
    )


def _grid(runs: Sequence[Run]) -> tuple[list[int], int, dict[str, list[str]]]:
    """Order of the tiles, columns, and labels: a grid where the runs make a full one that is not
    too wide."""
    places = {(run.row, run.column): i for i, run in enumerate(runs)}
    row_names = list(dict.fromkeys(run.row for run in runs))
    column_names = list(dict.fromkeys(run.column for run in runs))
    full = len(places) == len(runs) == len(row_names) * len(column_names)
    if full and any(row_names) and len(column_names) <= _MOST_COLUMNS:
        order = [places[r, c] for r in row_names for c in column_names]
        labels = {"row_labels": row_names, "column_labels": column_names}
        return order, len(column_names), labels
    return list(range(len(runs))), min(_COLUMNS, len(runs)), {}


def _write_traces(folder: Path, runs: Sequence[Run], found: Digest) -> str:
    """Draws the traces; the file's name, or "" where nothing moved or matplotlib is missing."""
    if not found.objective.shape[1]:
        return ""
    probabilities: dict[str, np.ndarray] = {}
    for n in range(max(len(run.terms) for run in runs)):
        with_term = [i for i, run in enumerate(runs) if n < len(run.terms)]
        names = {str(runs[i].terms[n]) for i in with_term}
        curves = [found.curves[i][n] for i in with_term if found.curves[i][n] is not None]
        if curves:
            label = f"P({names.pop()})" if len(names) == 1 else f"P(target {n + 1})"
            probabilities[label] = np.stack(curves)
    names = [" ".join(filter(None, (r.row, r.column))) or f"seed {r.seed}" for r in runs]
    problem = plot_traces(
        folder / "traces.png", found.objective, names=names, probabilities=probabilities
    )
    if problem:
        print(problem, file=sys.stderr)
    return "" if problem else "traces.png"
