"""Keeps the C library's heap small.

A server that holds large requests for moments leaves holes between what lives on; glibc keeps
them until somebody asks, and a heap for each thread besides. Elsewhere there is nothing to ask for.
"""

from __future__ import annotations

import ctypes
import sys

#: mallopt(3): how many heaps there are.
_M_ARENA_MAX = -8


def keep_one() -> None:
    """One heap for all threads, which rarely meet in it; to be called before there are any."""
    library = _glibc()
    if library is not None:
        library.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Gives the holes back; a few milliseconds, for a thread."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim  # noqa: B018 (musl has none)
    except (OSError, AttributeError):
        return None
    return library
