"""Measures a case: agreement with PyTorch, seconds in turn, and the machine's own limits.

An edge module: it holds the clock. Functions are timed in turn, so that what else the machine does
meets them alike.
"""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.cases import Case, inputs, parameter_bytes, step_operations, step_params
from jaxsynth.models.compiled import compiler_options, network_jit
from jaxsynth.models.network import Network

OURS, TORCH, COMPILED = "jaxsynth", "torch", "torch.compile"  # runners
AGREEMENT = 1e-3  # largest relative difference of the gradients that is taken for the same
_REHEARSALS = 5
_SETTLE = 0.05  # seconds; PyTorch's threads spin for some 10 ms (benchmarks/README.md)


class Limits(NamedTuple):
    """The machine's own: operations a second of a large matrix product, bytes a second copied."""

    operations: float
    bytes: float


class Timing(NamedTuple):
    """Seconds a call: median, and the first and third quartile."""

    median: float
    low: float
    high: float
    seconds: np.ndarray  # (repeats,)


class Measured(NamedTuple):
    """One case at one batch.

    Attributes:
      case, batch, precision: What was timed.
      operations: Of the whole batch.
      moved: Bytes that XLA says a step reads and writes.
      memory: Bytes of its buffers and of what is derived from the weights.
      first: Seconds of the first call, which compiles, or finds the program in the cache on disk.
      timings: By runner.
      agreement: Relative difference of gradients in float64, or None without PyTorch.
    """

    case: str
    batch: int
    precision: str
    operations: float
    moved: float
    memory: float
    first: float
    timings: dict[str, Timing]
    agreement: float | None = None


def machine_limits(precision: str) -> Limits:
    """Best of a few large products and copies; the sizes suit the backend."""
    large = jax.default_backend() != "cpu"
    n = 8192 if large else 2048
    a = jnp.ones((n, n), precision)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    x = jnp.ones((1 << (28 if large else 26),), jnp.float32)
    return Limits(
        2 * n**3 / _best(lambda: jax.block_until_ready(product(a, a))),
        2 * x.nbytes / _best(lambda: jax.block_until_ready(copy(x))),
    )


def measure(
    case: Case,
    batch: int,
    precision: str,
    peers: tuple[str, ...],
    repeats: int,
    budget: float,
    agreement: float | None = None,
) -> Measured:
    """Times ours and the peers in turn on the same weights and inputs.

    Args:
      precision: of weights and activations, `float32` or `bfloat16`.
      peers: some of `TORCH`, `COMPILED`.
      repeats, budget: rounds, and seconds after which no further round begins.
      agreement: what `check_agreement` found of the case.
    """
    x = jnp.asarray(inputs(case.first.info.config, batch))
    params = step_params(case, precision)
    compiler_options()  # tries them, which is no part of the first call
    begin = time.perf_counter()
    step = network_jit(case.step).jitted().lower(params, x).compile()
    jax.block_until_ready(step(params, x))
    first = time.perf_counter() - begin
    moved, memory = _program_figures(step, parameter_bytes(case.networks))
    memory += sum(
        p.nbytes
        for role, network in case.networks.items()
        for path, p in params[role].items()
        if path not in network.params  # derived from the weights
    )
    calls = {OURS: lambda: jax.block_until_ready(step(params, x))}
    calls |= {name: _peer_call(name, case.networks, x, precision) for name in peers}
    timings = time_in_turn(calls, repeats, budget)
    operations = float(step_operations(case.networks) * batch)
    return Measured(
        case.name, batch, precision, operations, moved, memory, first, timings, agreement
    )


def check_agreement(case: Case) -> float:
    """Relative difference of our and PyTorch's gradient of one input, both in float64.

    In float32 the two round differently, and now and then a ReLU or a pooling window decides
    otherwise, which is no difference of the functions.

    Raises:
      ValueError: if it is above `AGREEMENT`.
    """
    peer = _peer()
    x = inputs(case.first.info.config, 1).astype(np.float64)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p, np.float64)), case.params)
        ours = np.asarray(case.step(params, jnp.asarray(x))[1])
    theirs = peer.torch_step(case.networks, "cpu", peer.torch.float64)(peer.torch.tensor(x))[1]
    difference = float(np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(ours))
    if not difference <= AGREEMENT:
        raise ValueError(
            f"{case.name}: PyTorch's gradient differs from ours by {difference:.2g} of its norm, "
            f"expected {AGREEMENT:g} at most: the comparison would be of two functions"
        )
    return difference


def peer_versions(peers: Sequence[str]) -> dict[str, str]:
    """Name and version of what the peers need.

    Raises:
      ValueError: if it is not installed.
    """
    return {TORCH: _peer().torch.__version__} if peers else {}


def _peer_call(
    name: str, networks: Mapping[str, Network], x: jax.Array, precision: str
) -> Callable[[], None]:
    peer = _peer()
    torch = peer.torch
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    step = peer.torch_step(networks, device, getattr(torch, precision))
    if name == COMPILED:
        step = torch.compile(step)
    given = torch.tensor(np.asarray(x)).to(device)

    def call():
        step(given)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def _peer() -> Any:
    """Return the module of PyTorch's side, if PyTorch is installed.

    Raises:
      ValueError: if it is not.
    """
    try:
        return importlib.import_module("benchmarks.speed.peer")
    except ImportError as error:
        raise ValueError(
            f"comparing needs PyTorch ({error}): pip install 'jaxsynth[peer]', or measure without"
        ) from None


def _program_figures(step: jax.stages.Compiled, least: int) -> tuple[float, float]:
    """Bytes that a step moves (at least its weights', where XLA doesn't say) and holds."""
    cost, memory = step.cost_analysis() or {}, step.memory_analysis()
    held = getattr(memory, "temp_size_in_bytes", 0) + getattr(memory, "output_size_in_bytes", 0)
    return float(cost.get("bytes accessed", least)), float(held)


def _best(call: Callable[[], Any]) -> float:
    return time_in_turn({"call": call}, _REHEARSALS, np.inf)["call"].seconds.min()


def time_in_turn(
    calls: Mapping[str, Callable[[], None]], repeats: int, budget: float
) -> dict[str, Timing]:
    """Each call once unclocked, then all in turn until `repeats` rounds or `budget` seconds.

    A turn is calls unclocked until `_SETTLE` seconds have passed, and one clocked: another call's
    threads still spin when it has returned, and the caches are full of its weights; a step among
    steps meets neither. A call must wait for its own result. At least three rounds are made.
    """
    for call in calls.values():
        call()  # compiles
    rows: list[list[float]] = []
    begin = time.perf_counter()
    while len(rows) < 3 or (len(rows) < repeats and time.perf_counter() - begin < budget):
        rows.append([_warm_seconds(call) for call in calls.values()])
    return {name: summarise(column) for name, column in zip(calls, np.asarray(rows).T, strict=True)}


def summarise(seconds: np.ndarray) -> Timing:
    """Median and quartiles of (repeats,) seconds."""
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Timing(float(median), float(low), float(high), seconds)


def ratio(ours: Timing, other: Timing) -> float:
    """Median over the rounds of other / ours: above 1 where ours is faster."""
    return float(np.median(other.seconds / ours.seconds))


def _warm_seconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    while time.perf_counter() - begin < _SETTLE:
        call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
