"""The pages of a finished sweep: its images, the contact sheet, the traces, the HTML report."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.engine.sweep import Results
from jaxsynth.experiment import Run
from jaxsynth.files.images import read_image, to_rgb, write_png
from jaxsynth.networks.network import Network
from jaxsynth.path import Picture
from jaxsynth.report.digest import Digest
from jaxsynth.report.html import BLUR_ABOVE, ReportRun, write_report
from jaxsynth.report.plots import plot_traces
from jaxsynth.report.rows import captions, is_non_finite
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.report.strip import write_strip
from jaxsynth.report.tables import write_metrics

CONTACT_SHEET = "contact_sheet.png"
SHEET_TILES = 400  # a larger sheet is no longer a page; the report has every run
_COLUMNS = 8
# Draws the runs' last images from (folder, title, runs, rows, blur); the names of its files.
DrawSheet = Callable[[Path, str, Sequence[Run], Sequence[Mapping[str, Any]], bool], list[str]]


class Pages(NamedTuple):
    """What `write_pages` has written: the metric rows, and the pictures for the eye, by name."""

    rows: list[dict[str, Any]]
    pictures: list[str]


def write_images(folder: Path, first: int, chunk: Results, how: str) -> None:
    """Writes images/run00000_last.png and _best.png of a chunk whose first run is `first`."""
    for which, look in (("last", chunk.last), ("best", chunk.best)):
        for i, image in enumerate(to_rgb(look.image, how)):
            write_png(folder / image_name(first + i, which), image)


def image_name(run: int, which: str) -> str:
    """Path of a run's image relative to the output folder; `which` is `last` or `best`."""
    return f"images/run{run:05d}_{which}.png"


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
    paths: Sequence[Sequence[Picture]] = (),
    draw_sheet: DrawSheet | None = None,
) -> Pages:
    """Writes metrics.csv, contact_sheet.png, traces.png, report.html, and strip.png of any paths.

    The report blurs images of P(NSFW) > 0.5 until they are clicked; sheet and strip do if asked to.
    `draw_sheet` draws something else than the contact sheet.
    """
    rows = found.rows
    write_metrics(folder / "metrics.csv", rows)
    sheets = (draw_sheet or _write_sheet)(folder, title, runs, rows, blur_sheet)
    strip = None
    if paths:
        heading = f"{title}, from a photograph"
        statuses = [row["status"] for row in rows]
        strip = write_strip(folder, heading, runs, paths, statuses, networks, show, blur_sheet)
    traces = _write_traces(folder, runs, found)
    gallery = [
        ReportRun(
            image=image_name(i, "last"),
            lines=(
                " · ".join(filter(None, (run.row, run.column))) or f"run {i}",
                *captions(row),
                *(() if row["status"] == "ok" else (row["status"],)),
            ),
            nsfw=row.get("nsfw_last"),
            best_image=image_name(i, "best") if found.objective.shape[1] else "",
            best_nsfw=row.get("nsfw_best"),
        )
        for i, (run, row) in enumerate(zip(runs, rows, strict=True))
    ]
    write_report(
        folder / "report.html",
        title,
        summarise(rows),
        gallery,
        command=command,
        config=config,
        traces=traces,
        strip=strip.file if strip else "",
        strip_nsfw=strip.nsfw if strip else None,
        links=(*sheets, "metrics.csv", "config.json", "results.safetensors"),
    )
    return Pages(rows, [*sheets, *([strip.file] if strip else [])])


def _write_sheet(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
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
    tiles = [run_tile(folder, i, rows[i], captions(rows[i]), blur) for i in order]
    contact_sheet(tiles, columns, title, **labels).save(folder / CONTACT_SHEET)
    return [CONTACT_SHEET]


def run_tile(
    folder: Path, run: int, row: Mapping[str, Any], lines: tuple[str, ...], blur: bool
) -> Tile:
    """A run's last image with these caption lines, flagged if its status is not ok."""
    return Tile(
        read_image(folder / image_name(run, "last")),
        lines,
        blur=blur and (row.get("nsfw_last") or 0) > BLUR_ABOVE,
        flag="" if row["status"] == "ok" else row["status"],
    )


def _grid(runs: Sequence[Run]) -> tuple[list[int], int, dict[str, list[str]]]:
    """Order of the tiles, columns, and labels: a grid where the runs make a full one."""
    places = {(run.row, run.column): i for i, run in enumerate(runs)}
    row_names = list(dict.fromkeys(run.row for run in runs))
    column_names = list(dict.fromkeys(run.column for run in runs))
    if len(places) == len(runs) == len(row_names) * len(column_names) and any(row_names):
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
