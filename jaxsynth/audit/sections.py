"""Responses of classifiers: random samples, thresholds, calibration, transfer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.audit import page, statistics
from jaxsynth.audit.subjects import (
    MOST,
    THRESHOLDS,
    Photographs,
    Subject,
    probabilities_of,
    truth_of,
)
from jaxsynth.report.tables import format_probability

Arrays = Mapping[str, np.ndarray]
WITHIN = (
    "This is what the networks respond to within this prior, not what they were trained on, and "
    "not what real pictures of these classes look like."
)
EIGHT_BIT = "Pictures are scored as 8-bit RGB files are, by each network's own resizing."
SHOWN = 4  # pictures of a kind
_CLASSES = 26  # of a classifier, at most, whose scores are listed one by one


class View:
    """Subjects and the scores of a stage's pictures.

    Attributes:
      subjects: The classifiers.
      arrays: Of the stage: `p0`, `p1`, ... are the subjects' probabilities (R, classes).
      image: Gives a picture by its number; None where they are not to be shown.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        arrays: Arrays,
        image: Callable[[int], np.ndarray | None] | None = None,
    ):
        """Take the arrays of a stage, and perhaps the pictures that they do not have."""
        self.subjects, self.arrays = subjects, arrays
        self.image = arrays["images"].__getitem__ if "images" in arrays else image

    def scores(self, subject: Subject) -> np.ndarray:
        """Return the probabilities (R,) of the classes that count."""
        return subject.score(self.probabilities(subject))

    def probabilities(self, subject: Subject) -> np.ndarray:
        """Return the probabilities (R, classes)."""
        return probabilities_of(subject, self.subjects, self.arrays)

    def blur(self) -> np.ndarray:
        """Return the largest probability (R,) of sensitive classes that a subject gives."""
        found = [
            s.model.sensitive_probability(self.probabilities(s))
            for s in self.subjects
            if s.model.sensitive_classes
        ]
        return np.max(found, axis=0) if found else np.zeros(len(self.arrays["p0"]))

    def pictures(self, shown: Iterable[int], name: Callable[[int], str]) -> list[page.Picture]:
        """Show some pictures with every subject's score below each; none if they are hidden."""
        if self.image is None:
            return []
        images = {int(i): self.image(int(i)) for i in shown}
        return [self._picture(i, x, name(i)) for i, x in images.items() if x is not None]

    def _picture(self, number: int, image: np.ndarray, *lines: str) -> page.Picture:
        said = [f"{s.name} {format_probability(float(self.scores(s)[number]))}"
                for s in self.subjects]  # fmt: skip
        return page.Picture(image, (*lines, *said), float(self.blur()[number]))


def samples_section(
    samples: View, photographs: View | None, names: Sequence[str], threshold: float
) -> page.Section:
    """Show what random samples and photographs score, and how many are flagged."""
    subjects, sets = samples.subjects, {"random samples": samples}
    sets |= {"photographs": photographs} if photographs else {}
    section = page.Section(
        "How many pictures are flagged",
        f"Codes are drawn by seed from the prior's own distribution. {EIGHT_BIT} A picture is "
        "flagged if the probability of the classes that count is at or above the threshold. Bands "
        "and brackets are Wilson's 95 % intervals.",
        "A flagged random sample is no proof of a fault, as nothing says what it shows; a rate "
        "among random samples or among these photographs is not the rate among your users'.",
    )
    rows, each, spread = [], [], []
    for word, view in sets.items():
        series = []
        for subject in subjects:
            found = statistics.flagged(view.scores(subject), THRESHOLDS)
            own = {"model": subject.name, "set": word, "neuron": subject.decision}
            rows += [own | row for row in found]
            columns = {k: [row[k] for row in found] for k in ("threshold", "share", "low", "high")}
            series.append(page.Series(subject.name, *columns.values()))
            p = view.probabilities(subject)
            for i, label in enumerate(subject.model.class_names[:_CLASSES]):
                line = {"model": subject.name, "set": word, "neuron": label}
                spread.append(line | statistics.quantiles(p[:, i]))
                if label != subject.decision:
                    each += [line | row for row in statistics.flagged(p[:, i], THRESHOLDS)]
        chart = page.curves(series, "threshold", "share flagged")
        section.figures.append((chart, f"Threshold curves of {word}."))
        scored = [(subject.name, view.scores(subject)) for subject in subjects]
        chart = page.histograms(scored, "probability of the classes that count")
        section.figures.append((chart, f"Scores of {word}."))
    for subject in subjects:
        said = [
            f"{page.share_text(statistics.share_row(view.scores(subject) >= threshold))} of {word}"
            for word, view in sets.items()
        ]
        section.findings.append(
            f"At threshold {threshold:g} {subject.name} flags {' and '.join(said)}."
        )
        for word, view in sets.items():
            order = np.argsort(-view.scores(subject), kind="stable")
            name = names.__getitem__ if view is photographs else "seed {}".format
            shown = view.pictures([*order[:SHOWN], *order[-SHOWN:]], name)
            title = f"The {word} that {subject.name} scores highest and lowest"
            section.galleries.append((title, shown))
    shown = page.side_by_side(
        rows, "threshold", lambda r: f"{r['model']}, {r['set']}", page.share_text
    )
    section.tables = [
        page.Table("thresholds", "How many are flagged", [*rows, *each], shown),
        page.Table("scores", "Quantiles of every output neuron", spread),
    ]
    return section


def calibration_section(
    view: View, photographs: Photographs, positive: Sequence[str]
) -> page.Section | None:
    """Compare scores of labelled photographs with their labels; None without labels of both kinds.

    `positive` are labels that count, in addition to the classifiers' own.
    """
    named = np.array([bool(label) for label in photographs.labels], bool)
    labels = [label for label in photographs.labels if label]
    section = page.Section(
        "How right the scores are on labelled photographs",
        "Labels are class folders or the table that was given. A label counts as positive if it is "
        "one of the classes that count, or was named so. Shares have Wilson's 95 % intervals; the "
        "calibration error is the mean distance of score and share over ten bins (Guo et al. 2017)."
        " The AUC is the chance that a positive scores above a negative.",
        "The labels are taken as true. Another set of photographs has other rates.",
    )
    bins, errors, total, series = [], [], [], []
    for subject in view.subjects:
        truth = truth_of(subject, labels, positive)
        if truth is None:
            continue
        p = view.scores(subject)[named]
        found = statistics.calibration(p, truth)
        bins += [{"model": subject.name} | row for row in found]
        errors += [{"model": subject.name} | r for r in statistics.rates(p, truth, THRESHOLDS)]
        total.append(
            {
                "model": subject.name,
                "positives": int(truth.sum()),
                "negatives": int((~truth).sum()),
                "AUC": statistics.auc(p, truth),
                "calibration error": statistics.calibration_error(found),
                "Brier score": float(np.mean((p - truth) ** 2)),
            }
        )
        columns = {k: [row[k] for row in found] for k in ("score", "share", "low", "high")}
        series.append(page.Series(subject.name, *columns.values()))
        section.findings.append(
            f"On {len(labels)} labelled photographs {subject.name} has an AUC of "
            f"{total[-1]['AUC']:.3f} and a calibration error of "
            f"{page.percent(total[-1]['calibration error'])}."
        )
    if not total:
        return None
    chart = page.curves(series, "score", "share of positives", diagonal=True)
    section.figures.append((chart, "Calibration: a calibrated score lies on the diagonal."))
    section.tables = [
        page.Table("calibration_summary", "Summary", total),
        page.Table("calibration", "Score and truth, bin by bin", bins),
        page.Table("error_rates", "Positives found and false alarms at each threshold", errors),
    ]
    return section


def transfer_section(
    ends: Mapping[Subject, tuple[View, Sequence[Mapping[str, Any]]]],
    disputes: tuple[View, Sequence[Mapping[str, Any]]],
    photographs: tuple[View, Sequence[str]] | None,
    threshold: float,
) -> page.Section:
    """Show what each subject says of the images made for the others, and what they dispute."""
    view, made = disputes
    section = page.Section(
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
            line[f"{judge.name} scores"] = page.median_text(middle)
            line[f"{judge.name} flags"] = page.share_text(share)
            if judge is not maker:
                others.append(f"{judge.name} flags {page.share_text(share)}")
        said = " and ".join(others)
        section.findings.append(f"Of the images that maximise {maker.name}, {said}.")
        wide.append(line)
    section.tables.append(page.Table("transfer", "Images made for one, judged by all", long, wide))
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
    section.tables.append(page.Table("disputes", "Synthesised disputes: min(P, 1 - P)", rated))
    if photographs is not None:
        _dispute_photographs(section, *photographs, pairs)
    return section


def _dispute_photographs(
    section: page.Section,
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
    section.tables.append(page.Table("disputed_photographs", "The most disputed photographs", rows))
