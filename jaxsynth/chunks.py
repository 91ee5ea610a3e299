"""Many runs at once: seeds x weightings in fixed-size chunks through one compiled step.

Pure but for the device: no files, no clock. A chunk always has `batch` runs (the last is padded),
so a run's result does not depend on how many others there are. On CPU the step is called from
Python (convolutions inside a loop body miss their fast layouts there), elsewhere blocks of steps
run inside one `lax.scan`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsynth import ascent
from jaxsynth.ascent import Evaluation, State, Trace
from jaxsynth.devices import on_all, over_runs, runs_mesh, split
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Params
from jaxsynth.parts import is_out_of_memory, make_parts, share_rows
from jaxsynth.progress import Progress, host_leaves, restore
from jaxsynth.recipes import Box, Recipe
from jaxsynth.starts import StartCodes
from jaxsynth.system import System, params_of

_SCAN_BLOCK = 25  # steps between two looks at the host, on accelerators


# Called with (first run of the chunk, steps done, objective values (R,), snapshot).
OnStep = Callable[[int, int, np.ndarray, Callable[[], Progress]], None]


class Batch(NamedTuple):
    """Runs as data, every leaf with a leading run axis R (see `jaxsynth.terms`)."""

    codes: np.ndarray | StartCodes  # (R, D) start codes
    weights: Mapping[str, Mapping[str, np.ndarray]]  # leaves (R, *blob shape)
    watch: Mapping[str, Mapping[str, np.ndarray]]  # leaves (R, K)
    seeds: np.ndarray | None = None  # (R,) uint32, which decide the jitter


class Results(NamedTuple):
    """Finished runs, as host arrays with a leading run axis R (one chunk's, or joined)."""

    codes: np.ndarray  # (R, D) after the last update
    best_codes: np.ndarray  # (R, D) of the highest objective met
    recorded_codes: np.ndarray  # (R, k, D)
    objective: np.ndarray  # (R, T), at the code before each update
    watched: dict[str, dict[str, np.ndarray]]  # leaves (R, T, K)
    last: Evaluation  # of the reported image's code, leaves (R, ...)
    best: Evaluation  # of the best code
    ended: np.ndarray  # (R,) step that ended the run before its last, or -1
    sound: np.ndarray  # (R,) bool: False if something that is not finite ended it


def advance(
    system: System,
    recipe: Recipe,
    balance: str,
    mesh: Mesh | None,
    steps: int,
    params: Mapping[str, Params],
    weights: Mapping[str, Mapping[str, jax.Array]],
    watch: Mapping[str, Mapping[str, jax.Array]],
    box: Box,
    state: State,
) -> tuple[State, Trace]:
    """`steps` updates of a batch of runs; trace leaves are (steps, B, ...)."""
    run = functools.partial(ascent.step, system, recipe, balance)

    def one(carry, _):
        return over_runs(mesh, run, (None, 0, 0, None, 0))(params, weights, watch, box, carry)

    if steps > 1:
        return jax.lax.scan(one, state, length=steps)
    state, trace = one(state, None)
    return state, jax.tree.map(lambda leaf: leaf[None], trace)


def evaluate(
    system: System,
    mesh: Mesh | None,
    params: Mapping[str, Params],
    weights: Mapping[str, Mapping[str, jax.Array]],
    watch: Mapping[str, Mapping[str, jax.Array]],
    codes: jax.Array,
) -> Evaluation:
    """Objective, watched activations and images of a batch of codes (B, D)."""
    run = functools.partial(ascent.evaluate, system)
    return over_runs(mesh, run, (None, 0, 0, 0))(params, weights, watch, codes)


def init(recipe: Recipe, codes: jax.Array, seeds: jax.Array | None = None) -> State:
    """State of a batch of runs that start from `codes` (B, D); jitter needs their seeds (B,)."""
    return jax.vmap(functools.partial(ascent.init, recipe))(codes, seeds)


# Module-level, so that every sweep of a process shares their caches.
init_jit = jax.jit(init, static_argnums=(0,))
advance_jit = network_jit(advance, static_argnums=(0, 1, 2, 3, 4), donate_argnums=(9,))
evaluate_jit = network_jit(evaluate, static_argnums=(0, 1))
_finite_runs = jax.vmap(ascent.all_finite)


def sweep(
    system: System,
    params: Mapping[str, Params],
    runs: Batch,
    box: Box,
    recipe: Recipe,
    *,
    balance: str = "image",
    judge: System | None = None,
    batch: int = 8,
    record: Sequence[int] = (),
    on_step: OnStep = lambda first, done, values, snapshot: None,
    chunks: Sequence[int] | None = None,
    under_way: Progress | None = None,
    devices: Sequence[jax.Device] = (),
    on_halved: Callable[[int], None] = lambda at_once: None,
) -> Iterator[Results]:
    """Yields finished chunks of `batch` runs per device, in order.

    Args:
      system, params: the networks (`make_system`, `system_params`), with the generator's encoder if
        the recipe has a prior term; params are never donated.
      runs: start codes (R, D), weights and watch lists with a leading run axis, and seeds if the
        recipe has jitter.
      box, recipe, balance: how the codes climb.
      judge: the system that looks at the finished images; by default `system`. It may hold more
        classifiers than the ones that are climbed (their params must be there).
      batch: runs per chunk and device. Results are bit-equal for equal batch, whatever the
        neighbours.
      record: steps after which codes are kept, each in 1..recipe.steps.
      on_step: called with (first run of the chunk, steps done, objective values (R,), snapshot);
        snapshot() is the chunk's `Progress`. What it raises ends the sweep there.
      chunks: the first runs of the chunks to compute, some of `chunk_starts`; by default all.
      under_way: the first chunk's progress, to go on from instead of its start codes. What follows
        is bit-equal to an uninterrupted sweep.
      devices: what a chunk's runs are split over; by default one, JAX's own choice.
      on_halved: called with the runs that each device takes at once from now on, where their memory
        did not hold the chunk: its parts then go step by step in turn, and each run is bit-equal to
        one of a sweep of so small a batch.

    Raises:
      jax.errors.JaxRuntimeError: if the memory of a device does not even hold one run.
      ValueError: if a recorded step lies outside 1..steps, batch < 1, or the recipe needs an
        encoder or seeds that are not there.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    if recipe.prior and system.encoder is None:
        raise ValueError(f"recipe: prior is {recipe.prior}, but the system has no encoder")
    if recipe.jitter and runs.seeds is None:
        raise ValueError(f"recipe: jitter is {recipe.jitter}, but the runs have no seeds")
    check_record(record, recipe.steps)
    total, mesh = runs.codes.shape[0], runs_mesh(devices)
    shares = len(devices) or 1
    params = on_all(mesh, params)
    starts = chunk_starts(total, batch * shares) if chunks is None else chunks
    at_once = batch
    for first in starts:
        rows = _rows(first, batch, shares, total)
        count = min(batch * shares, total - first)
        own = np.arange(len(rows)).reshape(shares, -1)[:, :batch].ravel()[:count]
        chunk = jax.tree.map(lambda leaf, i=rows: leaf[i], runs)
        report = functools.partial(_report, on_step, first, own)
        how = (system, judge or system._replace(encoder=None), mesh, params, box, recipe, balance)
        result = None
        while result is None:
            parts = make_parts(batch, at_once, shares)
            try:
                result = _run_chunk(*how, record, report, under_way, chunk, parts)
            except jax.errors.JaxRuntimeError as error:
                if at_once == 1 or not is_out_of_memory(error):
                    raise
            if result is None:  # only now is what the chunk held given back
                at_once = -(-at_once // 2)
                on_halved(at_once)
        under_way = None
        yield jax.tree.map(lambda leaf, i=own: leaf[i], result)


def chunk_starts(total: int, size: int) -> range:
    """The first run of every chunk of `size` runs."""
    return range(0, total, size)


def check_record(record: Sequence[int], steps: int) -> None:
    """Raises ValueError unless every recorded step lies in 1..steps."""
    wrong = [s for s in record if not 1 <= s <= steps]
    if wrong:
        raise ValueError(f"recorded steps {wrong} lie outside 1..{steps}")


def _rows(first: int, batch: int, shares: int, total: int) -> np.ndarray:
    """The runs in a chunk's rows, share by share; after the last run it is repeated."""
    begin = first + batch * np.arange(shares)[:, None]
    return np.minimum(begin + np.arange(share_rows(batch)), total - 1).ravel()


def _report(on_step, first, own, done, trace, snapshot):
    on_step(first, done, np.asarray(trace.objective[-1])[own], snapshot)


def join(chunks: Sequence[Results]) -> Results:
    """Chunks in order -> one result."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)


def _run_chunk(
    system, judge, mesh, params, box, recipe, balance, record, report, under_way, chunk, parts
) -> Results:
    """A chunk's runs, host arrays in and out; its parts take every block of steps in turn."""
    climbed = params_of(system, params)
    traces, recorded, done = [], {}, 0
    if under_way is None:
        state = init_jit(recipe, *split(mesh, (chunk.codes, chunk.seeds)))
    else:
        like = jax.eval_shape(functools.partial(init, recipe), chunk.codes, chunk.seeds)
        state, done = restore(like, under_way.state), under_way.done
        traces, recorded = [under_way.trace], dict(under_way.recorded)
    states = parts.cut(state)
    runs = [split(mesh, part) for part in parts.cut(chunk)]
    watches = [{r: blobs for r, blobs in run.watch.items() if r in climbed} for run in runs]

    def snapshot() -> Progress:
        trace = jax.tree.map(lambda *leaves: np.concatenate(leaves), *traces)
        return Progress(parts.join([host_leaves(s) for s in states]), trace, dict(recorded))

    for steps in _blocks(recipe.steps, record, done):
        fixed, block = (system, recipe, balance, mesh, steps, climbed), []
        for i, (run, watch) in enumerate(zip(runs, watches, strict=True)):
            states[i], trace = advance_jit(*fixed, run.weights, watch, box, states[i])
            block.append(jax.tree.map(np.asarray, trace))
        traces.append(parts.join(block, axis=1))
        done += steps
        if done in record:
            recorded[done] = parts.join([np.array(state.code) for state in states])
        report(done, traces[-1], snapshot)
    ends = [
        _end(judge, mesh, params_of(judge, params), recipe, run, watch, state)
        for run, watch, state in zip(runs, watches, states, strict=True)
    ]
    end = parts.join(ends)
    nothing = jax.tree.map(lambda leaf: leaf[None][:0], end.look)
    trace = jax.tree.map(
        lambda *leaves: np.moveaxis(np.concatenate(leaves), 0, 1), nothing, *traces
    )
    return Results(
        codes=end.state.code,
        best_codes=end.best_codes,
        recorded_codes=_stack([recorded[s] for s in record], end.state.code),
        objective=trace.objective,
        watched=trace.watched,
        last=end.last,
        best=end.best,
        ended=end.state.ended,
        sound=end.state.sound,
    )


class _End(NamedTuple):
    """Finished runs, looked at."""

    state: State
    look: Trace  # at the final code, as one more step would record it
    last: Evaluation
    best: Evaluation
    best_codes: np.ndarray


def _end(judge, mesh, params, recipe, runs, watch, state) -> _End:
    """Looks at the final and the best codes, as host arrays; takes an update back that the final
    image shows to have left what is finite."""
    look = functools.partial(evaluate_jit, judge, mesh, params, runs.weights, runs.watch)
    final = look(state.code)
    seen = {role: final.watched[role] for role in watch}
    broken = ~np.asarray(_finite_runs(final.objective, final.image, seen))
    if broken.any():
        state = state._replace(
            code=jnp.where(broken[:, None], state.forward_code, state.code),
            ended=jnp.where(broken & (state.ended < 0), recipe.steps, state.ended),
            sound=state.sound & ~broken,
        )
        final = look(state.code)
        seen = {role: final.watched[role] for role in watch}
    last = look(state.forward_code) if recipe.last_image == "last_forward" else final
    better = np.asarray(state.sound & (final.objective > state.best_value))
    best_codes = np.where(better[:, None], state.code, state.best_code)
    best = look(jnp.asarray(best_codes))
    state = state._replace(key=None)  # no array of a kind that the host has
    return jax.tree.map(
        np.asarray, _End(state, Trace(final.objective, seen), last, best, best_codes)
    )


def watched_of_run(
    watched: Mapping[str, Mapping[str, np.ndarray]], run: int
) -> dict[str, dict[str, np.ndarray]]:
    """One run's part of {network: {blob: leaves with a leading run axis}}."""
    return {role: {blob: v[run] for blob, v in blobs.items()} for role, blobs in watched.items()}


def _stack(codes: list[np.ndarray], like: jax.Array) -> np.ndarray:
    if not codes:
        return np.zeros((like.shape[0], 0, like.shape[1]), like.dtype)
    return np.stack(codes, axis=1)


def _blocks(steps: int, record: Sequence[int], done: int = 0) -> list[int]:
    """Lengths of the compiled blocks from step `done` on: single steps on CPU, else cut at the
    recorded steps."""
    if jax.default_backend() == "cpu":
        return [1] * (steps - done)
    ends = sorted({*range(_SCAN_BLOCK, steps, _SCAN_BLOCK), *record, steps} - {0})
    return [b - a for a, b in itertools.pairwise([done, *(end for end in ends if end > done)])]
