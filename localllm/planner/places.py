"""Hardware + the engine's devices -> the places where weights can lie, and what fits there.

A place is the host or one device. A pool is memory that several places may share: main memory
is the host's and every unified accelerator's at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from localllm.hardware import Accelerator, Hardware, Vendor
from localllm.plan import Device, DeviceMemory, LedgerLine
from localllm.profiles import Policy

HOST = "Host"
_MAIN = "main memory"

#: What backends call their devices -> whose hardware each drives; Vulkan and SYCL are told apart
#: by the description alone.
_NAMED = re.compile(r"(?P<backend>[A-Za-z]+)(?P<index>\d+)?")
_VENDORS: dict[str, Vendor] = {
    "CUDA": "nvidia", "ROCm": "amd", "HIP": "amd", "MTL": "apple", "Metal": "apple",
    "SYCL": "intel",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Main memory, or one device that the engine sees.

    Attributes:
        name: as llama.cpp names it; "Host" for main memory.
        pool: the memory it takes from.
        free_bytes: before the run; None where nobody knows.
        reserve_bytes: of that, what is left to others.
        overhead: what the engine takes beside its buffers, line by line.
        bytes_per_second: that decoding reaches; None where nobody knows.
        flops: operations a second on a prompt; None where nobody knows.
        layer_seconds: that each layer costs whatever its size.
        accelerator: the hardware behind it; None for the host, or where it was not recognised.
    """

    name: str
    pool: str
    free_bytes: int | None = None
    reserve_bytes: int = 0
    overhead: tuple[LedgerLine, ...] = ()
    bytes_per_second: float | None = None
    flops: float | None = None
    layer_seconds: float = 0.0
    accelerator: Accelerator | None = None

    @property
    def overhead_bytes(self) -> int:
        """The sum of the overhead's lines."""
        return sum(line.n_bytes for line in self.overhead)

    @property
    def kind(self) -> tuple[object, ...]:
        """Places of one kind can stand for each other."""
        gpu = self.accelerator
        name = gpu.name if gpu else self.name
        return (name, self.free_bytes, self.reserve_bytes, self.pool == self.name)


@dataclass(frozen=True)
class Shortfall:
    """The pool with the least left: negative is missing.

    Attributes:
        row: the row that takes most of the pool.
        left_bytes: of the budget, after all of its rows.
    """

    row: DeviceMemory
    left_bytes: int


@dataclass(frozen=True)
class Machine:
    """The places of a machine and the budgets of its pools.

    Attributes:
        host: main memory.
        devices: the fastest last, where llama.cpp puts the output layer.
        budgets: bytes that a run may take, by pool; a pool that is not here has no known bound.
    """

    host: Place
    devices: tuple[Place, ...] = ()
    budgets: Mapping[str, int] = field(default_factory=dict)

    @property
    def slower(self) -> tuple[Place, ...]:
        """The devices that read more slowly than the host, and are worth its want of memory only.

        Unknown is not slow.
        """
        return tuple(place for place in self.devices if _is_slower(place, self.host))

    def place(self, name: str) -> Place:
        """The place of that name."""
        found = (place for place in self.devices if place.name == name)
        return self.host if name == HOST else next(found)

    def knows(self, name: str) -> bool:
        """Whether there is a place of that name."""
        return any(name == place.name for place in (self.host, *self.devices))

    def ledger(self, rows: Iterable[DeviceMemory]) -> tuple[DeviceMemory, ...]:
        """llama.cpp's rows with what is free at each place, what is reserved and the overhead.

        A device that the run puts nothing on costs nothing and is left out.
        """
        return tuple(
            self._entry(row)
            for row in rows
            if row.device == HOST or row.model_bytes + row.context_bytes + row.compute_bytes
        )

    def _entry(self, row: DeviceMemory) -> DeviceMemory:
        if not self.knows(row.device):
            return row
        place = self.place(row.device)
        told = {line.what: line for line in row.lines}
        lines = [
            told.get(what, LedgerLine(what, n_bytes, "dry-run", because))
            for what, n_bytes, because in (
                ("model", row.model_bytes, "weights"),
                ("context", row.context_bytes, "KV cache and states"),
                ("compute", row.compute_bytes, "buffers of a micro-batch"),
            )
        ]
        return replace(
            row,
            overhead_bytes=place.overhead_bytes,
            free_bytes=place.free_bytes,
            reserve_bytes=place.reserve_bytes,
            lines=(*lines, *place.overhead),
        )

    def left(self, rows: Sequence[DeviceMemory]) -> list[Shortfall]:
        """What every pool, and every bound within one, has left after the run."""
        pools: dict[str, list[DeviceMemory]] = {}
        for row in rows:
            if self.knows(row.device):
                pools.setdefault(self.place(row.device).pool, []).append(row)
        found = [
            Shortfall(
                max(members, key=lambda row: row.total_bytes),
                self.budgets[pool] - sum(row.total_bytes for row in members),
            )
            for pool, members in pools.items()
            if pool in self.budgets
        ]
        # What a unified accelerator may hold of main memory is bounded a second time.
        for row in rows:
            if row.device in self.budgets and row.device not in pools:
                found.append(Shortfall(row, self.budgets[row.device] - row.total_bytes))
        return found

    def tightest(self, rows: Sequence[DeviceMemory]) -> Shortfall | None:
        """The pool with the least left; None when nobody knows what is free anywhere."""
        return min(self.left(rows), key=lambda each: each.left_bytes, default=None)


def survey(
    hardware: Hardware,
    devices: Sequence[Device],
    policy: Policy,
    extra_bytes: Mapping[str, int] | None = None,
) -> Machine:
    """The places of this machine.

    Args:
        hardware: what the probe (or a preset) tells.
        devices: what the engine sees.
        policy: reserves, overheads and the shares of bandwidth that are reached.
        extra_bytes: by place, what a run took beyond its dry run when it was measured;
            replaces the assumed overhead and growth.
    """
    measured = extra_bytes or {}
    host = _host(hardware, policy, measured)
    budgets = _host_budget(hardware, policy)
    places = []
    for device in devices:
        accelerator = match_accelerator(device, hardware.accelerators)
        place = _device(device, accelerator, policy, measured)
        places.append(place)
        if accelerator is not None and accelerator.unified:
            if accelerator.limit_bytes is not None:
                budgets[place.name] = accelerator.limit_bytes - place.reserve_bytes
        elif place.free_bytes is not None:
            budgets[place.name] = place.free_bytes - place.reserve_bytes
    places.sort(key=lambda place: place.bytes_per_second or 0.0)
    return Machine(host, tuple(places), budgets)


def match_accelerator(device: Device, accelerators: Sequence[Accelerator]) -> Accelerator | None:
    """The hardware behind a device of the engine's.

    Precedence: 1. the same PCI address; 2. the vendor and number in the device's name
    (CUDA1: CUDA_DEVICE_ORDER=PCI_BUS_ID numbers as the probe does); 3. the same marketing name;
    4. the only accelerator for the only kind of device. None for a device on another machine.
    """
    if device.name.startswith("RPC"):
        return None
    if device.pci_bus_id is not None:
        address = device.pci_bus_id.lower()
        for gpu in accelerators:
            if gpu.pci_bus_id is not None and gpu.pci_bus_id.lower() == address:
                return gpu
    named = _NAMED.match(device.name)
    vendor = _VENDORS.get(named["backend"]) if named else None
    if named is not None and vendor is not None:
        index = int(named["index"] or 0)
        for gpu in accelerators:
            if gpu.vendor == vendor and gpu.index == index:
                return gpu
    for gpu in accelerators:
        if gpu.name and gpu.name.lower() in device.description.lower():
            return gpu
    return accelerators[0] if len(accelerators) == 1 else None


def _host(hardware: Hardware, policy: Policy, measured: Mapping[str, int]) -> Place:
    cpu, memory = hardware.cpu, hardware.memory
    wide = _multiplies_wide(cpu.features, cpu.architecture)
    n_cores = cpu.n_performance or cpu.n_physical or cpu.n_usable
    n_threads = max(1, min(n_cores, cpu.n_usable))
    per_thread = policy.thread_bytes_per_second if wide else policy.thread_bytes_per_second_plain
    reached = None
    if memory.bandwidth is not None:
        sheet = memory.bandwidth_source == "data-sheet"
        share = policy.host_sheet_share if sheet else policy.host_bandwidth_share
        reached = min(memory.bandwidth * share, n_threads * per_thread)
    reserve = 0
    if memory.available_bytes is not None and memory.free_bytes is not None:
        reserve = memory.free_bytes - max(0, _host_budget(hardware, policy)[_MAIN])
    if HOST in measured:
        line = LedgerLine("engine", measured[HOST], "measured", "beyond the dry run, at its peak")
    else:
        line = LedgerLine("engine", policy.host_overhead_bytes, "assumed", "llama-server itself")
    return Place(
        name=HOST,
        pool=_MAIN,
        free_bytes=memory.free_bytes,
        reserve_bytes=reserve,
        overhead=(line,),
        bytes_per_second=reached,
        flops=n_threads * (policy.thread_flops if wide else policy.thread_flops_plain),
        layer_seconds=policy.host_layer_seconds,
    )


def _host_budget(hardware: Hardware, policy: Policy) -> dict[str, int]:
    memory = hardware.memory
    budgets = []
    if memory.available_bytes is not None:
        budgets.append(memory.available_bytes - policy.host_reserve_bytes)
    if memory.limit_bytes is not None:
        used = memory.limit_used_bytes or 0
        budgets.append(memory.limit_bytes - used - policy.group_reserve_bytes)
    return {_MAIN: min(budgets)} if budgets else {}


def _device(
    device: Device, gpu: Accelerator | None, policy: Policy, measured: Mapping[str, int]
) -> Place:
    unified = gpu is not None and gpu.unified
    free = device.free_bytes
    if gpu is not None and gpu.free_bytes is not None and not unified:
        free = gpu.free_bytes  # the driver's word, without the engine's own context
    reserve = policy.device_reserve_bytes
    if gpu is not None and gpu.display:
        reserve += policy.device_display_bytes
    bandwidth = gpu.bandwidth if gpu is not None else None
    per_byte = policy.unified_flops_per_byte if unified else policy.device_flops_per_byte
    return Place(
        name=device.name,
        pool=_MAIN if unified else device.name,
        free_bytes=free,
        reserve_bytes=reserve,
        overhead=_overhead(device.name, gpu, policy, measured),
        bytes_per_second=None if bandwidth is None else bandwidth * policy.device_bandwidth_share,
        flops=None if bandwidth is None else bandwidth * per_byte,
        layer_seconds=policy.device_layer_seconds,
        accelerator=gpu,
    )


def _overhead(
    name: str, gpu: Accelerator | None, policy: Policy, measured: Mapping[str, int]
) -> tuple[LedgerLine, ...]:
    """What the engine takes on a device beside its buffers.

    Precedence: 1. measured at an earlier load; 2. the policy's assumption for the kind of device.
    A device behind RPC is counted by the machine that it is in.
    """
    if name in measured:
        why = "beyond the dry run, at its peak"
        return (LedgerLine("engine", measured[name], "measured", why),)
    if gpu is None and name.startswith("RPC"):
        return ()
    if gpu is not None and gpu.unified:
        return (
            LedgerLine("engine", policy.unified_overhead_bytes, "assumed", "the driver's context"),
        )
    return (
        LedgerLine("engine", policy.device_overhead_bytes, "assumed", "the driver's context"),
        LedgerLine("growth", policy.device_growth_bytes, "assumed", "at the first long prompt"),
    )


def _multiplies_wide(features: tuple[str, ...] | None, architecture: str | None) -> bool:
    """Whether the kernels for quantized weights have 256 bits or ARM's vectors to work with."""
    if features is None:
        return True
    return "avx2" in features or (architecture == "aarch64" and "neon" in features)


def _is_slower(place: Place, host: Place) -> bool:
    if place.bytes_per_second is None or host.bytes_per_second is None:
        return False
    return place.bytes_per_second < host.bytes_per_second
