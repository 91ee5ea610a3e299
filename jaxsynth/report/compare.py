"""Two finished sweeps side by side: runs of the same objective and seed, and what differs."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsynth import table
from jaxsynth.disk import expand
from jaxsynth.images import write_png
from jaxsynth.report.page import Page, ReportImage, ReportRun, write_page
from jaxsynth.report.sheet import place_of, placed, said_of
from jaxsynth.report.summary import settings_of, shown, summarise
from jaxsynth.report.tables import format_probability
from jaxsynth.results import SweepResult
from jaxsynth.runs.folder import prepare
from jaxsynth.runs.records import read_results

MOST_PAIRS = 500  # whose pictures are on the page
_ALIKE = ("out", "overwrite", "resume", "progress")  # differ without a meaning


def compare(
    first: str | Path, second: str | Path, out: str | Path, overwrite: bool = False
) -> Path:
    """Write a page that shows two sweeps side by side.

    Args:
      first: folder of a finished sweep.
      second: likewise.
      out: folder of the page.
      overwrite: replace an earlier page in it.

    Returns:
      The page, OUT/index.html.

    Raises:
      ValueError: if a folder holds no finished sweep, or the sweeps share no run.
    """
    folders = [expand(first), expand(second)]
    sweeps = [read_results(folder) for folder in folders]
    pairs = _pairs(*sweeps)
    if not pairs:
        raise ValueError(
            f"{folders[0]} and {folders[1]} share no run: no objective (or place on the sheet) and "
            "seed is in both"
        )
    out = prepare(expand(out), overwrite)
    (out / "images").mkdir(exist_ok=True)
    names = [folder.name for folder in folders]
    names = ["A", "B"] if names[0] == names[1] else names
    rows = [_rows(sweep) for sweep in sweeps]
    gallery = []
    for number, pair in enumerate(pairs[:MOST_PAIRS]):
        images, lines = [], [place_of(placed(sweeps[0].runs[pair[0]]))]
        for which, name, sweep, place in zip("ab", names, sweeps, pair, strict=True):
            row = rows[which == "b"][place]
            file = f"images/run{number:05d}_{which}.png"
            text = sweep.png_text(place, row["shown"])
            write_png(out / file, sweep.image_of(place, row["shown"]), text)
            images.append(ReportImage(file, name, table.sensitive_of(row, (), row["shown"])))
            lines.append(f"{name}: {said_of(row)}, {_scores(row)}")
        gallery.append(ReportRun(tuple(images), tuple(lines)))
    found = f"{len(pairs)} runs are in both: {names[0]} has {len(sweeps[0])}, "
    page = Page(
        f"{names[0]} and {names[1]}",
        [*_differences(names, sweeps), *_medians(names, rows, pairs)],
        gallery,
        note=f"{found}{names[1]} {len(sweeps[1])}.",
        more=f"The first {MOST_PAIRS} of them." if len(pairs) > MOST_PAIRS else "",
        command="\n".join(dict.fromkeys(str(sweep.config.get("command", "")) for sweep in sweeps)),
        links=(),
    )
    write_page(out / "index.html", page)
    return out / "index.html"


def _pairs(one: SweepResult, other: SweepResult) -> list[tuple[int, int]]:
    """Pair runs of one objective and seed, or else of one place and seed."""
    for key in (lambda run: (str(run.objective), run.seed), lambda r: (r.row, r.column, r.seed)):
        places = {key(run): i for i, run in enumerate(other.runs)}
        found = [(i, places[key(run)]) for i, run in enumerate(one.runs) if key(run) in places]
        if found:
            return found
    return []


def _rows(sweep: SweepResult) -> list[dict[str, Any]]:
    return [row | {"shown": look} for row, look in zip(sweep.table, sweep.which, strict=True)]


def _scores(row: Mapping[str, Any]) -> str:
    n, said = 1, [f"objective {shown(row, 'objective_'):.3g}"]
    while (target := row.get(f"target_{n}")) is not None:
        p = shown(row, f"p_{n}_")
        said += [] if p is None else [f"P({target.split(':', 2)[-1]}) {format_probability(p)}"]
        n += 1
    return ", ".join(said)


def _differences(names: Sequence[str], sweeps: Sequence[SweepResult]) -> list[dict[str, Any]]:
    one, other = (settings_of(sweep.config) for sweep in sweeps)
    differing = [k for k in {**one, **other} if one.get(k) != other.get(k) and k not in _ALIKE]
    return [{"what": k, names[0]: one.get(k), names[1]: other.get(k)} for k in differing]


def _medians(
    names: Sequence[str], rows: Sequence[Sequence[Mapping[str, Any]]], pairs: Sequence[Any]
) -> list[dict[str, Any]]:
    own = [[rows[side][pair[side]] for pair in pairs] for side in (0, 1)]
    medians = [{line["what"]: line.get("median") for line in summarise(some)} for some in own]
    for found, some in zip(medians, own, strict=True):
        seen = [table.sensitive_of(row, (), row["shown"]) for row in some]
        known = [p for p in seen if p is not None]
        found |= {"P of a sensitive class": statistics.median(known)} if known else {}
    shared = [what for what in medians[0] if medians[0][what] is not None and what in medians[1]]
    return [
        {"what": f"{what}, median", names[0]: medians[0][what], names[1]: medians[1][what]}
        for what in shared
    ]
