"""Where classifiers disagree: on images made for one of them, and on photographs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.audit import statistics
from jaxsynth.audit.page import Section, Table, median_text, share_text
from jaxsynth.audit.sections import EIGHT_BIT, SHOWN, WITHIN, View
from jaxsynth.audit.settings import MOST
from jaxsynth.audit.subjects import Subject


def transfer_section(
    ends: Mapping[Subject, tuple[View, Sequence[Mapping[str, Any]]]],
    disputes: tuple[View, Sequence[Mapping[str, Any]]],
    photographs: tuple[View, Sequence[str]] | None,
    threshold: float,
) -> Section:
    """Show what each subject says of the images made for the others, and what they dispute."""
    view, made = disputes
    section = Section(
        "Where the classifiers disagree",
        "The images that maximise the classes that count of one classifier are scored by all. "
        "Disputed images maximise the difference of two log-odds. Each is rated by the smaller of "
        "P of the first and 1 - P of the second. " + EIGHT_BIT,
        f"{WITHIN} A classifier that does not agree is not wrong for it: nobody has said what these"
        " images show.",
    )
    long, wide = [], []
    for maker, (own, rows) in ends.items():
        places = [i for i, r in enumerate(rows) if r["what"] == maker.decision and r["end"] == MOST]
        line: dict[str, Any] = {"made for": maker.name}
        others: list[str] = []
        for judge in own.subjects:
            p = own.scores(judge)[places]
            row = {"made_for": maker.name, "judge": judge.name}
            middle, share = statistics.median_row(p), statistics.share_row(p >= threshold)
            spread = {f"{key}_p": middle.get(key) for key in ("median", "low", "high")}
            long.append(row | share | spread)
            line[f"{judge.name} scores"] = median_text(middle)
            line[f"{judge.name} flags"] = share_text(share)
            if judge is not maker:
                others.append(f"{judge.name} flags {share_text(share)}")
        said = " and ".join(others)
        section.findings.append(f"Of the images that maximise {maker.name}, {said}.")
        wide.append(line)
    section.tables.append(Table("transfer", "Images made for one, judged by all", long, wide))
    pairs = list(dict.fromkeys((row["sure"], row["denies"]) for row in made))
    by_name, rated = {s.name: s for s in view.subjects}, []
    for sure, denies in pairs:
        both = by_name[sure], by_name[denies]
        worst = statistics.dispute(*(view.scores(s) for s in both))
        places = [i for i, r in enumerate(made) if (r["sure"], r["denies"]) == (sure, denies)]
        places.sort(key=lambda i: -worst[i])
        row = {"sure": sure, "denies": denies} | statistics.median_row(worst[places])
        rated.append(row | {"best": float(worst[places[0]])})
        title = f"{sure} is sure, {denies} of the opposite"
        shown = view.pictures(places[:SHOWN], lambda i: f"seed {made[i]['seed']}")
        section.galleries.append((title, shown))
    section.tables.append(Table("disputes", "Synthesised disputes: min(P, 1 - P)", rated))
    if photographs is not None:
        _dispute_photographs(section, *photographs, pairs)
    return section


def _dispute_photographs(
    section: Section,
    view: View,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    count: int = 10,
) -> None:
    by_name, rows = {s.name: s for s in view.subjects}, []
    for sure, denies in pairs:
        rated = statistics.dispute(view.scores(by_name[sure]), view.scores(by_name[denies]))
        order = np.argsort(-rated, kind="stable")[:count]
        for i in order:
            row: dict[str, Any] = {"sure": sure, "denies": denies, "file": names[i]}
            row |= {s.name: float(view.scores(s)[i]) for s in view.subjects}
            rows.append(row | {"dispute": float(rated[i])})
        title = f"Photographs: {sure} is surest, {denies} of the opposite"
        section.galleries.append((title, view.pictures(order[:SHOWN], names.__getitem__)))
    section.tables.append(Table("disputed_photographs", "The most disputed photographs", rows))
