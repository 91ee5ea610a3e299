"""Scores as lines of a table and rows of a CSV file, written as they come.

The classifiers `nsfw` and `places` have columns of their own: the P of NSFW; scene_1, p_1, ...
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxsynth.image_search import ImageFile
from jaxsynth.inputs import printable
from jaxsynth.report.tables import format_probability, format_value
from jaxsynth.scoring import Classes, Score

NSFW, PLACES = "nsfw", "places"
_WIDEST = 80  # characters of a file's name that the next column waits for


class ScoreTable:
    """Lines on stdout, a header before the first."""

    def __init__(self, files: Sequence[ImageFile]):
        """Take the width of the names from all files."""
        longest = max((len(printable(str(file))) for file in files), default=0)
        self._width, self._begun = min(_WIDEST, longest), False

    def print(self, row: Score) -> None:
        """Print a file that could be read."""
        said = {"file": printable(str(row.file))}
        for name, classes in row.values.items():
            if name == NSFW:
                said["NSFW"] = format_probability(dict(classes)["NSFW"], 4)
            else:
                said["scenes" if name == PLACES else name] = ", ".join(
                    f"{printable(label)} {format_probability(p, 2)}" for label, p in classes
                )
        for cells in [list(said), list(said.values())][self._begun :]:
            first, *others = cells
            line = "  ".join([first.ljust(self._width), *(cell.ljust(6) for cell in others)])
            print(line.rstrip(), flush=True)
        self._begun = True


def csv_row(row: Score, names: Sequence[str], top: int) -> dict[str, Any]:
    """Return column -> value: the file, `top` classes of each classifier, what is wrong with it."""
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


@contextmanager
def csv_file(
    out: Path | None, names: Sequence[str], top: int, add: bool = False
) -> Iterator[Callable[[Score], None]]:
    """Yield a function that writes each row at once, so that a kill leaves all rows before it.

    Without a file it writes nothing; `add` writes behind the rows that are there.
    """
    if out is None:
        yield lambda row: None
        return
    mode = "a" if add else "w"
    with open(out, mode, newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not add:
            writer.writerow(csv_row(Score(Path(), {}), names, top))

        def write(row: Score) -> None:
            writer.writerow(map(format_value, csv_row(row, names, top).values()))
            file.flush()

        yield write


def scored_files(out: Path, names: Sequence[str], top: int) -> set[str]:
    """Return the files with a complete row in a CSV file (see `as_written`); half a row is removed.

    ValueError if it is of other classifiers.
    """
    if not out.exists():
        return set()
    data = out.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    rows = list(csv.reader(whole.decode("utf-8", "replace").splitlines(True)))
    if rows and rows[0] != list(csv_row(Score(Path(), {}), names, top)):
        raise ValueError(f"--out={str(out)!r} has other columns: resume it with its own flags")
    if whole != data:
        out.write_bytes(whole)
    return {row[0] for row in rows[1:]}


def as_written(file: ImageFile) -> str:
    """Return the name of a file as a CSV file has it."""
    return str(file).encode("utf-8", "backslashreplace").decode()
