"""Training of the pocket pair: a scene network, and a generator that inverts its code."""
