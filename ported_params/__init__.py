"""Weights that ship with jaxsynth (safetensors) and their manifest; see README.md."""
