"""Causes of a score: the images of its neuron, hidden units, the scene around."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.audit import statistics
from jaxsynth.audit.page import Section, Table, histograms, median_text
from jaxsynth.audit.sections import EIGHT_BIT, SHOWN, WITHIN, View
from jaxsynth.audit.subjects import LEAST, MOST, Subject
from jaxsynth.models.base import Classifier

Numbers = Sequence[tuple[str, int]]
Found = Mapping[Subject, tuple[View, Sequence[Mapping[str, Any]]]]
_TOP = 5  # pictures that raise a unit most
_SURE = 0.5  # probability of a scene, and of the classes that count


def neurons_section(ends: Found, samples: View) -> Section:
    """Show the images that maximise and minimise each output neuron, and what samples score."""
    section = Section(
        "What raises and lowers each score",
        "Images are changed step by step until a class scores as high as they can make it, or as "
        "low: the log-odds of the class are maximised, and minimised, over the codes of the prior, "
        "from several seeds. Of two classes one is shown, as the other is its opposite. Medians "
        "are over seeds, of the probability of that class; their intervals are order statistics, "
        "of few seeds their range. Histograms show what random samples score. " + EIGHT_BIT,
        f"{WITHIN} A high score of such an image shows that it can be reached, not that it occurs.",
    )
    rows = []
    for subject, (view, made) in ends.items():
        p = view.probabilities(subject)
        for what in dict.fromkeys(row["what"] for row in made):
            names = subject.model.class_names
            own = view.scores(subject) if what == subject.decision else p[:, names.index(what)]
            shown = []
            for end in (MOST, LEAST):
                places = [i for i, r in enumerate(made) if (r["what"], r["end"]) == (what, end)]
                places.sort(key=lambda i: -own[i] if end == MOST else own[i])
                frozen = sum("frozen" in made[i] for i in places)
                line = {"model": subject.name, "neuron": what, "end": end}
                rows.append(line | statistics.median_row(own[places]) | {"not finite": frozen})
                said = "maximises" if end == MOST else "minimises"
                named = {i: f"{said}, seed {made[i]['seed']}" for i in places[:SHOWN]}
                shown += view.pictures(named, named.__getitem__)
            section.galleries.append((f"{subject.name}: {what}", shown))
        names = subject.model.class_names
        seen = [w for w in dict.fromkeys(row["what"] for row in made) if w in names]
        scored = samples.probabilities(subject)
        chart = histograms([(w, scored[:, names.index(w)]) for w in seen], "probability")
        section.figures.append((chart, f"{subject.name}: random samples, class by class."))
        mine = [r for r in rows if r["model"] == subject.name and r["neuron"] == subject.decision]
        section.findings.append(
            f"Images made to be flagged by {subject.name} reach a score of {median_text(mine[0])} "
            f"in the median, images made not to be {median_text(mine[1])}."
        )
    section.tables = [Table("neurons", "Probability of each neuron's own images", rows)]
    return section


def units_section(
    found: Found, numbers: Numbers, name: Callable[[str, int], str], seen: View
) -> Section:
    """Show the channels whose removal changes decisions most, with their maximising images.

    They were removed on the pictures `numbers` (kind, number), which `seen` shows.
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
        factor = float(np.exp(first["mean size of change"]))
        section.findings.append(
            f"Of {subject.name}'s hidden channels {first['unit']} matters most: without it the "
            f"odds of being flagged change by a factor of {factor:.2f} on average."
        )
    section.tables = [Table("units", "Removed channels, change of the log-odds", rows)]
    return section


def scenes_section(
    alone: tuple[View, Sequence[Mapping[str, Any]]], together: Found, places: Classifier
) -> Section:
    """Show which scenes raise a decision, alone and together with the classes that count."""
    section = Section(
        "Which scenes raise a score",
        "Each scene is synthesised alone, by its log-probability under the scene network, and "
        "scored by all. Then each image of the first seed is changed towards the classes that "
        "count as well, in half as many steps: 'with' are the scores after that, 'stays' is the "
        "probability of the scene. 'Against mean' is the difference of a scene's mean log-odds "
        "from that of all scenes.",
        f"{WITHIN} A scene that scores high says which context the network holds against a picture "
        "of this prior; with one or two seeds a scene, single rows are chance to a large part. "
        "That a scene can be made to be flagged says nothing about photographs of it.",
    )
    view, made = alone
    named = np.array([row["what"] for row in made])
    scenes = list(dict.fromkeys(named.tolist()))
    first = [i for i, row in enumerate(made) if row["seed"] == 0]
    rows: dict[str, dict[str, Any]] = {scene: {"scene": scene} for scene in scenes}
    neurons: list[dict[str, Any]] = []
    for subject in view.subjects:
        score = np.clip(view.scores(subject).astype(float), 1e-7, 1 - 1e-7)
        odds = np.log(score / (1 - score))
        key = f"{subject.name} against mean"
        for scene, row in rows.items():
            row[f"{subject.name} alone"] = float(score[named == scene].mean())
            row[key] = float(odds[named == scene].mean() - odds.mean())
        order = sorted(scenes, key=lambda scene, key=key: -rows[scene][key])
        spread = np.exp(rows[order[0]][key] - rows[order[-1]][key])
        said = (
            f"{subject.name} scores the scenes {', '.join(order[:3])} highest, "
            f"{', '.join(order[-3:])} lowest (the odds of first and last differ by a factor of "
            f"{spread:,.0f})"
        )
        own, _ = together[subject]
        scene_p = own.arrays["places"][
            np.arange(len(first)), _places(named[first].tolist(), places)
        ]
        with_p = own.scores(subject)
        for i, scene in enumerate(named[first]):
            rows[scene] |= {f"{subject.name} with": float(with_p[i]),
                            f"stays with {subject.name}": float(scene_p[i])}  # fmt: skip
        both = statistics.share_row((with_p >= _SURE) & (scene_p >= _SURE))
        section.findings.append(
            f"{said}; {both['count']} of {both['n']} scenes can be changed to be flagged and stay "
            "the scene, both with a probability of at least 0.5."
        )
        for state, seen, which in (("alone", view, first), ("with", own, range(len(first)))):
            p = seen.probabilities(subject)
            for i, scene in zip(which, named[first], strict=True):
                line = {"scene": scene, "model": subject.name, "image": state}
                neurons += [line | {"neuron": label, "P": float(p[i, k])}
                            for k, label in enumerate(subject.model.class_names)]  # fmt: skip
        shown = []
        for scene in (*order[:3], *order[-3:]):
            i = named[first].tolist().index(scene)
            shown += view.pictures([first[i]], lambda _, scene=scene: f"{scene}, alone")
            said = f"{scene}, with {subject.decision}"
            shown += own.pictures([i], lambda _, said=said: said)
        title = f"The scenes that {subject.name} scores highest and lowest"
        section.galleries.append((title, shown))
    section.tables = [
        Table(
            "scenes",
            "Scores of scenes, alone and with the classes that count",
            [*rows.values()],
            [{k: v for k, v in row.items() if "against" not in k} for row in rows.values()],
        ),
        Table("scenes_neurons", "Scene by neuron, first seed", neurons),
    ]
    return section


def _places(scenes: Sequence[str], places: Classifier) -> list[int]:
    return [places.class_names.index(scene) for scene in scenes]
