"""What a benchmark of speed measures: plain data."""

from typing import NamedTuple

from benchmarks.speed.timing import Timing

OURS, TORCH, COMPILED = "jaxsynth", "torch", "torch.compile"  # runners


class Limits(NamedTuple):
    """The machine's own: operations a second of a large matrix product, bytes a second copied."""

    operations: float
    bytes: float


class Measured(NamedTuple):
    """One case at one batch. timings: by runner. agreement: relative difference of gradients in
    float64, or None without a peer. moved: bytes that XLA says a step reads and writes. memory:
    bytes of its buffers and of what is derived from the weights. first: seconds of the first call,
    which compiles, or finds the program in the cache on disk."""

    case: str
    batch: int
    precision: str
    operations: float  # of the whole batch
    moved: float
    memory: float
    first: float
    timings: dict[str, Timing]
    agreement: float | None = None
