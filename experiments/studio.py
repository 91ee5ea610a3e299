"""Opens a page to play with: choose and weigh terms, see the images develop, continue from one.

  python -m experiments.studio
  python -m experiments.studio --model=mine=resnet18.onnx --out=out/studio --port=8000

The page is served on 127.0.0.1, to this machine alone, and loads nothing from the network. Every
sweep is saved in a folder of its own, OUT/001 and so on. Ctrl-C ends it. It takes NiceGUI:
pip install 'jaxsynth[studio]'.
"""

import dataclasses
from pathlib import Path

from jaxsynth.environment import check_backend, keep_compiled, writable_cache
from jaxsynth.inputs import option
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.studio.work import Studio, check_studio

from .common import load_for
from .flags import like, repeated
from .launch import run_experiment
from .run_flags import RunFlags

_CLASSIFIERS = ("pocket_places", "open_nsfw")


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of this launcher."""

    generator: str = like(RunFlags, "generator")
    model: tuple[str, ...] = repeated(
        "One more classifier than pocket_places and open_nsfw, a name or NAME=FILE; may be "
        "repeated."
    )
    port: int = option(8080, "Of the page's address; 0 for any that is free.", low=0, high=65535)
    out: Path = option(Path("out/studio"), "Where sweeps are saved.")


def main(flags: Flags) -> int:
    """Serve the page until it is stopped."""
    check_studio()
    check_backend()
    keep_compiled(writable_cache())
    generator = load_for("generator", flags.generator, Generator)
    names = dict.fromkeys((*_CLASSIFIERS, *flags.model))
    judges = [load_for("model", name, Classifier) for name in names]
    from jaxsynth.studio.page import make_server  # takes NiceGUI

    server, door = make_server(Studio(generator, judges, flags.out), flags.port)
    print(f"studio         http://127.0.0.1:{door.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
    server.run(sockets=[door])
    return 0


if __name__ == "__main__":
    run_experiment(main, Flags)
