"""Maximises any weighted sum of neurons of any of the networks.

  python -m experiments.synthesize --term=places:logits:abbey:1 --term=nsfw:fc_nsfw:SFW:0.5
  python -m experiments.synthesize --term=places:conv_head:12@2,2:1 --term=generator:image_tv:0:-0.1

A term is MODEL:BLOB:WHICH[:HOW]:WEIGHT. Models are `generator`, `nsfw`, `places` and the names of
--model; blobs have their original names (`jaxsynth blobs NAME` lists them), and every classifier
has `prob`, `log_prob` and `log_odds`. `conv_head` is after its ReLU, where a silent unit has
no gradient; `conv_head_pre` is before it, as in DGN-AM. WHICH is a label or number, at its centre
unless @y,x says where; @FILE.npy for a vector; or * for the whole blob. HOW is `mean` over places,
`match` or `cosine` to a recorded vector, `square` or `diversity`. The generator's blobs can be
terms, too (`feat` is the code). So can the regularisers `code_l2`, `image_l2`, `image_tv`,
`start_code_l2` and `start_image_l2`, usually with a negative weight. Under --balance=image a
network's share is the sum of its |weights|.
"""

import dataclasses
import functools
import operator

from jaxsynth.maximize import Run
from jaxsynth.objective_text import SYNTAX, parse
from jaxsynth.terms import Term

from .common import launch, load_models
from .flags import repeated
from .launch import run_experiment
from .run_flags import RunFlags


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    term: tuple[str, ...] = repeated(f"{SYNTAX}; repeat it for a sum.")


def main(flags: Flags) -> int:
    """Maximise a weighted sum of terms."""
    flags, models = load_models(flags)
    if not flags.term:
        raise ValueError("no --term given: what to maximise, such as --term=places:logits:abbey:1")
    named = models.named()
    objective = functools.reduce(operator.add, [parse(text, named) for text in flags.term])
    runs = [Run(seed, objective) for seed in flags.seed_numbers]
    title = " ".join(map(_said, objective.terms)).removeprefix("+ ")
    return launch(flags, models, runs, f"Maximising {title}")


def _said(term: Term) -> str:
    times = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} x "
    return f"{'-' if term.weight < 0 else '+'} {times}{str(term).rpartition(':')[0]}"


if __name__ == "__main__":
    run_experiment(main, Flags)
