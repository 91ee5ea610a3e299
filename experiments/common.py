"""What the launchers share: settings -> networks -> one library call -> report."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.continuing import going_on
from experiments.launch import command_line, keep_compiled
from experiments.run_flags import Settings
from experiments.stopping import keeps_going_on
from jaxsynth.environment import cache_dir
from jaxsynth.images import preprocess, read_image, to_rgb
from jaxsynth.models.network import Network, logits_blob
from jaxsynth.models.weights import file_record, load_encoder, load_network, read_info
from jaxsynth.porting.port import file_sha256
from jaxsynth.report.digest import digest, join_digests
from jaxsynth.report.film_strip import STRIP, STRIP_ROWS, path_pictures
from jaxsynth.report.pages import DrawSheet, Finished, Pages, summarise, write_pages
from jaxsynth.report.rows import is_non_finite
from jaxsynth.report.tables import format_table
from jaxsynth.runs.checkpoint import (
    all_asked_to_stop,
    ask_all_to_stop,
    join_chunks,
    load_chunk,
    read_codes,
    remove_unfinished,
)
from jaxsynth.runs.folder import RESULTS, UNFINISHED, fingerprint, lock, open_run
from jaxsynth.runs.keep import Keeping, Stopped, all_chunks, finished_chunks
from jaxsynth.runs.pictures import image_writer
from jaxsynth.runs.processes import Processes, agree, any_of
from jaxsynth.short import PLACES, Plan, Run, check_roles, encode, plan
from jaxsynth.system import ENCODER, GENERATOR
from jaxsynth.terms import Term, unit_term

_WORDS = ("open", "finished", "refused")  # what process 0 says of the output folder
TARGETS = ("logit", "log_prob", "log_odds", "prob")


def load_networks(settings: Settings, encoder: bool = False) -> dict[str, Network]:
    """The networks by role, in the precision asked for; the generator's encoder where settings or
    caller need it.

    Raises:
      ValueError: if --init_image is no image, a network cannot be loaded, or another one stands
        for nsfw.
    """
    if settings.init_image:
        read_image(settings.init_image)  # a bad photograph is told of before anything is loaded
    keep_compiled(cache_dir())
    dtype = np.dtype(settings.sweep.precision)
    networks = {role: load_network(name, dtype) for role, name in settings.networks.items()}
    check_roles(networks)
    if encoder or needs_encoder(settings):
        networks[ENCODER] = load_encoder(networks[GENERATOR], encoder_name(settings), dtype)
    return networks


def needs_encoder(settings: Settings) -> bool:
    """Whether a photograph is encoded, or the recipe has a prior term."""
    return bool(settings.init_image or settings.sweep.recipe.prior)


def encoder_name(settings: Settings) -> str:
    """Name or file of the generator's encoder: --encoder; else --places, if it bears the name of
    the one that the generator names; else that name.

    Raises:
      ValueError: if there is none.
    """
    if settings.encoder:
        return settings.encoder
    generator = read_info(settings.networks[GENERATOR])
    if not generator.encoder:
        raise ValueError(f"generator {generator.network!r} names no encoder: give --encoder=FILE")
    places = settings.networks.get(PLACES)
    if places and read_info(places).network == generator.encoder:
        return places
    return generator.encoder


def target_term(
    networks: Mapping[str, Network], role: str, unit: int, weight: float, target: str
) -> Term:
    """A term on a classifier's unit as `--target` names it: logit, log_prob, log_odds, prob."""
    blob = logits_blob(networks[role].info.config) if target == "logit" else target
    return unit_term(networks, role, blob, unit, weight)


def launch(
    settings: Settings,
    networks: Mapping[str, Network],
    runs: Sequence[Run],
    title: str,
    draw_sheet: DrawSheet | None = None,
) -> int:
    """Computes the runs and writes everything into the output folder; gives the exit code.

    `draw_sheet` draws something else than the contact sheet. Exit codes: 0 done, 3 if no run was
    sound.

    Raises:
      ValueError: for what cannot work, and when the disk fails; what is finished is kept.
      SystemExit: if it was stopped (`keeps_going_on`).
    """
    out, processes = settings.out, settings.processes
    if settings.earlier:
        title = f"{title}, going on from {settings.earlier.folder.resolve().name}"
    photo, runs, start = _start(settings, networks, runs)
    todo = plan(networks, runs, settings.sweep, start)
    config = _config(settings, runs)
    with ExitStack() as held, keeps_going_on(out) as stop:
        config = _open_run(settings, config, held)
        if config is None:
            return 0
        _compute_with_others(settings, todo, stop.asked)
        if not processes.leads:
            return 0
        pages = _write_pages(settings, todo, runs, networks, photo, title, config, draw_sheet)
        remove_unfinished(out)
    return _tell(out, pages)


def _open_run(settings: Settings, config: dict[str, Any], held: ExitStack) -> dict[str, Any] | None:
    """The folder locked and made ready by process 0: the config that it keeps, None if the run is
    finished."""
    _check_alike(settings.processes, config)
    refusal: Exception | None = None
    if settings.processes.leads:
        try:
            held.enter_context(lock(settings.out))
            config = open_run(settings.out, config, settings.resume, settings.overwrite)
        except (ValueError, OSError) as error:
            refusal = error
    word = "refused" if refusal else "finished" if config is None else "open"
    word = _WORDS[agree(settings.processes, _WORDS.index(word))]
    if word == "refused":
        raise refusal or ValueError(f"process 0 has refused output folder {settings.out}")
    if word == "finished":
        print(f"{settings.out} holds this run, finished: nothing is left to resume")
        return None
    _check_shared(settings.processes, settings.out)
    return config


def _check_alike(processes: Processes, config: Mapping[str, Any]) -> None:
    """Raises ValueError, in every process that has come so far, unless all compute the same."""
    if processes.count == 1:
        return  # a config may hold a million runs
    own = fingerprint(config)
    if any_of(processes, own != agree(processes, own)):
        raise ValueError(
            "the processes of this run were started with different flags, networks or numbers of "
            "devices: give all of them the same"
        )


def _check_shared(processes: Processes, out: Path) -> None:
    """Raises ValueError, in every process, unless all see the folder that process 0 has opened."""
    if any_of(processes, not (out / UNFINISHED).is_dir()):
        raise ValueError(
            f"output folder {out} of process 0 is not that of all processes: give all of them one "
            "--out, on a file system that they share"
        )


def _compute_with_others(settings: Settings, todo: Plan, asked_to_stop: Callable[[], bool]) -> None:
    """All chunks. Where one process stops or fails, the others hear of it after their step.

    Raises:
      Stopped: if this process or another one has stopped.
    """
    processes, out = settings.processes, settings.out
    shared = processes.count > 1
    problem: Exception | None = None
    try:
        _compute(settings, todo, lambda: asked_to_stop() or (shared and all_asked_to_stop(out)))
    except Exception as error:
        problem = error
        if shared:
            ask_all_to_stop(out)
    if any_of(processes, problem is not None):
        raise problem or Stopped("another process has stopped")


def _compute(settings: Settings, todo: Plan, asked_to_stop: Callable[[], bool]) -> None:
    """This process's chunks, and their images."""
    keeping = _keeping(settings, asked_to_stop)
    show = functools.partial(to_rgb, how=settings.show)
    with image_writer(settings.out, settings.images, show) as write:
        for first, chunk in finished_chunks(todo, keeping):
            write(first, chunk)


def _keeping(settings: Settings, asked_to_stop: Callable[[], bool] = lambda: False) -> Keeping:
    return Keeping(
        settings.out,
        save_seconds=settings.save_seconds,
        progress=settings.progress,
        asked_to_stop=asked_to_stop,
        devices=settings.devices,
        processes=settings.processes,
    )


def _write_pages(
    settings: Settings,
    todo: Plan,
    runs: Sequence[Run],
    networks: Mapping[str, Network],
    photo: np.ndarray | None,
    title: str,
    config: Mapping[str, Any],
    draw_sheet: DrawSheet | None,
) -> Pages:
    """Results and pages of all chunks, of which one at a time is in memory."""
    parts, paths = [], []
    for first in all_chunks(todo, _keeping(settings)):
        chunk = load_chunk(settings.out, first)
        parts.append(digest(first, runs, chunk, networks))
        if photo is not None:
            wanted = range(first, min(first + len(chunk.codes), STRIP_ROWS))
            paths += [path_pictures(todo, chunk, run, photo, first) for run in wanted]
    join_chunks(settings.out)
    return write_pages(
        Finished(runs, join_digests(parts), config, networks, paths),
        settings.out,
        title=title,
        blur_sheet=settings.blur_sheet,
        draw_sheet=draw_sheet,
    )


def _tell(out: Path, pages: Pages) -> int:
    """The last lines of a launcher, and its exit code."""
    print(format_table(summarise(pages.rows)))
    for picture in pages.pictures:
        print(f"{'strip' if picture == STRIP else 'contact sheet':<15}{out / picture}")
    print(f"report         {out / 'report.html'}")
    if all(is_non_finite(row) for row in pages.rows):
        print("no run stayed finite: see the column status of metrics.csv", file=sys.stderr)
        return 3
    return 0


def _start(
    settings: Settings, networks: Mapping[str, Network], runs: Sequence[Run]
) -> tuple[np.ndarray | None, Sequence[Run], np.ndarray | None]:
    """The photograph as its encoder sees it, the runs, and every run's start code; None for what is
    not."""
    if settings.earlier:
        return None, *going_on(settings.earlier, runs)
    if not settings.init_image:
        return None, runs, _start_codes(settings, networks, runs)
    generator, encoder = networks[GENERATOR], networks[ENCODER]
    photo = preprocess(
        read_image(settings.init_image), encoder.info.preprocessing, encoder.input_shape[0]
    )
    code = encode(encoder, generator, photo)
    return photo, runs, np.broadcast_to(code, (len(runs), *code.shape))


def _start_codes(
    settings: Settings, networks: Mapping[str, Network], runs: Sequence[Run]
) -> np.ndarray | None:
    size = networks[GENERATOR].input_shape[0]
    if not settings.init_codes:
        return None
    codes = np.atleast_2d(read_codes(settings.init_codes))
    if codes.shape == (len(settings.seeds), size) and len(runs) > len(codes):
        place = {seed: i for i, seed in enumerate(settings.seeds)}
        codes = codes[[place[run.seed] for run in runs]]
    if codes.shape != (len(runs), size) or codes.dtype.kind != "f":
        raise ValueError(
            f"--init_codes={settings.init_codes} holds {codes.dtype} {codes.shape}, expected "
            f"floats ({len(runs)}, {size}): a row per run, or per seed"
        )
    return codes


def _config(settings: Settings, runs: Sequence[Run]) -> dict[str, Any]:
    own = [f for fs in flags.FLAGS.flags_by_module_dict().items() if _is_ours(fs[0]) for f in fs[1]]
    return {
        "experiment": settings.name,
        "command": command_line(settings.name),
        "flags": {flag.name: flag.value for flag in own},
        "sweep": dataclasses.asdict(settings.sweep),
        "networks": {role: file_record(name) for role, name in settings.networks.items()},
        "inputs": _inputs(settings),
        "show": settings.show,
        "images": settings.images,
        "chunk_runs": settings.chunk_runs,
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def _inputs(settings: Settings) -> dict[str, Any]:
    """Hashes of the files that decide the start codes, and of the encoder if it is used."""
    files = [path for path in (settings.init_image, settings.init_codes) if path]
    files += [str(settings.earlier.folder / RESULTS)] if settings.earlier else []
    inputs: dict[str, Any] = {path: file_sha256(Path(path)) for path in files}
    if needs_encoder(settings):
        inputs["encoder"] = file_record(encoder_name(settings))
    return inputs


def _is_ours(module: str) -> bool:
    return module.startswith("experiments.") or module.endswith(".py")


def used_files(settings: Settings) -> dict[str, dict[str, str]]:
    """Role -> name and hash of its file, the encoder's too if it is used."""
    files = dict(settings.networks)
    if needs_encoder(settings):
        files[ENCODER] = encoder_name(settings)
    return {role: file_record(name) for role, name in files.items()}
