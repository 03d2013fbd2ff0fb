"""Main memory and swap: what the machine has, and what of it can be had without swapping.

Knows /proc/meminfo and, off Linux, psutil; takes the control groups' limits from cgroups.py and
lays them beside. Its speed is bandwidth.py's matter.
"""

from __future__ import annotations

import platform
from pathlib import Path

from localllm.hardware import Finding, Memory
from localllm.probe.cgroups import CgroupLimits
from localllm.probe.files import read_text


def probe_memory(
    root: Path = Path("/"),
    limits: CgroupLimits | None = None,
    os_name: str | None = None,
) -> tuple[Memory, tuple[Finding, ...]]:
    """Main memory below a root folder, within the control groups' limits."""
    limits = limits or CgroupLimits()
    if (os_name or platform.system()) == "Linux":
        values, problem = _linux(root)
    else:
        values, problem = _psutil()
    findings = [Finding("warn", "probe.cgroup", text) for text in limits.problems]
    if problem:
        findings.append(Finding("warn", "probe.memory", problem))
    memory = Memory(
        total_bytes=values.get("total"),
        available_bytes=values.get("available"),
        limit_bytes=limits.memory_bytes,
        limit_used_bytes=limits.memory_used_bytes,
        limit_source=limits.memory_source,
        swap_total_bytes=values.get("swap_total"),
        swap_free_bytes=values.get("swap_free"),
    )
    return memory, tuple(findings)


def _linux(root: Path) -> tuple[dict[str, int], str | None]:
    text = read_text(root / "proc/meminfo")
    if text is None:
        return {}, "/proc/meminfo could not be read: the size of main memory is unknown."
    values = parse_meminfo(text)
    if "total" not in values or "available" not in values:
        return values, "/proc/meminfo does not say how much memory there is or is available."
    return values, None


# /proc/meminfo, its first lines on Linux 6:
#   MemTotal:       24684084 kB
#   MemFree:        23820260 kB
#   MemAvailable:   24248128 kB
def parse_meminfo(text: str) -> dict[str, int]:
    """total, available, swap_total and swap_free in bytes; what the text lacks is left out.

    Kernels before 3.14 have no MemAvailable. There the free pages, the page cache and the
    reclaimable slabs stand in, without shared memory, which is counted as cache but stays.
    """
    kib: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdecimal():
            kib[name] = int(number[0])
    if "MemAvailable" not in kib and "MemFree" in kib:
        kept = kib.get("Cached", 0) + kib.get("SReclaimable", 0) - kib.get("Shmem", 0)
        kib["MemAvailable"] = kib["MemFree"] + max(0, kept)
    names = {
        "total": "MemTotal",
        "available": "MemAvailable",
        "swap_total": "SwapTotal",
        "swap_free": "SwapFree",
    }
    return {ours: kib[theirs] * 1024 for ours, theirs in names.items() if theirs in kib}


def _psutil() -> tuple[dict[str, int], str | None]:
    try:
        import psutil

        memory = psutil.virtual_memory()
    except (ImportError, OSError, RuntimeError) as exc:
        return {}, f"The size of main memory could not be read: {exc}."
    # On macOS psutil's `available` is free + inactive pages, what can be had without swapping.
    values = {"total": memory.total, "available": memory.available}
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError) as exc:
        return values, f"The size of the swap space could not be read: {exc}."
    return {**values, "swap_total": swap.total, "swap_free": swap.free}, None
