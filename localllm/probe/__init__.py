"""This machine -> `Hardware` and findings.

Composes the rooms of this package, each of which knows one outside thing. Fetching is kept apart
from parsing, and whatever is read from files takes a root folder, so that a captured tree of
another machine can be probed. Imports nothing heavy before it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from localllm.hardware import Accelerator, Cpu, Disk, Finding, Hardware, Memory, System

__all__ = ["probe"]

_Part = TypeVar("_Part")


def probe(
    models_dir: Path, *, measure_bandwidth: bool = True
) -> tuple[Hardware, tuple[Finding, ...]]:
    """The machine around this process, and every query about it that failed.

    Never raises: what cannot be read is None and a finding of level "warn" whose code begins with
    "probe.". Takes some 0.05 s, and some 0.15 s more when the memory bandwidth is measured for the
    first time on this machine.

    Args:
        models_dir: the folder for models, which need not exist, for the disk it is on.
        measure_bandwidth: whether memory bandwidth may be measured, or looked up where it was.
    """
    return probe_tree(Path("/"), models_dir, measure_bandwidth=measure_bandwidth)


def probe_tree(
    root: Path, models_dir: Path, *, measure_bandwidth: bool = True
) -> tuple[Hardware, tuple[Finding, ...]]:
    """Like `probe`, with /proc and /sys below a root folder."""
    import platform

    from localllm.probe import (
        apple,
        bandwidth,
        cgroups,
        cpu,
        disk,
        memory,
        nvidia,
        sysfs_gpu,
        system,
    )

    findings: list[Finding] = []

    def part(
        name: str, look: Callable[[], tuple[_Part, tuple[Finding, ...]]], otherwise: _Part
    ) -> _Part:
        try:
            value, found = look()
        # The modules catch what they expect. A machine that nobody expected must not keep a
        # person from running: what is left is told as a finding, with its type to report it by.
        except Exception as exc:
            message = f"The probe of {name} failed, which is a bug: {type(exc).__name__}: {exc}."
            findings.append(Finding("warn", f"probe.{name}", message))
            return otherwise
        findings.extend(found)
        return value

    around = part("system", lambda: system.probe_system(root), System(platform.system()))
    limits = part("cgroup", lambda: (cgroups.read_limits(root), ()), cgroups.CgroupLimits())
    processor = part("cpu", lambda: cpu.probe_cpu(root, limits), Cpu())
    main = part("memory", lambda: memory.probe_memory(root, limits), Memory())
    none: tuple[Accelerator, ...] = ()
    gpus = part(
        "nvidia",
        lambda: nvidia.probe_nvidia(root, container=around.container, wsl=around.wsl),
        none,
    )
    gpus += part("gpu", lambda: sysfs_gpu.probe_sysfs_gpus(root, main), none)
    gpus += part("apple", lambda: apple.probe_apple(main), none)
    place = part("disk", lambda: disk.probe_disk(models_dir, root), Disk(str(models_dir)))
    hardware = Hardware(around, processor, main, gpus, place)
    if measure_bandwidth:
        main = part("bandwidth", lambda: bandwidth.probe_bandwidth(hardware, root), main)
    return replace(hardware, memory=main), tuple(findings)
