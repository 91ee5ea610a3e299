"""What the launchers share: flags -> frozen settings -> networks -> one library call -> report."""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from jaxsynth.engine.balance import BALANCES
from jaxsynth.engine.objective import GENERATOR
from jaxsynth.engine.recipes import BOXES, RECIPES, SCHEDULES, STARTS, Recipe
from jaxsynth.engine.sweep import Results, join
from jaxsynth.engine.terms import Term, unit_term
from jaxsynth.experiment import Run, Sweep, encode, synthesize
from jaxsynth.files.images import preprocess, read_image
from jaxsynth.files.results import prepare_folder, write_config, write_results
from jaxsynth.files.weights import cache_dir, file_record, load_network
from jaxsynth.networks.network import Network, logits_blob
from jaxsynth.report.summary import NSFW, PLACES, summarise, write_images, write_pages
from jaxsynth.report.tables import format_table

TARGETS = ("logit", "log_prob", "log_odds", "prob")
_DEFAULT_BATCH = {"cpu": 8}
_ACCELERATOR_BATCH = 64
_FROM_IMAGE = "dgn_am_image"

_GENERATOR = flags.DEFINE_string(
    "generator", "pocket_generator", "Generator: a name, or the path of a ported file."
)
_NSFW_NET = flags.DEFINE_string(
    "nsfw", "open_nsfw", "NSFW classifier: a name, or the path of a ported file."
)
_PLACES_NET = flags.DEFINE_string(
    "places", "pocket_places", "Scene classifier: a name, or the path of a ported file."
)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Seeds: a count (8 is 0..7), a range (3:11 is 3..10) or a list (0,4,7)."
)
_RECIPE = flags.DEFINE_enum("recipe", None, list(RECIPES), "Named recipe that the rest overrides.")
_STEPS = flags.DEFINE_integer("steps", None, "Number of updates.")
_OPTIMIZER = flags.DEFINE_string("optimizer", None, "Name of an optax optimizer.")
_OPTIMIZER_ARGS = flags.DEFINE_list(
    "optimizer_args", None, "Its arguments but the rate, such as momentum=0.9,nesterov=1."
)
_NORMALIZE = flags.DEFINE_bool("normalize", None, "Divide the gradient by its mean |g|.")
_SCHEDULE = flags.DEFINE_enum("schedule", None, list(SCHEDULES), "Step size over time.")
_LR_START = flags.DEFINE_float("lr_start", None, "Step size at the first update.")
_LR_END = flags.DEFINE_float("lr_end", None, "Step size that the schedule ends in.")
_DECAY = flags.DEFINE_float("decay", None, "Factor on the code at every step.")
_DECAY_WHEN = flags.DEFINE_enum(
    "decay_when", None, ["before", "after"], "Decay before or after the projection."
)
_BOX = flags.DEFINE_enum(
    "box", None, list(BOXES), "Projection: [0, upper bound per unit], [-1, 1], or none."
)
_START = flags.DEFINE_enum("start", None, list(STARTS), "Start codes drawn from a seed.")
_BALANCE = flags.DEFINE_enum(
    "balance",
    "image",
    list(BALANCES),
    "How gradients of several networks are joined: each image-space gradient divided by its own "
    "mean |g| (image), the same in code space (code), plainly added (sum), or in turns "
    "(alternate).",
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", ["float32", "float64"], "Precision of all arithmetic."
)
_INIT_IMAGE = flags.DEFINE_string(
    "init_image", None, "Start from this photograph's code (default recipe: 30 small steps)."
)
_INIT_CODES = flags.DEFINE_string(
    "init_codes", None, "Start codes, FILE.npy of (runs, d), or (seeds, d) for every weighting."
)
_RECORD = flags.DEFINE_list("record_codes", [], "Steps after which codes are kept, e.g. 1,2,5,10.")
_BATCH = flags.DEFINE_integer(
    "batch",
    None,
    "Runs per compiled chunk (8 on CPU, 64 on accelerators). Results are bit-equal for an equal "
    "batch; a smaller sweep is padded to it. Less memory: smaller.",
    lower_bound=1,
)
_SHOW = flags.DEFINE_enum(
    "show",
    "mean",
    ["mean", "dgn_am"],
    "How pixels become visible: add the mean and clip (truer colours), or DGN-AM's stretch.",
)
_OUT = flags.DEFINE_string("out", None, "Output folder; by default out/EXPERIMENT.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier run in --out.")
_PROGRESS = flags.DEFINE_bool("progress", True, "Show a progress bar.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """An experiment as its flags ask for it."""

    name: str
    networks: Mapping[str, str]
    seeds: tuple[int, ...]
    sweep: Sweep
    init_image: str | None
    init_codes: str | None
    show: str
    out: Path
    overwrite: bool
    progress: bool


def read_settings(
    name: str, argv: Sequence[str], recipe: str = "goh", seeds: str = "8", **override: Any
) -> Settings:
    """Settings from the flags; `recipe`, `seeds` and `override` are the experiment's defaults.

    Raises:
      ValueError: naming the first flag that cannot work.
    """
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: {name} takes flags only (--help)")
    if _INIT_IMAGE.value and _INIT_CODES.value:
        raise ValueError("--init_image and --init_codes are two starts: give one of them")
    if _INIT_IMAGE.value:
        seeds, recipe, override = "1", _FROM_IMAGE, {}
    default_batch = _DEFAULT_BATCH.get(jax.default_backend(), _ACCELERATOR_BATCH)
    if _PRECISION.value == "float64":
        jax.config.update("jax_enable_x64", True)
    return Settings(
        name=name,
        networks={GENERATOR: _GENERATOR.value, NSFW: _NSFW_NET.value, PLACES: _PLACES_NET.value},
        seeds=parse_seeds(_SEEDS.value or seeds),
        sweep=Sweep(
            recipe=_recipe(recipe, override),
            balance=_BALANCE.value,
            batch=_BATCH.value or default_batch,
            precision=_PRECISION.value,
            record=tuple(_integers("record_codes", _RECORD.value)),
        ),
        init_image=_INIT_IMAGE.value,
        init_codes=_INIT_CODES.value,
        show=_SHOW.value,
        out=Path(_OUT.value or f"out/{name}"),
        overwrite=_OVERWRITE.value,
        progress=_PROGRESS.value,
    )


def _recipe(default: str, override: Mapping[str, Any]) -> Recipe:
    asked = {
        "steps": _STEPS.value,
        "optimizer": _OPTIMIZER.value,
        "optimizer_args": _optimizer_args(),
        "normalize": _NORMALIZE.value,
        "schedule": _SCHEDULE.value,
        "lr_start": _LR_START.value,
        "lr_end": _LR_END.value,
        "decay": _DECAY.value,
        "decay_when": _DECAY_WHEN.value,
        "box": _BOX.value,
        "start": _START.value,
    }
    override = override if _RECIPE.value is None else {}
    given = {k: v for k, v in asked.items() if v is not None}
    if given.get("optimizer") and "optimizer_args" not in given:
        given["optimizer_args"] = ()
    return dataclasses.replace(RECIPES[_RECIPE.value or default], **(dict(override) | given))


def _optimizer_args() -> tuple[tuple[str, float], ...] | None:
    if _OPTIMIZER_ARGS.value is None:
        return None
    pairs = [part.partition("=") for part in _OPTIMIZER_ARGS.value]
    try:
        return tuple((key, float(value)) for key, _, value in pairs)
    except ValueError:
        raise ValueError(
            f"--optimizer_args={','.join(_OPTIMIZER_ARGS.value)}: expected name=number,..."
        ) from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """`8` -> 0..7, `3:11` -> 3..10, `0,4,7` -> these.

    Raises:
      ValueError: if it is none of these, or empty.
    """
    try:
        if ":" in text:
            first, last = (int(part) for part in text.split(":"))
            seeds = tuple(range(first, last))
        elif "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part.strip())
        else:
            seeds = tuple(range(int(text)))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ValueError(
            f"--seeds={text}: expected a count such as 8, a rising range such as 3:11, or a list "
            "such as 0,4,7 of numbers from 0 up"
        )
    return seeds


def parse_numbers(flag: str, values: Sequence[str]) -> list[float]:
    """Finite numbers of a comma-separated flag; ValueError otherwise."""
    try:
        numbers = [float(v) for v in values]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        raise ValueError(f"--{flag}={','.join(values)}: expected numbers such as 0.5,1,2")
    return numbers


def _integers(flag: str, values: Sequence[str]) -> list[int]:
    try:
        return sorted({int(v) for v in values})
    except ValueError:
        raise ValueError(f"--{flag}={','.join(values)}: expected steps such as 1,2,5") from None


def load_networks(settings: Settings) -> dict[str, Network]:
    """The networks by role, in the precision asked for.

    Raises:
      ValueError: if one cannot be loaded, or stands in the wrong role.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    dtype = np.dtype(settings.sweep.precision)
    return {role: load_network(name, dtype) for role, name in settings.networks.items()}


def target_term(
    networks: Mapping[str, Network], role: str, unit: int, weight: float, target: str
) -> Term:
    """A term on a classifier's unit as `--target` names it: logit, log_prob, log_odds, prob."""
    blob = logits_blob(networks[role].info.config) if target == "logit" else target
    return unit_term(networks, role, blob, unit, weight)


def launch(
    settings: Settings, networks: Mapping[str, Network], runs: Sequence[Run], title: str
) -> int:
    """Computes the runs and writes everything into the output folder; gives the exit code."""
    start = _start_codes(settings, networks, runs)
    folder = prepare_folder(settings.out, settings.overwrite)
    write_config(folder, _config(settings, runs))
    finished: list[Results] = []
    code = 0
    steps, batch = settings.sweep.recipe.steps, settings.sweep.batch
    chunks = -(-len(runs) // batch)
    with tqdm(
        total=chunks * max(1, steps), unit="step", disable=not settings.progress, file=sys.stderr
    ) as bar:
        def on_step(first: int, done: int, values: np.ndarray) -> None:
            bar.update(first // batch * max(1, steps) + done - bar.n)
            bar.set_postfix_str(f"objective {np.median(values):.4g}", refresh=False)

        def on_chunk(first: int, chunk: Results) -> None:
            write_images(folder, first, chunk, settings.show)
            finished.append(chunk)

        try:
            synthesize(networks, runs, settings.sweep, start, on_step, on_chunk)
        except KeyboardInterrupt:
            code = 130
    if not finished:
        print("stopped before any chunk was finished: nothing to keep", file=sys.stderr)
        return code
    results = join(finished)
    done = runs[: len(results.codes)]
    if len(done) < len(runs):
        print(f"stopped: keeping the first {len(done)} of {len(runs)} runs", file=sys.stderr)
    write_results(folder, results)
    rows = write_pages(folder, title, done, results, networks, _command())
    print(format_table(summarise(rows)))
    print(f"contact sheet  {folder / 'contact_sheet.png'}\nreport         {folder / 'report.html'}")
    return code


def _start_codes(
    settings: Settings, networks: Mapping[str, Network], runs: Sequence[Run]
) -> np.ndarray | None:
    size = networks[GENERATOR].input_shape[0]
    if settings.init_image is not None:
        code = _code_of_image(settings, networks[GENERATOR])
        return np.tile(code, (len(runs), 1))
    if settings.init_codes is None:
        return None
    try:
        codes = np.load(settings.init_codes, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"--init_codes={settings.init_codes} cannot be read: {error}") from None
    codes = np.atleast_2d(codes)
    if codes.shape == (len(settings.seeds), size) and len(runs) > len(codes):
        place = {seed: i for i, seed in enumerate(settings.seeds)}
        codes = codes[[place[run.seed] for run in runs]]
    if codes.shape != (len(runs), size) or codes.dtype.kind != "f":
        raise ValueError(
            f"--init_codes={settings.init_codes} holds {codes.dtype} {codes.shape}, expected "
            f"floats ({len(runs)}, {size}): a row per run, or per seed"
        )
    return codes


def _code_of_image(settings: Settings, generator: Network) -> np.ndarray:
    if not generator.info.encoder:
        raise ValueError(f"--init_image: generator {generator.name!r} names no encoder")
    encoder = load_network(generator.info.encoder, np.dtype(settings.sweep.precision))
    pixels = preprocess(
        read_image(settings.init_image), encoder.info.preprocessing, encoder.input_shape[0]
    )
    return encode(encoder, generator, pixels)


def _config(settings: Settings, runs: Sequence[Run]) -> dict[str, Any]:
    own = [f for fs in flags.FLAGS.flags_by_module_dict().items() if _is_ours(fs[0]) for f in fs[1]]
    return {
        "experiment": settings.name,
        "command": _command(),
        "flags": {flag.name: flag.value for flag in own},
        "sweep": dataclasses.asdict(settings.sweep),
        "networks": {role: file_record(name) for role, name in settings.networks.items()},
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def _is_ours(module: str) -> bool:
    return module.startswith("experiments.") or module.endswith(".py")


def _command() -> str:
    name = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"experiments.{name}", *sys.argv[1:]])
