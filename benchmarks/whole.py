"""Measures the phases of a process, from imports to pages.

  python -m benchmarks.whole scene --scenes=mountain --seeds=8
  python -m benchmarks.whole joint --scenes=mountain,iceberg --nsfw_weights=0.5,1,2 --seeds=4

Run from the repository's root. The command of `jaxsynth` that the words make is run twice, in
processes of its own, on a new cache: first cold, then warm, with an --out of its own. A phase is
the time within a function, less that of the phases within it; what no phase holds is `other`.
Pictures are written by threads during the steps, so `pictures` is the wait for the last ones.
"""

import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

# Phase -> functions whose time is its own, as (module, function).
_PHASES = {
    "loading": [("experiments.common", "load_models")],
    "planning": [("experiments.common", "plan")],
    "steps": [("jaxsynth.chunks", "_Chunk.optimise")],
    "evaluating": [("jaxsynth.chunks", "_evaluate_ends")],
    "pictures": [("jaxsynth.maximize", "compute_together")],
    "results": [("jaxsynth.maximize", "join_chunks"), ("jaxsynth.maximize", "write_inputs")],
    "pages": [("experiments.common", "report")],
    "plots": [("jaxsynth.report.pages", "_write_traces")],
}
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
_ORDER = ("imports", "loading", "planning", "tracing", "compiling", "steps", "evaluating",
          "pictures", "results", "pages", "plots", "other", "together", "CPU s")  # fmt: skip
_CHILD = "--measured"

Span = tuple[str, float, float]  # phase, begin, end


def main() -> None:
    """Measure the command that this process's words make, or, as a child, be it."""
    words = sys.argv[1:]
    if words[:1] == [_CHILD]:
        _be_measured(float(words[1]), words[2], words[3:])
        return
    if not words:
        raise SystemExit("error: whole takes a command of jaxsynth, such as scene --seeds=8")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            rows.append({"cache": state} | measure(words, Path(folder)))
    from jaxsynth.environment import machine_line
    from jaxsynth.report.tables import format_markdown

    print(f"`python -m benchmarks.whole {' '.join(words)}`\n\n{machine_line()}\n")
    print(format_markdown(rows))


def measure(words: Sequence[str], folder: Path) -> dict[str, str]:
    """Run a command in a process of its own; return seconds by phase, as text."""
    written = folder / "spans.json"
    child = [sys.executable, "-m", "benchmarks.whole", _CHILD, repr(time.time()), str(written)]
    before = os.times()
    subprocess.run(
        [*child, *words, f"--out={folder / 'out'}", "--overwrite", "--noprogress"],
        env=dict(os.environ, JAXSYNTH_CACHE=str(folder / "cache")),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    spans = [tuple(span) for span in json.loads(written.read_text())]
    seconds = exclusive([*spans, ("together", spans[0][1], time.time())])
    seconds["other"] = seconds.pop("together")
    seconds["together"] = sum(seconds.values())
    seconds["CPU s"] = sum(after[2:4]) - sum(before[2:4])
    return {name: f"{seconds.get(name, 0.0):.2f}" for name in _ORDER}


def exclusive(spans: Sequence[Span]) -> dict[str, float]:
    """Give every moment to the span that began last of those that hold it; seconds by phase.

    Spans of one thread nest; of two with one begin the shorter one is inside. The evaluation is
    compiled by a thread of its own, so its spans overlap others: moments of both are one phase's.
    """
    found: dict[str, float] = {}
    open_spans: list[Span] = []
    marks = sorted({moment for _, begin, end in spans for moment in (begin, end)})
    ordered = sorted(spans, key=lambda span: (span[1], -span[2]))
    for begin, end in itertools.pairwise(marks):
        open_spans += [span for span in ordered if span[1] == begin]
        open_spans = [span for span in open_spans if span[2] > begin]
        if open_spans:
            name = open_spans[-1][0]
            found[name] = found.get(name, 0.0) + end - begin
    return found


def _be_measured(begun: float, written: str, words: Sequence[str]) -> None:
    import jax

    from jaxsynth.__main__ import main as command

    spans: list[Span] = []

    def hear(event: str, seconds: float, **_: Any) -> None:
        if event in _EVENTS:
            spans.append((_EVENTS[event], time.time() - seconds, time.time()))

    jax.monitoring.register_event_duration_secs_listener(hear)
    importlib.import_module(f"experiments.{words[0]}")
    spans.append(("imports", begun, time.time()))
    for phase, functions in _PHASES.items():
        for module, function in functions:
            _time(spans, phase, module, function)
    sys.modules["jaxsynth.experiments"] = importlib.import_module("experiments")
    for name in [name for name in sys.modules if name.startswith("experiments.")]:
        sys.modules[f"jaxsynth.{name}"] = sys.modules[name]
    try:
        command(words)
    finally:
        Path(written).write_text(json.dumps(spans))


def _time(spans: list[Span], phase: str, module_name: str, function: str) -> None:
    """Let a function of a module, or a method, add a span to the list at each call."""
    owner = importlib.import_module(module_name)
    *within, name = function.split(".")
    for part in within:
        owner = getattr(owner, part)
    timed = getattr(owner, name)
    importers = [m for m in list(sys.modules.values()) if getattr(m, name, None) is timed]

    @wraps(timed)
    def call(*args: Any, **kwargs: Any) -> Any:
        begin = time.time()
        try:
            return timed(*args, **kwargs)
        finally:
            spans.append((phase, begin, time.time()))

    for each in (owner, *importers):
        setattr(each, name, call)


if __name__ == "__main__":
    main()
