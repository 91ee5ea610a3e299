"""An evaluation from photographs and weights files to a folder of table, figures and sheets.

Every group's result is written as soon as it is there, and what its sweeps have computed is kept
until then. A later evaluation of the same weights into the same folder adds its groups to the
others, or replaces them.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth.chunks import Results
from jaxsynth.environment import hardware, versions
from jaxsynth.evaluation import groups
from jaxsynth.evaluation.folder import (
    TABLE,
    Records,
    earlier_records,
    make_folder,
    write_pages,
    write_records,
    write_spectra,
)
from jaxsynth.evaluation.groups import JUDGE, Group, Work
from jaxsynth.evaluation.looks import Pair, check_judge, label_units, reconstruct
from jaxsynth.models.network import Network
from jaxsynth.runs.folder import lock, sha256_of
from jaxsynth.runs.keep import (
    Keeping,
    Stopped,
    close_sweep,
    finished_sweep,
    open_sweep,
    sweep_config,
)
from jaxsynth.short import NSFW, PLACES, Plan, Run, Sweep, plan
from jaxsynth.system import ENCODER, GENERATOR, make_encoder
from jaxsynth.training.data import ImageSet, load_images

_COMPUTE: dict[str, Callable[[Work], Group]] = {
    "network": groups.network,
    "inversion": groups.inversion,
    "frechet": groups.frechet,
    "spectrum": groups.spectrum,
    "scenes": groups.scenes,
    "nsfw": groups.nsfw,
    "joint": groups.joint,
    "random": groups.random,
    "size": lambda work: Group(shipped_size(), {}),
}
GROUPS = tuple(_COMPUTE)
SWEEPS = {
    "scenes": ("scenes",),
    "nsfw": ("nsfw", "sfw"),
    "joint": ("joint",),
    "random": ("random",),
}
_ROLES = {  # beside the generator and the scene network
    "inversion": (ENCODER,),
    "frechet": (ENCODER, JUDGE),
    "spectrum": (ENCODER,),
    "scenes": (JUDGE,),
    "nsfw": (NSFW,),
    "joint": (NSFW,),
    "random": (NSFW,),
}
Sweeps = Mapping[str, tuple[Sequence[Run], Sweep]]  # name -> its runs, and how they climb
_WITH_PHOTOGRAPHS = ("network", "inversion", "frechet", "spectrum", "scenes")


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """An evaluation: which groups, of which files, into which folder.

    Attributes:
      groups: some of `GROUPS`.
      data: folder of photographs as for the trainers; some groups need none.
      records: role -> name and sha256 of its file, of every role in `networks`.
      baseline: the same of another pair that the Frechet distance is compared with.
      resume: go on with an evaluation that was stopped; its finished groups are not computed again.
      save_seconds: seconds between two savings of the chunk under way.
    """

    out: Path
    groups: tuple[str, ...]
    data: Path | None
    cache: Path
    records: Mapping[str, Mapping[str, str]]
    baseline: tuple[Mapping[str, str], ...] = ()
    command: str = ""
    overwrite: bool = False
    resume: bool = False
    save_seconds: float = 15.0
    progress: bool = True


def roles_needed(chosen: Sequence[str]) -> set[str]:
    """Roles of the networks that these groups need."""
    return {GENERATOR, PLACES, *(role for group in chosen for role in _ROLES.get(group, ()))}


def evaluate_prior(
    run: EvaluationRun,
    networks: Mapping[str, Network],
    sweeps: Sweeps,
    baseline: Pair | None = None,
    say: Callable[[str], None] = print,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Computes the groups one after another, writes everything, and gives the table.

    Args:
      networks: by role; those of `roles_needed`.
      sweeps: name in `SWEEPS` -> its runs and how they climb; those of the chosen groups.
      baseline: see `EvaluationRun`.
      asked_to_stop: looked at after every step of a sweep and after every group.

    Raises:
      ValueError: for anything that cannot work, before any long work.
      Stopped: if it was asked to; what is computed is kept.
    """
    pair = _check(run, networks, baseline)
    plans = {name: _plan(networks, name, *of) for name, of in sweeps.items()}
    photographs = functools.cache(functools.partial(_photographs, run, say))
    side = networks[GENERATOR].info.config.size
    digests = {role: record["sha256"] for role, record in run.records.items()}
    keeping = Keeping(
        run.out,
        resume=run.resume,
        save_seconds=run.save_seconds,
        progress=run.progress,
        asked_to_stop=asked_to_stop,
    )

    @functools.cache
    def reconstructions() -> np.ndarray:
        images = photographs(side)
        return reconstruct(pair, images.images[images.rows])

    def results(name: str) -> Results:
        return finished_sweep(keeping, name, plans[name], _config(run, name, *sweeps[name]))

    runs = {name: of for name, (of, _) in sweeps.items()}
    work = Work(networks, pair, baseline, runs, results, photographs, reconstructions)
    with lock(run.out):
        done = earlier_records(run.out, digests, run.resume, run.overwrite)
        left = [name for name in run.groups if not _is_finished(run, name, done, sweeps)]
        if set(left) & set(_WITH_PHOTOGRAPHS):
            _check_categories(run, left, photographs(side), networks[PLACES])
        make_folder(run.out, not done, run.resume)
        for name in [s for group in left for s in SWEEPS.get(group, ())]:
            open_sweep(keeping, name, _config(run, name, *sweeps[name]))
        for name in set(run.groups) - set(left):
            _close(run, name)
        for i, name in enumerate(left):
            start = time.perf_counter()
            group = _COMPUTE[name](work)
            done[name] = _record(run, name, group, sweeps, time.perf_counter() - start)
            write_pages(run.out, name, group.pages)
            write_records(run.out, done, GROUPS)
            _close(run, name)
            say(summary_line(name, done[name]))
            if left[i + 1 :] and asked_to_stop():
                raise Stopped(f"{i + 1} of {len(left)} groups finished")
        if {"spectrum", "scenes"} & set(run.groups) and (problem := write_spectra(run.out, done)):
            say(problem)
    return (run.out / TABLE).read_text()


def shipped_size() -> dict[str, Any]:
    """Bytes of the weights that ship with the package, in MB (1e6)."""
    found = [f for f in package_files("ported_params").iterdir() if f.name.endswith(".safetensors")]
    sizes = {f.name: len(f.read_bytes()) for f in sorted(found, key=lambda f: f.name)}
    return {"megabytes": sum(sizes.values()) / 1e6, "files": sizes}


def summary_line(name: str, record: Mapping[str, Any]) -> str:
    """A group's values on one line."""
    values = record["values"]
    if name == "scenes":
        fraction = values["judge_fraction"]
        text = (
            f"P >= 0.9 {values['reached']:.1%}, median P {values['median']:.3f}, "
            f"judge top-5 {values['judge_made']:.1%} (photographs {values['judge_real']:.1%}), "
            f"fraction {'none' if fraction is None else format(fraction, '.2f')}, "
            f"clipped {values['saturated']:.1%}, spectrum {values['largest_db']:.1f} dB"
        )
    else:
        text = ", ".join(f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, int | float))
    return f"{name}: {text} ({record['seconds']:.0f} s)"


def _check(
    run: EvaluationRun, networks: Mapping[str, Network], baseline: Pair | None
) -> Pair | None:
    needs = [g for g in run.groups if g in _WITH_PHOTOGRAPHS]
    if needs and run.data is None:
        raise ValueError(f"--data is missing: {needs[0]} needs a folder of photographs")
    if JUDGE in networks:
        digest = {role: record["sha256"] for role, record in run.records.items()}
        for role in (PLACES, ENCODER):
            if digest.get(role) == digest[JUDGE]:
                raise ValueError(
                    f"{run.records[JUDGE]['name']!r} is the judge and cannot be the network for "
                    f"{role!r} as well: a judge that is climbed or inverted judges nothing"
                )
        check_judge(networks[JUDGE], networks[PLACES].class_names)
    pairs = [baseline] if baseline is not None else []
    if ENCODER in networks:
        pairs.append(Pair(networks[GENERATOR], networks[ENCODER]))
    for pair in pairs:
        make_encoder(*pair)
    return pairs[-1] if ENCODER in networks else None


def _check_categories(
    run: EvaluationRun, chosen: Sequence[str], images: ImageSet, places: Network
) -> None:
    """Raises ValueError unless the photographs' categories are those that the groups need."""
    if "network" in chosen:
        label_units(images.classes, places)
    if "scenes" in chosen and not set(images.classes) & set(places.class_names):
        raise ValueError(
            f"--data={str(run.data)!r} has no category of network {places.name!r}: scenes needs "
            "photographs that the judge can name"
        )


def _climbed(sweep: str) -> tuple[str, ...]:
    """The networks of one sweep: never the judge, and no larger ones than it needs."""
    return GENERATOR, *{"scenes": (PLACES,), "joint": (PLACES, NSFW)}.get(sweep, (NSFW,))


def _plan(networks: Mapping[str, Network], name: str, runs: Sequence[Run], sweep: Sweep) -> Plan:
    own = {r: networks[r] for r in (*_climbed(name), ENCODER) if r in networks}
    return plan(own, runs, sweep)


def _config(run: EvaluationRun, name: str, runs: Sequence[Run], sweep: Sweep) -> dict[str, Any]:
    """The config.json that a sweep under way keeps."""
    roles = (*_climbed(name), ENCODER) if sweep.recipe.prior else _climbed(name)
    return sweep_config(run.command, sweep, runs, {role: run.records[role] for role in roles})


def _photographs(run: EvaluationRun, say: Callable[[str], None], side: int) -> ImageSet:
    images = load_images(run.data, "val", side, run.cache)
    for line in images.skipped:
        say(f"skipped {line}")
    return images


def _close(run: EvaluationRun, group: str) -> None:
    """The group's figures are written: what was kept of its sweeps goes."""
    for name in SWEEPS.get(group, ()):
        close_sweep(run.out, name)


def _record(
    run: EvaluationRun,
    name: str,
    group: Group,
    sweeps: Sweeps,
    seconds: float,
) -> dict[str, Any]:
    return {
        "values": group.values,
        "seconds": round(seconds, 1),
        "command": run.command,
        **_made_of(run, name, sweeps),
        "sha256": _sha256(run, name, sweeps),
        "hardware": hardware(),
    }


def _made_of(run: EvaluationRun, name: str, sweeps: Sweeps) -> dict[str, Any]:
    """What decides a group's figures, but for its runs."""
    own = {s: dataclasses.asdict(sweeps[s][1]) for s in SWEEPS.get(name, ())}
    roles = roles_needed([name]) if name != "size" else set()
    if any(sweeps[s][1].recipe.prior for s in own):
        roles.add(ENCODER)
    return {
        "networks": {r: dict(run.records[r]) for r in sorted(roles)},
        "baseline": [dict(record) for record in run.baseline] if name == "frechet" else [],
        "data": str(run.data) if name in _WITH_PHOTOGRAPHS else "",
        "sweeps": own,
        "versions": versions(),
    }


def _sha256(run: EvaluationRun, name: str, sweeps: Sweeps) -> str:
    """Hash of all that decides a group's figures."""
    runs = {s: [dataclasses.asdict(r) for r in sweeps[s][0]] for s in SWEEPS.get(name, ())}
    return sha256_of(_made_of(run, name, sweeps) | {"runs": runs})


def _is_finished(run: EvaluationRun, name: str, done: Records, sweeps: Sweeps) -> bool:
    """Whether a resumed evaluation finds the group's figures, made of the same."""
    return run.resume and done.get(name, {}).get("sha256") == _sha256(run, name, sweeps)
