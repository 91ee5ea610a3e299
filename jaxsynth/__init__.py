"""What does a classifier think of? Activation maximisation on learned priors, in JAX."""

from jaxsynth.engine.recipes import RECIPES, Recipe
from jaxsynth.engine.sweep import Results
from jaxsynth.engine.terms import Term, parse_term, system_shapes
from jaxsynth.experiment import Run, Sweep, synthesize
from jaxsynth.files.images import to_rgb
from jaxsynth.files.results import read_results
from jaxsynth.files.weights import load_network, save_network
from jaxsynth.networks.network import CodeStats, Network, NetworkInfo

__all__ = [
    "RECIPES",
    "CodeStats",
    "Network",
    "NetworkInfo",
    "Recipe",
    "Results",
    "Run",
    "Sweep",
    "Term",
    "load_network",
    "parse_term",
    "read_results",
    "save_network",
    "synthesize",
    "system_shapes",
    "to_rgb",
]
