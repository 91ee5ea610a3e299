"""What does a classifier think of? Activation maximisation on learned priors, in JAX."""

from jaxsynth.chunks import Results
from jaxsynth.images import to_rgb
from jaxsynth.models.network import CodeStats, Network, NetworkInfo
from jaxsynth.models.weights import load_network, save_network
from jaxsynth.recipes import RECIPES, Recipe
from jaxsynth.runs.checkpoint import read_arrays as read_results
from jaxsynth.short import Run, Sweep, synthesize
from jaxsynth.terms import Term, parse_term, system_shapes

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
