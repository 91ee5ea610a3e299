"""Names of `experiments.launch` until all launchers take them from there."""

from experiments.launch import Stop, resumable, stop_signals

keeps_going_on = resumable
__all__ = ["Stop", "keeps_going_on", "stop_signals"]
