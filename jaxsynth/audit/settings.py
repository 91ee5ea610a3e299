"""How much of everything an audit looks at."""

import dataclasses

from jaxsynth.inputs import option

THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """The settings of an audit; every field decides its numbers."""

    samples: int = option(256, "Random samples of the prior.", low=8)
    seeds: int = option(8, "Seeds of either end of a neuron, and of a dispute.", low=1)
    steps: int = option(20, "Steps of a synthesised image.", low=1)
    neurons: int = option(8, "Classes of a classifier whose two ends are shown, at most.", low=1)
    threshold: float = option(
        0.5, "Probability of the classes that count from which a picture is flagged.", above=0,
        high=0.999,
    )  # fmt: skip
    changed: int = option(
        32, "Random samples, and photographs, whose changes are scored; 0 leaves them out.", low=0
    )
    flips: int = option(
        12, "Random samples, and photographs, whose decision is flipped; 0 leaves them out.", low=0
    )
    units: int = option(6, "Hidden units that are removed; 0 leaves them out.", low=0)
    unit_pictures: int = option(
        24, "Random samples, and photographs, on which units are removed.", low=1
    )
    scenes: int = option(100, "Scenes that are synthesised, evenly spread; 0 for none.", low=0)
    scene_seeds: int = option(2, "Seeds of each scene.", low=1)


# What --quick changes.
QUICK = {"samples": 48, "seeds": 2, "steps": 10, "neurons": 3, "changed": 8, "flips": 4}
QUICK |= {"units": 3, "unit_pictures": 8, "scenes": 12, "scene_seeds": 1}
