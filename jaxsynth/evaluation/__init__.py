"""How good is a prior? `evaluate_prior` measures a generator and its networks on photographs."""

from jaxsynth.evaluation.run import evaluate_prior

__all__ = ["evaluate_prior"]
