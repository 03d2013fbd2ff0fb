"""The nouns of a machine: what it is, what it has, what of that is free.

Values only: nothing here looks at a machine (localllm/probe does). None always means unknown;
0 is a measured zero. Sizes are bytes, rates bytes per second.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]
Vendor = Literal["nvidia", "amd", "intel", "apple"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at and what is to be said of it.

    Attributes:
        level: "ok", "warn" (it runs, but worse than it could) or "fail" (it will not run).
        code: a stable dotted name, such as "engine.cpu-only", for scripts and documents.
        message: one sentence with the values in it.
        fix: the exact line that mends it (a command where there is one), or None.
    """

    level: Level
    code: str
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class System:
    """The operating system around us.

    Attributes:
        os: "Linux", "Darwin" or "Windows".
        release: a readable name and version: "Debian GNU/Linux 12 (bookworm)".
        kernel: the kernel's own release string.
        libc: "glibc 2.36", "musl 1.2.5", or None off Linux.
        python: "3.11.7".
        wsl: 1 or 2 inside the Windows Subsystem for Linux, else None.
        container: "docker", "podman", "kubernetes", "lxc", ... inside one, else None.
        translated: this process runs under Rosetta 2 (x86-64 code on Apple silicon).
    """

    os: str
    release: str | None = None
    kernel: str | None = None
    libc: str | None = None
    python: str | None = None
    wsl: int | None = None
    container: str | None = None
    translated: bool = False


@dataclass(frozen=True)
class Cpu:
    """The processor and how much of it this process may use.

    Attributes:
        model: the marketing name.
        architecture: "x86_64" or "aarch64" (macOS's "arm64" and Windows' "AMD64" are mapped).
        features: instruction sets as ggml names them, lower case and sorted: "avx", "avx2",
            "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8",
            "neon", "dotprod", "i8mm", "sve", ... None when they could not be read.
        n_physical: cores; n_logical: hardware threads of the whole machine.
        n_performance: performance cores of a hybrid processor; None when not hybrid or unknown.
        n_affinity: logical processors this process may run on (affinity and cpuset together).
        quota: processors' worth of time that the cgroups above us allow; None when unlimited.
        governor: the frequency governor, "powersave", "performance", ...
        scaling_driver: who carries the governor out. Under "intel_pstate" and "amd-pstate-epp"
            "powersave" is the normal governor and slows nothing; under "acpi-cpufreq" it does.
    """

    model: str | None = None
    architecture: str | None = None
    features: tuple[str, ...] | None = None
    n_physical: int | None = None
    n_logical: int | None = None
    n_performance: int | None = None
    n_affinity: int | None = None
    quota: float | None = None
    governor: str | None = None
    scaling_driver: str | None = None

    @property
    def n_usable(self) -> int:
        """Logical processors that this process can keep busy: affinity and quota, at least 1.

        Cores stand for them where only those are known.
        """
        n_logical = self.n_physical if self.n_logical is None else self.n_logical
        bounds = [n for n in (n_logical, self.n_affinity) if n is not None]
        if self.quota is not None:
            # A quota of 2.5 processors keeps 2 threads running and a third one throttled.
            bounds.append(max(1, math.floor(self.quota)))
        return max(1, min(bounds, default=1))


@dataclass(frozen=True)
class Memory:
    """Main memory and what of it this process can have.

    Attributes:
        total_bytes: what the machine has (the whole host, even inside a container).
        available_bytes: what can be had without swapping, machine-wide; page cache counts as free.
        limit_bytes: the cgroup limit that leaves the least room, among all ancestors; None when
            there is none.
        limit_used_bytes: what counts against that limit now, reclaimable page cache excluded.
        limit_source: which file said so, for the reader.
        swap_total_bytes, swap_free_bytes: swap space.
        bandwidth: read bandwidth of all usable cores together, bytes per second.
        bandwidth_source: "measured", "cached" (measured earlier on this very machine) or
            "data-sheet" (the bus's peak, of a machine that is not here; no program reaches it).
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    limit_bytes: int | None = None
    limit_used_bytes: int | None = None
    limit_source: str | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    bandwidth: float | None = None
    bandwidth_source: Literal["measured", "cached", "data-sheet"] | None = None

    @property
    def free_bytes(self) -> int | None:
        """What this process can have: the machine's available memory within the cgroup limit."""
        free = [] if self.available_bytes is None else [self.available_bytes]
        if self.limit_bytes is not None:
            free.append(max(0, self.limit_bytes - (self.limit_used_bytes or 0)))
        return min(free, default=None)


@dataclass(frozen=True)
class Accelerator:
    """One GPU (or MIG slice, or unified-memory GPU).

    Attributes:
        vendor: who made it, which decides the backend that can drive it.
        index: its number in PCI bus order (CUDA_DEVICE_ORDER=PCI_BUS_ID), among its vendor's.
        name: the marketing name.
        uuid: as CUDA_VISIBLE_DEVICES takes it ("GPU-..." or "MIG-..."); None where unknown.
        pci_bus_id: "0000:65:00.0".
        total_bytes, free_bytes: its own memory; None on unified boards, which answer N/A.
        unified: it shares main memory with the CPU; total and free are then main memory's.
        limit_bytes: the most of a unified memory that the system lets the GPU hold at once.
        limit_source: who says so, for the reader: a setting, or an assumption.
        compute_capability: NVIDIA's "9.0", AMD's "gfx1100", None elsewhere.
        driver: the driver's version, "550.54.15".
        runtime: the newest toolkit that the driver can run, CUDA "12.4".
        bandwidth: memory bandwidth in bytes per second, bus width times clock.
        mig: MIG is switched on; None where there is no such thing.
        display: a desktop is drawn on it, so a part of its memory will come and go.
    """

    vendor: Vendor
    index: int
    name: str | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    unified: bool = False
    limit_bytes: int | None = None
    limit_source: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    runtime: str | None = None
    bandwidth: float | None = None
    mig: bool | None = None
    display: bool | None = None


@dataclass(frozen=True)
class Disk:
    """The file system where models go.

    Attributes:
        path: the folder asked about (it need not exist yet).
        total_bytes, free_bytes: as an unprivileged user may use them.
        filesystem: "ext4", "nfs4", "apfs", ...
    """

    path: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    filesystem: str | None = None


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as it could be read."""

    system: System
    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    disk: Disk | None = None

    def shared(self, n: int, index: int, *, per_gpu: bool) -> Hardware:
        """The share of one of n equal replicas that run here at the same time.

        What is free, the processors and the bandwidths are divided; totals and limits of the
        hardware itself stay.

        Args:
            n: replicas, at least 1.
            index: which of them, from 0.
            per_gpu: this one has the accelerator of that index to itself. Otherwise all replicas
                share each of them.
        """
        if per_gpu:
            accelerators = self.accelerators[index : index + 1]
        else:
            accelerators = tuple(
                replace(
                    gpu,
                    free_bytes=_share(gpu.free_bytes, n),
                    limit_bytes=_share(gpu.limit_bytes, n),
                    bandwidth=None if gpu.bandwidth is None else gpu.bandwidth / n,
                )
                for gpu in self.accelerators
            )
        cpu, memory = self.cpu, self.memory
        used = memory.limit_used_bytes
        return replace(
            self,
            cpu=replace(
                cpu,
                n_physical=_share(cpu.n_physical, n, least=1),
                n_logical=_share(cpu.n_logical, n, least=1),
                n_performance=_share(cpu.n_performance, n, least=1),
                n_affinity=_share(cpu.n_affinity, n, least=1),
                quota=None if cpu.quota is None else cpu.quota / n,
            ),
            memory=replace(
                memory,
                available_bytes=_share(memory.available_bytes, n),
                limit_bytes=_share(memory.limit_bytes, n),
                # Rounded up, so that all shares together are not more than the whole.
                limit_used_bytes=None if used is None else -(-used // n),
                swap_free_bytes=_share(memory.swap_free_bytes, n),
                bandwidth=None if memory.bandwidth is None else memory.bandwidth / n,
            ),
            accelerators=accelerators,
        )

    def to_json(self) -> dict[str, Any]:
        """The document form: field names as here, plus the two derived budgets."""
        document = asdict(self)
        document["cpu"]["n_usable"] = self.cpu.n_usable
        document["memory"]["free_bytes"] = self.memory.free_bytes
        return document


def _share(whole: int | None, n: int, least: int = 0) -> int | None:
    return None if whole is None else max(least, whole // n)
