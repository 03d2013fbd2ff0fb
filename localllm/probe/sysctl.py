"""macOS's sysctl, asked through libc: no child process, so nothing to time out.

Knows how to ask; what the names mean is for the modules that ask.
"""

from __future__ import annotations

from collections.abc import Iterable


def read_integers(names: Iterable[str]) -> dict[str, int]:
    """The values of integer names that this kernel has; the others are left out."""
    values: dict[str, int] = {}
    for name in names:
        raw = _ask(name)
        # The kernel's integers are 4 or 8 bytes wide, in the machine's order (little-endian).
        if raw is not None and len(raw) in (4, 8):
            values[name] = int.from_bytes(raw, "little", signed=True)
    return values


def read_string(name: str) -> str | None:
    """The value of a string name, None where the kernel has none."""
    raw = _ask(name)
    return raw.rstrip(b"\0").decode("utf-8", "replace").strip() or None if raw else None


def _ask(name: str) -> bytes | None:
    import ctypes

    try:
        sysctlbyname = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError, TypeError):  # not macOS (TypeError: Windows has no CDLL(None))
        return None
    size = ctypes.c_size_t(0)
    if sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    buffer = ctypes.create_string_buffer(size.value)
    if sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return buffer.raw[: size.value]
