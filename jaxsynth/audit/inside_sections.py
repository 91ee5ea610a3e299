"""What a decision depends on: hidden units, and the scene around."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.audit import statistics
from jaxsynth.audit.page import Section, Table, median_text
from jaxsynth.audit.sections import WITHIN, View
from jaxsynth.audit.subjects import Subject
from jaxsynth.models.base import Classifier

Numbers = Sequence[tuple[str, int]]
Found = Mapping[Subject, tuple[View, Sequence[Mapping[str, Any]]]]
_TOP = 5  # pictures that raise a unit most


def units_section(
    found: Found, numbers: Numbers, name: Callable[[str, int], str], seen: View
) -> Section:
    """Show the channels whose removal changes decisions most.

    Args:
      found: Units of each subject, and their maximising images.
      numbers: The pictures on which they were removed: kind and number.
      name: Names one.
      seen: Shows those pictures.
    """
    section = Section(
        "Hidden units that a decision depends on",
        "A channel is removed by holding it at its mean over all pictures and places, in the last "
        "map of each resolution that later layers read. Gradients rank all channels to first "
        "order; those that come first are removed in earnest, and the change of the log-odds is "
        "measured. Each is shown by the image that maximises its mean, and by the pictures on "
        "which that mean is highest.",
        f"{WITHIN} A unit that matters here is one of many that act together; a picture that "
        "raises it does not name what it stands for.",
    )
    rows = []
    for subject, (view, units) in found.items():
        if not units:
            section.findings.append(
                f"{subject.name}: none of its maps can be changed from outside, so no unit was "
                "removed."
            )
            continue
        change, response = view.arrays["change"], view.arrays["response"]
        for i, unit in enumerate(units):
            size, order = np.abs(change[i]), np.argsort(-response[i], kind="stable")[:_TOP]
            line = {"model": subject.name, "unit": unit["unit"]}
            line |= {"mean size of change": float(size.mean()), "estimate": unit["estimate"]}
            line |= {"mean change": float(change[i].mean())} | statistics.median_row(change[i])
            rows.append(line | {"raised most by": ", ".join(name(*numbers[k]) for k in order)})
            title = f"{subject.name}: {unit['unit']}, its image and the pictures that raise it most"
            shown = view.pictures([i], lambda _: "maximises it")
            shown += seen.pictures(order, lambda k: name(*numbers[k]))
            section.galleries.append((title, shown))
        first = rows[-len(units)]
        section.findings.append(
            f"Of {subject.name}'s channels {first['unit']} matters most: without it the log-odds "
            f"change by {first['mean size of change']:.2f} on average."
        )
    section.tables = [Table("units", "Removed channels, change of the log-odds", rows)]
    return section


def scenes_section(
    alone: tuple[View, Sequence[Mapping[str, Any]]], together: Found, places: Classifier
) -> Section:
    """Show which scenes raise a decision, alone and together with the classes that count."""
    section = Section(
        "Which scenes raise a decision",
        "Each scene is synthesised alone, by its log-probability under the scene network, and "
        "scored by all. Then the scenes that score highest and lowest are synthesised together "
        "with the classes that count. 'Against mean' is the difference of a scene's mean log-odds "
        "from that of all scenes.",
        f"{WITHIN} A scene that scores high says which context the network holds against a picture "
        "of this prior; with one or two seeds a scene, single rows are chance to a large part.",
    )
    view, made = alone
    named = [row["what"] for row in made]
    scenes = list(dict.fromkeys(named))
    rows: list[dict[str, Any]] = [{"scene": scene} for scene in scenes]
    for subject in view.subjects:
        score = np.clip(view.scores(subject).astype(float), 1e-7, 1 - 1e-7)
        odds = np.log(score / (1 - score))
        middle = odds.mean()
        for row in rows:
            own = np.array([n == row["scene"] for n in named])
            row[f"{subject.name} P"] = float(score[own].mean())
            row[f"{subject.name} against mean"] = float(odds[own].mean() - middle)
        key = f"{subject.name} against mean"
        order = sorted(rows, key=lambda row, key=key: -row[key])
        most = ", ".join(row["scene"] for row in order[:3])
        least = ", ".join(row["scene"] for row in order[-3:])
        spread = np.exp(order[0][key] - order[-1][key])
        section.findings.append(
            f"{subject.name} scores the scenes {most} highest, {least} lowest; the odds of the "
            f"first and the last differ by a factor of {spread:,.0f}."
        )
        shown = [named.index(row["scene"]) for row in (*order[:3], *order[-3:])]
        title = f"Scenes that {subject.name} scores highest and lowest, alone"
        section.galleries.append((title, view.pictures(shown, named.__getitem__)))
    both = []
    for subject, (own, pairs) in together.items():
        words = [row["what"] for row in pairs]
        for scene in dict.fromkeys(words):
            places_p = own.arrays["places"][:, places.class_names.index(scene)]
            here = np.array([word == scene for word in words])
            line = {"scene": scene, "model": subject.name}
            line |= {"P of the scene": median_text(statistics.median_row(places_p[here]))}
            both.append(line | statistics.median_row(own.scores(subject)[here]))
        first = [words.index(scene) for scene in dict.fromkeys(words)]
        title = f"Scenes together with {subject.name}: {subject.decision}"
        section.galleries.append((title, own.pictures(first, words.__getitem__)))
    section.tables = [
        Table("scenes", "Scenes alone: what the classifiers say", rows),
        Table("scenes_with", "Scenes together with the classes that count", both),
    ]
    return section
