"""The flags that every experiment has, and what they say as frozen settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import processes as several
from experiments import recipe_flags
from experiments.continuing import Earlier, check_earlier, read_earlier, take_flags
from experiments.processes import chosen_devices, join_processes
from experiments.recipe_flags import read_recipe, steps_to_extend
from jaxsynth.balance import BALANCES
from jaxsynth.models.weights import read_info
from jaxsynth.report.film_strip import path_steps
from jaxsynth.runs.folder import IMAGES
from jaxsynth.runs.processes import Processes
from jaxsynth.short import NSFW, PLACES, PRECISIONS, Sweep
from jaxsynth.system import GENERATOR

flags.adopt_module_key_flags(several)
flags.adopt_module_key_flags(recipe_flags)
_DEFAULT_BATCH = {"cpu": 8}
_ACCELERATOR_BATCH = 64
MOST_SEEDS = 1_000_000
_POCKET = "pocket_generator"

_GENERATOR = flags.DEFINE_string(
    "generator", "pocket_generator", "Generator: a name, or the path of a ported file."
)
_NSFW_NET = flags.DEFINE_string(
    "nsfw", "open_nsfw", "NSFW classifier: a name, or the path of a ported file."
)
_PLACES_NET = flags.DEFINE_string(
    "places", "pocket_places", "Scene classifier: a name, or the path of a ported file."
)
_ENCODER = flags.DEFINE_string(
    "encoder",
    None,
    "The generator's encoder, which reads photographs and pulls towards natural codes: a name or "
    "file. By default the one that the generator names; --places, if it bears that name.",
)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Seeds: a count (8 is 0..7), a range (3:11 is 3..10) or a list (0,4,7)."
)
_BALANCE = flags.DEFINE_enum(
    "balance",
    "image",
    list(BALANCES),
    "How gradients of several networks are joined: each image-space gradient divided by its own "
    "mean |g| (image), the same in code space (code), plainly added (sum), or in turns "
    "(alternate).",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    PRECISIONS,
    "Of all arithmetic; bfloat16 is for networks on accelerators, codes and scores stay float32.",
)
_INIT_IMAGE = flags.DEFINE_string(
    "init_image", None, "Start from this photograph's code (default recipe: 30 small steps)."
)
_INIT_CODES = flags.DEFINE_string(
    "init_codes", None, "Start codes, FILE.npy of (runs, d), or (seeds, d) for every weighting."
)
_CONTINUE = flags.DEFINE_string(
    "continue_from",
    None,
    "Start from the final codes of a finished run's folder: FOLDER for all of its runs, FOLDER:3,7 "
    "for two of them. Networks and precision are its own unless given.",
)
_RECORD = flags.DEFINE_list(
    "record_codes",
    None,
    "Steps after which codes are kept, e.g. 1,2,5,10; by default none, and with --init_image the "
    "evenly spaced ones that the strip shows.",
)
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Runs per compiled chunk and device (8 on CPU, 64 on accelerators). Results are bit-equal for "
    "an equal batch; a smaller sweep is padded to it. Less memory: smaller.",
    lower_bound=1,
)
_SHOW = flags.DEFINE_enum(
    "show",
    "mean",
    ["mean", "dgn_am"],
    "How pixels become visible: add the mean and clip (truer colours), or DGN-AM's stretch.",
)
_IMAGES = flags.DEFINE_enum(
    "images",
    "all",
    list(IMAGES),
    "Which image files are written of every run: last and best image, the best one, or none; the "
    "sheet is drawn and results.safetensors has the pixels in any case.",
)
_BLUR_SHEET = flags.DEFINE_bool(
    "blur_sheet",
    False,
    "Blur images of P(NSFW) > 0.5 on the contact sheet and the strip, as report.html does.",
)
_OUT = flags.DEFINE_string("out", None, "Output folder; by default out/EXPERIMENT.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier run in --out.")
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on with the stopped run in --out, or start it if there is none."
)
_SAVE_SECONDS = flags.DEFINE_float(
    "save_seconds",
    15.0,
    "Seconds between two savings of the chunk under way; finished chunks are always kept.",
    lower_bound=0.0,
)
_PROGRESS = flags.DEFINE_bool("progress", True, "Show a progress bar.")


OF_A_RECIPE = tuple(f.name for f in flags.FLAGS.get_key_flags_for_module(recipe_flags))
# Flags of what only a run in a folder of its own has: a start, pages, other processes.
OF_A_KEPT_RUN = ("init_image", "init_codes", "record_codes", "show", "images", "blur_sheet")
OF_A_KEPT_RUN += ("devices", "distributed", "coordinator", "num_processes", "process_id")
OF_A_KEPT_RUN += ("continue_from", "extend_steps")


@dataclasses.dataclass(frozen=True)
class Settings:
    """An experiment as its flags ask for it."""

    name: str
    networks: Mapping[str, str]
    encoder: str | None
    seeds: tuple[int, ...]
    sweep: Sweep
    init_image: str | None
    init_codes: str | None
    earlier: Earlier | None
    show: str
    images: str
    blur_sheet: bool
    out: Path
    overwrite: bool
    resume: bool
    save_seconds: float
    progress: bool
    devices: tuple[jax.Device, ...]
    processes: Processes

    @property
    def chunk_runs(self) -> int:
        """Runs of a chunk, over all its devices."""
        return self.sweep.batch * len(self.devices)


def is_pocket() -> bool:
    """Whether --generator is one that train_generator or train_pair made."""
    return read_info(_GENERATOR.value).network == _POCKET


def read_settings(name: str, argv: Sequence[str], seeds: str = "8", **override: Any) -> Settings:
    """Settings from the flags; `seeds`, `override` (of the recipe) are the experiment's defaults.

    A recipe named by --recipe is taken as published, without `override`.

    Raises:
      ValueError: naming the first flag that cannot work.
    """
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: {name} takes flags only (--help)")
    if _OUT.value == "":
        raise ValueError("--out= names no folder")
    if not np.isfinite(_SAVE_SECONDS.value):
        raise ValueError(f"--save_seconds={_SAVE_SECONDS.value}: expected seconds from 0 up")
    if _RESUME.value and _OVERWRITE.value:
        raise ValueError("--resume goes on with a run, --overwrite deletes it: give one of them")
    starts = [f.name for f in (_INIT_IMAGE, _INIT_CODES, _CONTINUE) if f.value]
    if len(starts) > 1:
        raise ValueError(f"--{starts[0]} and --{starts[1]} are two starts: give one of them")
    earlier = _earlier(name)
    pocket = is_pocket()
    recipe = "pocket" if pocket else "goh"
    if _INIT_IMAGE.value:
        if _SEEDS.value not in (None, "1"):
            raise ValueError("--init_image starts every seed alike: leave --seeds alone")
        seeds, recipe, override = "1", "pocket_image" if pocket else "dgn_am_image", {}
    processes = join_processes()
    default_batch = _DEFAULT_BATCH.get(jax.default_backend(), _ACCELERATOR_BATCH)
    if _PRECISION.value == "float64":
        jax.config.update("jax_enable_x64", True)
    chosen = read_recipe(recipe, override, earlier)
    networks = {GENERATOR: _GENERATOR.value, NSFW: _NSFW_NET.value, PLACES: _PLACES_NET.value}
    out = Path(f"out/{name}" if _OUT.value is None else _OUT.value)
    if earlier:
        check_earlier(earlier, networks, out)
    return Settings(
        name=name,
        networks=networks,
        encoder=_ENCODER.value,
        seeds=earlier.numbers
        if earlier
        else parse_seeds(seeds if _SEEDS.value is None else _SEEDS.value),
        sweep=Sweep(
            recipe=chosen,
            balance=_BALANCE.value,
            batch=_BATCH.value or default_batch,
            precision=_PRECISION.value,
            record=_recorded(chosen.steps),
        ),
        init_image=_INIT_IMAGE.value,
        init_codes=_INIT_CODES.value,
        earlier=earlier,
        show=_SHOW.value,
        images=_IMAGES.value,
        blur_sheet=_BLUR_SHEET.value,
        out=out,
        overwrite=_OVERWRITE.value,
        resume=_RESUME.value,
        save_seconds=_SAVE_SECONDS.value,
        progress=_PROGRESS.value and processes.leads,
        devices=chosen_devices(),
        processes=processes,
    )


def _earlier(name: str) -> Earlier | None:
    """The run that is gone on from, after its flags have been taken over; None without one."""
    extend = steps_to_extend()
    if not _CONTINUE.value:
        if extend:
            raise ValueError("--extend_steps goes on with a finished run: --continue_from=FOLDER")
        return None
    if _SEEDS.value is not None:
        raise ValueError(
            "--continue_from starts from codes, one for each of its runs: leave --seeds alone"
        )
    earlier = read_earlier(_CONTINUE.value, name, extends=extend is not None)
    take_flags(earlier)
    return earlier


def _recorded(steps: int) -> tuple[int, ...]:
    if _RECORD.value is None:
        return path_steps(steps) if _INIT_IMAGE.value else ()
    return tuple(_integers("record_codes", _RECORD.value))


def names_without(unused: Sequence[str]) -> list[str]:
    """Names of the flags of a run but `unused`: what a launcher declares as its own key flags."""
    flags_of_run = flags.FLAGS.get_key_flags_for_module(__name__)
    return [flag.name for flag in flags_of_run if flag.name not in unused]


def refuse(experiment: str, names: Sequence[str], instead: str) -> None:
    """Raises ValueError if a flag was given that has no effect in this experiment."""
    for name in names:
        if flags.FLAGS[name].present:
            raise ValueError(
                f"--{name} has no effect in {experiment}, {instead}: leave it away (--help lists "
                "the flags that have one)"
            )


def parse_seeds(text: str, flag: str = "seeds") -> tuple[int, ...]:
    """`8` -> 0..7, `3:11` -> 3..10, `0,4,7` -> these.

    Raises:
      ValueError: if it is none of these, or empty.
    """
    try:
        if "," in text:
            seeds: Sequence[int] = [int(part) for part in text.split(",") if part.strip()]
        else:
            first, last = (int(part) for part in (text if ":" in text else f"0:{text}").split(":"))
            seeds = range(first, min(last, first + MOST_SEEDS + 1))
    except ValueError:
        seeds = []
    if not seeds or len(seeds) > MOST_SEEDS or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ValueError(
            f"--{flag}={text}: expected a count such as 8, a rising range such as 3:11, or a list "
            f"such as 0,4,7; numbers from 0 to 2**32 - 1, at most {MOST_SEEDS} of them"
        )
    return tuple(dict.fromkeys(seeds))


def parse_numbers(flag: str, values: Sequence[str]) -> list[float]:
    """Finite numbers of a comma-separated flag, each once; ValueError otherwise."""
    try:
        numbers = [float(v) for v in values]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        raise ValueError(f"--{flag}={','.join(values)}: expected numbers such as 0.5,1,2")
    return list(dict.fromkeys(numbers))


def _integers(flag: str, values: Sequence[str]) -> list[int]:
    try:
        return sorted({int(v) for v in values})
    except ValueError:
        raise ValueError(f"--{flag}={','.join(values)}: expected steps such as 1,2,5") from None
