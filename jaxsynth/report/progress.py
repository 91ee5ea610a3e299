"""A sweep under way, shown as a bar on standard error."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from jaxsynth.engine.sweep import OnStep, Progress, Results
from jaxsynth.experiment import Plan, execute


def execute_shown(
    todo: Plan,
    shown: bool = True,
    name: str = "",
    on_step: OnStep = lambda first, done, values, snapshot: None,
    first: int = 0,
    under_way: Progress | None = None,
) -> Iterator[Results]:
    """`execute` with a bar of all chunks' steps and the median objective; `name` stands before."""
    steps, batch = max(1, todo.settings.recipe.steps), todo.settings.batch
    total = -(-len(todo.batch.codes) // batch) * steps
    begun = first // batch * steps + (under_way.done if under_way else 0)
    with tqdm(
        total=total, initial=begun, desc=name or None, unit="step", disable=not shown,
        file=sys.stderr,
    ) as bar:  # fmt: skip

        def show(
            first: int, done: int, values: np.ndarray, snapshot: Callable[[], Progress]
        ) -> None:
            bar.update(first // batch * steps + done - bar.n)
            bar.set_postfix_str(f"objective {np.median(values):.4g}", refresh=False)
            on_step(first, done, values, snapshot)

        yield from execute(todo, show, first, under_way)
        bar.update(total - bar.n)
