"""Draws a labelled page of all units of a layer, in one compiled sweep.

  python -m experiments.atlas --network=places --blob=conv5
  python -m experiments.atlas --network=nsfw --blob=eltwise_stage2_block3 --units=0:64
  python -m experiments.atlas --network=places --blob=fc8 --units='b*,mountain'

Networks are `places`, `nsfw` and `generator`, blobs have their original names. Every unit is a run
that climbs the unit's own activation; a blob after its ReLU is climbed before it (`conv5` at
`conv5_pre`), as a silent unit has no gradient. A spatial blob's units are taken at its centre, or
at `--position=y,x`. contact_sheet.png is the page; more than 400 units make several, atlas_00.png
and on. Less than a minute for the 192 units of the pocket scene network's conv5 on two cores.
"""

import dataclasses
from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import encoder_name, launch, load_networks, needs_encoder
from experiments.launch import run_main
from jaxsynth.report.sheet import atlas_pages
from jaxsynth.short import NSFW, PLACES, Run
from jaxsynth.system import GENERATOR
from jaxsynth.terms import Term, check_name, layer_terms, system_shapes

flags.adopt_module_key_flags(run_flags)
_NETWORK = flags.DEFINE_string("network", PLACES, "Whose layer: places, nsfw or generator.")
_BLOB = flags.DEFINE_string("blob", None, "The layer, such as conv5.")
_UNITS = flags.DEFINE_list("units", ["all"], "Numbers, ranges (0:64 is 0..63), labels, or all.")
_POSITION = flags.DEFINE_string("position", "", "y,x in a spatial blob; by default its centre.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("atlas", argv, seeds="1")
    role, blob = _NETWORK.value, _BLOB.value
    check_name("network", role, settings.networks)
    # open_nsfw looks at the finished pictures whatever is climbed: the report blurs by its score.
    names = {r: n for r, n in settings.networks.items() if r in (GENERATOR, NSFW, role)}
    if needs_encoder(settings):  # it may be --places, left out below
        settings = dataclasses.replace(settings, encoder=encoder_name(settings))
    settings = dataclasses.replace(settings, networks=names)
    networks = load_networks(settings)
    shapes = system_shapes(networks)
    if not blob:
        raise ValueError(f"no --blob given: one of {', '.join(shapes[role])} of {role}")
    terms = layer_terms(networks, shapes, role, blob, _UNITS.value, _POSITION.value)
    runs = [
        Run(seed, (term,), _label(term), f"seed {seed}" if len(settings.seeds) > 1 else "")
        for term in terms
        for seed in settings.seeds
    ]
    title = _title(terms, blob, shapes[role][blob])
    return launch(settings, networks, runs, title, atlas_pages)


def _label(term: Term) -> str:
    return f"unit {term.name}" if term.name.isdecimal() else term.name


def _title(terms: Sequence[Term], blob: str, shape: tuple[int, ...]) -> str:
    climbed = terms[0]
    count = f"All {shape[-1]}" if len(terms) == shape[-1] else f"{len(terms)} of {shape[-1]}"
    title = f"{count} units of {climbed.network}:{blob}"
    if len(shape) == 3:
        y, x, _ = climbed.index
        title += f" at {y},{x} of {shape[0]}x{shape[1]}"
    if climbed.blob != blob:
        title += f", climbed at {climbed.blob}: behind its ReLU a silent unit has no gradient"
    return title


if __name__ == "__main__":
    run_main(main)
