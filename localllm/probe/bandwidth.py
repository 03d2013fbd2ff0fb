"""How fast this machine's usable cores together read main memory: measured, then remembered.

To generate one token, llama.cpp reads every weight that is used once and writes next to nothing,
and a layer's weights are long gone from the caches when the next token needs them. Tokens per
second on a CPU are therefore bounded by (read bandwidth) / (bytes read per token), so the number
wanted is of reading alone: a copy (STREAM) would count writes and the reads that writes cause.

Each usable core gets a thread and a buffer of its own, together several times the last-level
cache; the pages are really written first, since untouched ones all map to one page of zeros. Then
all threads read at once with libc's memchr, looking for a byte that is not there: it is
vectorised, only reads, and ctypes lets go of the interpreter's lock meanwhile. A pass is timed
from the first thread's start to the last one's end, so thread starts and preemption can only make
it slower, never faster; the best pass is what the machine can do. What it is not: a promise for
one thread, for a machine that is busy later, or for memory of another NUMA node. musl's memchr
is not vectorised and may show less than there is on machines with few cores.

Compared with a C loop of 32-byte loads, two threads, Zen 5 (2026-11): 62.6 against 64.2 GB/s over
128 MiB and 54.4 against 55.5 over 512 MiB; numpy's sum reached 53.7 over 128 MiB. Past four
times the cache the result still falls a little (a cache is not forgotten in one sweep), hence
eight times where time allows.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from localllm import paths
from localllm.errors import DiskError
from localllm.hardware import Finding, Hardware, Memory
from localllm.probe.files import numbered, parse_cpu_list, read_int, read_text
from localllm.probe.readers import measure
from localllm.units import GIB, KIB, MIB

#: Seconds for everything: faulting the pages in, then passes until the time is up.
_BUDGET_SECONDS = 0.15
_LEAST_BYTES, _MOST_BYTES = 128 * MIB, 512 * MIB
#: Only where four times the cache is more than that: servers with hundreds of MiB of it.
_MOST_BYTES_FOR_CACHE = 4 * GIB
#: Assumed where /sys shows no last-level cache (macOS, Windows, some virtual machines).
_UNKNOWN_CACHE_BYTES = 32 * MIB
#: Of free memory; a measurement must not push anybody else out.
_PART_OF_FREE = 8
#: A result is settled when its passes agreed and the machine had little else to do: less than this
#: part of its processors busy in the last minute. One that is not is measured again by the next
#: probes, so many times in all, and the best is kept.
_QUIET_LOAD, _MOST_TRIES = 0.5, 5
_MOST_ENTRIES = 16
#: What no machine has: guards against a damaged cache file.
_PLAUSIBLE = (1e8, 1e14)


def probe_bandwidth(
    hardware: Hardware, root: Path = Path("/"), cache: Path | None = None
) -> tuple[Memory, tuple[Finding, ...]]:
    """A machine's memory with its bandwidth filled in, for a machine otherwise probed.

    1. The cache file, where it holds a settled result for the same processor, number of usable
       cores, memory size and kernel. 2. A measurement, which is then written there.
    """
    file = cache or paths.cache_dir() / "bandwidth.json"
    key = cache_key(hardware)
    entries = _read_cache(file)
    known, tries, settled = _entry(entries.get(key))
    remembered = replace(
        hardware.memory, bandwidth=known, bandwidth_source="cached" if known else None
    )
    if settled:
        return remembered, ()
    n_threads = hardware.cpu.n_usable
    sizes = buffer_bytes(reachable_cache(root, n_threads), hardware.memory)
    if sizes is None:
        message = "Memory bandwidth was not measured: too little memory is free to do it honestly."
        return remembered, (Finding("warn", "probe.bandwidth", message),)
    try:
        result = measure(*sizes, n_threads, _BUDGET_SECONDS)
    except (OSError, ValueError, RuntimeError, AttributeError) as exc:
        message = f"Memory bandwidth could not be measured: {exc}."
        return remembered, (Finding("warn", "probe.bandwidth", message),)
    best = max(result.bytes_per_second, known or 0)
    settled = result.steady and is_quiet()
    entries.pop(key, None)  # to the end: the oldest leave first
    entries[key] = {"bytes_per_second": best, "settled": settled, "tries": tries + 1}
    unkept = _write_cache(file, dict(list(entries.items())[-_MOST_ENTRIES:]))
    memory = replace(hardware.memory, bandwidth=best, bandwidth_source="measured")
    return memory, (unkept,) if unkept else ()


def is_quiet() -> bool:
    """Whether the machine had little to do in the last minute; True where it does not tell."""
    try:
        load = os.getloadavg()[0]  # of the whole host, even in a container, as cpu_count is
    except (OSError, AttributeError):  # AttributeError: Windows
        return True
    return load < _QUIET_LOAD * (os.cpu_count() or 1)


def cache_key(hardware: Hardware) -> str:
    """What must be the same for an earlier measurement to hold."""
    parts = (
        hardware.cpu.model,
        f"{hardware.cpu.n_usable} cores",
        f"{hardware.memory.total_bytes} bytes",
        hardware.system.kernel,
    )
    return " | ".join(str(part) for part in parts)


def buffer_bytes(cache_bytes: int | None, memory: Memory) -> tuple[int, int] | None:
    """(how much to read, how much at least), or None when too little memory is free for it."""
    cache = cache_bytes or _UNKNOWN_CACHE_BYTES
    wanted = min(max(8 * cache, _LEAST_BYTES), _MOST_BYTES)
    wanted = max(wanted, min(4 * cache, _MOST_BYTES_FOR_CACHE))
    if memory.free_bytes is not None:
        wanted = min(wanted, memory.free_bytes // _PART_OF_FREE)
    least = max(2 * cache, 16 * MIB)
    return (wanted, least) if wanted >= least else None


def reachable_cache(root: Path, n_threads: int) -> int | None:
    """The bytes of cache, level 2 and up, that so many threads can fill; None when unknown.

    Threads wander, so of the caches of a level the largest count, one to a thread: two threads on
    a server with 24 third-level caches fill two of them.

    /sys/devices/system/cpu/cpu0/cache/index3: level "3", size "32768K", shared_cpu_list "0-7".
    """
    caches: dict[tuple[int, frozenset[int]], int] = {}
    for cpu in numbered(root / "sys/devices/system/cpu", "cpu"):
        for index in numbered(cpu / "cache", "index"):
            level, size = read_int(index / "level"), read_text(index / "size") or ""
            shared = parse_cpu_list(read_text(index / "shared_cpu_list"))
            if level and level > 1 and shared and size.endswith("K") and size[:-1].isdecimal():
                caches[level, shared] = int(size[:-1]) * KIB
    total = 0
    for level in {level for level, _ in caches}:
        sizes = sorted((size for (at, _), size in caches.items() if at == level), reverse=True)
        total += sum(sizes[:n_threads])
    return total or None


def _entry(entry: Any) -> tuple[float | None, int, bool]:
    """(bytes per second, times measured, whether that is settled) of an entry of the file."""
    if not isinstance(entry, dict):
        return None, 0, False
    rate, tries = entry.get("bytes_per_second"), entry.get("tries")
    if not isinstance(rate, int | float) or not _PLAUSIBLE[0] < rate < _PLAUSIBLE[1]:
        return None, 0, False
    tries = tries if isinstance(tries, int) else 1
    return float(rate), tries, entry.get("settled") is True or tries >= _MOST_TRIES


def _read_cache(file: Path) -> dict[str, Any]:
    """The entries by machine; an absent or damaged file has none and is written anew."""
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    entries = document.get("machines") if isinstance(document, dict) else None
    return entries if isinstance(entries, dict) else {}


def _write_cache(file: Path, entries: dict[str, Any]) -> Finding | None:
    """Replaces the file in one step, so that a reader never sees a half."""
    document = json.dumps({"schema_version": 1, "machines": entries}, indent=1)
    try:
        paths.private_folder(file.parent)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as temporary:
                temporary.write(document)
            os.replace(name, file)
        except OSError:
            os.unlink(name)
            raise
    except (OSError, DiskError) as exc:
        message = f"The measured memory bandwidth could not be kept in {file}: {exc}."
        return Finding("warn", "probe.bandwidth-cache", message)
    return None
