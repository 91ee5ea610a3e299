"""A sweep under way, shown as a bar on standard error."""

import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from tqdm import tqdm

from jaxsynth.chunks import OnStep, Results, chunk_starts
from jaxsynth.maximize import Plan, execute
from jaxsynth.progress import Progress


def execute_shown(
    todo: Plan,
    shown: bool = True,
    name: str = "",
    on_step: OnStep = lambda first, done, values, snapshot: None,
    chunks: Sequence[int] | None = None,
    under_way: Progress | None = None,
    devices: Sequence[jax.Device] = (),
) -> Iterator[Results]:
    """`execute` with a bar of all chunks' steps and the median objective; `name` stands before.

    Where memory was short it says so, also without the bar.
    """
    steps, size = max(1, todo.settings.recipe.steps), todo.settings.batch * (len(devices) or 1)
    starts = chunk_starts(len(todo.batch.codes), size) if chunks is None else chunks
    place = {first: steps * i for i, first in enumerate(starts)}
    with tqdm(
        total=steps * len(starts), initial=under_way.done if under_way else 0, desc=name or None,
        unit="step", disable=not shown, file=sys.stderr,
    ) as bar:  # fmt: skip

        def show(
            first: int, done: int, values: np.ndarray, snapshot: Callable[[], Progress]
        ) -> None:
            bar.update(place[first] + done - bar.n)
            bar.set_postfix_str(f"objective {np.median(values):.4g}", refresh=False)
            on_step(first, done, values, snapshot)

        def say_halved(at_once: int) -> None:
            bar.clear()
            print(
                f"out of memory: going on with {at_once} runs at once, as --batch={at_once} "
                "computes them",
                file=sys.stderr,
            )

        for chunk, end in zip(
            execute(todo, show, starts, under_way, devices, say_halved), place.values(), strict=True
        ):
            bar.update(end + steps - bar.n)
            yield chunk
