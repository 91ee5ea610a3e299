"""The report of an audit, made of its finished stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.audit.change_sections import flips_section, invariances_section
from jaxsynth.audit.dispute_sections import transfer_section
from jaxsynth.audit.inside_sections import scenes_section, units_section
from jaxsynth.audit.page import Report
from jaxsynth.audit.sections import (
    View,
    calibration_section,
    neurons_section,
    samples_section,
)
from jaxsynth.audit.settings import PHOTOGRAPH, Audit, Stage, picture_numbers
from jaxsynth.audit.subjects import Subject

_LIMITS = (
    "It shows what these networks respond to within one prior, a small generator of pictures. "
    "It does not show what they were trained on, nor how they do on pictures of your users.",
    "Synthesised and random pictures are far from the photographs that the networks learned from. "
    "A score of such a picture is an answer of the network, no evidence of what the picture shows.",
    "Steps are few: images that maximise a score are the best that were found, not the best there "
    "are, and the smallest change that was found is not the smallest there is.",
    "Intervals of 95 % cover chance among pictures and seeds alone, not the choice of prior, of "
    "photographs, or of settings.",
    "No network here says what is right; only labelled photographs do.",
)
_WORDS = {
    "score": "The probability, from 0 to 1, that a network gives to the classes that count.",
    "threshold": "The score from which a picture is flagged.",
    "prior": "A generator that turns a code, a list of numbers, into a picture. Every synthetic "
    "picture of this report is one of its pictures.",
    "random sample": "The picture of a code drawn by chance. Its seed names the draw.",
    "neuron, unit, channel": "A number, or a map of numbers, that a network computes of a picture. "
    "Output neurons are its classes, hidden ones come before.",
    "odds, log-odds": "The odds of a score p are p / (1 - p), log-odds their logarithm. Odds still "
    "tell scores such as 0.999 and 0.9999 apart.",
    "interval": "Had other pictures or seeds been drawn in the same way, 95 % of such intervals "
    "would hold the value of all pictures that could be drawn.",
    "grey level": "The smallest step of a pixel in a file of 8 bits; there are 255 of them.",
}


def make_report(audit: Audit, stages: Mapping[str, Stage], facts: Mapping[str, Any]) -> Report:
    """Make the report of finished stages, which are known by name."""
    subjects, settings, photographs = audit.subjects, audit.settings, audit.photographs
    samples, threshold = stages["samples"].arrays["images"], settings.threshold

    def view(name: str) -> View:
        picture = audit.picture if name == "photographs" and audit.embed else None
        return View(subjects, stages[name].arrays, picture)

    def of_each(name: str) -> dict[Subject, tuple[View, Any]]:
        keys = {subject: f"{name}+{subject.name}" for subject in subjects}
        return {s: (view(key), stages[key].value) for s, key in keys.items() if key in stages}

    def called(kind: str, number: int) -> str:
        return photographs.names[number] if kind == PHOTOGRAPH else f"seed {number}"

    def picture(kind: str, number: int) -> np.ndarray | None:
        if kind != PHOTOGRAPH:
            return samples[number]
        return audit.picture(number) if audit.embed else None

    photos = view("photographs") if photographs.files else None
    ends = of_each("neurons")
    found = [samples_section(view("samples"), photos, photographs.names, threshold)]
    calibrated = photos and calibration_section(photos, photographs, audit.positive)
    found += [calibrated] if calibrated else []
    found.append(neurons_section(ends, view("samples")))
    if "disputes" in stages:
        named = (photos, photographs.names) if photos else None
        pair = view("disputes"), stages["disputes"].value
        found.append(transfer_section(ends, pair, named, threshold))
    if "scenes" in stages and audit.places is not None:
        alone = view("scenes"), stages["scenes"].value
        found.append(scenes_section(alone, of_each("scenes"), audit.places))
    if flips := of_each("flips"):
        pairs = {s: (rows, own.arrays) for s, (own, rows) in flips.items()}
        found.append(flips_section(pairs, called, threshold))
    if "changes" in stages:
        numbers = picture_numbers(audit, settings.changed)
        found.append(invariances_section(view("changes"), numbers, called, picture, threshold))
    if units := of_each("units"):
        numbers = picture_numbers(audit, settings.unit_pictures)
        seen = _seen(stages, numbers, picture)
        found.append(units_section(units, numbers, called, View(subjects, *seen)))
    names = ", ".join(subject.name for subject in subjects)
    return Report(
        f"Audit of {names}",
        _subject(audit, facts),
        _LIMITS,
        found,
        facts,
        _missing(audit, calibrated),
        _WORDS,
    )


def _seen(stages: Mapping[str, Stage], numbers: Any, picture: Any) -> tuple[Any, Any]:
    """Scores of some random samples and photographs, and what shows them."""
    scores: dict[str, np.ndarray] = {}
    for key in (key for key in stages["samples"].arrays if key.startswith("p")):
        rows = [
            stages["photographs" if kind == PHOTOGRAPH else "samples"].arrays[key][number]
            for kind, number in numbers
        ]
        scores[key] = np.stack(rows)
    return scores, lambda i: picture(*numbers[i])


def _subject(audit: Audit, facts: Mapping[str, Any]) -> list[str]:
    records = [facts["networks"][s.name] for s in audit.subjects]
    said = [
        f"{s.name} is {Path(record['name']).name} (SHA-256 {record['sha256'][:12]}...); of its "
        f"{s.model.classes} classes {s.decision} {'count' if len(s.classes) > 1 else 'counts'}."
        for s, record in zip(audit.subjects, records, strict=True)
    ]
    settings = audit.settings
    count = len(audit.photographs.files)
    photographs = f"{count} photographs" if count else "no photographs"
    return [
        " ".join(said)
        + " The score of a picture is the probability of these classes together. A picture is "
        f"flagged if its score is at least {audit.settings.threshold:g}, the threshold.",
        f"Looked at: {settings.samples} random samples of the prior {audit.generator.name}, "
        f"{photographs}, and images synthesised from {settings.seeds} seeds in {settings.steps} "
        "steps. Brackets hold 95 % intervals, and counts.",
    ]


def _missing(audit: Audit, calibration: Any) -> list[str]:
    photographs, lines = audit.photographs, []
    if not photographs.files:
        lines.append("No photographs were given: nothing here is about real pictures.")
    elif calibration is None:
        lines.append("No labels say which photographs should be flagged: calibration is left out.")
    if photographs.files and not audit.embed:
        lines.append("Photographs are named, not shown (--embed_photographs shows them).")
    return lines + [f"Not read: {line}" for line in photographs.unread]
