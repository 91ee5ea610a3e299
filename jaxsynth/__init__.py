"""Activation maximisation over the codes of a generator, in JAX."""

import importlib
import sys
import types
import typing

__version__ = "0.2.0"

from jaxsynth import recipes
from jaxsynth.ask_tell import Optimizer
from jaxsynth.environment import keep_memory, use_two_threads
from jaxsynth.gradient_free import cma_es, ga, sphere_cma
from jaxsynth.lpips import lpips
from jaxsynth.maximize import Options, maximize, sweep
from jaxsynth.models.base import CAFFE, Classifier, Generator, Preprocess
from jaxsynth.models.network import CodeStats, Network, NetworkInfo
from jaxsynth.models.registry import load, register
from jaxsynth.models.weights import load_network, save_network
from jaxsynth.objective_text import parse
from jaxsynth.objectives import (
    Objective,
    code_l2,
    distance_to_start,
    diversity,
    function,
    image_l2,
    total_variation,
)
from jaxsynth.optimizers import langevin, lbfgs
from jaxsynth.recipes import RECIPES, Recipe
from jaxsynth.report.pages import report
from jaxsynth.results import Result, SweepResult
from jaxsynth.runs.records import read_results
from jaxsynth.scoring import score

if typing.TYPE_CHECKING:
    from jaxsynth.models.onnx import load_onnx

__all__ = [
    "CAFFE",
    "RECIPES",
    "Classifier",
    "CodeStats",
    "Generator",
    "Network",
    "NetworkInfo",
    "Objective",
    "Optimizer",
    "Options",
    "Preprocess",
    "Recipe",
    "Result",
    "SweepResult",
    "cma_es",
    "code_l2",
    "distance_to_start",
    "diversity",
    "function",
    "ga",
    "image_l2",
    "langevin",
    "lbfgs",
    "load",
    "load_network",
    "load_onnx",
    "lpips",
    "maximize",
    "parse",
    "read_results",
    "recipes",
    "register",
    "report",
    "save_network",
    "score",
    "sphere_cma",
    "sweep",
    "total_variation",
]

use_two_threads()
keep_memory()


def __getattr__(name: str) -> typing.Any:
    if name == "load_onnx":  # its modules take a while to import, and few programs need them
        return importlib.import_module("jaxsynth.models.onnx").load_onnx
    raise AttributeError(f"module 'jaxsynth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "load_onnx"})


# Names of 0.1, for this version.
_OLD = {"weights": "models.weights", "images": "images", "porting": "porting.port"}


def _renamed(new: str) -> typing.Callable[[str], typing.Any]:
    return lambda name: getattr(importlib.import_module(f"jaxsynth.{new}"), name)


files = types.ModuleType("jaxsynth.files", "Modules of version 0.1 under their old names.")
files.__path__ = []
sys.modules["jaxsynth.files"] = files
for _old, _new in _OLD.items():
    _module = types.ModuleType(
        f"jaxsynth.files.{_old}", f"`jaxsynth.{_new}`, imported when it is used."
    )
    _module.__dict__["__getattr__"] = _renamed(_new)
    sys.modules[_module.__name__] = _module
    setattr(files, _old, _module)
