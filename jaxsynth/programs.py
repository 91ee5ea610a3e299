"""The compiled programs of a chunk: one step of many runs, and the evaluation of many codes.

Rows are codes: a run of a population has several. The networks see a fixed number of rows a device,
so one compilation of them serves every optimizer, rate and population.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsynth import ascent
from jaxsynth.arithmetic import root_key
from jaxsynth.ascent import Evaluation, Record, Response, State, Trace
from jaxsynth.ask_tell import Optimizer, Setting
from jaxsynth.devices import over_shares, padded
from jaxsynth.goals import RUNS, Goal, Picked, RunData
from jaxsynth.models.compiled import network_jit, saved_jit
from jaxsynth.system import Request, System, encode

NOISE_ROOT = 2  # of an optimizer's own draws; not the root of start codes or transforms
_SCAN_BLOCK = 25  # steps between two returns to the host, on accelerators
SETTING_AXES = Setting(start=0, rate=0, key=0, steps=None, box=None)


def _over_runs(mesh, function, axes):
    return over_shares(mesh, jax.vmap(function, in_axes=axes, axis_name=RUNS), axes)


def respond_rows(
    request: Request, mesh: Mesh | None, params, runs: RunData, codes, step
) -> Response:
    """Evaluate codes (rows, D) for the optimizer, each for its own run."""
    axes = (None, 0, 0, None)
    return _over_runs(mesh, functools.partial(ascent.respond, request), axes)(
        params, runs, codes, step
    )


def update_rows(
    optimizer: Optimizer, mesh: Mesh | None, setting: Setting, state: State, response: Response
) -> tuple[State, Trace]:
    """Update runs (n, ...) once; rows of `response` beyond their codes are spare."""
    size = optimizer.population

    def share(setting, state, response):
        count = state.code.shape[0] * size
        by_run = jax.tree.map(lambda v: v[:count].reshape(-1, size, *v.shape[1:]), response)
        update = functools.partial(ascent.update, optimizer)
        return jax.vmap(update, (SETTING_AXES, 0, 0))(setting, state, by_run)

    return over_shares(mesh, share, (SETTING_AXES, 0, 0))(setting, state, response)


def spread(mesh: Mesh | None, rows: int, asked: jax.Array) -> jax.Array:
    """Lay codes (n, P, D) one below the other, `rows` a share: the last one is repeated."""

    def share(asked):
        flat = asked.reshape(-1, asked.shape[-1])
        return flat if len(flat) == rows else padded(flat, rows)

    return over_shares(mesh, share, (0,))(asked)


def scan_steps(how: tuple, steps: int, params, runs: RunData, setting: Setting, state, step):
    """Make `steps` updates from `step` on in one program; how: (request, optimizer, mesh, rows)."""
    request, optimizer, mesh, rows = how

    def one(carry, _):
        state, step = carry
        response = respond_rows(request, mesh, params, runs, spread(mesh, rows, state.asked), step)
        state, trace = update_rows(optimizer, mesh, setting, state, response)
        return (state, step + 1), trace

    (state, _), trace = jax.lax.scan(one, (state, step), length=steps)
    return state, trace


def init_rows(optimizer: Optimizer, setting: Setting) -> State:
    """Make the state of runs (n, ...) before their first step."""
    return jax.vmap(functools.partial(ascent.init, optimizer), (SETTING_AXES,))(setting)


def restored(optimizer: Optimizer, setting: Setting, leaves: Sequence[np.ndarray]) -> State:
    """Make a state of saved leaves; ValueError if they are those of another state."""
    like = jax.eval_shape(functools.partial(init_rows, optimizer), setting)
    own, tree = jax.tree.flatten(like)
    made = [jnp.asarray(leaf) for leaf in leaves]
    kinds = [[(leaf.dtype, leaf.shape) for leaf in tree] for tree in (own, made)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "a saved state is of another recipe, batch, generator, number of devices or version of "
            "jaxsynth or jaxlib: resume it as it was begun, or delete it to compute its chunk again"
        )
    return jax.tree.unflatten(tree, made)


def blocks(steps: int, record: Sequence[int], done: int = 0) -> list[int]:
    """Return the lengths of the compiled blocks from step `done` on, cut at the recorded steps.

    On CPU they are single steps, called from Python: convolutions inside a loop body miss their
    fast layouts there.
    """
    if jax.default_backend() == "cpu":
        return [1] * (steps - done)
    ends = sorted({*range(_SCAN_BLOCK, steps, _SCAN_BLOCK), *record, steps} - {0})
    return [b - a for a, b in itertools.pairwise([done, *(end for end in ends if end > done)])]


def evaluate_rows(system: System, record: Record, mesh, params, runs, codes) -> Evaluation:
    """Evaluate codes (rows, D) without transforms, each for its own run."""
    evaluate = functools.partial(ascent.evaluate, system, record)
    return _over_runs(mesh, evaluate, (None, 0, 0))(params, runs, codes)


def start_images(system: System, mesh: Mesh | None, params, codes: jax.Array) -> jax.Array:
    """Draw the images of codes (rows, D); `params` are the generator's."""

    def draw(params, code):
        return system.generate(params, code)[system.image].astype(code.dtype)

    return _over_runs(mesh, draw, (None, 0))(params, codes)


# Module-level, so that every sweep of a process shares their caches.
respond_jit = saved_jit(respond_rows, statics=2)
update_jit = jax.jit(update_rows, static_argnums=(0, 1), donate_argnums=(3,))
scan_jit = network_jit(scan_steps, static_argnums=(0, 1), donate_argnums=(5,))
evaluate_jit = saved_jit(evaluate_rows, statics=3)
spread_jit = jax.jit(spread, static_argnums=(0, 1))
init_jit = jax.jit(init_rows, static_argnums=(0,))
draw_jit = network_jit(ascent.draw, static_argnums=(0, 1))
classify_jit = network_jit(ascent.classify, static_argnums=(0, 1))
encode_jit = network_jit(encode, static_argnums=0)
start_images_jit = network_jit(start_images, static_argnums=(0, 1))


for _kind in (Goal, Picked, RunData, Response, Evaluation):
    jax.export.register_namedtuple_serialization(_kind, serialized_name=_kind.__name__)


@jax.jit
def noise_keys(seeds: jax.Array) -> jax.Array:
    """Make keys (n,) of the optimizers' own draws, from seeds (n,)."""
    return jax.vmap(lambda seed: jax.random.fold_in(root_key(NOISE_ROOT), seed))(seeds)


@contextlib.contextmanager
def in_other_thread(*tasks: Callable[[], object]) -> Iterator[None]:
    """Call functions in turn in another thread, to compile their programs ahead.

    Compiling takes one core: this thread computes meanwhile. What has not begun at the end is not
    called, and nothing is while Python exits.
    """
    thread = ThreadPoolExecutor(1)
    with contextlib.suppress(RuntimeError):  # no new tasks: Python exits
        for task in tasks:
            thread.submit(task)
    try:
        yield
    finally:
        thread.shutdown(cancel_futures=True)
