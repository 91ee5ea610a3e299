"""What a finished sweep says: metric rows, captions, the contact sheet, the HTML report."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.engine.objective import GENERATOR
from jaxsynth.engine.sweep import Results
from jaxsynth.engine.terms import REGULARISERS, Term, is_class_blob, term_activation
from jaxsynth.experiment import NSFW, NSFW_UNIT, PLACES, Run
from jaxsynth.files.images import read_image, to_rgb, write_png
from jaxsynth.networks.network import Network
from jaxsynth.report.html import BLUR_ABOVE, ReportRun, write_report
from jaxsynth.report.plots import plot_traces
from jaxsynth.report.sheet import Tile, contact_sheet
from jaxsynth.report.tables import write_metrics

SHEET_TILES = 400  # a larger sheet is no longer a page; the report has every run
_COLUMNS = 8


def write_images(folder: Path, first: int, chunk: Results, how: str) -> None:
    """Writes images/run00000_last.png and _best.png of a chunk whose first run is `first`."""
    for which, look in (("last", chunk.last), ("best", chunk.best)):
        for i, image in enumerate(to_rgb(look.image, how)):
            write_png(folder / image_name(first + i, which), image)


def image_name(run: int, which: str) -> str:
    """Path of a run's image relative to the output folder; `which` is `last` or `best`."""
    return f"images/run{run:05d}_{which}.png"


def metric_rows(
    runs: Sequence[Run], results: Results, networks: Mapping[str, Network]
) -> list[dict[str, Any]]:
    """One row per run: place, objective, every term's activation and probability, status."""
    return [_row(i, run, results, networks) for i, run in enumerate(runs)]


def _row(i: int, run: Run, results: Results, networks: Mapping[str, Network]) -> dict[str, Any]:
    row: dict[str, Any] = {"run": i, "seed": run.seed, "row": run.row, "column": run.column}
    traced = results.objective.shape[1] > 0
    row["objective_first"] = results.objective[i, 0] if traced else None
    row["objective_last"] = results.last.objective[i]
    row["objective_best"] = results.best.objective[i]
    looks = {"last": _of_run(results.last.watched, i), "best": _of_run(results.best.watched, i)}
    for n, term in enumerate(run.terms, 1):
        row[f"target_{n}"], row[f"weight_{n}"] = str(term), term.weight
        for which, watched in looks.items():
            row[f"activation_{n}_{which}"] = float(term_activation(term, run.terms, watched))
            p = _probability(term, networks, watched)
            row[f"p_{n}_{which}"] = None if p is None else float(p)
    if NSFW in networks:
        for which, watched in looks.items():
            row[f"nsfw_{which}"] = watched[NSFW]["prob"][NSFW_UNIT]
    if PLACES in networks:
        p = looks["last"][PLACES]["prob"]
        row["top_scene"] = networks[PLACES].class_names[int(np.argmax(p))]
        row["p_top_scene"] = np.max(p)
    row["status"] = status(results, i, run.terms)
    return row


def status(results: Results, i: int, terms: Sequence[Term]) -> str:
    """`ok`, or what went wrong with run i."""
    if results.skipped[i]:
        return f"non-finite gradient, {results.skipped[i]} updates skipped"
    if not np.isfinite(results.last.objective[i]):
        return "non-finite"
    if results.ended[i] >= 0:
        return f"zero gradient at step {results.ended[i]}"
    traces = _of_run(results.watched, i)
    silent = [str(t) for t in terms if not np.any(term_activation(t, terms, traces))]
    if silent and results.objective.shape[1]:
        return f"{silent[0]} stayed 0: climb {silent[0].split(':')[1]}_pre, before its ReLU"
    return "ok"


def _probability(
    term: Term, networks: Mapping[str, Network], watched: Mapping[str, Mapping[str, np.ndarray]]
) -> np.ndarray | None:
    """Probability (...) of the class that a term on a classifier's last layers is about, or None.

    `watched` is one run's, leaves (..., K).
    """
    if term.network == GENERATOR or not is_class_blob(networks[term.network], term.blob):
        return None
    return watched[term.network]["prob"][..., term.index[0]]


def _of_run(watched, i):
    return {role: {blob: v[i] for blob, v in blobs.items()} for role, blobs in watched.items()}


def captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Caption lines of a run from its metric row: seed, then what the classifiers say."""
    named = f"seed {row['seed']}" in f"{row['row']} {row['column']}"
    lines = [] if named else [f"seed {row['seed']}"]
    if row.get("nsfw_last") is not None:
        lines.append(f"NSFW {row['nsfw_last']:.3f}")
    n = 1
    while f"target_{n}" in row:
        role, blob, name = row[f"target_{n}"].split(":", 2)
        p = row[f"p_{n}_last"]
        if role != NSFW and p is not None:
            lines.append(f"{name} {p:.2f}")
        elif p is None:
            unit = blob if blob in REGULARISERS else f"{blob}:{name}"
            lines.append(f"{unit} {row[f'activation_{n}_last']:.3g}")
        n += 1
    if len(lines) < 2 + (not named) and row.get("top_scene"):
        lines.append(f"{row['top_scene']} {row['p_top_scene']:.2f}")
    return tuple(lines)


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A few lines over all runs: how the scores are spread, how many went wrong."""
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
    bad = sum(r["status"] != "ok" for r in rows)
    if bad:
        out.append({"what": "runs that did not go well (see status)", "runs": bad})
    return out


def write_pages(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    results: Results,
    networks: Mapping[str, Network],
    command: str,
    config: Mapping[str, Any],
    blur_sheet: bool = False,
) -> list[dict[str, Any]]:
    """Writes metrics.csv, contact_sheet.png, traces.png and report.html; gives the metric rows.

    The report blurs images of P(NSFW) > 0.5 until they are clicked; the sheet does if asked to.
    """
    rows = metric_rows(runs, results, networks)
    write_metrics(folder / "metrics.csv", rows)
    _write_sheet(folder, title, runs, rows, blur_sheet)
    traces = _write_traces(folder, runs, results, networks)
    gallery = [
        ReportRun(
            image=image_name(i, "last"),
            lines=(" · ".join(filter(None, (run.row, run.column))) or f"run {i}", *captions(row)),
            nsfw=row.get("nsfw_last"),
            best_image=image_name(i, "best") if results.objective.shape[1] else "",
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
    )
    return rows


def _write_sheet(
    folder: Path,
    title: str,
    runs: Sequence[Run],
    rows: Sequence[Mapping[str, Any]],
    blur: bool,
) -> None:
    order, columns, labels = _grid(runs)
    if len(order) > SHEET_TILES:
        order = order[: SHEET_TILES // columns * columns]
        title = f"{title} (first {len(order)} of {len(runs)} runs)"
        labels = (
            {}
            if not labels
            else labels | {"row_labels": labels["row_labels"][: len(order) // columns]}
        )
    tiles = [
        Tile(
            read_image(folder / image_name(i, "last")),
            captions(rows[i]),
            blur=blur and (rows[i].get("nsfw_last") or 0) > BLUR_ABOVE,
            flag="" if rows[i]["status"] == "ok" else rows[i]["status"],
        )
        for i in order
    ]
    contact_sheet(tiles, columns, title, **labels).save(folder / "contact_sheet.png")


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


def _write_traces(
    folder: Path, runs: Sequence[Run], results: Results, networks: Mapping[str, Network]
) -> str:
    """Draws the traces; the file's name, or "" where nothing moved or matplotlib is missing."""
    if not results.objective.shape[1]:
        return ""
    probabilities: dict[str, np.ndarray] = {}
    for n in range(max(len(run.terms) for run in runs)):
        with_term = [(i, run.terms[n]) for i, run in enumerate(runs) if n < len(run.terms)]
        curves = [_probability(t, networks, _of_run(results.watched, i)) for i, t in with_term]
        curves = [curve for curve in curves if curve is not None]
        names = {str(term) for _, term in with_term}
        if curves:
            label = f"P({names.pop()})" if len(names) == 1 else f"P(target {n + 1})"
            probabilities[label] = np.stack(curves)
    names = [" ".join(filter(None, (r.row, r.column))) or f"seed {r.seed}" for r in runs]
    problem = plot_traces(
        folder / "traces.png", results.objective, names=names, probabilities=probabilities
    )
    if problem:
        print(problem, file=sys.stderr)
    return "" if problem else "traces.png"
