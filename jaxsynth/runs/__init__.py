"""The folder of a run: lock, checkpoints, resume."""
