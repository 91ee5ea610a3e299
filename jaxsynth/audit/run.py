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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxsynth.audit import stages
from jaxsynth.audit.networks import compiled_ahead
from jaxsynth.audit.page import write_report
from jaxsynth.audit.report import make_report
from jaxsynth.audit.settings import Audit, Stage
from jaxsynth.audit.stages import Work
from jaxsynth.audit.subjects import Subject
from jaxsynth.environment import hardware, versions
from jaxsynth.runs.folder import lock, sha256_of
from jaxsynth.runs.parts import Parts
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
    of_each: dict[str, Callable[[Work, Subject], Stage]] = {"neurons": stages.ends}
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
        found |= {f"{name}+{s.name}": _for(compute, s) for s in subjects}
    return found


def _for(compute: Callable[[Work, Subject], Stage], subject: Subject) -> Compute:
    return lambda work: compute(work, subject)


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
