"""Optimizers compared at an equal cost, on the objectives that this engine climbs."""
