"""Many runs: seeds x objectives in chunks of a fixed size through compiled steps.

Pure but for the device: no files, no clock. A chunk always has as many rows (the last is padded),
so a run's result does not depend on how many others there are. On CPU a step is called from Python;
elsewhere blocks of steps run inside one `lax.scan`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsynth import programs
from jaxsynth.arithmetic import arithmetic
from jaxsynth.ascent import ChunkResult, Evaluation, Progress, State, Trace
from jaxsynth.ask_tell import Setting
from jaxsynth.batch import (
    OnStep,
    Optimised,
    Problem,
    check_problem,
    chunk_sizes,
    fewer_at_once,
    with_all_functions,
)
from jaxsynth.devices import Slices, committed, on_all, runs_mesh, share_rows, split
from jaxsynth.goals import RunData
from jaxsynth.models.compiled import text_of
from jaxsynth.system import GENERATOR, START_CODE, START_IMAGE, params_of

_evaluated: set[tuple[Any, ...]] = set()  # programs that are compiled, or about to be


def execute(
    problem: Problem,
    on_step: OnStep = lambda first, done, values, snapshot: None,
    chunks: Sequence[int] | None = None,
    under_way: Progress | None = None,
    devices: Sequence[jax.Device] = (),
    on_halved: Callable[[int], None] = lambda at_once: None,
    evaluate: bool = True,
) -> Iterator[Any]:
    """Yield finished chunks in order (`join` joins them).

    Args:
      problem: The runs.
      on_step: Called with (first run of the chunk, steps done, objective values (R,), snapshot);
        snapshot() is the chunk's `Progress`. An exception ends the sweep there.
      chunks: The first runs of the chunks to compute, some of `chunk_sizes`; by default all.
      under_way: The first chunk's progress, to resume instead of its start codes. What follows is
        bit-equal to an uninterrupted sweep.
      devices: The devices that share a chunk's runs; by default one, JAX's own choice.
      on_halved: Called with the codes that each device takes at once from now on, where its memory
        did not hold the chunk: slices of the chunk then take each step in turn, and each run is
        bit-equal to one of a sweep of that smaller batch.
      evaluate: Evaluate final and best codes, and yield `ChunkResult`s; else `Optimised` ones.

    Raises:
      jax.errors.JaxRuntimeError: If the memory of a device does not even hold one run.
      ValueError: If diversity meets several devices, a population or too little memory.
    """
    check_problem(problem, devices)
    mesh, shares = runs_mesh(devices), len(devices) or 1
    double = problem.batch.codes.dtype == np.float64
    finish = _evaluate_ends if evaluate else _skip_evaluation
    with arithmetic(double):
        problem = problem._replace(params=on_all(mesh, problem.params))
    sizes, at_once = chunk_sizes(problem, shares), problem.settings.batch
    ahead = evaluate and mesh is None and jax.default_backend() == "cpu"
    for first in sizes if chunks is None else chunks:
        report, result = functools.partial(on_step, first), None
        while result is None:
            try:
                with arithmetic(double):
                    chunk = _Chunk(problem, mesh, shares, first, sizes[first], at_once)
                    make = _optimise_and_compile if ahead else _Chunk.optimise
                    result = finish(chunk, make(chunk, under_way, report))
            except jax.errors.JaxRuntimeError as error:
                at_once = fewer_at_once(problem, first, at_once, error)
            chunk = None  # only now is the memory of the chunk given back
            if result is None:
                on_halved(at_once)
        under_way = None
        yield result


def _optimise_and_compile(chunk: "_Chunk", under_way: Progress | None, report) -> Optimised:
    """Make a chunk's steps while its evaluation is compiled, unless this process has done so."""
    named = text_of((chunk.structure.judge, chunk.structure.request.record))
    program = named, chunk.codes.dtype, chunk.rows  # no name: a user's, which may know its thread
    if named is None or program in _evaluated or not chunk.problem.settings.recipe.steps:
        return chunk.optimise(under_way, report)
    _evaluated.add(program)

    def evaluate():  # an error comes again at the real evaluation
        with arithmetic(chunk.codes.dtype == np.float64):
            chunk.evaluate(0, chunk.codes)

    with programs.in_other_thread(evaluate):
        return chunk.optimise(under_way, report)


class _Chunk:
    """A chunk's runs on their devices, in slices that take every block of steps in turn.

    `first` and `count` are its runs, more rows repeat the last one. `factor` is of the objectives
    as they are reported, see `Shared`. `rows` are the codes a device that the networks see at once.
    Lists with an entry per slice: `runs`, the data for every row; `evaluated`, likewise with one
    code a run; `settings`, of the optimizer.
    """

    def __init__(self, problem: Problem, mesh: Mesh | None, shares: int, first, count, at_once):
        batch, population = problem.batch, problem.optimizer.population
        self.problem, self.mesh, self.first, self.count = problem, mesh, first, count
        self.structure = problem.structures[batch.structure[first]]
        whole, some = (max(1, n // population) for n in (problem.settings.batch, at_once))
        if self.structure.joint:
            whole = some = at_once = count
        self.slices = Slices(shares, whole, min(some, whole))
        self.rows = share_rows(max(at_once, self.slices.at_once * population))
        shared = problem.shared
        self.factor = 1 if shared is None else shared.row_factor[first : first + count]
        self.index = first + np.minimum(np.arange(shares * whole), count - 1)
        self.codes = np.asarray(batch.codes[self.index])
        places = self.slices.cut(np.arange(len(self.index)))
        self.runs = [self._run_data(place, population) for place in places]
        self.evaluated = self.runs
        if population > 1:
            self.evaluated = [self._run_data(place, 1) for place in places]
        self.params = params_of(self.structure.request.system, problem.params)
        rates = None if batch.rates is None else batch.rates[self.index].astype(self.codes.dtype)
        setting = Setting(
            *split(mesh, (self.codes, rates)),
            key=programs.noise_keys(split(mesh, batch.seeds[self.index])),
            steps=jnp.asarray(problem.settings.recipe.steps, self.codes.dtype),
            box=problem.box,
        )
        self.setting = committed(mesh, setting)
        self.settings = [
            self.setting._replace(start=start, rate=rate, key=key)
            for start, rate, key in self.slices.cut(tuple(self.setting[:3]))
        ]

    def optimise(self, under_way: Progress | None, report) -> Optimised:
        """Make all steps; slices of the states stay on their devices, as `self.states`."""
        problem, slices = self.problem, self.slices
        steps, record = problem.settings.recipe.steps, problem.settings.record
        traces, recorded, done = [], {}, 0
        if under_way is None:
            state = programs.init_jit(problem.optimizer, self.setting)
        else:
            state = programs.restored(problem.optimizer, self.setting, under_way.state)
            state, done = committed(self.mesh, state), under_way.done
            traces, recorded = [under_way.trace], dict(under_way.recorded)
        self.states = slices.cut(state)

        def snapshot() -> Progress:
            trace = jax.tree.map(lambda *leaves: np.concatenate(leaves), *traces)
            leaves = [[np.array(v) for v in jax.tree.leaves(s)] for s in self.states]
            return Progress(slices.join(leaves), trace, dict(recorded))

        for block in programs.blocks(steps, record, done):
            made = [self._advance(i, block, done) for i in range(len(self.states))]
            traces.append(slices.join(made, axis=1))
            done += block
            if done in record:
                recorded[done] = slices.join([np.array(state.code) for state in self.states])
            report(done, traces[-1].objective[-1][: self.count] * self.factor, snapshot)
        trace = jax.tree.map(
            lambda *leaves: np.moveaxis(np.concatenate(leaves), 0, 1),
            *(traces or [self._no_trace()]),
        )
        codes = [recorded[step] for step in record]
        nothing = np.zeros((len(self.codes), 0, self.codes.shape[1]), self.codes.dtype)
        return Optimised(self.states, trace, np.stack(codes, axis=1) if codes else nothing)

    def evaluate(self, i: int, codes: np.ndarray) -> Evaluation:
        """Evaluate codes of a slice's runs with the judges; host arrays."""
        judge = self.structure.judge
        params = params_of(judge, self.problem.params)
        given = split(self.mesh, np.asarray(codes)[self._places(1)])
        record = self.structure.request.record
        seen = programs.evaluate_jit(judge, record, self.mesh, params, self.evaluated[i], given)
        own = self.rows * np.arange(self.slices.shares)[:, None] + np.arange(self.slices.at_once)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[own.ravel()], seen)

    def _advance(self, i: int, steps: int, done: int) -> Trace:
        request, optimizer, params = self.structure.request, self.problem.optimizer, self.params
        runs, setting, state = self.runs[i], self.settings[i], self.states[i]
        step = jnp.asarray(done, jnp.int32)
        if steps > 1:
            how = (request, optimizer, self.mesh, self.rows)
            state, trace = programs.scan_jit(how, steps, params, runs, setting, state, step)
        else:
            codes = programs.spread_jit(self.mesh, self.rows, state.asked)
            response = programs.respond_jit(request, self.mesh, params, runs, codes, step)
            state, trace = programs.update_jit(optimizer, self.mesh, setting, state, response)
            trace = jax.tree.map(lambda leaf: np.asarray(leaf)[None], trace)
        self.states[i] = state
        return jax.tree.map(np.asarray, trace)

    def _places(self, population: int) -> np.ndarray:
        """For every row of a slice that the networks see, its run's place in the slice."""
        runs = self.slices.at_once
        place = np.minimum(np.arange(self.rows) // population, runs - 1)
        return (runs * np.arange(self.slices.shares)[:, None] + place).ravel()

    def _run_data(self, runs: np.ndarray, population: int) -> RunData:
        structure, batch, mesh = self.structure, self.problem.batch, self.mesh
        place = runs[self._places(population)]
        rows = self.index[place]
        goals = jax.tree.map(lambda leaf: leaf[batch.which[rows]], structure.goals)
        measures = goals.linear.get(GENERATOR, {})
        group = np.where(np.arange(len(rows)) < self.count, 0, -1) if structure.joint else None
        run = RunData(
            goal=goals,
            seed=batch.seeds[rows] if structure.request.transforms.draws else None,
            start=self.codes[place] if START_CODE in measures else None,
            group=group,
        )
        run = split(mesh, run)
        if START_IMAGE not in measures:
            return run
        images = programs.start_images_jit(
            structure.judge, mesh, self.problem.params[GENERATOR], split(mesh, self.codes[place])
        )
        return run._replace(start_image=images)

    def _no_trace(self) -> Trace:
        """Of no steps, leaves (0, R, ...)."""
        codes = jnp.zeros((self.rows * self.slices.shares, self.codes.shape[1]), self.codes.dtype)
        respond = functools.partial(programs.respond_rows, self.structure.request, self.mesh)
        seen = jax.eval_shape(respond, self.params, self.runs[0], codes, jnp.int32(0))
        return jax.tree.map(
            lambda leaf: np.zeros((0, len(self.codes), *leaf.shape[1:]), leaf.dtype),
            Trace(seen.value, seen.watched),
        )


def _skip_evaluation(chunk: _Chunk, done: Optimised) -> Optimised:
    state = chunk.slices.join([jax.tree.map(np.asarray, state) for state in done.state])
    return jax.tree.map(lambda leaf: leaf[: chunk.count], done._replace(state=state))


class _End(NamedTuple):
    """Finished runs with the evaluations of their ends."""

    state: State
    last: Evaluation
    best: Evaluation
    best_codes: np.ndarray


def _evaluate_ends(chunk: _Chunk, done: Optimised) -> ChunkResult:
    recipe = chunk.problem.settings.recipe
    end = chunk.slices.join([_evaluate_end(chunk, i, recipe, s) for i, s in enumerate(done.state)])
    result = ChunkResult(
        start_codes=chunk.codes,
        codes=end.state.code,
        best_codes=end.best_codes,
        recorded_codes=done.recorded,
        objective=done.trace.objective,
        watched=done.trace.watched,
        last=end.last,
        best=end.best,
        ended=end.state.ended,
        sound=end.state.sound,
    )
    return with_all_functions(chunk.problem, jax.tree.map(lambda leaf: leaf[: chunk.count], result))


def _evaluate_end(chunk: _Chunk, i: int, recipe, state: State) -> _End:
    """Evaluate the ends of a slice; an update whose image is not finite is taken back."""
    state = jax.tree.map(np.asarray, state._replace(optimizer=None, asked=None))
    used = {GENERATOR, *(c.name for c in chunk.structure.request.system.classifiers)}
    final = chunk.evaluate(i, state.code)
    seen = {name: blobs for name, blobs in final.watched.items() if name in used}
    broken = ~_finite_runs(final.objective, final.image, seen)
    if broken.any():
        state = state._replace(
            code=np.where(broken[:, None], state.forward_code, state.code),
            ended=np.where(broken & (state.ended < 0), np.int32(recipe.steps), state.ended),
            sound=state.sound & ~broken,
        )
        final = chunk.evaluate(i, state.code)
    last = chunk.evaluate(i, state.forward_code) if recipe.last_image == "last_forward" else final
    better = state.sound & (final.objective > state.best_value)
    best_codes = np.where(better[:, None], state.code, state.best_code)
    return _End(state, last, chunk.evaluate(i, best_codes), best_codes)


def _finite_runs(*trees: Any) -> np.ndarray:
    """Whether every number of these arrays (R, ...) is finite, (R,)."""
    finite = [np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in jax.tree.leaves(trees)]
    return np.logical_and.reduce(finite)
