"""Ports a file of original weights, once, into a file that the experiments load.

  python -m experiments.port --network=places205 --source=places205CNN_iter_300000.caffemodel \\
      --labels=categoryIndex_places205
  python -m experiments.port --network=dgn_fc6 --source=generator.caffemodel --bounds=fc6.txt

Prints which blob became which parameter. A few seconds. Exit code 2 and one line, and no output,
where the file does not fit.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.launch import run_main
from jaxsynth.models.weights import SUFFIX, cache_dir, check_output, save_network
from jaxsynth.porting.caffe_layout import Row
from jaxsynth.porting.port import ORIGINALS, port
from jaxsynth.report.tables import format_table

_NETWORK = flags.DEFINE_enum("network", None, list(ORIGINALS), "Which network.", required=True)
_SOURCE = flags.DEFINE_string(
    "source", None, "Original weights: .caffemodel, for open_nsfw also .onnx.", required=True
)
_LABELS = flags.DEFINE_string(
    "labels", None, 'Names of the classes: lines "name index", or one name a line.'
)
_BOUNDS = flags.DEFINE_string(
    "bounds", None, "Upper bounds of the code (dgn_fc6), one number per unit."
)
_OUT = flags.DEFINE_string(
    "out", None, f"File to write, *{SUFFIX}; by default NETWORK{SUFFIX} in the cache folder."
)
_USED_BY = {
    "dgn_fc6": "--generator=",
    "places205": "--places=",
    "caffenet": "--init_image with --generator=dgn_fc6 loads ",
    "open_nsfw": "--nsfw=",
}


@dataclasses.dataclass(frozen=True)
class PortConfig:
    network: str
    source: Path
    labels: str | None
    bounds: str | None
    out: Path


def main(argv: Sequence[str]) -> None:
    config = _config(argv)
    network, rows = port(config.network, config.source, config.labels, config.bounds)
    digest = save_network(config.out, network)
    print(format_table([_table_row(row) for row in rows]))
    print(f"wrote {config.out}\nsha256 {digest}")
    in_cache = config.out == _default_out(config.network)
    name = config.network if in_cache else config.out
    print(f"use it: {_USED_BY[config.network]}{name}, or jaxsynth.load_network({str(name)!r})")
    if config.network == "dgn_fc6" and network.code is None:
        print("no code bounds: the experiments ask for them; port again with --bounds=FILE")


def _config(argv: Sequence[str]) -> PortConfig:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: port takes flags only")
    out = _default_out(_NETWORK.value) if _OUT.value is None else Path(_OUT.value)
    return PortConfig(
        network=_NETWORK.value,
        source=Path(_SOURCE.value),
        labels=_LABELS.value,
        bounds=_BOUNDS.value,
        out=check_output(out),
    )


def _default_out(network: str) -> Path:
    return cache_dir() / f"{network}{SUFFIX}"


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
    run_main(main)
