"""Changes of a decision: by changes that should not matter, and by the smallest that does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.audit import page, statistics
from jaxsynth.audit.changes import CHANGES, SAME, change
from jaxsynth.audit.sections import View
from jaxsynth.audit.subjects import PHOTOGRAPH, PIXELS, PRIOR, SAMPLE, Subject

Numbers = Sequence[tuple[str, int]]
_WORST = 6
_LOUDEST = 127.0  # grey levels of a difference map
_MEASURES = ("grey levels", "LPIPS", "code")
_BY = {PIXELS: "in pixels", PRIOR: "along the prior"}
_LEVELS = {i / 4: f"{10.0 ** (i - 2):g}" for i in range(5)}  # 0.01 to 100, as places of an axis


def invariances_section(
    view: View,
    numbers: Numbers,
    name: Callable[[str, int], str],
    picture: Callable[[str, int], np.ndarray | None],
    threshold: float,
) -> page.Section:
    """Show how scores answer to changes that should not matter.

    Scores are in the order of pictures (kind, number) and changes; `picture` gives None for one
    that is not to be shown.
    """
    section = page.Section(
        "Changes that should not matter",
        "Each picture is scored as it is and changed: mirrored, cropped, compressed, recoloured, "
        "blurred, as a grid of thumbnails of itself, between black bars. Photographs are first "
        f"reduced to 512 pixels. A decision flips if the score passes the threshold {threshold:g}. "
        "Shares have Wilson's 95 % intervals, medians those of order statistics.",
        "A crop may remove what a picture is judged by, so a flip there can be right; mirror, JPEG "
        "and bars leave all of it.",
    )
    kinds = np.array([kind for kind, _ in numbers])
    rows, worst = [], []
    base, changed = CHANGES.index(SAME), [c for c in CHANGES if c != SAME]
    for subject in view.subjects:
        score = view.scores(subject).reshape(len(numbers), len(CHANGES))
        before = score[:, base]
        for kind in dict.fromkeys(kinds):
            for what in changed:
                own, delta = kinds == kind, score[:, CHANGES.index(what)] - before
                flips = (before >= threshold) != (score[:, CHANGES.index(what)] >= threshold)
                line = {"model": subject.name, "of": kind, "change": what}
                size = statistics.quantiles(np.abs(delta[own]))
                line |= {"median change of P": size["median"], "95 % below": size["q95"]}
                line |= {"mean": float(delta[own].mean()), "flips": int(flips[own].sum())}
                rows.append(line | statistics.share_row(flips[own]))
        moved = np.abs(score - before[:, None])
        order = np.argsort(-moved, axis=None, kind="stable")[: 4 * _WORST]
        seen: dict[int, None] = {}
        shown = []
        for place in order:
            i, k = divmod(int(place), len(CHANGES))
            text = f"{name(*numbers[i])}, {CHANGES[k]}"
            line = {"model": subject.name, "picture": name(*numbers[i]), "change": CHANGES[k]}
            worst.append(line | {"before": float(before[i]), "after": float(score[i, k])})
            rgb = picture(*numbers[i])
            if rgb is not None and i not in seen and len(seen) < _WORST:
                seen[i] = None
                for which in (base, k):
                    said = "as it is" if which == base else text
                    lines = said, f"{subject.name} {score[i, which]:.3f}"
                    p = float(view.blur()[i * len(CHANGES) + which])
                    shown.append(page.Picture(change(rgb, CHANGES[which]), lines, p))
        section.galleries.append((f"Largest changes of {subject.name}", shown))
        mine = [row for row in rows if row["model"] == subject.name]
        most = max(mine, key=lambda row: (row["share"], row["95 % below"]))
        section.findings.append(
            f"{subject.name} is least steady under the change '{most['change']}': its decision "
            f"flips on {page.share_text(most)} of {most['of']}s."
        )
    shown = page.side_by_side(
        rows, "change", lambda r: f"{r['model']}, {r['of']}s", page.share_text
    )
    section.tables = [
        page.Table("changes", "Share of decisions that flip under each change", rows, shown),
        page.Table("changes_worst", "The largest single changes", worst),
    ]
    return section


def flips_section(
    found: Mapping[Subject, tuple[Sequence[Mapping[str, Any]], Mapping[str, np.ndarray]]],
    name: Callable[[str, int], str],
    threshold: float,
) -> page.Section:
    """Show how little flips a decision, in pixels and by the prior."""
    section = page.Section(
        "How little flips a decision",
        "Steps along the gradient go to where the decision's linear approximation crosses the "
        f"threshold {threshold:g} (DeepFool, Moosavi-Dezfooli et al. 2016): over pixels as the "
        "classifier sees them, and over codes of the prior. By the prior, a photograph starts from "
        "its reconstruction. Sizes are root mean squares in grey levels of 255, and of codes in "
        "their standard deviations; LPIPS is a perceptual distance. 'As a file' says whether the "
        "flip outlives rounding to 8 bits and the classifier's own resizing.",
        "It is the smallest change that was found, an upper bound. Changes of pixels need access "
        "to the network; they say how brittle it is, not that anybody makes them.",
    )
    rows: list[dict[str, Any]] = []
    single: list[dict[str, Any]] = []
    for subject, (flips, arrays) in found.items():
        series = []
        for kind in (SAMPLE, PHOTOGRAPH):
            sizes: dict[str, str] = {}
            for way in (PIXELS, PRIOR):
                own = [r for r in flips if (r["of"], r["way"]) == (kind, way)]
                if not own:
                    continue
                line = _flip_row(subject, kind, way, own)
                rows.append(line)
                single += [{"model": subject.name, "picture": name(kind, r["number"])} | dict(r)
                           for r in own]  # fmt: skip
                series.append(_distribution(f"{kind}s, {_BY[way]}", own))
                if f"{kind} {way}" in arrays:
                    title = f"{subject.name}: smallest flips of {kind}s, {_BY[way]}"
                    shown = _before_after(subject, own, arrays[f"{kind} {way}"], name)
                    section.galleries.append((title, shown))
                if line["crossed"]["count"]:
                    saved = line["as a file"]
                    sizes[way] = (
                        f"{page.median_text(line['grey levels'])} {_BY[way]} ({saved['count']} of "
                        f"{saved['n']} outlive a file of 8 bits)"
                    )
            if sizes:
                section.findings.append(
                    f"On {kind}s {subject.name} flips by grey levels of "
                    f"{', '.join(sizes.values())}, in the median."
                )
        chart = page.curves(series, "grey levels, root mean square", "share flipped", ticks=_LEVELS)
        section.figures.append((chart, f"{subject.name}: how many flip by changes of that size."))
    shown = [{k: _said(k, v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows]
    flat = [_flat(row) for row in rows]
    section.tables = [
        page.Table("flips", "Smallest changes that flip a decision", flat, shown),
        page.Table("flips_all", "Every one of them", single),
    ]
    return section


def _distribution(title: str, own: Sequence[Mapping[str, Any]]) -> page.Series:
    """The share of pictures that flip by a change of at most so many grey levels."""
    sizes = np.sort([row["grey levels"] for row in own if row["crossed"]])
    x = np.clip((np.log10(np.maximum(sizes, 1e-9)) + 2) / 4, 0, 1)
    x, y = np.repeat(x, 2), np.repeat(np.arange(len(sizes) + 1) / len(own), 2)[1:-1]
    return page.Series(title, [*x, 1.0], [*y, len(sizes) / len(own)])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in row.items():
        parts = value if isinstance(value, dict) else {"": value}
        found |= {f"{name} {part}".strip(): one for part, one in parts.items()}
    return found


def _said(column: str, row: Mapping[str, Any]) -> str:
    return page.median_text(row) if column in _MEASURES else page.share_text(row)


def _flip_row(
    subject: Subject, kind: str, way: str, own: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    crossed = [r for r in own if r["crossed"]]
    row: dict[str, Any] = {"model": subject.name, "of": kind, "by": way}
    row["crossed"] = statistics.share_row(np.array([r["crossed"] for r in own]))
    for measure in _MEASURES:
        if all(measure in r for r in own):
            row[measure] = statistics.median_row(np.array([r[measure] for r in crossed]))
    row["as a file"] = statistics.share_row(np.array([r["as a file"] for r in crossed], bool))
    return row


def _before_after(
    subject: Subject,
    own: Sequence[Mapping[str, Any]],
    pairs: np.ndarray,
    name: Callable[[str, int], str],
) -> list[page.Picture]:
    """Before, after, and the difference made visible, of the smallest that crossed."""
    shown = []
    for row in sorted((r for r in own if "place" in r and r["crossed"]), key=lambda r: r["place"]):
        before, after = pairs[row["place"]]
        change = after.astype(np.float32) - before
        gain = _LOUDEST / max(1.0, float(np.abs(change).max()))
        blurs = bool(subject.model.sensitive_classes)
        called = name(row["of"], row["number"])
        shown += [
            page.Picture(before, (called, f"before: {row['before']:.3f}"), blurs * row["before"]),
            page.Picture(after, (called, f"after: {row['after']:.3f}"), blurs * row["after"]),
            page.Picture(
                np.clip(128 + gain * change, 0, 255).astype(np.uint8),
                (f"difference x {gain:.3g}", f"{row['grey levels']:.2f} grey levels"),
            ),
        ]
    return shown
