"""Where the time of a compiled step goes: XLA's program, and the times of its operations. Pure.

Operations and bytes are counted from the shapes in the program's text (HLO), of products without
batches. A convolution's operations are those of its form, padding and phases included, so they may
be more than a layer's.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.speed.measured import Limits

CONVOLUTION, PRODUCT, REST = "convolutions", "matrix products", "the rest"
_PASSES = {False: "forward", True: "back", None: ""}
_OPERATION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*)")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_NAMES = re.compile(r"%([\w.-]+)")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}


class Operation(NamedTuple):
    """One of a program.

    Attributes:
      network: whose it is, by its module's class; "" for what lies between them, None where XLA
        does not say what it comes from.
      back: whether it is of the backward pass; None where XLA does not say.
      kind: one of `CONVOLUTION`, `PRODUCT`, `REST`.
      operations: multiplications and additions, 0 for the rest.
      bytes: of what it reads and writes.
    """

    network: str | None
    back: bool | None
    kind: str
    operations: float
    bytes: int


class _Array(NamedTuple):
    shape: tuple[int, ...]
    bytes: int


def read_program(text: str, modules: Iterable[str]) -> dict[str, Operation]:
    """The entry computation's operations by their names.

    text: of a compiled program, `compiled.as_text()`. modules: classes of the networks' modules.
    """
    arrays: dict[str, _Array] = {}
    found = {}
    network = re.compile("|".join(rf"\b{module}\b" for module in modules))
    for line in text[text.index("\nENTRY ") :].splitlines()[1:]:
        if not (match := _OPERATION.match(line)):
            continue
        name, said = match.groups()
        if not (shape := _SHAPE.search(said.split("(%")[0])):
            continue
        out = arrays[name] = _array(*shape.groups())
        said, _, metadata = said.partition("metadata=")
        source = re.search(r'op_name="([^"]+)"', metadata)
        operands = [arrays[n] for n in _NAMES.findall(said.partition("calls=")[0]) if n in arrays]
        if not operands:
            continue
        path = source[1] if source else ""
        owner = network.search(path)
        kind = _kind(said, path) if len(operands) > 1 else REST
        found[name] = Operation(
            (owner[0] if owner else "") if source else None,
            "transpose(" in path if source else None,
            kind,
            _operations(kind, said, out, operands),
            out.bytes + sum(a.bytes for a in operands),
        )
    return found


def profile_rows(
    program: Mapping[str, Operation],
    seconds: Mapping[str, float],
    networks: Mapping[str, str],
    limits: Limits,
) -> list[dict[str, Any]]:
    """A row for each network, pass and kind, and one of all, as shares of the whole.

    seconds: of a step by operation; those of other programs are passed over. networks: names by
    module. The floors are what the operations take at the rate of a large matrix product, and the
    bytes at that of a copy; caches may beat the latter.

    Raises:
      ValueError: if no time is of the program's operations.
    """
    groups = defaultdict(list)
    for name, time in seconds.items():
        if name in program:
            one = program[name]
            groups[_owner(one, networks), _PASSES[one.back], one.kind].append((time, one))
    members = [one for group in groups.values() for one in group]
    if not members:
        raise ValueError("the profiler saw none of the step's operations")
    total = sum(time for time, _ in members)
    rows = [
        {"network": network, "pass": way, **_row(kind, group, total, limits)}
        for (network, way, kind), group in sorted(groups.items())
    ]
    return [*rows, {"network": "all", "pass": "", **_row("", members, total, limits)}]


def _owner(one: Operation, networks: Mapping[str, str]) -> str:
    return "not said" if one.network is None else networks.get(one.network, "between")


def _row(
    kind: str, members: list[tuple[float, Operation]], total: float, limits: Limits
) -> dict[str, Any]:
    time = sum(time for time, _ in members)
    work = sum(one.operations for _, one in members)
    moved = sum(one.bytes for _, one in members)
    return {
        "what": kind,
        "operations": len(members),
        "ms": f"{1e3 * time:.1f}",
        "share": f"{time / total:.0%}",
        "GFLOP/s": f"{work / time / 1e9:.0f}" if work else "",
        "floor: arithmetic, ms": f"{1e3 * work / limits.operations:.1f}",
        "floor: bytes, ms": f"{1e3 * moved / limits.bytes:.1f}",
    }


def _array(kind: str, shape: str) -> _Array:
    sides = tuple(int(side) for side in shape.split(",") if side)
    return _Array(sides, math.prod(sides) * _BYTES.get(kind, 4))


def _kind(said: str, path: str) -> str:
    if " convolution(" in said or "$conv" in said or path.endswith("conv_general_dilated"):
        return CONVOLUTION
    if " dot(" in said or "$gemm" in said or path.endswith("dot_general"):
        return PRODUCT
    return REST


def _operations(kind: str, said: str, out: _Array, operands: list[_Array]) -> float:
    if kind == REST:
        return 0.0
    first, second = (math.prod(a.shape) for a in operands[:2])
    if kind == PRODUCT:  # M x N x K is the root of MK x KN x MN
        return 2 * math.sqrt(first * second * math.prod(out.shape))
    labels = re.search(r"->([b\df]+)", said)
    features = out.shape[labels[1].index("f") if labels else -1]
    return 2 * math.prod(out.shape) * second / features
