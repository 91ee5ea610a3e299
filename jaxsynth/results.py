"""Finished runs: one (`Result`), many (`SweepResult`), and folders of them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsynth import table
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Run
from jaxsynth.disk import to_write
from jaxsynth.images import enlarge, to_rgb, write_png
from jaxsynth.inputs import check_name, described
from jaxsynth.models.base import CAFFE, Classifier, Generator, Preprocess
from jaxsynth.png_text import KEYWORD, text_of
from jaxsynth.report.tables import read_csv, write_csv
from jaxsynth.runs.folder import METRICS


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """Finished runs; `sweep[3]` is one, `sweep["mountain"]` those of a row, `sweep[:4]` the first.

    Attributes:
      runs: in order.
      arrays: of all of them; memory maps of a folder's results.safetensors, if there is one.
      generator, classifiers: the models that made and judged the images; None and () where a folder
        was read without them.
      settings: how they were computed.
      config: everything that decided them, as config.json has it.
      folder: where they are saved, if they are.
      numbers: (R,) of the runs in the whole sweep.
    """

    runs: Sequence[Run]
    arrays: ChunkResult
    generator: Generator | None
    classifiers: tuple[Classifier, ...]
    settings: Any
    config: Mapping[str, Any]
    folder: Path | None = None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> "Iterator[Result]":
        return (Result(self._some([place])) for place in range(len(self)))

    def __getitem__(self, which: int | str | slice) -> "Result | SweepResult":
        """Return a run by its place, or the runs of a row by its name, or a slice of them.

        Raises:
          ValueError: for a name that no row has, with the nearest ones, or anything else.
          IndexError: for a place that there is none of.
        """
        if isinstance(which, str):
            names = [run.row for run in self.runs]
            check_name("row", which, list(dict.fromkeys(names)))
            return self._some([i for i, name in enumerate(names) if name == which])
        places = range(len(self))
        if isinstance(which, slice):
            return self._some(places[which])
        if not isinstance(which, int | np.integer):
            raise ValueError(
                f"runs[{described(which)}]: expected a number, a slice or the name of a row; a run "
                "of a row is runs[name][number]"
            )
        if not -len(self) <= which < len(self):
            raise IndexError(f"run {which} of {len(self)}: expected 0 to {len(self) - 1}")
        return Result(self._some([places[which]]))

    def _some(self, places: Sequence[int]) -> "SweepResult":
        first, last = (places[0], places[-1] + 1) if len(places) else (0, 0)
        whole = list(places) == list(range(first, last))
        index = slice(first, last) if whole else np.array(places, int)
        arrays = jax.tree.map(lambda leaf: leaf[index], self.arrays)
        runs, numbers = [self.runs[i] for i in places], self.run_numbers[index]
        return dataclasses.replace(self, runs=runs, arrays=arrays, numbers=numbers)

    @property
    def run_numbers(self) -> np.ndarray:
        """The runs' numbers (R,) in the whole sweep."""
        return np.arange(len(self)) if self.numbers is None else self.numbers

    @property
    def start_codes(self) -> np.ndarray:
        """Codes (R, D) before the first update."""
        return self.arrays.start_codes

    @property
    def codes(self) -> np.ndarray:
        """Codes (R, D) after the last update."""
        return self.arrays.codes

    @property
    def best_codes(self) -> np.ndarray:
        """Codes (R, D) of the highest objective met."""
        return self.arrays.best_codes

    @property
    def recorded_codes(self) -> np.ndarray:
        """Codes (R, k, D) after the steps of `settings.record`."""
        return self.arrays.recorded_codes

    @property
    def objective(self) -> np.ndarray:
        """Objective (R, T) at the code before each update, through the recipe's jitter and zoom."""
        return self.arrays.objective

    @property
    def activations(self) -> dict[str, dict[str, np.ndarray]]:
        """Recorded activations {network: {blob: (R, T, K)}}: all classes, or terms in order."""
        return self.arrays.watched

    @functools.cached_property
    def which(self) -> list[str]:
        """Which image each run shows: `best`, or `last` where that has the higher objective."""
        return [table.shown(self.arrays, place) for place in range(len(self))]

    @functools.cached_property
    def equals(self) -> dict[int, int]:
        """Runs of the whole sweep that are copies, with the run that was computed."""
        return {int(run): int(first) for run, first in self.config.get("equals", {}).items()}

    @property
    def images(self) -> np.ndarray:
        """Images (R, H, W, 3), RGB uint8: the better one of the last and the best of each run."""
        return np.stack([self.image_of(i, which) for i, which in enumerate(self.which)])

    @property
    def raw(self) -> np.ndarray:
        """The same (R, H, W, 3) in the generator's own units."""
        return np.stack([self.raw_of(i, which) for i, which in enumerate(self.which)])

    def raw_of(self, place: int, which: str) -> np.ndarray:
        """Return a run's `last` or `best` image (H, W, 3) in the generator's own units."""
        return np.array(getattr(self.arrays, which).image[place])

    def image_of(self, place: int, which: str) -> np.ndarray:
        """Return a run's `last` or `best` image (H, W, 3), RGB uint8."""
        return visible(self.raw_of(place, which), self.generator, self.config)

    def png_text(self, place: int, which: str, **changed: Any) -> dict[str, str]:
        """Return the text of a PNG of a run's `last` or `best` image, see `jaxsynth.png_text`."""
        own = int(self.run_numbers[place]), which, self.start_codes[place]
        return {KEYWORD: text_of({**self.config, **changed}, *own)}

    @functools.cached_property
    def table(self) -> list[dict[str, Any]]:
        """A row per run, see `jaxsynth.table`; from metrics.csv where the models are not known."""
        if self.generator is None and self.folder is not None:
            rows = read_csv(self.folder / METRICS)
            return [rows[number] for number in self.run_numbers]
        known, rows = self.config.get("notes", {}), []
        for place, run in enumerate(self.runs):
            number = int(self.run_numbers[place])
            row = table.row_of(run, number, place, self.arrays, self.classifiers)
            row |= {"equals": self.equals[number]} if number in self.equals else {}
            notes = [known[term.name] for term in run.objective.terms if term.name in known]
            rows.append(row | ({"note": "; ".join(notes)} if notes else {}))
        return rows

    @functools.cached_property
    def curves(self) -> list[list[np.ndarray | None]]:
        """Per run and term, the probability (T,) of the class that the term is about, or None."""
        found = []
        for i, run in enumerate(self.runs):
            watched = table.of_run(self.arrays.watched, i)
            curves = [table.probability(term, watched) for term in run.objective.terms]
            found.append([None if curve is None else np.array(curve) for curve in curves])
        return found

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV (UTF-8), numbers with six digits.

        Raises:
          ValueError: if this is not the path of a file in a folder that exists.
        """
        write_csv(to_write(path), self.table)

    def __repr__(self) -> str:
        where = f", in {self.folder}" if self.folder else ""
        return f"<SweepResult of {len(self)} runs{where}>"

    def _repr_html_(self) -> str:
        return table.notebook_page(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One finished run: a sweep of one run, without the run axis.

    Attributes:
      sweep: that sweep.
    """

    sweep: SweepResult

    @property
    def run(self) -> Run:
        """Its seed, its objective, its place."""
        return self.sweep.runs[0]

    @property
    def which(self) -> str:
        """Which image `image` shows: `best` or `last`."""
        return self.sweep.which[0]

    @property
    def image(self) -> np.ndarray:
        """Its image (H, W, 3), RGB uint8: the better one of the last and the best."""
        return self.sweep.image_of(0, self.which)

    @property
    def raw(self) -> np.ndarray:
        """The same (H, W, 3) in the generator's own units."""
        return self.sweep.raw_of(0, self.which)

    @property
    def last(self) -> np.ndarray:
        """Its last image (H, W, 3), RGB uint8."""
        return self.sweep.image_of(0, "last")

    @property
    def best(self) -> np.ndarray:
        """The image of the highest objective met (H, W, 3), RGB uint8."""
        return self.sweep.image_of(0, "best")

    @property
    def code(self) -> np.ndarray:
        """The code (D,) of `image`; of `last` the code after the last update."""
        return (self.sweep.codes if self.which == "last" else self.sweep.best_codes)[0]

    @property
    def objective(self) -> np.ndarray:
        """Objective (T,) at the code before each update, through the recipe's jitter and zoom."""
        return self.sweep.objective[0]

    @property
    def activations(self) -> dict[str, dict[str, np.ndarray]]:
        """Recorded activations {network: {blob: (T, K)}}."""
        return table.of_run(self.sweep.activations, 0)

    @property
    def row(self) -> dict[str, Any]:
        """Its row of the table."""
        return self.sweep.table[0]

    @property
    def status(self) -> str:
        """Return `ok`, or the failure."""
        return self.row["status"]

    def save(self, path: str | Path, size: int = 0) -> None:
        """Write the image as a PNG, with the settings that made it in its text `jaxsynth`.

        Args:
          path: the file.
          size: side in pixels to which Lanczos enlarges it; 0 for its own.

        Raises:
          ValueError: for another kind of file, no such folder, or fewer pixels than it has.
        """
        path = to_write(path)
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path}: expected a file name that ends with .png")
        sweep, changed = self.sweep, {"size": size} if size else {}
        image = shown_file(self.raw, sweep.generator, {**sweep.config, **changed})
        write_png(path, image, sweep.png_text(0, self.which, **changed))

    def __repr__(self) -> str:
        return f"<Result of {self.run.objective}, seed {self.run.seed}: {self.status}>"

    def _repr_png_(self) -> bytes:
        return table.notebook_png(self)

    def _repr_html_(self) -> str:
        return table.notebook_page([self])


def visible(raw: np.ndarray, generator: Generator | None, config: Mapping[str, Any]) -> np.ndarray:
    """Turn images (..., H, W, 3) in a generator's units into RGB uint8, as the run shows them."""
    how = config.get("show", "mean")
    if how != "mean":
        return to_rgb(raw, how)
    units = generator.preprocess if generator else Preprocess(**config.get("pixels", {}))
    return (units if generator or "pixels" in config else CAFFE).show(raw)


def shown_file(
    raw: np.ndarray, generator: Generator | None, config: Mapping[str, Any]
) -> np.ndarray:
    """Turn an image (H, W, 3) into the pixels of its file: `visible`, enlarged to config's size."""
    image = visible(raw, generator, config)
    return enlarge(image, config["size"]) if config.get("size") else image
