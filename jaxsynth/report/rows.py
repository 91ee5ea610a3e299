"""What a run says in figures: its metric row, its status, its caption."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth.chunks import Results, watched_of_run
from jaxsynth.models.network import Network
from jaxsynth.short import NSFW, NSFW_UNIT, PLACES, Run
from jaxsynth.system import GENERATOR
from jaxsynth.terms import REGULARISERS, Term, is_class_blob, term_activation

_NON_FINITE = "non-finite"
Watched = Mapping[str, Mapping[str, np.ndarray]]  # {network: {blob: (..., K)}}


def metric_rows(
    first: int, runs: Sequence[Run], results: Results, networks: Mapping[str, Network]
) -> list[dict[str, Any]]:
    """One row per run: place, objective, every term's activation and probability, status.

    The first of the runs bears the number `first`.
    """
    return [{"run": first + i} | _row(i, run, results, networks) for i, run in enumerate(runs)]


def _row(i: int, run: Run, results: Results, networks: Mapping[str, Network]) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": run.seed, "row": run.row, "column": run.column}
    row |= {"from": run.origin} if run.origin else {}
    traced = results.objective.shape[1] > 0
    row["objective_first"] = results.objective[i, 0] if traced else None
    row["objective_last"] = results.last.objective[i]
    row["objective_best"] = results.best.objective[i]
    looks = {
        "last": watched_of_run(results.last.watched, i),
        "best": watched_of_run(results.best.watched, i),
    }
    row |= scores(run.terms, networks, looks)
    row["status"] = status(results, i, run.terms)
    return row


def scores(
    terms: Sequence[Term], networks: Mapping[str, Network], looks: Mapping[str, Watched]
) -> dict[str, Any]:
    """What a row says of a run's pictures: activations, probabilities, NSFW, the likeliest scene.

    `looks` are the watched activations of its pictures by name, of which `last` must be one. A
    network that has not looked at a picture (the generator, at a photograph) says nothing of it.
    """
    row: dict[str, Any] = {}
    for n, term in enumerate(terms, 1):
        row[f"target_{n}"], row[f"weight_{n}"] = str(term), term.weight
        for which, watched in looks.items():
            seen = term.network in watched
            value = float(term_activation(term, terms, watched)) if seen else None
            p = probability(term, networks, watched) if seen else None
            row[f"activation_{n}_{which}"] = value
            row[f"p_{n}_{which}"] = None if p is None else float(p)
    if NSFW in networks:
        for which, watched in looks.items():
            row[f"nsfw_{which}"] = watched[NSFW]["prob"][NSFW_UNIT]
    if PLACES in networks:
        p = looks["last"][PLACES]["prob"]
        row["top_scene"] = networks[PLACES].class_names[int(np.argmax(p))]
        row["p_top_scene"] = np.max(p)
    return row


def status(results: Results, i: int, terms: Sequence[Term]) -> str:
    """`ok`, or what went wrong with run i."""
    if not np.isfinite(results.last.objective[i]):
        return f"{_NON_FINITE} from its start"
    if not results.sound[i]:
        return f"{_NON_FINITE} at step {results.ended[i]}, frozen before it"
    if results.ended[i] >= 0:
        return f"zero gradient at step {results.ended[i]}"
    traces = watched_of_run(results.watched, i)
    silent = [str(t) for t in terms if not np.any(term_activation(t, terms, traces))]
    if silent and results.objective.shape[1]:
        return f"{silent[0]} stayed 0: climb {silent[0].split(':')[1]}_pre, before its ReLU"
    return "ok"


def is_non_finite(row: Mapping[str, Any]) -> bool:
    """Whether a metric row is of a run that did not stay finite."""
    return row["status"].startswith(_NON_FINITE)


def probability(term: Term, networks: Mapping[str, Network], watched: Watched) -> np.ndarray | None:
    """Probability (...) of the class that a term on a classifier's last layers is about, or None.

    `watched` is one run's, leaves (..., K).
    """
    if term.network == GENERATOR or not is_class_blob(networks[term.network], term.blob):
        return None
    return watched[term.network]["prob"][..., term.index[0]]


def captions(row: Mapping[str, Any], which: str = "last") -> tuple[str, ...]:
    """Caption lines of a run from its metric row: seed or origin, then what the classifiers say of
    its `last` or `best` image."""
    name = f"run {row['from'].rpartition(':')[2]}" if "from" in row else f"seed {row['seed']}"
    place = f"{row['row']} {row['column']}"
    named = name in place or f"seed {row['seed']}" in place
    return (() if named else (name,)) + score_lines(row, which)


def score_lines(row: Mapping[str, Any], which: str = "last") -> tuple[str, ...]:
    """What the classifiers say of a row's `last` or `best` picture, one line each."""
    lines = []
    if row.get(f"nsfw_{which}") is not None:
        lines.append(f"NSFW {row[f'nsfw_{which}']:.3f}")
    n = 1
    while f"target_{n}" in row:
        role, blob, name = row[f"target_{n}"].split(":", 2)
        p, activation = row[f"p_{n}_{which}"], row[f"activation_{n}_{which}"]
        if role != NSFW and p is not None:
            lines.append(f"{name} {p:.2f}")
        elif p is None and activation is not None:
            unit = blob if blob in REGULARISERS else f"{blob}:{name}"
            lines.append(f"{unit} {activation:.3g}")
        n += 1
    if len(lines) < 2 and which == "last" and row.get("top_scene"):
        lines.append(f"{row['top_scene']} {row['p_top_scene']:.2f}")
    return tuple(lines)
