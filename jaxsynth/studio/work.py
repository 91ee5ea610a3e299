"""The work of `jaxsynth studio`: sweeps that somebody watches, each saved in a folder of its own.

The page is `jaxsynth.studio.page`. A sweep is one call of `jaxsynth.maximize.sweep`; the
studio looks on as its observer, and remembers codes from which the next one can start.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxsynth import table
from jaxsynth.asked import start_of
from jaxsynth.image_files import read_image
from jaxsynth.maximize import sweep
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.registry import available, describe, load
from jaxsynth.objective_text import parse
from jaxsynth.recipes import make_recipe
from jaxsynth.report.explorer import decode
from jaxsynth.report.pages import report
from jaxsynth.report.sheet import scaled, webp_url
from jaxsynth.results import SweepResult, visible
from jaxsynth.runs.folder import image_name
from jaxsynth.runs.saving import Stopped
from jaxsynth.scoring import sensitive_score
from jaxsynth.table import BLUR_ABOVE

MOST_SEEDS = 8
M = TypeVar("M", Classifier, Generator)
_SIDE = 320  # of a picture in pixels, at most
_SECONDS, _SHARE = 0.5, 0.2  # between two looks at least; of the time they take at most


class Look(NamedTuple):
    """A picture of the page.

    Attributes:
      url: of its pixels.
      lines: below it.
      code: (D,) that it is of.
      hide: whether it is blurred until it is clicked.
      file: its PNG, once the sweep is finished.
    """

    url: str
    lines: tuple[str, ...]
    code: np.ndarray
    hide: bool
    file: Path | None = None


@dataclasses.dataclass(frozen=True)
class Wish:
    """The page's request.

    Attributes:
      terms: of the objective, as `jaxsynth.parse` reads them.
      recipe: its name.
      steps: of it.
      seeds: how many pictures.
      first: the first one's seed.
      spread: how far other start codes are from `Studio.start`, in standard deviations of its code.
    """

    terms: Sequence[str]
    recipe: str
    steps: int = 40
    seeds: int = 8
    first: int = 0
    spread: float = 0.3


class Studio:
    """The models, where the next sweep starts, and the pictures of the last one.

    Attributes:
      generator, classifiers: the latter by name; they judge every picture.
      out: sweeps are saved in OUT/001, OUT/002 and so on.
      start: what the next sweep starts from; None for codes by seed.
      looks: the pictures, by seed.
      folder: of the last sweep; `finished` says whether its report is there.
      done, steps: how far it is; `busy` while it is under way.
      version: grows whenever the page has something new to show.
    """

    def __init__(self, generator: Generator, classifiers: Sequence[Classifier], out: Path):
        """Take the models, and the folder of all sweeps."""
        self.generator, self.out = generator, out
        self.classifiers = {one.name: one for one in classifiers}
        self.start: Look | None = None
        self.looks: list[Look] = []
        self.folder, self.finished = out, False
        self.done, self.steps, self.busy, self.version = 0, 1, False, 0
        self._stop, self._due = False, 0.0
        self._score = sensitive_score(classifiers)

    @property
    def models(self) -> dict[str, Any]:
        """All models by the names that terms call them by."""
        return {"generator": self.generator, **self.classifiers}

    def use(self, generator: str, classifiers: Sequence[str]) -> None:
        """Load models by name, if they are not loaded; another generator has other codes."""
        known = self.classifiers
        found = {n: known.get(n) or _load(n, Classifier).named(n) for n in classifiers}
        if generator != self.generator.name:
            self.generator, self.start = _load(generator, Generator), None
        self.classifiers, self._score = found, sensitive_score(found.values())
        self.version += 1

    def start_from(self, look: Look | None) -> None:
        """Start the next sweep from a picture; without one, from codes by seed."""
        self.start, self.version = look, self.version + 1

    def start_from_photograph(self, data: bytes) -> None:
        """Start the next sweep from the bytes of an image file."""
        codes = start_of("studio", read_image(data), self.generator, None).codes
        self.start_from(self._drawn(np.asarray(codes), ["the photograph, as a code"])[0])

    def paint(self, wish: Wish) -> None:
        """Compute a sweep and save it: the work of a thread; ValueErrors are one line."""
        if not wish.terms:
            raise ValueError("nothing to maximise: add a term")
        self._stop, self._due, self.done, self.steps = False, 0.0, 0, wish.steps
        numbers = [int(path.name) for path in self.out.glob("[0-9]*") if path.name.isdecimal()]
        self.folder = self.out / f"{max(numbers, default=0) + 1:03d}"
        self.busy, self.finished = True, False
        self.version += 1
        try:
            objective = parse(" + ".join(wish.terms), self.models)
            found = sweep(
                objective,
                self.generator,
                seeds=range(wish.first, wish.first + wish.seeds),
                init=None if self.start is None else variations(self.start.code, wish),
                classifiers=list(self.classifiers.values()),
                recipe=make_recipe(wish.recipe, steps=wish.steps),
                batch=wish.seeds,
                folder=self.folder,
                progress=False,
                observers=[self],
                title=str(objective),
            )
            self.looks, self.version = self._of_runs(found), self.version + 1
            report(found, self.folder, title=str(objective))
            self.finished = True
        except Stopped:
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self.busy, self.version = False, self.version + 1

    def stop(self) -> None:
        """End the sweep after its step; its pictures stay, to start from."""
        self._stop = True

    def step(self, first: int, done: int, values: np.ndarray, snapshot: Callable) -> None:
        """Take a step, as the sweep's observer; draw it if it is time, or asked to stop."""
        self.done, begun = done, monotonic()
        if begun >= self._due or self._stop:
            said = [f"objective {value:.4g}" for value in values]
            self.looks = self._drawn(snapshot().codes[: len(values)], said)
            self._due = monotonic() + max(_SECONDS, (monotonic() - begun) / _SHARE)
        self.version += 1
        if self._stop:
            raise Stopped("stopped on the page")

    def chunk(self, first: int, chunk: Any) -> None:
        """Take finished runs, as the sweep's observer; `paint` draws them."""

    def _drawn(self, codes: np.ndarray, lines: Sequence[str]) -> list[Look]:
        pictures = [visible(raw, self.generator, {}) for raw in decode(self.generator, codes)]
        return [
            Look(_url(rgb), (line,), code, self._score(rgb) > BLUR_ABOVE)
            for rgb, line, code in zip(pictures, lines, codes, strict=True)
        ]

    def _of_runs(self, runs: SweepResult) -> list[Look]:
        looks = []
        for place, one in enumerate(runs):
            row, which, judges = one.row, one.which, runs.classifiers
            said = table.captions(one.run, row, judges, which)
            said += () if row["status"] == "ok" else (row["status"],)
            hide = (table.sensitive_of(row, judges, which) or 0) > BLUR_ABOVE
            file = self.folder / image_name(place, which)
            looks.append(Look(_url(one.image), said, np.array(one.code), hide, file))
        return looks


def variations(code: np.ndarray, wish: Wish) -> np.ndarray:
    """Return start codes (seeds, D) around a code: the first is the code itself."""
    scale = wish.spread * float(code.std())
    seeds = range(wish.first, wish.first + wish.seeds)
    noise = [np.random.default_rng(seed).standard_normal(len(code)) for seed in seeds]
    noise[0][:] = 0
    return (code + scale * np.stack(noise)).astype(np.float32)


def model_names() -> dict[str, list[str]]:
    """Return the names that can be loaded, as `generator` and `classifier`."""
    found: dict[str, list[str]] = {"generator": [], "classifier": []}
    for name in available():
        with contextlib.suppress(ValueError):  # a package or file that is not here
            found[describe(name).partition(",")[0]].append(name)
    return found


def check_studio() -> None:
    """Raise ValueError if the package that makes the page is not installed."""
    if find_spec("nicegui") is None:
        raise ValueError("studio needs the package nicegui: pip install 'jaxsynth[studio]'")


def _load(name: str, kind: type[M]) -> M:
    model = load(name)
    if not isinstance(model, kind):
        raise ValueError(f"{name} is no {kind.__name__.lower()}: choose another")
    return model


def _url(rgb: np.ndarray) -> str:
    return webp_url(scaled(rgb, _SIDE), quality=88, method=0)
