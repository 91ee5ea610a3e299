"""The place where `StartCodes` was."""

from jaxsynth.recipes import StartCodes

__all__ = ["StartCodes"]
