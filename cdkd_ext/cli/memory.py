"""How a command that trains uses memory."""

from __future__ import annotations

import ctypes

# of malloc.h
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the tensors to come, of any size, and not give it back before the process ends.

    By default what a tensor of 32 MiB or more leaves goes back at once, and each page of the next one is asked for and
    zeroed again, in every step. For whole processes, not for libraries; where there is no glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
