"""The stages of an audit that change pictures, and those that look inside a classifier."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.asked import encode
from jaxsynth.audit import changes, subjects, synthesis
from jaxsynth.audit.changes import CHANGES, change
from jaxsynth.audit.networks import BATCH, LOG_PROB, Network, Prior
from jaxsynth.audit.subjects import Audit, Stage, Subject
from jaxsynth.images import to_uint8
from jaxsynth.models.base import Classifier
from jaxsynth.models.registry import load_encoder

_AT_ONCE = 16 * BATCH  # pictures in memory, as inputs of a network
_SHOWN = 10  # flips whose pictures are saved


class Work:
    """The audit under way, and its finished stages by name."""

    def __init__(self, audit: Audit):
        """Begin without any stage."""
        self.audit, self.stages = audit, dict[str, Stage]()

    @functools.cached_property
    def prior(self) -> Prior:
        """The generator with its programs."""
        return Prior(self.audit.generator)

    @functools.cached_property
    def networks(self) -> dict[str, Network]:
        """The subjects and the scene network by name, with their programs."""
        models = [subject.model for subject in self.audit.subjects]
        models += [self.audit.places] if self.audit.places is not None else []
        return {model.name: Network(model) for model in models}

    @property
    def places(self) -> Classifier:
        """The scene network; without one there are no stages of scenes."""
        assert self.audit.places is not None
        return self.audit.places

    @property
    def flipped_photographs(self) -> list[int]:
        """Return the numbers of the photographs whose decision is flipped."""
        return subjects.chosen(len(self.audit.photographs.files), self.audit.settings.flips)

    @functools.cached_property
    def photograph_codes(self) -> np.ndarray | None:
        """The codes (N, D) of `flipped_photographs`; None if the generator has no encoder."""
        generator = self.audit.generator
        if generator.encoder is None:
            return None
        encoder = load_encoder(generator)
        pictures = map(self.audit.picture, self.flipped_photographs)
        inputs = [encoder.input_of(rgb) for rgb in pictures]
        return np.stack([encode(encoder, generator, x) for x in inputs])

    def judged(self, pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Score pictures by every subject: arrays `p0`, `p1` ... (N, classes)."""
        networks = [self.networks[subject.name] for subject in self.audit.subjects]
        found: list[list[np.ndarray]] = [[] for _ in networks]
        waiting = iter(pictures)
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            for network, parts in zip(networks, found, strict=True):
                parts.append(network.probabilities(some))
        return {f"p{i}": np.concatenate(parts) for i, parts in enumerate(found)}

    def made(self, made: synthesis.Made, scenes: bool = False) -> Stage:
        """Score synthesised images, by the scene network too."""
        arrays = {"images": made.images, "codes": np.asarray(made.codes, np.float32)}
        if scenes:
            arrays["places"] = self.networks[self.places.name].probabilities(made.images)
        return Stage(made.rows, arrays | self.judged(made.images))

    def maximised(self, *goals: Any, scenes: bool = False, **how: Any) -> Stage:
        """Maximise goals, see `synthesis.maximise`, and score the images."""
        return self.made(synthesis.maximise(self.prior, self.networks, *goals, **how), scenes)

    def picture(self, photograph: bool, number: int) -> np.ndarray:
        """Return a photograph, or a random sample, (H, W, 3) uint8 RGB."""
        if photograph:
            return self.audit.picture(number)
        return self.stages["samples"].arrays["images"][number]


def samples(work: Work) -> Stage:
    """Draw random samples of the prior."""
    return work.made(synthesis.random_samples(work.prior, work.audit.settings.samples))


def ends(work: Work, subject: Subject) -> Stage:
    """Maximise and minimise a subject's neurons."""
    audit, settings = work.audit, work.audit.settings
    p = subjects.probabilities_of(subject, audit.subjects, work.stages["samples"].arrays)
    classes = synthesis.neurons_of(subject, settings.neurons, p)
    goals = synthesis.neuron_goals(work.networks, subject, classes)
    return work.maximised(goals, range(settings.seeds), settings.steps)


def disputes(work: Work) -> Stage:
    """Synthesise what two subjects dispute, from half of the seeds: each pair has two ends."""
    audit, settings = work.audit, work.audit.settings
    goals = synthesis.dispute_goals(work.networks, audit.subjects)
    stage = work.maximised(
        goals, range(-(-settings.seeds // 2)), settings.steps, ends=(subjects.MOST,)
    )
    for row in stage.value:
        row["sure"], row["denies"] = row.pop("what")
    return stage


def invariances(work: Work) -> Stage:
    """Score every picture under every change; scores are in the order of pictures, changes."""

    def pictures() -> Iterator[np.ndarray]:
        for kind, number in subjects.picture_numbers(work.audit, work.audit.settings.changed):
            rgb = work.picture(kind == subjects.PHOTOGRAPH, number)
            yield from (change(rgb, name) for name in CHANGES)

    return Stage(list(CHANGES), work.judged(pictures()))


def flipped(work: Work, subject: Subject) -> Stage:
    """Flip the decision on random samples and photographs, in pixels and by the prior."""
    settings, network = work.audit.settings, work.networks[subject.name]
    samples = list(range(min(settings.flips, settings.samples)))
    kinds = {subjects.SAMPLE: samples, subjects.PHOTOGRAPH: work.flipped_photographs}
    inputs = [
        subject.model.input_of(work.picture(kind == subjects.PHOTOGRAPH, i))
        for kind, numbers in kinds.items()
        for i in numbers
    ]
    codes = work.stages["samples"].arrays["codes"][samples]
    if kinds[subjects.PHOTOGRAPH] and work.photograph_codes is not None:
        codes = np.concatenate([codes, work.photograph_codes])
    found = {subjects.PIXELS: changes.flip_pixels(network, np.stack(inputs), settings.threshold)}
    found[subjects.PRIOR] = changes.flip_codes(network, work.prior, codes, settings.threshold)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    measured = _rows(subject, network, list(found.values()), settings.threshold)
    for (way, flip), all_rows in zip(found.items(), measured, strict=True):
        for kind, numbers in kinds.items():
            first = 0 if kind == subjects.SAMPLE else len(samples)
            own = all_rows[first : first + len(numbers)]
            for row, number in zip(own, numbers, strict=False):
                row.update({"of": kind, "number": number, "way": way})
            order = sorted(range(len(own)), key=lambda i, own=own: _size(own[i]))[:_SHOWN]
            for place, i in enumerate(order):
                own[i]["place"] = place
            if order and (kind == subjects.SAMPLE or work.audit.embed):
                shown = flip.part(np.add(order, first))
                arrays[f"{kind} {way}"] = to_uint8(np.stack([shown.before, shown.after], 1))
            rows += own
    return Stage(rows, arrays)


def _size(row: dict[str, Any]) -> float:
    return row["grey levels"] if row["crossed"] else np.inf


def _rows(
    subject: Subject, network: Network, found: list[changes.Flip], threshold: float
) -> list[list[dict[str, Any]]]:
    perceived = iter(np.split(changes.perceived(found), np.cumsum([len(f.odds) for f in found])))
    rows = []
    for flip in found:
        p, measured = 1 / (1 + np.exp(-flip.odds)), changes.distances(flip, next(perceived))
        as_files = subject.score(network.probabilities(to_uint8(flip.after)))
        rows.append([
            {
                "before": float(p[i, 0]),
                "after": float(p[i, 1]),
                "crossed": bool((p[i, 0] > threshold) != (p[i, 1] > threshold)),
                "as a file": bool((as_files[i] > threshold) == (p[i, 1] > threshold)),
            }
            | {name: float(values[i]) for name, values in measured.items()}
            for i in range(len(p))
        ])  # fmt: skip
    return rows


class Unit(NamedTuple):
    """A channel and what its removal does.

    Attributes:
      blob, channel: Which one.
      change: (N,) of the decision on each picture when it is removed.
      estimate: The mean size of that change to first order.
      response: (N,) its mean over places.
    """

    blob: str
    channel: int
    change: np.ndarray
    estimate: float
    response: np.ndarray


def important_units(network: Network, inputs: np.ndarray, count: int) -> list[Unit]:
    """Find the channels whose removal changes the decision most, on average over inputs (N, ...).

    A channel is removed by holding it at its mean over all pictures and places. Gradients rank all
    channels of several blobs at once, to first order; those that come first are removed in earnest.
    Sources: Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient
    inference" (the first-order estimate); Bau et al. 2020, "Understanding the role of individual
    units in a deep neural network" (removal of units).
    """
    decision = network.weights(subjects.DECISION)
    readings, _, slopes = network.slopes(inputs, decision)
    ranked, means = [], {}
    for blob in network.blobs:
        by_factor, by_sum = slopes[blob]
        means[blob] = network.part(readings, blob)
        effect = np.abs(by_factor - means[blob].mean(0) * by_sum).mean(0)
        ranked += [(float(size), blob, channel) for channel, size in enumerate(effect)]
    found = []
    for estimate, blob, channel in sorted(ranked, reverse=True)[:count]:
        response = means[blob][:, channel]
        removed = network.edits({(blob, channel): float(response.mean())})
        change = (network.read(inputs, removed) - readings) @ decision
        found.append(Unit(blob, channel, change, estimate, response))
    return sorted(found, key=lambda unit: -float(np.abs(unit.change).mean()))


def hidden_units(work: Work, subject: Subject) -> Stage:
    """Remove the units that matter most, and maximise each."""
    audit, settings = work.audit, work.audit.settings
    seen = subjects.picture_numbers(audit, settings.unit_pictures)
    inputs = [subject.model.input_of(work.picture(k == subjects.PHOTOGRAPH, i)) for k, i in seen]
    network = work.networks[subject.name]
    units = important_units(network, np.stack(inputs), settings.units)
    if not units:
        return Stage([], {})
    names = [f"{unit.blob} {unit.channel}" for unit in units]
    goals = {n: network.goal(u.blob, u.channel) for n, u in zip(names, units, strict=True)}
    stage = work.maximised(goals, [0], settings.steps, ends=(subjects.MOST,))
    found = {what: np.stack([getattr(u, what) for u in units]) for what in ("change", "response")}
    rows = [{"unit": n, "estimate": u.estimate} for n, u in zip(names, units, strict=True)]
    return Stage(rows, stage.arrays | found)


def scenes(work: Work) -> Stage:
    """Synthesise scenes alone."""
    settings, names = work.audit.settings, work.places.class_names
    network = work.networks[work.places.name]
    some = subjects.chosen(len(names), settings.scenes)
    goals = {names[i]: network.goal(LOG_PROB, i) for i in some}
    seeds = range(settings.scene_seeds)
    return work.maximised(goals, seeds, settings.steps, ends=(subjects.MOST,), scenes=True)


def scenes_with(work: Work, subject: Subject) -> Stage:
    """Change the scenes of the first seed towards a subject's classes, in half of the steps."""
    settings, alone = work.audit.settings, work.stages["scenes"]
    own = [i for i, row in enumerate(alone.value) if row["seed"] == 0]
    network, names = work.networks[work.places.name], work.places.class_names
    decision = work.networks[subject.name].goal(subjects.DECISION)
    scenes = [alone.value[i]["what"] for i in own]
    goals = {n: synthesis.added(network.goal(LOG_PROB, names.index(n)), decision) for n in scenes}
    steps, start = -(-settings.steps // 2), alone.arrays["codes"][own]
    return work.maximised(goals, [0], steps, ends=(subjects.MOST,), start=start, scenes=True)
