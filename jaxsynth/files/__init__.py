"""What touches files: weights, their originals, images."""
