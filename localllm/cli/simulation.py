"""Machines that are not here: --hw, --ram and --vram of `plan` put one in the place of this."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from localllm import paths
from localllm.errors import UsageError
from localllm.hardware import Accelerator, Hardware, Memory, Vendor
from localllm.plan import Device, DeviceMemory, LedgerLine, MemoryOracle, Plan, Reason
from localllm.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from localllm.presets import Preset

#: What --hw takes instead of a name, to show the names.
LISTING = ("list", "help")


@dataclass(frozen=True)
class Simulation:
    """A machine to plan for instead of this one.

    Attributes:
        preset: the whole machine; None leaves this one.
        ram_bytes: so much main memory, all of it free; None leaves what the machine has.
        vram_bytes: so much memory of each accelerator, all of it free; likewise.
    """

    preset: Preset | None = None
    ram_bytes: int | None = None
    vram_bytes: int | None = None

    def hardware(self, probed: Hardware | None) -> Hardware:
        """The machine to plan for.

        Args:
            probed: this machine; None where a preset stands for it.
        """
        hardware = self.preset.hardware if self.preset else probed
        if hardware is None:
            raise ValueError("neither a preset nor this machine")
        if self.ram_bytes is not None:
            # A limit of the container around us says nothing about the machine that is meant.
            memory = Memory(total_bytes=self.ram_bytes, available_bytes=self.ram_bytes)
            known = hardware.memory
            hardware = replace(
                hardware,
                memory=replace(
                    memory, bandwidth=known.bandwidth, bandwidth_source=known.bandwidth_source
                ),
            )
        if self.vram_bytes is not None:
            hardware = replace(hardware, accelerators=tuple(self._with_vram(hardware.accelerators)))
        return hardware

    def _with_vram(self, accelerators: Sequence[Accelerator]) -> Iterator[Accelerator]:
        own = [gpu for gpu in accelerators if not gpu.unified]
        if not own:
            what = "shares main memory with its accelerator" if accelerators else "has none"
            raise UsageError(
                f"--vram is the memory of an accelerator of its own, and this machine {what}",
                "--ram sets main memory; --hw desktop-rtx3060-12gb plans for a machine with one",
            )
        for gpu in accelerators:
            size = self.vram_bytes
            yield gpu if gpu.unified else replace(gpu, total_bytes=size, free_bytes=size)

    @property
    def accelerators(self) -> tuple[Accelerator, ...]:
        """Those of the machine that is meant, where a preset stands for it."""
        return self.preset.hardware.accelerators if self.preset else ()

    def told(self, plan: Plan) -> Plan:
        """The plan, saying first of all that the machine is not this one."""
        reasons: list[Reason] = []
        if self.preset is not None:
            because = (
                f"simulated: {self.preset.title}; what the run takes is llama.cpp's answer on this"
                " machine, whose processor may keep weights in another form"
            )
            reasons.append(Reason("hardware", self.preset.name, because, "flag"))
        if self.ram_bytes is not None:
            because = "simulated: so much main memory, all of it free"
            reasons.append(Reason("ram_bytes", self.ram_bytes, because, "flag"))
        if self.vram_bytes is not None:
            because = "simulated: so much memory of each accelerator, all of it free"
            reasons.append(Reason("vram_bytes", self.vram_bytes, because, "flag"))
        for reason in plan.reasons:
            # Nothing of a written-down machine was measured.
            written = self.preset is not None and reason.source == "measured"
            reasons.append(replace(reason, source="profile") if written else reason)
        return replace(plan, reasons=tuple(reasons))


@dataclass(frozen=True)
class StandIns:
    """The memory oracle of a machine that is not here: other devices stand in for its own.

    Weights and context are placed by llama.cpp itself, to the byte. Compute buffers are those of
    the stand-ins, which split a graph elsewhere than a GPU would: approximate.

    Attributes:
        inner: llama.cpp on this machine.
        hardware: the machine that is meant.
        endpoints: of the stand-ins, one for each of its accelerators.
    """

    inner: MemoryOracle
    hardware: Hardware
    endpoints: tuple[str, ...] = ()

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """The accelerators, named as the engine for them would."""
        if rpc:
            raise UsageError("devices of other machines cannot be part of a simulated one")
        found = []
        for name, gpu in zip(self._names, self.hardware.accelerators, strict=True):
            memory = self.hardware.memory
            free = memory.free_bytes if gpu.unified else gpu.free_bytes
            total = memory.total_bytes if gpu.unified else gpu.total_bytes
            found.append(Device(name, gpu.name or "", free, total))
        return tuple(found)

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """The stand-ins' rows under the accelerators' names."""
        stand_in = {name: f"RPC{at}" for at, name in enumerate(self._names)}
        own = {other: name for name, other in stand_in.items()}
        devices = tuple(stand_in[name] for name in plan.devices or ())
        rows = self.inner.memory(replace(plan, devices=devices, rpc=self.endpoints))
        return tuple(
            replace(
                row,
                device=own[row.device],
                lines=(LedgerLine("compute", row.compute_bytes, "assumed", _APPROXIMATE),),
            )
            if row.device in own
            else row
            for row in rows
        )

    @property
    def _names(self) -> list[str]:
        """What llama.cpp's backend for each accelerator's vendor calls it."""
        return [f"{_BACKENDS[gpu.vendor]}{gpu.index}" for gpu in self.hardware.accelerators]


_BACKENDS: dict[Vendor, str] = {"nvidia": "CUDA", "amd": "ROCm", "apple": "MTL", "intel": "SYCL"}
_APPROXIMATE = "approximate: another device stands in for this one"


def simulation(hw: str | None, ram: str | None, vram: str | None = None) -> Simulation | None:
    """Flags -> the machine that is meant; None for this one as it is.

    Raises:
        NotFoundError: no preset of that name.
        UsageError: a bad preset or size.
    """
    if hw is None and ram is None and vram is None:
        return None
    preset = None
    if hw is not None:
        from localllm.presets import load_preset

        preset = load_preset(hw, paths.shipped_profiles_dir(), paths.config_dir())
    return Simulation(
        preset,
        None if ram is None else parse_bytes(ram),
        None if vram is None else parse_bytes(vram),
    )


def print_presets(*, as_json: bool) -> None:
    """Every preset, a line each."""
    from localllm.cli.render import console, print_json
    from localllm.presets import load_preset, preset_files

    folders = (paths.shipped_profiles_dir(), paths.config_dir())
    presets = [load_preset(name, *folders) for name in preset_files(*folders)]
    if as_json:
        print_json({"schema_version": 1, "presets": [_row(preset) for preset in presets]})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("preset", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("machine")
    for preset in presets:
        hardware = preset.hardware
        table.add_row(preset.name, format_bytes(hardware.memory.total_bytes), preset.title)
    console(sys.stdout).print(table)


def _row(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "title": preset.title,
        "hardware": preset.hardware.to_json(),
        "sources": dict(preset.sources),
    }
