"""One step of one run: networks evaluate its codes (`respond`), an optimizer moves them (`update`).

Pure functions of one unbatched run; `jaxsynth.chunks` maps them over many. The two halves are
separate programs, so that one compilation of the networks serves every optimizer and rate.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.ask_tell import PRIOR, VALUE, Optimizer, Seen, Setting, all_finite, choose
from jaxsynth.balance import objective, value_and_gradient
from jaxsynth.goals import Acts, RunData, Values, weigh_part
from jaxsynth.system import (
    ENCODER,
    GENERATOR,
    AllActivations,
    Params,
    Request,
    System,
    encode,
    generator_activations,
    view,
)

Record = tuple[tuple[str, str], ...]  # (network, blob) that are recorded in full
Watched = dict[str, dict[str, jax.Array]]  # {network: {blob: (K,)}}


class Response(NamedTuple):
    """The networks' response to one code; of all codes of a run with a leading axis P.

    Attributes:
      value: objective, ().
      gradient: ascent direction (D,), or None.
      pull: E(G(z)) - z, (D,), or None.
      good: whether objective, image and watched activations are finite, ().
      watched: recorded activations.
    """

    value: jax.Array
    gradient: jax.Array | None
    pull: jax.Array | None
    good: jax.Array
    watched: Watched


class State(NamedTuple):
    """A run under way. Codes are (D,), counters scalars.

    Attributes:
      asked: the codes (P, D) that the optimizer wants evaluated next.
      code: where the run is: of an optimizer with one code a step the code after the last update,
        else the best one of the last generation.
      optimizer: its own state.
      step: updates made.
      forward_code: the last code that was evaluated and finite.
      best_code, best_value: the highest objective met.
      ended: step that ended the run before its last, or -1.
      sound: False if something that is not finite ended it.
    """

    asked: jax.Array
    code: jax.Array
    optimizer: Any
    step: jax.Array
    forward_code: jax.Array
    best_code: jax.Array
    best_value: jax.Array
    ended: jax.Array
    sound: jax.Array


class Trace(NamedTuple):
    """The record of one step: of the image that classifiers saw, *before* the code's update."""

    objective: jax.Array  # ()
    watched: Watched


class Evaluation(NamedTuple):
    """An evaluated code: its objective, watched activations, image (H, W, 3) in its own units."""

    objective: jax.Array
    watched: Watched
    image: jax.Array


class ChunkResult(NamedTuple):
    """Finished runs, as host arrays with a leading run axis R (one chunk's, or joined)."""

    start_codes: np.ndarray  # (R, D) before the first update
    codes: np.ndarray  # (R, D) after the last update
    best_codes: np.ndarray  # (R, D) of the highest objective met
    recorded_codes: np.ndarray  # (R, k, D)
    objective: np.ndarray  # (R, T), at the code before each update
    watched: dict[str, dict[str, np.ndarray]]  # leaves (R, T, K)
    last: Evaluation  # of the reported image's code, leaves (R, ...)
    best: Evaluation  # of the best code
    ended: np.ndarray  # (R,) step that ended the run before its last, or -1
    sound: np.ndarray  # (R,) bool: False if something that is not finite ended it


class Progress(NamedTuple):
    """A chunk of runs under way, as host arrays: what resumes it bit for bit.

    Attributes:
      state: the leaves of the runs' `State`, (B, ...) each.
      trace: of the updates that have been made, leaves (done, B, ...).
      recorded: codes recorded so far, by step, (B, D) each.
    """

    state: list[np.ndarray]
    trace: Trace
    recorded: dict[int, np.ndarray]

    @property
    def codes(self) -> np.ndarray:
        """Where the runs are, (B, D): `State.code`, the second leaf."""
        return self.state[1]

    @property
    def done(self) -> int:
        """Updates made so far."""
        return len(self.trace.objective)


def respond(
    request: Request, params: Mapping[str, Params], run: RunData, code: jax.Array, step: jax.Array
) -> Response:
    """Evaluate one code (D,), as far as the optimizer needs it."""
    system, gradient, pull = request.system, None, None
    if request.asks == VALUE:
        move = request.transforms.view(run.seed, step)
        value, activations, values = objective(system, params, run, code, move)
    else:
        value, activations, values, gradient = value_and_gradient(request, params, run, code, step)
    image = activations[GENERATOR][system.image]
    if request.asks == PRIOR:
        pull = encode(system.encoder, params[ENCODER], image) - code
    watched = watch(request.record, image, activations, values)
    return Response(value, gradient, pull, all_finite(value, image, watched), watched)


def init(optimizer: Optimizer, setting: Setting) -> State:
    """Make the state of a run that starts from `setting.start`."""
    start = setting.start
    zero = jnp.zeros((), jnp.int32)
    asked, state = optimizer.ask(setting, zero, optimizer.init(setting))
    return State(
        asked=asked,
        code=start,
        optimizer=state,
        step=zero,
        forward_code=start,
        best_code=start,
        best_value=jnp.full((), -jnp.inf, start.dtype),
        ended=jnp.full((), -1, jnp.int32),
        sound=jnp.ones((), bool),
    )


def update(
    optimizer: Optimizer, setting: Setting, state: State, response: Response
) -> tuple[State, Trace]:
    """Tell the optimizer the values of its codes and ask for the next ones.

    `response` has a leading axis P. With transforms, `best_value` is that of the changed image.
    """
    seen = Seen(response.value, response.gradient, response.pull)
    told = optimizer.tell(setting, state.step, state.optimizer, state.asked, seen)
    asked, told = optimizer.ask(setting, state.step + 1, told)
    if optimizer.freezes:
        return _update_frozen(state, response, asked, told)
    return _update_population(state, response, asked, told)


def _update_frozen(state: State, response: Response, asked, told) -> tuple[State, Trace]:
    """Update one code, unless the run has ended. A zero gradient ends it where it is.

    Where the image, a watched activation or the objective is not finite, the run ends at the code
    before; where only the gradient or the update is not, at this one.
    """
    value, gradient, good = response.value[0], response.gradient[0], response.good[0]
    code, moved = state.code, asked[0]
    sound = good & all_finite(gradient)
    zero = sound & (jnp.abs(gradient).mean() == 0)
    running = state.ended < 0
    finite = sound & (zero | all_finite(moved))  # g / mean |g| of a zero gradient is none
    better = running & good & (value > state.best_value)
    go = running & finite & ~zero
    seen = jnp.where(running & ~good, state.forward_code, code)  # the last code that was finite
    code_now = jnp.where(go, moved, seen)
    new = State(
        asked=code_now[None],
        code=code_now,
        optimizer=choose(go, told, state.optimizer),
        step=state.step + 1,
        forward_code=seen,
        best_code=jnp.where(better, code, state.best_code),
        best_value=jnp.where(better, value, state.best_value),
        ended=jnp.where(running & ~go, state.step, state.ended),
        sound=state.sound & (~running | finite),
    )
    return new, Trace(value, jax.tree.map(lambda leaf: leaf[0], response.watched))


def _update_population(state: State, response: Response, asked, told) -> tuple[State, Trace]:
    """Update a population; the run ends where none of its codes is finite."""
    values = jnp.where(response.good, response.value, -jnp.inf)
    place = jnp.argmax(values)
    value, code = values[place], state.asked[place]
    running = state.ended < 0
    good = response.good.any()
    go = running & good
    better = go & (value > state.best_value)
    code = jnp.where(go, code, state.code)
    new = State(
        asked=jnp.where(go, asked, state.asked),
        code=code,
        optimizer=choose(go, told, state.optimizer),
        step=state.step + 1,
        forward_code=code,
        best_code=jnp.where(better, code, state.best_code),
        best_value=jnp.where(better, value, state.best_value),
        ended=jnp.where(running & ~good, state.step, state.ended),
        sound=state.sound & (~running | good),
    )
    trace = jnp.where(good, value, response.value[place])
    return new, Trace(trace, jax.tree.map(lambda leaf: leaf[place], response.watched))


def evaluate(
    system: System, record: Record, params: Mapping[str, Params], run: RunData, code: jax.Array
) -> Evaluation:
    """Evaluate a code (D,) without transforms: objective, watched activations, image."""
    value, activations, values = objective(system, params, run, code)
    image = activations[GENERATOR][system.image]
    return Evaluation(value, watch(record, image, activations, values), image)


def draw(
    system: System, record: Record, params: Params, run: RunData, code: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Draw the image (H, W, 3) of a code (D,), with the watched values of the generator.

    Classifiers take no part. `params` are the generator's.
    """
    out = generator_activations(system, params, code, run)
    image = out[system.image]
    acts = Acts({GENERATOR: out}, image, code)
    _, values = weigh_part(system.functions, GENERATOR, run, acts)
    return image, watch(record, image, {GENERATOR: out}, values).get(GENERATOR, {})


def classify(
    system: System, record: Record, params: Mapping[str, Params], run: RunData, image: jax.Array
) -> Watched:
    """Evaluate any image (H, W, 3) in the generator's units by the classifiers.

    The image is cropped or resized for each of them as a generated one is. Functions are left out.
    """
    activations, values = {}, {}
    for c in system.classifiers:
        out = activations[c.name] = c.apply(params[c.name], view(image, c.size, c.units))
        values |= weigh_part((), c.name, run, Acts({c.name: out}, image, None))[1]
    return watch(record, image, activations, values)


def watch(record: Record, image: jax.Array, activations: AllActivations, values: Values) -> Watched:
    """Return the recorded values: blobs of `record` in full, of other blobs the terms' values.

    All NaN where the image is not finite, as no classifier's answer to that means anything.
    """
    finite = jnp.isfinite(image).all()

    def recorded(leaf):
        return jnp.where(finite, leaf.ravel().astype(image.dtype), jnp.nan)

    found: Watched = {}
    for network, blobs in values.items():
        for blob, value in blobs.items():
            if (network, blob) not in record:
                found.setdefault(network, {})[blob] = recorded(value)
    for network, blob in record:
        if network in activations:
            found.setdefault(network, {})[blob] = recorded(activations[network][blob])
    return found
