"""Memory that a step gives back stays with the process, for the next step on CPU.

XLA takes the memory of a step's activations from malloc anew each time. Blocks of more than 32 MB
glibc maps and unmaps every time, page by page, which a step waits for.
Source: mallopt(3).
"""

import ctypes
import sys

# glibc's malloc.h: give nothing back to the system, map no single blocks, one heap for all threads
# (the heaps of threads have a fixed size, above which blocks are mapped).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1


def keep_memory() -> None:
    """From now on this process keeps its memory, if glibc manages it. To be called early."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
            libc.mallopt(option, value)
