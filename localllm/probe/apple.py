"""Apple silicon's GPU: one device that shares main memory with the processor.

Knows sysctl. Does not ask Metal, which would need Objective-C; the one number that only Metal has,
how much the GPU may hold, is a setting where it was set and an assumption otherwise, and says so.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from localllm.hardware import Accelerator, Finding, Memory
from localllm.probe import sysctl
from localllm.units import GIB, MIB

#: 0 means the system's own choice. Before macOS 14 the name was debug.iogpu.wired_limit, in bytes.
_SETTING = "iogpu.wired_limit_mb"
_NAMES = ("hw.memsize", "hw.optional.arm64", _SETTING)


def probe_apple(
    memory: Memory | None = None, os_name: str | None = None
) -> tuple[tuple[Accelerator, ...], tuple[Finding, ...]]:
    """The GPU of a Mac with Apple silicon; nothing elsewhere."""
    if (os_name or platform.system()) != "Darwin":
        return (), ()
    values = sysctl.read_integers(_NAMES)
    gpu = parse_sysctl(sysctl.read_string("machdep.cpu.brand_string"), values, memory)
    if gpu is None and "hw.memsize" not in values:
        message = "sysctl did not answer: whether there is an Apple GPU is unknown."
        return (), (Finding("warn", "probe.apple", message),)
    return (gpu,) if gpu else (), ()


# sysctl machdep.cpu.brand_string hw.memsize hw.optional.arm64 iogpu.wired_limit_mb, M2 Max, 32 GB:
#   machdep.cpu.brand_string: Apple M2 Max
#   hw.memsize: 34359738368
#   hw.optional.arm64: 1
#   iogpu.wired_limit_mb: 0
def parse_sysctl(
    name: str | None, values: Mapping[str, int], memory: Memory | None = None
) -> Accelerator | None:
    """The GPU out of sysctl values; None on a Mac with an Intel processor."""
    total = values.get("hw.memsize")
    if values.get("hw.optional.arm64") != 1 or total is None:
        return None
    limit, source = working_set(total, values.get(_SETTING))
    main = memory.free_bytes if memory else None
    return Accelerator(
        vendor="apple",
        index=0,
        name=name,
        total_bytes=total,
        free_bytes=None if main is None else min(limit, main),
        unified=True,
        limit_bytes=limit,
        limit_source=source,
    )


def working_set(total_bytes: int, setting_mb: int | None) -> tuple[int, str]:
    """(the most that the GPU may hold, who says so).

    1. The setting iogpu.wired_limit_mb, where it is not 0.
    2. Else what Metal was seen to answer (recommendedMaxWorkingSetSize in llama.cpp's logs):
       two thirds on small machines (21845 MiB of 32 GiB, ollama#434), three quarters on large ones
       (73728 MiB of 96 GiB, llama.cpp#3213; 49152 of 64 GiB, llama.cpp#1870). 36 GiB is the
       smallest machine seen with three quarters. Apple documents neither.
    """
    if setting_mb:
        return setting_mb * MIB, f"the setting {_SETTING}"
    large = total_bytes >= 36 * GIB
    share = "three quarters" if large else "two thirds"
    limit = total_bytes * 3 // 4 if large else total_bytes * 2 // 3
    return limit, f"assumed: {share} of memory, as macOS does by default"
