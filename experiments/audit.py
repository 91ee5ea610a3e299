"""Audits classifiers: what each responds to, where they differ, how they are calibrated.

  python -m experiments.audit --models=yahoo=open_nsfw,mobile=nsfwjs_mobilenet_v2 --quick
  python -m experiments.audit --models=yahoo=open_nsfw --images=DIR --labels=labels.csv

A model is NAME=one that is shipped, ported, or a file. Its sensitive classes count together;
--decide=NAME=LABEL+LABEL says which others do. DIR is a folder, an image or a zip; the names of
class folders, or a CSV file of lines `file,label`, are labels. The report has no photograph, only
names and scores, unless --embed_photographs. OUT/index.html is one page, with a summary of plain
words and limits on top; audit.json and CSV files have all numbers. A finished stage is saved; the
same command with --resume continues.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from jaxsynth.audit.run import run_audit
from jaxsynth.audit.subjects import (
    QUICK,
    QUICK_PHOTOGRAPHS,
    Audit,
    AuditSettings,
    Subject,
    find_photographs,
    make_subject,
)
from jaxsynth.environment import check_backend, keep_compiled, writable_cache
from jaxsynth.inputs import check_name, option, printable
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.runs.saving import Saving

from .common import load_for
from .flags import like, repeated
from .launch import command_line, resumable, run_experiment
from .run_flags import NONE, RunFlags


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    models: tuple[str, ...] = option((), "Classifiers, NAME=MODEL,NAME=MODEL,...")
    model: tuple[str, ...] = repeated("One more, where a name has a comma; may be repeated.")
    decide: tuple[str, ...] = repeated("NAME=LABEL+LABEL, the classes that count; may be repeated.")
    images: tuple[str, ...] = repeated("Photographs: folder, zip or file; may be repeated.")
    photographs: int = option(100, "How many of them, evenly spread; 0 is all.", low=0)
    labels: Path | None = option(None, "CSV file of lines file,label; by default class folders.")
    positive: tuple[str, ...] = option((), "Further labels that should be flagged.")
    embed_photographs: bool = option(False, "Show photographs in the report.")
    quick: bool = option(False, "Look at less of everything that no flag names.")
    settings: AuditSettings = dataclasses.field(default_factory=AuditSettings)
    generator: str = like(RunFlags, "generator")
    places: str = option("pocket_places", "Scene network: a name or file; none leaves scenes out.")
    out: Path = option(Path("out/audit"), "Output folder.")
    overwrite: bool = like(RunFlags, "overwrite")
    resume: bool = option(False, "Continue the stopped audit in --out, or start it.")
    typed: frozenset[str] = frozenset()


def main(flags: Flags) -> int:
    """Audit classifiers."""
    if flags.resume and flags.overwrite:
        raise ValueError("--resume continues an audit, --overwrite deletes it: give one of them")
    asked = (*flags.models, *flags.model)
    if not asked:
        raise ValueError("no classifier named: --models=NAME=MODEL,... (`jaxsynth models`)")
    settings, count = flags.settings, flags.photographs
    if flags.quick:
        count = count if "photographs" in flags.typed else QUICK_PHOTOGRAPHS
        less = {name: value for name, value in QUICK.items() if name not in flags.typed}
        settings = dataclasses.replace(settings, **less)
    found = find_photographs(flags.images, count, flags.labels)
    for line in found.unread:
        print(f"left out: {printable(line)}")
    check_backend()
    keep_compiled(writable_cache())
    subjects = _subjects(asked, flags.decide)
    generator = load_for("generator", flags.generator, Generator)
    places = None
    if flags.places != NONE and settings.scenes:
        places = load_for("places", flags.places, Classifier)
        if places.name in {subject.name for subject in subjects}:
            places = places.named(f"scenes-{places.name}")
    audit = Audit(
        subjects,
        generator,
        settings,
        found,
        places,
        positive=flags.positive,
        embed=flags.embed_photographs,
    )
    with resumable(flags.out) as stop:
        saving = Saving(
            flags.out, resume=flags.resume, overwrite=flags.overwrite, asked_to_stop=stop.asked
        )
        say = functools.partial(print, flush=True)
        page = run_audit(audit, saving, command_line("audit"), say)
    print(f"report         {page}")
    return 0


def _subjects(asked: Sequence[str], decide: Sequence[str]) -> tuple[Subject, ...]:
    models = {model.name: model for model in (load_for("models", a, Classifier) for a in asked)}
    if len(models) < len(asked):
        raise ValueError(f"--models={','.join(asked)}: two have one name: call one other=MODEL")
    chosen = {}
    for text in decide:
        name, _, labels = text.partition("=")
        check_name(f"--decide={text}: model", name, models)
        chosen[name] = labels.split("+")
    return tuple(make_subject(model, chosen.get(name, ())) for name, model in models.items())


if __name__ == "__main__":
    run_experiment(main, Flags)
