"""How much memory a dry run may really take: a header can ask for any amount.

A dry run allocates recurrent states in earnest, as large as the header says. Standard library
alone, and Linux alone: elsewhere the system's own limits are all there is.
"""

from __future__ import annotations

import os
import sys

_LEAST_BYTES = 2 << 30


def memory_limit() -> int | None:
    """Bytes of private memory for a dry run: half of the machine's, at least 2 GiB."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return max(_LEAST_BYTES, total // 2)


def bound_memory(pid: int = 0) -> None:
    """Bounds the private memory of a process of ours, or of this one.

    RLIMIT_DATA rather than RLIMIT_AS: drivers reserve address space without using it.
    """
    limit = memory_limit()
    if sys.platform != "linux" or limit is None:
        return
    import resource

    try:
        _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
        if most == resource.RLIM_INFINITY or limit < most:
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
    except (OSError, ValueError):
        return  # it is gone already, or may not be bounded
