"""The flags of every experiment that computes runs."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from jaxsynth.batch import Run
from jaxsynth.inputs import option, parse_seeds
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.problem import Settings
from jaxsynth.recipes import RECIPES, Recipe, check_recipe, make_recipe, optax_optimizers
from jaxsynth.report.photographs import path_steps
from jaxsynth.runs.checkpoint import read_codes
from jaxsynth.runs.folder import IMAGES
from jaxsynth.runs.processes import Processes, join_processes

from .continuing import Earlier, read_earlier, take_over
from .flags import changes_of, like, repeated

# Flags of the steps, and those that only a run in a folder of its own has: start, pages, processes.
OF_A_RECIPE = ("recipe", "extend_steps", *(field.name for field in dataclasses.fields(Recipe)))
_FILM_STEPS = 16  # recorded for a film, where nobody says which
NOT_IN_STUDIES = (
    "init_image",
    "init_codes",
    "record_codes",
    "show",
    "size",
    "images",
    "blur_sheet",
)
NOT_IN_STUDIES += ("devices", "distributed", "coordinator", "num_processes", "process_id")
NOT_IN_STUDIES += ("continue_from", "extend_steps", "watch", "tensorboard", "film")
NSFW, PLACES, NONE = "nsfw", "places", "none"
TARGETS = ("logit", "log_prob", "log_odds", "prob")
F = TypeVar("F", bound="RunFlags")
_STARTS = ("init_image", "init_codes", "continue_from")


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """The flags of every experiment; a launcher's own are fields of its subclass."""

    WITHOUT: ClassVar[tuple[str, ...]] = ()
    WHY: ClassVar[str] = ""

    generator: str = option("pocket_generator", "Generator: a name, or the path of a ported file.")
    nsfw: str = option("open_nsfw", "NSFW classifier: a name, the path of a ported file, or none.")
    places: str = option(
        "pocket_places", "Scene classifier: a name, the path of a ported file, or none."
    )
    model: tuple[str, ...] = repeated(
        "One more classifier, a name or NAME=FILE, for --term and to judge images; may be repeated."
    )
    preprocess: str = option(
        "",
        "Pixels of ONNX files of --model that say nothing of them: imagenet, 0to1, minus1to1, "
        "0to255, caffe_bgr, yahoo; or mean=0.5/0.5/0.5,std=0.5/0.5/0.5,order=BGR,range=0/255.",
    )
    encoder: str | None = option(
        None,
        "The generator's encoder, which reads photographs and pulls towards natural codes: a name "
        "or file. By default the one that the generator names; --places, if it has that name.",
    )
    seeds: str = option(
        "8", "Seeds: a count (8 is 0..7), a range (3:11 is 3..10) or a list (0,4,7)."
    )
    recipe: str | None = option(
        None,
        "Named recipe that further flags override; by default the generator's own: pocket for the "
        "pocket generator, else goh; from a photograph pocket_image, else dgn_am_image.",
        among=RECIPES,
    )
    changes: dict[str, Any] = changes_of(Recipe)
    balance: str = like(Settings, "balance")
    precision: str = like(Settings, "precision")
    batch: int | None = option(
        None,
        "Runs per compiled chunk and device (8 on CPU, 64 on accelerators). Results are bit-equal "
        "for an equal batch; a smaller sweep is padded to it. A smaller batch takes less memory.",
        low=1,
    )
    record_codes: tuple[int, ...] | None = option(
        None,
        "Steps after which codes are recorded, e.g. 1,2,5,10; by default none, and with "
        "--init_image the evenly spaced ones that the film strip shows.",
        expected="steps such as 1,2,5",
    )
    init_image: Path | None = option(
        None, "Start from this photograph's code (default recipe: 30 small steps)."
    )
    init_codes: Path | None = option(
        None,
        "Start codes, FILE.npy of (k, d): k seeds, unless --seeds says otherwise; or one per run.",
    )
    continue_from: str | None = option(
        None,
        "Start from the final codes of a finished run's folder: FOLDER for all of its runs, "
        "FOLDER:3,7 for two of them. Networks and precision are its own unless given.",
    )
    extend_steps: int | None = option(
        None,
        "With --continue_from: how many more steps of the same objectives, with that run's recipe "
        "and flags unless given. The schedule and the optimizer start again.",
        low=1,
    )
    show: str = option(
        "mean",
        "How pixels become visible: add the mean and clip (truer colours), or DGN-AM's stretch.",
        among=("mean", "dgn_am"),
    )
    size: int | None = option(
        None,
        "Side of the images in pixels. fourier and maco compute that many (224 by default); images "
        "of other generators are only enlarged, by Lanczos, in the folder images/.",
        low=2,
    )
    images: str = option(
        "all",
        "Which image files are written of every run: last and best image, the best one, or none; "
        "the contact sheet is drawn and results.safetensors has the pixels in any case.",
        among=IMAGES,
    )
    blur_sheet: bool = option(
        False,
        "Blur images of P(NSFW) > 0.5 on the contact sheet and film strip, as the report does.",
    )
    out: Path | None = option(None, "Output folder; by default out/EXPERIMENT.")
    overwrite: bool = option(False, "Replace an earlier run in --out.")
    resume: bool = option(False, "Resume the stopped run in --out, or start it if there is none.")
    save_seconds: float = option(
        15.0,
        "Seconds between checkpoints of the current chunk; finished chunks are always saved.",
        low=0.0,
    )
    progress: bool = option(
        True, "Show progress: a bar on a terminal, else a line every half minute."
    )
    film: bool = option(
        False,
        "Write each run's path as a film, film_run00000.webp and so on, of the first 64 runs; also "
        "as MP4 where ffmpeg is. Records codes, as --record_codes says or at 16 steps.",
    )
    watch: bool = option(
        False, "Show the runs under way on OUT/index.html, which refreshes itself."
    )
    tensorboard: bool = option(
        False, "Write events for TensorBoard into OUT/tensorboard; takes jaxsynth[tensorboard]."
    )
    coordinator: str | None = option(
        None, "HOST:PORT of process 0, where several processes share the run."
    )
    num_processes: int | None = option(None, "How many processes share the run.", low=1)
    process_id: int | None = option(None, "The number of this process, from 0 on.", low=0)
    distributed: bool = option(
        False,
        "Several processes share the run, and the cluster's manager (Slurm, Open MPI, Kubernetes, "
        "a TPU pod) says which: no further flags are needed.",
    )
    devices: int | None = option(
        None, "How many of this machine's devices to use; by default all.", low=1
    )
    name: str = ""
    typed: frozenset[str] = frozenset()

    @functools.cached_property
    def folder(self) -> Path:
        """The output folder."""
        return self.out or Path(f"out/{self.name}")

    @functools.cached_property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds; of a run that continues another one, the numbers of its runs."""
        if self.earlier:
            return self.earlier.numbers
        if self.codes is not None and "seeds" not in self.typed:
            return tuple(range(len(self.codes)))
        return parse_seeds("1" if self.init_image else self.seeds)

    @functools.cached_property
    def codes(self) -> np.ndarray | None:
        """The start codes (k, D) of --init_codes."""
        return np.atleast_2d(read_codes(self.init_codes)) if self.init_codes else None

    @functools.cached_property
    def earlier(self) -> Earlier | None:
        """The finished run that is continued, or None."""
        if not self.continue_from:
            return None
        return read_earlier(self.continue_from, self.name, self.extend_steps is not None)

    @functools.cached_property
    def processes(self) -> Processes:
        """The processes that share the run, once all have joined."""
        return join_processes(
            self.coordinator, self.num_processes, self.process_id, self.distributed
        )

    def usual_recipe(self, generator: Generator) -> Recipe:
        """Return the recipe that single flags change where --recipe names none."""
        image = self.init_image is not None
        return RECIPES[generator.recipe_from_image if image else generator.recipe]

    def encoder_name(self, generator: Generator, classifiers: Mapping[str, Classifier]) -> str:
        """Return --encoder; else --places, if it has the encoder's name; "" for the generator's."""
        own = getattr(generator.encoder, "network", "")
        if self.encoder or not own or PLACES not in classifiers:
            return self.encoder or ""
        return self.places if classifiers[PLACES].info.network == own else ""

    def codes_of(self, runs: Sequence[Run], size: int) -> np.ndarray | None:
        """Return the start codes (R, size) of --init_codes for runs; None without them."""
        codes, seeds = self.codes, self.seed_numbers
        if codes is None:
            return None
        if codes.shape == (len(seeds), size) and len(runs) > len(codes):
            place = {seed: i for i, seed in enumerate(seeds)}
            codes = codes[[place[run.seed] for run in runs]]
        if codes.shape != (len(runs), size) or codes.dtype.kind != "f":
            raise ValueError(
                f"--init_codes={self.init_codes} holds {codes.dtype} {codes.shape}, expected "
                f"floats ({len(runs)}, {size}): a row per run, or per seed"
            )
        return codes


@dataclasses.dataclass(frozen=True)
class TargetFlags(RunFlags):
    """The flags of launchers that maximise classes."""

    target: str = option("log_odds", "Which function of the neuron to maximise.", among=TARGETS)


def check_together(flags: F) -> F:
    """Check flags that do not go together; take over those of a run that is continued."""
    if flags.resume and flags.overwrite:
        raise ValueError("--resume continues a run, --overwrite deletes it: give one of them")
    starts = [name for name in _STARTS if getattr(flags, name)]
    if len(starts) > 1:
        raise ValueError(f"--{starts[0]} and --{starts[1]} are two starts: give one of them")
    seeds = "seeds" in flags.typed
    if flags.init_image and seeds and flags.seeds != "1":
        raise ValueError("--init_image starts every seed alike: leave --seeds alone")
    if flags.extend_steps and "steps" in flags.changes:
        raise ValueError("--extend_steps and --steps are two numbers of steps: give one of them")
    if flags.extend_steps and not flags.continue_from:
        raise ValueError("--extend_steps continues a finished run: --continue_from=FOLDER")
    if flags.continue_from and seeds:
        raise ValueError(
            "--continue_from starts from codes, one for each of its runs: leave --seeds alone"
        )
    return take_over(flags, RunFlags) if flags.earlier else flags


def make_settings(flags: RunFlags, generator: Generator) -> Settings:
    """Make the settings of a sweep: a recipe with the changes that were typed, and the rest."""
    changes = dict(flags.changes)
    optimizer = changes.get("optimizer", "")
    of_a_recipe = not optimizer or (optimizer in optax_optimizers() and optimizer != "lbfgs")
    own = "" if of_a_recipe else changes.pop("optimizer")
    if own and "optimizer_args" in changes:
        raise ValueError(f"--optimizer_args are of optax's optimizers, and {own!r} is none of them")
    if flags.extend_steps:
        changes["steps"] = flags.extend_steps
    if flags.recipe:
        base = RECIPES[flags.recipe]
    elif flags.earlier and flags.earlier.extends:
        base = flags.earlier.recipe
    else:
        base = flags.usual_recipe(generator)
    recipe = make_recipe(base, **changes)
    check_recipe(recipe)
    record = flags.record_codes
    if record is None and flags.film:
        record = path_steps(recipe.steps, _FILM_STEPS)
    elif record is None:
        record = path_steps(recipe.steps) if flags.init_image else ()
    if flags.film and not record:
        raise ValueError("--film shows recorded steps: it takes --steps of 2 or more")
    return Settings(
        recipe, own, flags.balance, flags.batch or 0, flags.precision, tuple(sorted(set(record)))
    )
