"""The command `jaxsynth`: experiments by name, and questions on models, images and the cache.

jaxsynth                        lists the experiments
jaxsynth scene --scenes=abbey   one of them, as python -m experiments.scene; --help has its flags
jaxsynth models                 models that can be named
jaxsynth blobs NAME             blobs of a model with their shapes
jaxsynth labels NAME            labels of a classifier, one a line
jaxsynth show FILE.png          how an image was made
jaxsynth repeat FILE.png [OUT]  makes an image again and compares the two
jaxsynth compare A B [OUT]      two finished sweeps side by side, on OUT/index.html
jaxsynth cache                  the cache folder and its size; `jaxsynth cache clear` empties it
"""

import ast
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxsynth.inputs import check_name, printable

_QUESTIONS = {  # how many words they take, and which
    "models": ((0,), "no word"),
    "blobs": ((1,), "a model"),
    "labels": ((1,), "a model"),
    "cache": ((0, 1), "no word, or clear"),
    "show": ((1,), "a PNG"),
    "repeat": ((1, 2), "a PNG, and perhaps the name of the new one"),
    "compare": ((2, 3), "two output folders, and perhaps that of the page"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line, by default this process's, and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        return _carry_out(words[:1] or ["--help"], words[1:])
    except ValueError as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _carry_out(command: list[str], rest: list[str]) -> int:
    [name] = command
    if name in ("--help", "-h", "help"):
        print(_help())
        return 0
    if name in _QUESTIONS:
        if {"--help", "-h"} & set(rest):
            print(_usage(name))
            return 0
        counts, words = _QUESTIONS[name]
        if len(rest) not in counts:
            raise ValueError(f"jaxsynth {name} takes {words} (--help says more)")
        print(_answer(name, *rest), flush=True)
        return 0
    package, found = _experiments()
    check_name("experiment", name, found)
    return _run(f"{package}.{name}", name, rest)


def _run(module_name: str, name: str, rest: list[str]) -> int:
    sys.argv = [f"jaxsynth {name}", *rest]
    module = importlib.import_module(module_name)
    sys.modules["__main__"].__doc__ = module.__doc__  # what --help says
    launch = importlib.import_module(module_name.rpartition(".")[0] + ".launch")
    if hasattr(module, "Flags"):
        launch.run_experiment(module.main, module.Flags)
    launch.run_main(module.main)


def _experiments() -> tuple[str, dict[str, Path]]:
    """Find the launchers: their package, and name -> file.

    They are in this package where it is installed, and beside it in a checkout; they are found from
    this file, so a folder `experiments` in the working directory is none of them.
    """
    package = "jaxsynth.experiments"
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        folder = Path(__file__).parents[1] / "experiments"
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    folders = importlib.import_module(package).__path__[:1]  # of a checkout not benchmarks/ too
    files = {
        m.name: Path(m.module_finder.path, f"{m.name}.py") for m in pkgutil.iter_modules(folders)
    }
    return package, {name: path for name, path in files.items() if _is_launcher(path)}


def _is_launcher(path: Path) -> bool:
    return path.is_file() and 'if __name__ == "__main__":' in path.read_text("utf-8")


def _usage(question: str) -> str:
    """Return its line of the help above, as a usage and what it does."""
    lines = (__doc__ or "").splitlines()
    line = next(line for line in lines if line.startswith(f"jaxsynth {question} "))
    usage, what = re.split("  +", line, maxsplit=1)
    return f"usage: {usage}\n{what}"


def _help() -> str:
    _, found = _experiments()
    docs = {
        name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for name, path in found.items()
    }
    width = max(map(len, docs))
    lines = [f"  {name:<{width}}  {(doc or '').split(chr(10))[0]}" for name, doc in docs.items()]
    return "\n".join([(__doc__ or "").strip(), "", "experiments:", *lines])


def _answer(question: str, *names: str) -> str:
    from jaxsynth.report.tables import format_table

    if question == "cache":
        return _cache(*names)
    if question == "show":
        return importlib.import_module("jaxsynth.png_text").show(*names)
    if question == "repeat":
        return importlib.import_module("jaxsynth.repeat").repeat(*names).line
    if question == "compare":
        page = importlib.import_module("jaxsynth.report.compare").compare
        return str(page(*names[:2], *(names[2:] or ("out/compare",))))
    from jaxsynth.models import registry
    from jaxsynth.models.base import Classifier
    from jaxsynth.models.names import ORIGINALS

    if question == "models":
        table = format_table([{"name": n, "what": _describe(n)} for n in registry.available()])
        others = ", ".join(sorted(set(ORIGINALS) - set(registry.available())))
        return f"{table}\n`jaxsynth port` adds, from a file of yours: {others}"
    name = names[0]
    if name in ("generator", "places", "nsfw"):  # what launchers call them by default
        flags = importlib.import_module(f"{_experiments()[0]}.run_flags").RunFlags
        name = getattr(flags, name)
    model = registry.load(name)
    if question == "blobs":
        shapes = {blob: " x ".join(map(str, shape)) for blob, shape in model.shapes.items()}
        if getattr(model, "logits", None):
            shapes[model.logits] += "  logits"
        return format_table([{"blob": blob, "shape": shape} for blob, shape in shapes.items()])
    if not isinstance(model, Classifier):
        raise ValueError(f"{name} is a generator: only classifiers have labels")
    return "\n".join(map(printable, model.class_names))


def _cache(word: str = "") -> str:
    from jaxsynth import environment
    from jaxsynth.report.tables import format_table

    if word not in ("", "clear"):
        raise ValueError(f"jaxsynth cache takes {_QUESTIONS['cache'][1]}, not {word!r}")
    if word:
        freed = environment.megabytes(environment.clear_cache())
        return f"freed {freed} in {environment.cache_dir()}"
    rows = environment.cache_content()
    table = f"{format_table(rows)}\n" if rows else ""
    where = f"{environment.cache_dir()} (JAXSYNTH_CACHE names another folder)"
    return f"{where}\n{table}{environment.HOW_TO_CLEAR}"


def _describe(name: str) -> str:
    """Describe a model, or say why it cannot be loaded: one broken file hides no other."""
    from jaxsynth.models import registry

    try:
        return registry.describe(name)
    except ValueError as error:
        return f"not here: {error}"


if __name__ == "__main__":
    sys.exit(main())
