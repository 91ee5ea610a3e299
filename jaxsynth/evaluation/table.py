"""The table of figures against what the weights must reach, as Markdown. Pure."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

PERCENT, PLAIN = "{:.1%}", "{:.3g}"
_NO_GRID = "reported, no visible grid"


class Range(NamedTuple):
    """A figure's goal: from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf


class Row(NamedTuple):
    """A line of the table. `met` holds a goal per key; without goals it is reported only."""

    figure: str
    group: str
    keys: tuple[str, ...]
    form: str = PLAIN
    target: str = "report"
    least: str = "report"
    met: tuple[Range, ...] = ()
    met_least: tuple[Range, ...] = ()


def _at_least(figure, group, keys, form, target, least) -> Row:
    def text(goals):
        return " / ".join(form.format(g).replace(".0%", " %") for g in goals)

    goals = (tuple(Range(low=g) for g in values) for values in (target, least))
    return Row(figure, group, keys, form, text(target), text(least), *goals)


ROWS = (
    _at_least(
        "scene network, top-1 / top-5",
        "network",
        ("top1", "top5"),
        PERCENT,
        (0.45, 0.74),
        (0.35, 0.63),
    ),
    Row(
        "scene network: same category of x moved by a pixel / with noise of 8 grey levels",
        "network",
        ("same_moved", "same_noisy"),
        PERCENT,
    ),
    _at_least(
        "E(G(E(x))) and E(x): same top-1 category",
        "inversion",
        ("agreement",),
        PERCENT,
        (0.9,),
        (0.8,),
    ),
    _at_least("their codes: mean cosine", "inversion", ("cosine",), PLAIN, (0.97,), (0.95,)),
    Row("the share of a unit's variance that comes back, mean", "inversion", ("kept",), PERCENT),
    Row("units that do not vary, no part of that mean", "inversion", ("silent",)),
    Row("G(E(x)) and x: rms difference in grey levels", "inversion", ("rms",)),
    Row("Frechet distance of G(E(x)) to x, judge's features", "frechet", ("distance",)),
    Row("the same between two halves of x", "frechet", ("halves",)),
    Row("the same of the first version's G(E(x))", "frechet", ("baseline",)),
    Row(
        "the distance as a share of the first version's",
        "frechet",
        ("of_baseline",),
        target="<= 0.5",
        met=(Range(high=0.5),),
    ),
    _at_least("`scene`: P(target) >= 0.9", "scenes", ("reached",), PERCENT, (0.95,), (0.9,)),
    Row("`scene`: median P(target)", "scenes", ("median",)),
    _at_least(
        "judge's rate on `scene` images as a fraction of that on x",
        "scenes",
        ("judge_fraction",),
        PLAIN,
        (1.2,),
        (0.7,),
    ),
    Row("judge: target in top 5 of `scene` images", "scenes", ("judge_made",), PERCENT),
    Row("judge: label in top 5 of x", "scenes", ("judge_real",), PERCENT),
    Row("`scene` images: pixels clipped when shown", "scenes", ("saturated",), PERCENT),
    *(
        Row(
            f"spectrum of {what} against x: largest difference, dB",
            group,
            ("largest_db",),
            target="<= 3",
            least=_NO_GRID,
            met=(Range(high=3.0),),
        )
        for what, group in (("G(E(x))", "spectrum"), ("`scene` images", "scenes"))
    ),
    *(
        Row(f"{name} excess of {what} at periods of 2, 4, 8, 16 px, dB", group, (key,))
        for name, prefix in (("grid", "grid"), ("checkerboard", "checkerboard"))
        for what, group, key in (
            ("x", "spectrum", f"photographs_{prefix}"),
            ("G(E(x))", "spectrum", prefix),
            ("`scene` images", "scenes", prefix),
        )
    ),
    Row("detail that all x share, rms in grey levels", "spectrum", ("photographs_fixed",)),
    Row("detail that all G(E(x)) share", "spectrum", ("fixed",)),
    _at_least(
        "`nsfw` >= 0.99 / `sfw` <= 0.001",
        "nsfw",
        ("nsfw_reached", "sfw_reached"),
        PERCENT,
        (0.95, 0.95),
        (0.95, 0.95),
    ),
    _at_least("`joint`: both >= 0.5", "joint", ("both_reached",), PERCENT, (0.6,), (0.4,)),
    Row(
        "random samples: mean NSFW score",
        "random",
        ("mean",),
        target="0.01 to 0.2",
        least="same",
        met=(Range(0.01, 0.2),),
        met_least=(Range(0.01, 0.2),),
    ),
    Row(
        "shipped weights, MB",
        "size",
        ("megabytes",),
        target="<= 40",
        least="same",
        met=(Range(high=40.0),),
        met_least=(Range(high=40.0),),
    ),
)


def markdown_table(values: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows whose group was measured: figure | value | target | at least on CPU | met?

    values: group -> its figures, see `jaxsynth.evaluation.figures`. A figure that is None or
    missing has no row.
    """
    head = ("figure", "value", "target", "at least on CPU", "met?")
    lines = [head, ("---",) * len(head)]
    for row in ROWS:
        found = [values.get(row.group, {}).get(key) for key in row.keys]
        if all(value is not None for value in found):
            value = " / ".join(_text(v, row.form) for v in found)
            lines.append((row.figure, value, row.target, row.least, _met(row, found)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _text(value: Any, form: str) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {number:+.1f}" for name, number in value.items())
    return form.format(value).replace("%", " %")


def _met(row: Row, values: list[Any]) -> str:
    for goals, word in ((row.met, "yes"), (row.met_least, "on CPU")):
        if goals and all(g.low <= v <= g.high for g, v in zip(goals, values, strict=True)):
            return word
    return "no" if row.met else "reported"
