"""The stages of an audit that change pictures, and those that look inside a classifier."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxsynth.asked import encode
from jaxsynth.audit import flips, synthesis
from jaxsynth.audit.changes import CHANGES, change
from jaxsynth.audit.settings import (
    MOST,
    PHOTOGRAPH,
    PIXELS,
    PRIOR,
    SAMPLE,
    Audit,
    Stage,
    picture_numbers,
)
from jaxsynth.audit.subjects import DECISION, Subject, chosen, probabilities_of
from jaxsynth.audit.units import important_units, names_of
from jaxsynth.images import to_uint8
from jaxsynth.models.base import Classifier
from jaxsynth.models.registry import load_encoder
from jaxsynth.scoring import probabilities

_SCENES = 3  # with the highest scores, and with the lowest
_AT_ONCE = 64  # pictures in memory, as inputs of a network
_SHOWN = 10  # flips whose pictures are saved


class Work:
    """The audit under way, and its finished stages by name."""

    def __init__(self, audit: Audit):
        """Begin without any stage."""
        self.audit, self.stages = audit, dict[str, Stage]()

    @property
    def places(self) -> Classifier:
        """Return the scene network; without one there are no stages of scenes."""
        assert self.audit.places is not None
        return self.audit.places

    @property
    def flipped_photographs(self) -> list[int]:
        """Return the numbers of the photographs whose decision is flipped."""
        return chosen(len(self.audit.photographs.files), self.audit.settings.flips)

    @functools.cached_property
    def photograph_codes(self) -> np.ndarray | None:
        """The codes (N, D) of `flipped_photographs`, the same for every subject.

        None if the generator has no encoder.
        """
        generator = self.audit.generator
        if generator.encoder is None:
            return None
        encoder = load_encoder(generator)
        pictures = map(self.audit.picture, self.flipped_photographs)
        inputs = [encoder.input_of(rgb) for rgb in pictures]
        return np.stack([encode(encoder, generator, x) for x in inputs])

    def judged(self, pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Score pictures by every subject: arrays `p0`, `p1` ... (N, classes)."""
        models, waiting = [subject.model for subject in self.audit.subjects], iter(pictures)
        found: list[list[np.ndarray]] = [[] for _ in models]
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            for model, parts in zip(models, found, strict=True):
                parts.append(probabilities(model, some))
        return {f"p{i}": np.concatenate(parts) for i, parts in enumerate(found)}

    def made(self, made: synthesis.Made, places: Classifier | None = None) -> Stage:
        """Score synthesised images, by a scene network too."""
        arrays = {"images": made.images, "codes": np.asarray(made.codes, np.float32)}
        arrays |= {"places": probabilities(places, made.images)} if places else {}
        return Stage(made.rows, arrays | self.judged(made.images))

    def picture(self, photograph: bool, number: int) -> np.ndarray:
        """Return a photograph, or a random sample, (H, W, 3) uint8 RGB."""
        if photograph:
            return self.audit.picture(number)
        return self.stages["samples"].arrays["images"][number]


def ends(work: Work, subject: Subject) -> Stage:
    """Maximise and minimise a subject's neurons."""
    audit, settings = work.audit, work.audit.settings
    p = probabilities_of(subject, audit.subjects, work.stages["samples"].arrays)
    classes = synthesis.neurons_of(subject, settings.neurons, p)
    how = audit.generator, settings.seeds, settings.steps
    return work.made(synthesis.neuron_ends(subject, classes, *how))


def disputes(work: Work) -> Stage:
    """Synthesise what two subjects dispute, from half of the seeds: each pair has two ends."""
    audit, settings = work.audit, work.audit.settings
    how = audit.generator, -(-settings.seeds // 2), settings.steps
    return work.made(synthesis.disputes(audit.subjects, *how))


def invariances(work: Work) -> Stage:
    """Score every picture under every change; scores are in the order of pictures, changes."""

    def pictures() -> Iterator[np.ndarray]:
        for kind, number in picture_numbers(work.audit, work.audit.settings.changed):
            rgb = work.picture(kind == PHOTOGRAPH, number)
            yield from (change(rgb, name) for name in CHANGES)

    return Stage(list(CHANGES), work.judged(pictures()))


def flipped(work: Work, subject: Subject) -> Stage:
    """Flip the decision on random samples and photographs, in pixels and by the prior."""
    audit, settings = work.audit, work.audit.settings
    generator = audit.generator
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    samples = list(range(min(settings.flips, settings.samples)))
    for kind, numbers in ((SAMPLE, samples), (PHOTOGRAPH, work.flipped_photographs)):
        pictures = [work.picture(kind == PHOTOGRAPH, i) for i in numbers]
        if not pictures:
            continue
        inputs = np.stack([subject.model.input_of(rgb) for rgb in pictures])
        found = {PIXELS: flips.flip_pixels(subject, inputs, settings.threshold)}
        made = work.stages["samples"].arrays["codes"]
        codes = made[numbers] if kind == SAMPLE else work.photograph_codes
        if codes is not None:
            found[PRIOR] = flips.flip_codes(subject, generator, codes, settings.threshold)
        for way, flip in found.items():
            own = _rows(subject, flip, settings.threshold)
            for row, number in zip(own, numbers, strict=True):
                row.update({"of": kind, "number": number, "way": way})
            order = sorted(range(len(own)), key=lambda i, own=own: _size(own[i]))[:_SHOWN]
            for place, i in enumerate(order):
                own[i]["place"] = place
            if kind == SAMPLE or audit.embed:
                pair = np.stack([flip.before[order], flip.after[order]], 1)
                arrays[f"{kind} {way}"] = to_uint8(pair)
            rows += own
    return Stage(rows, arrays)


def _size(row: dict[str, Any]) -> float:
    return row["grey levels"] if row["crossed"] else np.inf


def _rows(subject: Subject, flip: flips.Flip, threshold: float) -> list[dict[str, Any]]:
    measured = flips.distances(flip)
    p = 1 / (1 + np.exp(-flip.odds))
    as_files = subject.score(probabilities(subject.model, to_uint8(flip.after)))
    return [
        {
            "before": float(p[i, 0]),
            "after": float(p[i, 1]),
            "crossed": bool((p[i, 0] > threshold) != (p[i, 1] > threshold)),
            "as a file": bool((as_files[i] > threshold) == (p[i, 1] > threshold)),
        }
        | {name: float(values[i]) for name, values in measured.items()}
        for i in range(len(p))
    ]


def hidden_units(work: Work, subject: Subject) -> Stage:
    """Remove the units that matter most, and maximise each."""
    audit, settings = work.audit, work.audit.settings
    seen = picture_numbers(audit, settings.unit_pictures)
    inputs = [subject.model.input_of(work.picture(k == PHOTOGRAPH, i)) for k, i in seen]
    units = important_units(subject, np.stack(inputs), settings.units)
    if not units:
        return Stage([], {})
    goals = {
        name: subject.model.channel(unit.blob, unit.channel)
        for name, unit in zip(names_of(units), units, strict=True)
    }
    how = audit.generator, 1, settings.steps, (MOST,)
    stage = work.made(synthesis.maximise(goals, *how))
    found = {
        name: np.stack([getattr(unit, name) for unit in units]) for name in ("change", "response")
    }
    return Stage([{"unit": name, "estimate": unit.estimate} for name, unit
                  in zip(names_of(units), units, strict=True)], stage.arrays | found)  # fmt: skip


def scenes(work: Work) -> Stage:
    """Synthesise scenes alone."""
    audit, settings, places = work.audit, work.audit.settings, work.places
    names = places.class_names
    goals = {names[i]: places.log_prob(i) for i in chosen(len(names), settings.scenes)}
    how = audit.generator, settings.scene_seeds, settings.steps, (MOST,)
    return work.made(synthesis.maximise(goals, *how), places)


def scenes_with(work: Work, subject: Subject) -> Stage:
    """Synthesise the scenes that a subject scores highest and lowest, together with its classes."""
    audit, settings, places = work.audit, work.audit.settings, work.places
    alone = work.stages["scenes"]
    score = subject.score(probabilities_of(subject, audit.subjects, alone.arrays))
    named = [row["what"] for row in alone.value]
    mean = {what: np.mean([s for s, n in zip(score, named, strict=True) if n == what])
            for what in named}  # fmt: skip
    order = sorted(mean, key=lambda what: -mean[what])
    some = dict.fromkeys([*order[:_SCENES], *order[-_SCENES:]])
    goals = {
        what: places.log_prob(places.class_names.index(what)) + subject.model.unit(DECISION, 0)
        for what in some
    }
    how = audit.generator, settings.scene_seeds, settings.steps, (MOST,)
    return work.made(synthesis.maximise(goals, *how), places)
