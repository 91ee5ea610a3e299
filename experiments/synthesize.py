"""Maximises any weighted sum of neurons of any of the networks.

  python -m experiments.synthesize --term=places:fc8:abbey:1 --term=nsfw:fc_nsfw:SFW:0.5
  python -m experiments.synthesize --term=places:conv5_pre:12@4,4:1 --term=generator:image_tv:0:-0.1

A term is network:blob:unit_or_label[@y,x]:weight. Networks are `generator`, `nsfw` and `places`;
blobs have their original names (`conv1`, `pool5`, `fc6`, `eltwise_stage2_block3`, `prob`, ...), and
every classifier has `log_prob` and `log_odds` beside `prob`. `conv5` is after its ReLU, where a
silent unit has no gradient; `conv5_pre` is before it, as DGN-AM climbs hidden units. A unit of a
spatial blob is taken at its centre unless @y,x says where. The generator's own blobs count too
(`feat` is the code), and the regularisers `code_l2`, `image_l2`, `image_tv`, whose weight is best
negative. Under --balance=image a network's share is the sum of its |weights|.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import launch, load_networks
from experiments.launch import run_main
from jaxsynth.short import Run
from jaxsynth.terms import parse_term, system_shapes

flags.adopt_module_key_flags(run_flags)
_TERMS = flags.DEFINE_multi_string(
    "term", [], "network:blob:unit_or_label[@y,x]:weight; repeat it for a sum."
)


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("synthesize", argv)
    if not _TERMS.value:
        raise ValueError("no --term given: what to maximise, such as --term=places:fc8:abbey:1")
    networks = load_networks(settings)
    shapes = system_shapes(networks)
    terms = tuple(parse_term(text, networks, shapes) for text in _TERMS.value)
    runs = [Run(seed, terms) for seed in settings.seeds]
    title = " ".join(f"{term.weight:+g} x {term}" for term in terms).removeprefix("+")
    return launch(settings, networks, runs, f"Maximising {title}")


if __name__ == "__main__":
    run_main(main)
