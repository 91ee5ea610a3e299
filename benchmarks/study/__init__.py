"""Optimizers compared at equal cost, in the engine of the experiments."""
