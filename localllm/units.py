"""Bytes in, "9.1 GiB" out, and back: the one formatter and the one parser of sizes."""

from __future__ import annotations

import re

from localllm.errors import UsageError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(
    r"\s*(\d{1,20})(?:\.(\d{1,20}))?\s*(?:([kmgtp])(i?))?(b?)\s*", re.ASCII | re.IGNORECASE
)


def format_bytes(n_bytes: float | None) -> str:
    """A size for a person: binary units, one decimal below 100, "unknown" for None."""
    if n_bytes is None:
        return "unknown"
    size = float(n_bytes)
    for unit in _BINARY:
        # 1023.5 would be printed as 1024 of its unit, which is 1.0 of the next.
        if abs(size) < 1023.5 or unit == _BINARY[-1]:
            break
        size /= 1024
    if unit == "B":
        return f"{int(size)} B"
    return f"{size:.0f} {unit}" if abs(size) >= 99.95 else f"{size:.1f} {unit}"


def parse_bytes(text: str) -> int:
    """The number of bytes that a person meant by "24G", "9.1 GiB", "512MB" or "1048576".

    A bare letter and the `i` form are binary (24G = 24 GiB), as memory is sold; "GB" with a
    capital or small b and no `i` is decimal, as disks and file listings are.

    Raises:
        UsageError: the text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a size", "write it like 24G, 9.1GiB, 512MB or 1048576")
    whole, decimals, prefix, binary, byte = match.groups(default="")
    exponent = " kmgtp".index(prefix.lower()) if prefix else 0
    base = 1000 if prefix and byte and not binary else 1024
    # In whole numbers: a float would make 2009 of "2.01kB".
    n_bytes: int = int(whole + decimals) * base**exponent // 10 ** len(decimals)
    return n_bytes


def format_rate(bytes_per_second: float | None) -> str:
    """A memory or disk rate in decimal GB/s, as data sheets print it; "unknown" for None."""
    return "unknown" if bytes_per_second is None else f"{bytes_per_second / 1e9:.1f} GB/s"


def parse_rate(text: str) -> float:
    """Bytes per second out of "936 GB/s", as data sheets print it.

    Raises:
        UsageError: the text is not a rate.
    """
    size, slash, second = text.strip().rpartition("/")
    try:
        if slash and second.strip() == "s":
            return float(parse_bytes(size))
    except UsageError:
        pass
    raise UsageError(f"{text!r} is not a rate", "write it like 936 GB/s or 1.8TB/s")


def format_seconds(seconds: float | None) -> str:
    """A duration for a person: "840 ms", "2.4 s", "3 min 20 s"; "unknown" for None."""
    if seconds is None:
        return "unknown"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
