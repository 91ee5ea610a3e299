"""Table rows, captions and notebook figures of runs: objective, terms, probabilities, status.

Columns of a row (`metrics.csv` has one per run):

  run, seed, row, column, from                     its number, its seed, its place, its origin
  objective_first, objective_last, objective_best  at the start, of the last and the best image
  target_N, weight_N, activation_N_*, p_N_*        of its N-th term: value, and the probability if
                                                   the term is about a class
  NAME_last, NAME_best                             P of the sensitive class of classifier NAME
  top_NAME, p_top_NAME                             likeliest class of any other, of the last image
  shown, objective_shown, best_step                which image is shown, the better of `last` and
                                                   `best`, its objective; updates before the best
  equals                                           the run that it is a copy of, if it is one
  note                                             a change of its objective, if any
  status                                           `ok`, or the failure
"""

import base64
import html
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

from jaxsynth.report.tables import format_probability
from jaxsynth.terms import FUNCTION, GENERATOR, MEASURES, Objective, Term, is_class_blob

if TYPE_CHECKING:
    from jaxsynth.ascent import ChunkResult
    from jaxsynth.models.base import Classifier
    from jaxsynth.results import Result, Run, SweepResult

PICTURES = ("last", "best")
BLUR_ABOVE = 0.5  # P of a sensitive class above which a picture waits for a click
Watched = Mapping[str, Mapping[str, np.ndarray]]  # {network: {blob: (..., K)}}
_NON_FINITE = "non-finite"
_SHOWN, _SIDE = 24, 192  # pictures of a sweep in a notebook, and pixels of a small one
_STYLE = (
    "<style>.jaxsynth figure{display:inline-block;margin:4px;font:12px sans-serif;"
    "vertical-align:top}.jaxsynth input{display:none}.jaxsynth img{image-rendering:pixelated}"
    ".jaxsynth input+img{filter:blur(16px)}.jaxsynth input:checked+img{filter:none}</style>"
)


def row_of(
    run: "Run", number: int, place: int, arrays: "ChunkResult", classifiers: "Sequence[Classifier]"
) -> dict[str, Any]:
    """Make the row of a run: `number` is that in its sweep, `place` that in `arrays`."""
    row: dict[str, Any] = {"run": number, "seed": run.seed, "row": run.row, "column": run.column}
    row |= {"from": run.origin} if run.origin else {}
    traced = arrays.objective.shape[1] > 0
    row["objective_first"] = arrays.objective[place, 0] if traced else None
    row |= {f"objective_{which}": getattr(arrays, which).objective[place] for which in PICTURES}
    pictures = {which: of_run(getattr(arrays, which).watched, place) for which in PICTURES}
    row |= scores(run.objective, classifiers, pictures)
    row["shown"] = shown(arrays, place)
    row["objective_shown"] = row[f"objective_{row['shown']}"]
    if traced:
        last = np.array_equal(arrays.best_codes[place], arrays.codes[place])
        trace = np.nan_to_num(arrays.objective[place], nan=-np.inf)
        row["best_step"] = len(trace) if last else int(np.argmax(trace))
    row["status"] = status_of(run.objective, place, arrays)
    return row


def shown(arrays: "ChunkResult", place: int) -> str:
    """Say which image of a run is shown: `best`, or `last` where that has the higher objective."""
    return "last" if arrays.last.objective[place] > arrays.best.objective[place] else "best"


def scores(
    objective: Objective, classifiers: "Sequence[Classifier]", pictures: Mapping[str, Watched]
) -> dict[str, Any]:
    """Return the scores of a run's pictures: a term's activation and probability, and all judges.

    `pictures` are their watched activations by name, of which `last` must be one. A network that
    has not seen a picture (the generator, at a photograph) says nothing of it.
    """
    row: dict[str, Any] = {}
    for n, term in enumerate(objective.terms, 1):
        row[f"target_{n}"], row[f"weight_{n}"] = term.name, term.weight
        for which, watched in pictures.items():
            row[f"activation_{n}_{which}"] = _number(term_value(objective.terms, n - 1, watched))
            row[f"p_{n}_{which}"] = _number(probability(term, watched))
    for judge in classifiers:
        if judge.sensitive is not None:
            for which, watched in pictures.items():
                p = watched[judge.name]["prob"]
                row[f"{judge.name}_{which}"] = judge.sensitive_probability(p)
    for judge in classifiers:
        if judge.sensitive is None and "prob" in pictures["last"].get(judge.name, {}):
            p = pictures["last"][judge.name]["prob"]
            row[f"top_{judge.name}"] = judge.class_names[int(np.argmax(p))]
            row[f"p_top_{judge.name}"] = np.max(p)
    return row


def status_of(objective: Objective, place: int, arrays: "ChunkResult") -> str:
    """Return `ok`, or the failure of the run at this place of the arrays."""
    if not np.isfinite(arrays.last.objective[place]):
        return f"{_NON_FINITE} from its start"
    if not arrays.sound[place]:
        return f"{_NON_FINITE} at step {arrays.ended[place]}, frozen before it"
    traces, silent = of_run(arrays.watched, place), []
    for i, term in enumerate(objective.terms):
        values = term_value(objective.terms, i, traces)
        if values is not None and values.size and not np.any(values):
            before = f"{term.blob}_pre"
            known = before in getattr(term.model, "shapes", {})
            way_out = f": maximise {before}, before its ReLU" if known else ""
            silent.append(f"{term.name} stayed 0{way_out}")
    if arrays.ended[place] >= 0:
        return "; ".join([f"zero gradient at step {arrays.ended[place]}", *silent[:1]])
    return silent[0] if silent else "ok"


def non_finite_line(arrays: "ChunkResult") -> str:
    """Say how many runs did not stay finite, and at which steps they were frozen; "" for none."""
    bad = ~np.asarray(arrays.sound) | ~np.isfinite(arrays.last.objective)
    if not bad.any():
        return ""
    steps = np.asarray(arrays.ended)[bad]
    first, last = int(steps.min()), int(steps.max())
    who = "no run stayed" if bad.all() else f"{bad.sum()} of {len(bad)} runs did not stay"
    at = f"step {first}" if first == last else f"steps {first} to {last}"
    return f"{who} finite: frozen at {at}, see the column `status`"


def is_non_finite(row: Mapping[str, Any]) -> bool:
    """Whether a row is of a run that did not stay finite."""
    return row["status"].startswith(_NON_FINITE)


def term_value(terms: Sequence[Term], place: int, watched: Watched) -> np.ndarray | None:
    """Return the value (...) of one of a run's terms, without its weight.

    `watched` are the run's activations, leaves (..., K): None where the network did not see the
    picture.
    """
    term, blobs = terms[place], watched.get(terms[place].network, {})
    if term.how == "linear" and is_class_blob(term.model, term.blob):  # recorded in full
        if term.blob not in blobs:
            return None
        units = blobs[term.blob][..., term.index]
        return units[..., 0] if term.unit is not None else units @ term.value
    name = _recorded_as(term)
    before = sum(_recorded_as(t) == name for t in terms[:place])
    return blobs[name[1]][..., before] if name[1] in blobs else None


def _recorded_as(term: Term) -> tuple[str, str]:
    """Return the network and blob under which a term's value is recorded, in order of the terms."""
    if term.how == FUNCTION:
        return GENERATOR, f"{FUNCTION}:{term.blob}"
    return term.network, term.blob if term.how == "linear" else f"{term.how}:{term.blob}"


def probability(term: Term, watched: Watched) -> np.ndarray | None:
    """Return the probability (...) of the class that a term is about; None if it is about none."""
    seen = watched.get(term.network, {})
    return None if term.unit is None or "prob" not in seen else seen["prob"][..., term.unit]


def of_run(watched: Watched, place: int) -> dict[str, dict[str, np.ndarray]]:
    """Return one run's part of {network: {blob: leaves with a leading run axis}}."""
    return {role: {blob: v[place] for blob, v in blobs.items()} for role, blobs in watched.items()}


def _number(value: np.ndarray | None) -> float | None:
    return None if value is None else float(value)


# --- captions -------------------------------------------------------------------------------------


def sensitive_of(
    row: Mapping[str, Any], classifiers: "Sequence[Classifier]", which: str = "last"
) -> float | None:
    """Return the highest probability of a sensitive class in a row; None if unknown.

    Without the classifiers, every column that may be one counts.
    """
    names = [judge.name for judge in classifiers if judge.sensitive is not None]
    if not classifiers:
        names = [key.removesuffix(f"_{which}") for key in row if _may_be_sensitive(key, which)]
    seen = [row[f"{name}_{which}"] for name in names if row.get(f"{name}_{which}") is not None]
    return max(map(float, seen), default=None)


def _may_be_sensitive(column: str, which: str) -> bool:
    others = ("objective_", "activation_", "p_")
    return column.endswith(f"_{which}") and not column.startswith(others)


def captions(
    run: "Run", row: Mapping[str, Any], classifiers: "Sequence[Classifier]", which: str = "last"
) -> tuple[str, ...]:
    """Caption a run's `last` or `best` image: seed or origin, then the judges' answers."""
    name = f"run {run.origin.rpartition(':')[2]}" if run.origin else f"seed {run.seed}"
    place = f"{run.row} {run.column}"
    named = name in place or f"seed {run.seed}" in place
    said = [] if named else [name]
    said += [f"best, step {row['best_step']}"] if which == "best" and "best_step" in row else []
    first = [", ".join(said)] if said else []
    first += [f"equals run {row['equals']}"] if row.get("equals") is not None else []
    return (*first, *score_lines(run.objective, row, classifiers, which))


def score_lines(
    objective: Objective,
    row: Mapping[str, Any],
    classifiers: "Sequence[Classifier]",
    which: str = "last",
) -> tuple[str, ...]:
    """Put the judges' answers to a picture into words: terms, sensitive classes, the likeliest.

    `row` has the columns of `scores`.
    """
    lines: dict[str, None] = {}
    sensitive = {c.name: c for c in classifiers if c.sensitive is not None}
    for n, term in enumerate(objective.terms, 1):
        p, value = row.get(f"p_{n}_{which}"), row.get(f"activation_{n}_{which}")
        judge = sensitive.get(term.network)
        if judge and p is not None and (judge.classes == 2 or term.unit in judge.sensitive_classes):
            lines[_sensitive_line(judge, row, which)] = None
        elif p is not None:
            lines[f"{term.label} {format_probability(p, 2)}"] = None
        elif value is not None:
            plain = term.blob in MEASURES or term.how == FUNCTION
            lines[f"{term.blob if plain else f'{term.blob}:{term.label}'} {value:.3g}"] = None
    for judge in sensitive.values():
        lines[_sensitive_line(judge, row, which)] = None
    lines.pop("", None)
    for judge in classifiers:
        if len(lines) < 2 and which == "last" and row.get(f"top_{judge.name}"):
            top = row[f"top_{judge.name}"], format_probability(row[f"p_top_{judge.name}"], 2)
            lines[" ".join(top)] = None
    return tuple(lines)


def _sensitive_line(judge: "Classifier", row: Mapping[str, Any], which: str) -> str:
    p = row.get(f"{judge.name}_{which}")
    return "" if p is None else f"{judge.sensitive_name} {format_probability(p)}"


# --- notebooks ------------------------------------------------------------------------------------


def notebook_page(results: "SweepResult | Sequence[Result]") -> str:
    """Show the first runs in HTML, sensitive ones blurred until they are clicked."""
    said = f"<p>{len(results) - _SHOWN} runs more</p>" if len(results) > _SHOWN else ""
    figures = map(_figure, itertools.islice(results, _SHOWN))
    return f'{_STYLE}<div class="jaxsynth">{"".join(figures)}{said}</div>'


def notebook_png(result: "Result") -> bytes:
    """Encode a run's image as a PNG, blurred if it is sensitive."""
    image = Image.fromarray(result.image)
    blur = ImageFilter.GaussianBlur(image.height / 12)
    return _png(image.filter(blur) if _hides(result) else image)


def _figure(result: "Result") -> str:
    run, row, judges, image = result.run, result.row, result.sweep.classifiers, result.image
    lines = [" · ".join(filter(None, (run.row, run.column)))]
    if isinstance(run.objective, Objective):
        lines += captions(run, row, judges, result.which)
    lines += [] if row["status"] == "ok" else [row["status"]]
    data = base64.b64encode(_png(Image.fromarray(image))).decode()
    shown = f'<img width={max(_SIDE, image.shape[1])} src="data:image/png;base64,{data}">'
    box = "<input type=checkbox>" if _hides(result) else ""
    said = "<br>".join(html.escape(line) for line in lines if line)
    return f"<figure><label>{box}{shown}</label><figcaption>{said}</figcaption></figure>"


def _hides(result: "Result") -> bool:
    p = sensitive_of(result.row, result.sweep.classifiers, result.which)
    return p is not None and p > BLUR_ABOVE


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
