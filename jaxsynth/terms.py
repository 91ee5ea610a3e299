"""Terms of an objective as data: `network:blob:unit[@y,x]:weight`, and their weights pytrees."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsynth.inputs import check_name, choose_units, near
from jaxsynth.models.network import Network, activation_shapes, is_generator, logits_blob
from jaxsynth.system import ENCODER, GENERATOR

_LABELLED = ("prob", "log_prob", "log_odds")
REGULARISERS = ("code_l2", "image_l2", "image_tv")


@dataclasses.dataclass(frozen=True)
class Term:
    """One weighed neuron: `index` is (unit,) of a vector blob, (y, x, channel) of a spatial one."""

    network: str
    blob: str
    index: tuple[int, ...]
    weight: float
    name: str = ""

    def __str__(self) -> str:
        return f"{self.network}:{self.blob}:{self.name or self.index[-1]}"


Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]


def system_shapes(networks: Mapping[str, Network]) -> dict[str, dict[str, tuple[int, ...]]]:
    """{role: {blob: shape}} of every activation that a term can weigh."""
    shapes = {
        role: activation_shapes(n.info.config) for role, n in networks.items() if role != ENCODER
    }
    if GENERATOR in shapes:
        shapes[GENERATOR] |= {blob: (1,) for blob in REGULARISERS}
    return shapes


def parse_term(text: str, networks: Mapping[str, Network], shapes: Shapes) -> Term:
    """Reads `network:blob:unit_or_label[@y,x]:weight`; without @ a spatial unit is the centre's.

    The centre of a 13x13 blob is position 6, as in DGN-AM. Vector units go by index or by label.

    Raises:
      ValueError: naming what is wrong and what would be right.
    """
    parts = text.split(":")
    if len(parts) < 4:
        raise ValueError(
            f"term {text!r}: expected network:blob:unit[@y,x]:weight, "
            "such as places:fc8:abbey:1 or nsfw:conv_stage2_block3:17@6,6:0.5"
        )
    role, blob, unit, number = parts[0], parts[1], ":".join(parts[2:-1]), parts[-1]
    check_name(f"term {text!r}: network", role, shapes)
    check_name(f"term {text!r}: blob of {role}", blob, shapes[role])
    try:
        weight = float(number)
    except ValueError:
        weight = np.nan
    if not abs(weight) <= float(np.finfo(np.float32).max):
        raise ValueError(f"term {text!r}: weight {number!r} is not a finite number in float32")
    shape = shapes[role][blob]
    unit, _, position = unit.partition("@")
    labels = _blob_labels(networks[role], blob)
    channel = _unit(text, unit, shape[-1], labels)
    index = (*_position(f"term {text!r}: {blob}", position, shape), channel)
    name = labels[channel] if labels else (f"{channel}@{position}" if position else str(channel))
    return Term(role, blob, index, weight, name)


def layer_terms(
    networks: Mapping[str, Network],
    shapes: Shapes,
    role: str,
    blob: str,
    units: Sequence[str] = ("all",),
    position: str = "",
) -> list[Term]:
    """A term of weight 1 on each chosen unit of a blob; a spatial one at `y,x` or at its centre.

    A blob after its ReLU is weighed before it, at `{blob}_pre`, where the network has that: a
    silent unit has no gradient. Units as in `choose_units`; labels are those of a classifier's
    last layers.

    Raises:
      ValueError: naming what is wrong and what would be right.
    """
    check_name("network", role, shapes)
    check_name(f"blob of {role}", blob, shapes[role])
    shape = shapes[role][blob]
    at = _position(f"{role}:{blob}", position, shape)
    labels = _blob_labels(networks[role], blob) or tuple(map(str, range(shape[-1])))
    blob = f"{blob}_pre" if f"{blob}_pre" in shapes[role] else blob
    return [
        Term(role, blob, (*at, unit), 1.0, labels[unit])
        for unit in choose_units(units, labels, "unit")
    ]


def unit_term(networks: Mapping[str, Network], role: str, blob: str, unit: int, weight: float):
    """A term on a unit of a labelled vector blob, named by its label."""
    labels = _blob_labels(networks[role], blob)
    return Term(role, blob, (unit,), weight, labels[unit] if labels else str(unit))


def term_activation(
    term: Term, runs_terms: Sequence[Term], watched: Mapping[str, Mapping[str, np.ndarray]]
) -> np.ndarray:
    """A term's own unit out of one run's watched activations (..., K) -> (...)."""
    values = watched[term.network][term.blob]
    if term.blob in (*_LABELLED, "fc8", "fc_nsfw", "logits"):  # recorded whole
        return values[..., term.index[0]]
    same = [t for t in runs_terms if (t.network, t.blob) == (term.network, term.blob)]
    return values[..., same.index(term)]


def is_class_blob(network: Network, blob: str) -> bool:
    """Whether a blob's units are the classes of a classifier: logits or probabilities."""
    config = network.info.config
    return not is_generator(config) and blob in (logits_blob(config), *_LABELLED)


def _blob_labels(network: Network, blob: str) -> tuple[str, ...]:
    return network.labels if is_class_blob(network, blob) else ()


def _unit(text: str, unit: str, count: int, labels: Sequence[str]) -> int:
    if unit in labels:
        return labels.index(unit)
    if unit.isdecimal() and int(unit) < count:
        return int(unit)
    raise ValueError(
        f"term {text!r}: unit {unit!r} is not in 0..{count - 1}"
        + (f" and not a label{near(unit, labels)}" if labels else "")
    )


def _position(what: str, position: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`y,x`, or the centre, of a spatial blob; () of a vector."""
    if len(shape) != 3:
        if position:
            raise ValueError(f"{what} is a vector, it has no position {position}")
        return ()
    if not position:
        return shape[0] // 2, shape[1] // 2
    try:
        y, x = (int(v) for v in position.split(","))
    except ValueError:
        y = x = -1
    if not (0 <= y < shape[0] and 0 <= x < shape[1]):
        raise ValueError(f"{what}: position {position!r} is not y,x within {shape[0]}x{shape[1]}")
    return y, x
