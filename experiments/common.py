"""Code that launchers share: flags -> models -> one library call -> report."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxsynth.arithmetic import usable_precision
from jaxsynth.ask_tell import PRIOR
from jaxsynth.disk import file_sha256
from jaxsynth.environment import check_backend, keep_compiled, writable_cache
from jaxsynth.image_files import read_image
from jaxsynth.images import conversion
from jaxsynth.maximize import Run, Settings, carry_out, config_of, encode, plan
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.registry import SENSITIVE, load, load_encoder, of_size, with_pixels
from jaxsynth.optimizer_names import make_optimizer
from jaxsynth.report.film import write_films
from jaxsynth.report.pages import DrawSheet, Extras, Pages, report
from jaxsynth.report.photographs import STRIP, STRIP_ROWS, Photograph, path_pictures
from jaxsynth.report.tables import format_table
from jaxsynth.results import SweepResult
from jaxsynth.runs.folder import RESULTS
from jaxsynth.runs.processes import chosen_devices
from jaxsynth.runs.records import model_record
from jaxsynth.runs.saving import Saving
from jaxsynth.table import is_non_finite, non_finite_line

from . import flags as typed_flags
from .launch import command_line, resumable
from .run_flags import NONE, NSFW, PLACES, F, RunFlags, check_together, make_settings

_M = TypeVar("_M", Classifier, Generator)


class Models(NamedTuple):
    """The models and settings of a launcher.

    Attributes:
      generator: makes the images.
      classifiers: by name: `nsfw`, `places`, and those of --model.
      settings: how runs are computed.
      encoder: the generator's; None where nothing needs it.
      devices: that chunks are split over.
    """

    generator: Generator
    classifiers: dict[str, Classifier]
    settings: Settings
    encoder: Classifier | None
    devices: tuple[jax.Device, ...]

    def named(self) -> dict[str, Generator | Classifier]:
        """Return generator and classifiers by name, as terms call them."""
        return {"generator": self.generator, **self.classifiers}

    def only(self, *names: str) -> "Models":
        """Return the same with fewer classifiers."""
        named = {name: c for name, c in self.classifiers.items() if name in names}
        return self._replace(classifiers=named)


def load_models(flags: F, needs: Sequence[str] = (), emulate: bool = False) -> tuple[F, Models]:
    """Load the models that flags name; ValueError names the first flag that cannot work.

    `needs` are classifiers that the launcher cannot do without; `emulate` computes in bfloat16 also
    where the processor has none. The flags come back with the precision that is used, and with what
    a continued run takes over from the earlier one.
    """
    flags = check_together(flags)
    if flags.init_image:
        read_image(flags.init_image)  # a bad photograph is refused before anything is loaded
    _ = flags.processes  # before anything touches a device
    devices = chosen_devices(flags.devices)
    keep_compiled(writable_cache())
    if not emulate:
        precision, why = usable_precision(flags.precision)
        flags = dataclasses.replace(flags, precision=precision)
        if why:
            print(why, file=sys.stderr)
    name = of_size(flags.generator, flags.size or 0)
    generator = load_for("generator", name, Generator, flags.precision)
    if flags.size and flags.size < generator.image_size:
        raise ValueError(
            f"--size={flags.size}: {generator.name} makes {generator.image_size} pixels, which "
            f"--size only enlarges: expected {generator.image_size} or more"
        )
    classifiers = load_classifiers(flags, flags.precision, flags.preprocess)
    if missing := [name for name in needs if name not in classifiers]:
        raise ValueError(f"--{missing[0]}={NONE}: {flags.name} needs that classifier")
    settings = make_settings(flags, generator)
    encoder = None
    if flags.init_image or make_optimizer(settings.optimizer, settings.recipe).asks == PRIOR:
        name = flags.encoder_name(generator, classifiers)
        encoder = load_encoder(generator, name, flags.precision)
    models = Models(generator, classifiers, settings, encoder, devices)
    if flags.earlier:
        records = {role: model_record(model) for role, model in models.named().items()}
        flags.earlier.check_models(records, flags.folder)
    return flags, models


def load_classifiers(
    flags: Any, precision: str = "float32", preprocess: str = ""
) -> dict[str, Classifier]:
    """Load the classifiers of --nsfw, --places and --model, by the names that they go by.

    `precision` is of their weights, `preprocess` for ONNX files that do not say how pixels are
    scaled.
    """
    check_backend()
    found: dict[str, Classifier] = {}
    for role, asked in ((NSFW, flags.nsfw), (PLACES, flags.places)):
        if asked != NONE:
            found[role] = load_for(role, asked, Classifier, precision).named(role)
    if NSFW in found and found[NSFW].labels != SENSITIVE:
        raise ValueError(
            f"--nsfw={flags.nsfw}: its classes are not SFW and NSFW: expected open_nsfw or a port "
            "of it"
        )
    named = [with_pixels(asked, preprocess) for asked in flags.model]
    if preprocess and named == list(flags.model):
        raise ValueError(
            f"--preprocess={preprocess} is of ONNX files that do not say how pixels are scaled: "
            "there is no --model=NAME=FILE.onnx without"
        )
    for asked in named:
        model = load_for("model", asked, Classifier, precision)
        if model.name in (*found, "generator", "encoder"):
            raise ValueError(
                f"--model={asked}: there is a {model.name!r} already: call it otherwise, as in "
                f"--model=other={asked.rpartition('=')[2]}"
            )
        found[model.name] = model
    return found


def load_for(flag: str, asked: str, kind: type[_M], precision: str = "float32") -> _M:
    """Load the model that a flag asks for; ValueError if it is of the other kind."""
    model = load(asked, precision)
    if not isinstance(model, kind):
        found, expected = type(model).__name__.lower(), kind.__name__.lower()
        raise ValueError(f"--{flag}={asked}: {model.name!r} is a {found}, expected a {expected}")
    return model


@contextmanager
def saved_run(flags: RunFlags, devices: tuple[jax.Device, ...] = ()) -> Iterator[Saving]:
    """Wrap work that is saved in the output folder as the flags say (see `resumable`)."""
    with resumable(flags.folder) as stop:
        yield Saving(
            flags.folder,
            resume=flags.resume,
            overwrite=flags.overwrite,
            save_seconds=flags.save_seconds,
            progress=flags.progress and flags.processes.leads,
            asked_to_stop=stop.asked,
            devices=devices,
            processes=flags.processes,
            watch=flags.watch,
            tensorboard=flags.tensorboard,
        )


def launch(
    flags: RunFlags,
    models: Models,
    runs: Sequence[Run],
    title: str,
    draw_sheet: DrawSheet | None = None,
    photographs: Sequence[Sequence[Photograph]] = (),
) -> int:
    """Compute the runs and write everything into the output folder.

    `flags` and `models` are as `load_models` gives them. `draw_sheet` draws other pages than the
    contact sheet, `photographs` are shown with each run.

    Returns:
      The exit code: 0 done, 3 if no run stayed finite.

    Raises:
      ValueError: for flags that cannot work, and when the disk fails; finished chunks are saved.
      SystemExit: if it was stopped (`resumable`).
    """
    if flags.earlier:
        title = f"{title}, continued from {flags.earlier.folder.resolve().name}"
    photo, runs, start = _start(flags, models, runs)
    problem = plan(
        runs,
        models.generator,
        list(models.classifiers.values()),
        models.settings,
        start=start,
        encoder=models.encoder,
    )
    notes, size = list(problem.notes.values()), models.generator.image_size
    enlarged = flags.size if flags.size != size else None
    if enlarged:
        notes.append(
            f"{models.generator.name} makes {size} x {size} pixels; the files in images/ are "
            f"enlarged to {enlarged} x {enlarged} by Lanczos, which adds no detail."
        )
    for note in notes:
        print(note, file=sys.stderr)
    pages: list[Pages] = []

    def finish(result: SweepResult) -> None:
        paths = []
        if photo is not None:
            shown = range(min(len(runs), STRIP_ROWS))
            paths = [path_pictures(problem, result.arrays, run, photo) for run in shown]
        options = {
            "note": " ".join(notes),
            "blur_sheet": flags.blur_sheet,
            "extras": Extras(draw_sheet, paths, photographs),
        }
        if flags.film:
            films = write_films(result, flags.folder)
            print(f"films          {films[0]} to {films[-1].name}")
        pages.append(report(result, flags.folder, title=title, **options))

    with saved_run(flags, models.devices) as saving:
        said = {"experiment": flags.name, "command": command_line(flags.name), "title": title}
        config = said | {"flags": typed_flags.values_of(flags)}
        config |= config_of(problem, models.devices, _inputs(flags), models.encoder)
        if flags.watch and flags.processes.leads:
            print(f"watch          {flags.folder / 'index.html'}", flush=True)
        how = {"images": flags.images, "show": flags.show, "size": enlarged or 0}
        result = carry_out(problem, saving, config=config, finish=finish, **how)
    if result is not None:
        return _tell(flags.folder, pages[0], non_finite_line(result.arrays))
    if flags.processes.leads:
        print(f"{flags.folder} holds this run, finished: nothing is left to resume")
    return 0


def _start(
    flags: RunFlags, models: Models, runs: Sequence[Run]
) -> tuple[np.ndarray | None, Sequence[Run], np.ndarray | None]:
    """The photograph in the generator's units, the runs, their start codes; None for neither."""
    if flags.earlier:
        return None, *flags.earlier.continued(runs, models.named())
    if not (flags.init_image and models.encoder):
        return None, runs, flags.codes_of(runs, models.generator.code_size)
    photo = models.encoder.input_of(read_image(flags.init_image))
    code = encode(models.encoder, models.generator, photo)
    units = conversion(models.encoder.preprocess, models.generator.preprocess)
    photo = np.asarray(units(photo)) if units else photo
    return photo, runs, np.broadcast_to(code, (len(runs), *code.shape))


def _inputs(flags: RunFlags) -> dict[str, str]:
    """Hashes of the files that decide the start codes."""
    files = [path for path in (flags.init_image, flags.init_codes) if path]
    files += [flags.earlier.folder / RESULTS] if flags.earlier else []
    return {str(path): file_sha256(path) for path in files}


def _tell(out: Path, pages: Pages, failures: str) -> int:
    """Print the last lines of a launcher; return its exit code."""
    print(format_table(pages.summary))
    for picture in pages.pictures:
        print(f"{'strip' if picture == STRIP else 'contact sheet':<15}{out / picture}")
    print(f"report         {out / 'index.html'}")
    if failures:
        print(failures, file=sys.stderr)
    return 3 if all(map(is_non_finite, pages.rows)) else 0
