r"""Ports a file of original weights, once, into a file that the experiments load.

  python -m experiments.port --network=places205 --source=places205CNN_iter_300000.caffemodel \
      --labels=categoryIndex_places205
  python -m experiments.port --network=dgn_fc6 --source=generator.caffemodel --bounds=fc6.txt
  python -m experiments.port --network=nsfwjs_mobilenet_v2 --source=nsfwjs-4.4.0.tgz

Prints which blob became which parameter; takes a few seconds. A file that does not fit gives a
one-line error, exit code 2, and no weights file.
"""

import dataclasses
from pathlib import Path

from jaxsynth.environment import writable_cache
from jaxsynth.inputs import option
from jaxsynth.models.names import ORIGINALS, SUFFIX
from jaxsynth.models.network import is_generator
from jaxsynth.models.weights import check_output, save_network
from jaxsynth.porting.caffe import Row
from jaxsynth.porting.port import port
from jaxsynth.report.tables import format_table

from .launch import run_experiment

_USED_BY = {
    "places205": "--places=",
    "caffenet": "--init_image with --generator=dgn_fc6 loads ",
    "open_nsfw": "--nsfw=",
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    network: str = option(dataclasses.MISSING, "Which network.", among=ORIGINALS)
    source: Path = option(
        dataclasses.MISSING, "Original weights: .caffemodel, .onnx, .pt, .pth, .safetensors, .tgz."
    )
    labels: Path | None = option(
        None, 'Names of the classes: lines "name index", one name a line, or JSON.'
    )
    bounds: Path | None = option(None, "Upper bounds of a generator's code, one number per unit.")
    out: Path | None = option(
        None, f"File to write, *{SUFFIX}; by default NETWORK{SUFFIX} in the cache folder."
    )


def main(flags: Flags) -> None:
    """Port one file and print which blob became which parameter."""
    out = check_output(flags.out) if flags.out else None
    network, rows = port(flags.network, flags.source, flags.labels, flags.bounds)
    default = writable_cache() / f"{flags.network}{SUFFIX}"
    out = out or default
    digest = save_network(out, network)
    print(format_table([_table_row(row) for row in rows]))
    print(f"wrote {out}\nsha256 {digest}")
    name = flags.network if out == default else out
    generator = is_generator(network.info.config)
    use = _USED_BY.get(flags.network, "--generator=" if generator else "--model=")
    print(f"use it: {use}{name}, or jaxsynth.load({str(name)!r})")
    if generator and network.code is None:
        print("no code bounds: the experiments ask for them; port again with --bounds=FILE")


def _table_row(row: Row) -> dict[str, object]:
    return {
        "blob": row.blob,
        "blob shape": _dims(row.blob_shape),
        "parameter": row.parameter,
        "shape": _dims(row.shape),
        "change": row.change,
    }


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "-"


if __name__ == "__main__":
    run_experiment(main, Flags)
