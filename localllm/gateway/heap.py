"""Gives memory that is free inside the C library's heap back to the system.

A server that holds large requests for moments leaves holes between what lives on; glibc keeps
them until somebody asks. Elsewhere there is nothing to ask for.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable


def trimmer() -> Callable[[], object]:
    """What trims the heap; a few milliseconds, for a thread. Does nothing without glibc."""
    if sys.platform != "linux":
        return lambda: None
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl
        return lambda: None
    return lambda: trim(0)
