"""The pages of a finished sweep: contact sheet, film strip, traces, metrics.csv, report.html."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from PIL import Image

from jaxsynth.disk import write_whole
from jaxsynth.images import to_rgb
from jaxsynth.models.network import Network
from jaxsynth.report.digest import Digest
from jaxsynth.report.film_strip import PHOTOGRAPH, STRIP, Picture, film_strip
from jaxsynth.report.plots import plot_traces
from jaxsynth.report.rows import captions, is_non_finite, score_lines, scores
from jaxsynth.report.sheet import CONTACT_SHEET, PAGE_TILES, DrawTile, Tile, contact_sheet, layout
from jaxsynth.report.tables import column_order, format_value, write_csv
from jaxsynth.runs.checkpoint import read_image_of
from jaxsynth.runs.folder import IMAGES, image_name
from jaxsynth.short import Run

BLUR_ABOVE = 0.5  # P(NSFW) above which a picture waits for a click
CONTENT_NOTE = (
    "These images were generated, not photographed: they show what a classifier responds to, and "
    "its neurons are the subject. Some can be suggestive. Those that the classifier scores above "
    f"{BLUR_ABOVE:g} are blurred until they are clicked."
)
REPORT_RUNS = 1000  # a browser holds every picture of the gallery that was scrolled to
Rows = Sequence[Mapping[str, Any]]
# Draws pages from (title, runs, rows of the table, tile): names and images.
DrawSheet = Callable[[str, Sequence[Run], Rows, DrawTile], Iterable[tuple[str, Image.Image]]]


class ReportImage(NamedTuple):
    """One picture of a run.

    Attributes:
      file: relative to the report.
      which: `last` or `best`.
      nsfw: its P(NSFW); None if unknown.
    """

    file: str
    which: str = "last"
    nsfw: float | None = None


class ReportRun(NamedTuple):
    """One run of the gallery: its pictures side by side, and its caption, a heading first."""

    images: tuple[ReportImage, ...]
    lines: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Page:
    """What report.html shows. Files are relative to it.

    Attributes:
      title: heading of the page.
      summary: table rows; columns in the order in which they first appear.
      runs: the gallery, in this order.
      note: stands above the gallery, e.g. that it is a part.
      command: what to type to repeat the run.
      settings: name -> value.
      traces: image file of the traces' plot; "" for none.
      strip: image file of the film strip, likewise.
      strip_nsfw: the highest P(NSFW) of its pictures; None if unknown.
      links: further files.
    """

    title: str
    summary: Rows = ()
    runs: Sequence[ReportRun] = ()
    note: str = ""
    command: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    traces: str = ""
    strip: str = ""
    strip_nsfw: float | None = None
    links: Sequence[str] = (CONTACT_SHEET, "metrics.csv", "config.json", "results.safetensors")


class Pages(NamedTuple):
    """The files that `write_pages` has written: the metric rows, and the pictures by name."""

    rows: list[dict[str, Any]]
    pictures: list[str]


class Finished(NamedTuple):
    """A finished sweep whose folder holds results.safetensors and its image files.

    Attributes:
      runs: in order. found: their rows and curves.
      config: its config.json: `command`, `flags`, `show`, `images`.
      networks: role -> network.
      paths: from the photograph to the end image, of the first runs; none without one.
    """

    runs: Sequence[Run]
    found: Digest
    config: Mapping[str, Any]
    networks: Mapping[str, Network]
    paths: Sequence[Sequence[Picture]] = ()


def write_page(path: Path, page: Page) -> None:
    """Write report.html beside the images it shows, with no script and nothing remote."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"url": _url, "text": format_value, "columns": column_order}
    text = templates.get_template("report.html.jinja").render(
        page=page, content_note=CONTENT_NOTE, blur_above=BLUR_ABOVE
    )
    write_whole(path, text.encode("utf-8", "xmlcharrefreplace"))


def _url(file: str) -> str:
    """A relative reference: quoted, so that `#`, `%`, `:` or `"` in a name do no harm."""
    return quote(file, safe="/", errors="surrogateescape")


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Sum up all runs in a few lines: the spread of the finite scores, how many went wrong."""
    names = [("P(NSFW), last image", "nsfw_last"), ("P(NSFW), best image", "nsfw_best")]
    most = max(sum(key.startswith("target_") for key in row) for row in rows)
    for n in range(1, most + 1):
        targets = {row[f"target_{n}"] for row in rows if f"target_{n}" in row}
        name = targets.pop() if len(targets) == 1 else f"target {n}"
        names.append((f"P({name}), last image", f"p_{n}_last"))
    names += [("objective, last image", "objective_last")]
    out: list[dict[str, Any]] = []
    for name, key in names:
        values = np.array([r[key] for r in rows if r.get(key) is not None], float)
        values = values[np.isfinite(values)]
        if values.size:
            low, middle, high = np.quantile(values, [0, 0.5, 1])
            spread = {"mean": values.mean(), "min": low, "median": middle, "max": high}
            out.append({"what": name, "runs": values.size} | spread)
    for what, count in (
        ("runs that did not stay finite, frozen", sum(is_non_finite(row) for row in rows)),
        ("runs that did not go well (see status)", sum(row["status"] != "ok" for row in rows)),
    ):
        out += [{"what": what, "runs": count}] if count else []
    return out


def write_pages(
    sweep: Finished,
    folder: Path,
    *,
    title: str,
    blur_sheet: bool = False,
    draw_sheet: DrawSheet | None = None,
) -> Pages:
    """Write metrics.csv, the contact sheet, traces.png, report.html, and strip.png of any paths.

    The report shows the image files that the sweep has written, no others. It blurs images of
    P(NSFW) > 0.5 until they are clicked.

    Args:
      sweep: what the pages show.
      folder: where its results are, and the pages go.
      title: heading of the pages.
      blur_sheet: blurs such images on contact sheet and film strip, too.
      draw_sheet: draws other pages than the contact sheet.
    """
    show, images = sweep.config["show"], sweep.config["images"]
    rows, runs = sweep.found.rows, sweep.runs

    def tile(run: int, lines: Sequence[str]) -> Tile:
        row = rows[run]
        blur = blur_sheet and (row.get("nsfw_last") or 0) > BLUR_ABOVE
        flag = "" if row["status"] == "ok" else row["status"]
        return Tile(to_rgb(read_image_of(folder, run), show), tuple(lines), blur, flag)

    write_csv(folder / "metrics.csv", rows)
    sheets = []
    for name, sheet in (draw_sheet or contact_pages)(title, runs, rows, tile):
        sheet.save(folder / name)
        sheets.append(name)
    strip, strip_nsfw = "", None
    if sweep.paths:
        strip = STRIP
        strip_nsfw = write_strip(sweep, folder, f"{title}, from a photograph", blur_sheet)
    which = IMAGES[images] if sweep.found.objective.shape[1] else IMAGES[images][:1]
    shown = range(min(len(runs), REPORT_RUNS) if which else 0)
    page = Page(
        title,
        summarise(rows),
        [_report_run(i, runs[i], rows[i], which) for i in shown],
        note=_gallery_note(len(runs), images),
        command=sweep.config["command"],
        settings={k: v for k, v in sweep.config["flags"].items() if v is not None},
        traces=_write_traces(folder, runs, sweep.found),
        strip=strip,
        strip_nsfw=strip_nsfw,
        links=(*sheets, "metrics.csv", "config.json", "results.safetensors"),
    )
    write_page(folder / "report.html", page)
    return Pages(rows, [*sheets, *filter(None, [strip])])


def contact_pages(
    title: str, runs: Sequence[Run], rows: Rows, tile: DrawTile
) -> Iterator[tuple[str, Image.Image]]:
    """Draw the contact sheet: every run, or the first of them, with what classifiers say of it."""
    order, columns, row_labels, column_labels = layout([(r.row, r.column) for r in runs])
    if len(order) < len(runs):
        title = f"{title} (first {len(order)} of {len(runs)} runs)"
    tiles = []
    for i in order:
        place = () if row_labels else filter(None, [_place(runs[i])])  # a grid's labels say it
        tiles.append(tile(i, (*place, *captions(rows[i]))))
    yield CONTACT_SHEET, contact_sheet(tiles, columns, title, row_labels, column_labels)


def write_strip(sweep: Finished, folder: Path, title: str, blur: bool = False) -> float | None:
    """Draw the paths of the first runs into strip.png.

    Returns:
      The highest P(NSFW) of its pictures; None if it is unknown.
    """
    paths, seen = [], []
    for run, path, row in zip(sweep.runs, sweep.paths, sweep.found.rows, strict=False):
        tiles = []
        for picture in path:
            said = scores(run.terms, sweep.networks, {"last": picture.watched})
            nsfw = said.get("nsfw_last")
            seen += [] if nsfw is None or not np.isfinite(nsfw) else [float(nsfw)]
            show = "mean" if picture.name == PHOTOGRAPH else sweep.config["show"]
            lines = (picture.name, *score_lines(said))
            flag = row["status"] if picture is path[-1] and row["status"] != "ok" else ""
            hidden = blur and (nsfw or 0) > BLUR_ABOVE
            tiles.append(Tile(to_rgb(picture.image, show), lines, hidden, flag))
        paths.append(tiles)
    film_strip(title, sweep.runs, paths).save(folder / STRIP)
    return max(seen, default=None)


def _report_run(i: int, run: Run, row: Mapping[str, Any], which: Sequence[str]) -> ReportRun:
    """Run i with those of its images; its caption is about the first of them."""
    status = () if row["status"] == "ok" else (row["status"],)
    place = _place(run) or f"run {i}"
    images = tuple(ReportImage(image_name(i, w), w, row.get(f"nsfw_{w}")) for w in which)
    return ReportRun(images, (place, *captions(row, which[0]), *status))


def _place(run: Run) -> str:
    return " · ".join(filter(None, (run.row, run.column)))


def _gallery_note(runs: int, images: str) -> str:
    """Say what the report does not show; "" where it shows all."""
    if not IMAGES[images]:
        shown = "all" if runs <= PAGE_TILES else f"the first {PAGE_TILES}"
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


def _write_traces(folder: Path, runs: Sequence[Run], found: Digest) -> str:
    """Draw the traces; the file's name, or "" where nothing moved or matplotlib is missing."""
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
