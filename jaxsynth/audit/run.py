"""An audit from models and photographs to a folder: stage by stage, each saved when it is done.

OUT/index.html         the report, a page that needs no other file
OUT/audit.json         all its numbers, and how each was made
OUT/*.csv              its tables
OUT/stages.json        finished stages and what they were made of (`jaxsynth.runs.parts`)
OUT/stages/            their arrays: images, codes, scores
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.audit import stages
from jaxsynth.audit.change_sections import flips_section, invariances_section
from jaxsynth.audit.inside_sections import neurons_section, scenes_section, units_section
from jaxsynth.audit.networks import compiled_ahead
from jaxsynth.audit.page import Report, write_report
from jaxsynth.audit.sections import (
    View,
    calibration_section,
    samples_section,
    transfer_section,
)
from jaxsynth.audit.stages import Work
from jaxsynth.audit.subjects import PHOTOGRAPH, Audit, Stage, Subject, picture_numbers
from jaxsynth.environment import hardware, versions
from jaxsynth.runs.folder import sha256_of
from jaxsynth.runs.parts import Parts
from jaxsynth.runs.processes import lock
from jaxsynth.runs.records import model_record
from jaxsynth.runs.saving import Saving, Stopped
from jaxsynth.system import GENERATOR

STEM = "stages"
_OURS = ("audit.json", "*.csv", "index.html")


Compute = Callable[[Work], Stage]


def run_audit(
    audit: Audit, saving: Saving, command: str = "", say: Callable[[str], None] = print
) -> Path:
    """Compute what is missing of an audit, and write its report.

    Args:
      audit: What is audited.
      saving: The folder, and whether to resume or overwrite; it is asked to stop after a stage.
      command: How to repeat it.
      say: Called with a line for each finished stage.

    Returns:
      The report, OUT/index.html.

    Raises:
      ValueError: If the folder holds another audit, or cannot be used.
      Stopped: If it was asked to.
    """
    if saving.folder is None:
        raise ValueError("an audit needs a folder")
    out = Path(saving.folder)
    work, plan = Work(audit), _stages(audit)
    with lock(out), contextlib.ExitStack() as held:
        how = {"resume": saving.resume, "overwrite": saving.overwrite}
        parts = Parts(out, command, **how, stem=STEM, files=_OURS)
        made_of = _made_of(audit)
        done = [name for name in plan if parts.done(name, made_of)]
        if len(done) < len(plan):
            held.enter_context(compiled_ahead(work.prior, work.networks.values()))
        for number, (name, compute) in enumerate(plan.items()):
            if name not in done:
                begun = time.perf_counter()
                stage = compute(work)
                seconds = time.perf_counter() - begun
                value = {"value": stage.value, "seconds": round(seconds, 1)}
                parts.save(name, made_of, value, stage.arrays)
                say(f"{name.replace('+', ' of ')} ({seconds:.0f} s)")
                if number + 1 < len(plan) and saving.asked_to_stop():
                    raise Stopped(f"{number + 1} of {len(plan)} stages finished")
            work.stages[name] = Stage(parts.value(name)["value"], parts.arrays(name))
        seconds = {name: parts.value(name)["seconds"] for name in plan}
        facts = made_of | {"command": command, "versions": versions(), "hardware": hardware()}
        return write_report(out, make_report(audit, work.stages, facts | {"seconds": seconds}))


def _stages(audit: Audit) -> dict[str, Compute]:
    """Name -> how it is computed, in order."""
    settings, subjects = audit.settings, audit.subjects
    found: dict[str, Compute] = {"samples": stages.samples}
    if audit.photographs.files:
        found["photographs"] = lambda work: Stage(None, work.judged(audit.photographs.pictures()))
    of_each: dict[str, Callable[..., Stage]] = {"neurons": stages.ends}
    if settings.flips:
        of_each["flips"] = stages.flipped
    if settings.units:
        of_each["units"] = stages.hidden_units
    if settings.changed:
        found["changes"] = stages.invariances
    if audit.places is not None and settings.scenes:
        found["scenes"] = stages.scenes
        of_each["scenes"] = stages.scenes_with
    if len(subjects) > 1:
        found["disputes"] = stages.disputes
    for name, compute in of_each.items():
        found |= {f"{name}+{s.name}": partial(compute, subject=s) for s in subjects}
    return found


def _made_of(audit: Audit) -> dict[str, Any]:
    """Return all that decides the numbers of an audit."""
    models = {GENERATOR: audit.generator} | {s.name: s.model for s in audit.subjects}
    models |= {"places (scenes)": audit.places} if audit.places is not None else {}
    photographs = audit.photographs
    return {
        "networks": {name: model_record(model) for name, model in models.items()},
        "classes": {s.name: s.decision for s in audit.subjects},
        "settings": dataclasses.asdict(audit.settings),
        "photographs": sha256_of([*photographs.sha256]) if photographs.files else "",
        "embed_photographs": audit.embed and bool(photographs.files),
    }


# --- the report -----------------------------------------------------------------------------------

_LIMITS = (
    "It shows what these networks respond to within one prior, a small generator of pictures. "
    "It does not show what they were trained on, nor how they do on pictures of your users.",
    "Synthesised and random pictures are far from the photographs that the networks learned from. "
    "A score of such a picture is an answer of the network, no evidence of what the picture shows.",
    "Steps are few: images that maximise a score are the best that were found, not the best there "
    "are, and the smallest change that was found is not the smallest there is.",
    "Intervals of 95 % cover chance among pictures and seeds alone, not the choice of prior, of "
    "photographs, or of settings.",
    "No network here knows the right answer; only labelled photographs tell it.",
)


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
