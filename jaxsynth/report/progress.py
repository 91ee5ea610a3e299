"""A sweep under way, shown as a bar on standard error."""

import sys
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from jaxsynth.engine.sweep import Results
from jaxsynth.experiment import Plan, execute


def execute_shown(todo: Plan, shown: bool = True, name: str = "") -> Iterator[Results]:
    """`execute` with a bar of all chunks' steps and the median objective; `name` stands before."""
    steps, batch = max(1, todo.settings.recipe.steps), todo.settings.batch
    total = -(-len(todo.batch.codes) // batch) * steps
    with tqdm(
        total=total, desc=name or None, unit="step", disable=not shown, file=sys.stderr
    ) as bar:

        def on_step(first: int, done: int, values: np.ndarray) -> None:
            bar.update(first // batch * steps + done - bar.n)
            bar.set_postfix_str(f"objective {np.median(values):.4g}", refresh=False)

        yield from execute(todo, on_step)
        bar.update(total - bar.n)
