"""Machines that are not here: what --hw and --ram of `plan` put in the place of this one."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from localllm import paths
from localllm.errors import UsageError
from localllm.hardware import Hardware, Memory
from localllm.plan import DeviceMemory, Fit, MemoryOracle, Plan, Reason
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
    """

    preset: Preset | None = None
    ram_bytes: int | None = None

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
        return hardware

    def oracle(self, oracle: MemoryOracle | None) -> MemoryOracle | None:
        """llama.cpp's word for the machine that is meant: this one's devices left out."""
        if self.preset is None or oracle is None:
            return oracle
        return _WithoutDevices(oracle)

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
        for reason in plan.reasons:
            # Nothing of a written-down machine was measured.
            written = self.preset is not None and reason.source == "measured"
            reasons.append(replace(reason, source="profile") if written else reason)
        return replace(plan, reasons=tuple(reasons))


@dataclass(frozen=True)
class _WithoutDevices:
    """The memory oracle of a machine without accelerators, asked on one that may have some."""

    inner: MemoryOracle

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        return self.inner.memory(replace(plan, devices=()))

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        return self.inner.fit(replace(plan, devices=()), reserve_bytes)


def simulation(hw: str | None, ram: str | None) -> Simulation | None:
    """Flags -> the machine that is meant; None for this one as it is.

    Raises:
        NotFoundError: no preset of that name.
        UsageError: a bad preset or size, or a machine with accelerators.
    """
    if hw is None and ram is None:
        return None
    preset = None
    if hw is not None:
        from localllm.presets import load_preset

        preset = load_preset(hw, paths.shipped_profiles_dir(), paths.config_dir())
        if preset.hardware.accelerators:
            names = dict.fromkeys(gpu.name or gpu.vendor for gpu in preset.hardware.accelerators)
            raise UsageError(
                f"{preset.name} has an accelerator ({', '.join(names)}), and this version of"
                " localllm can only plan for machines without one, or for the one it runs on",
                "one without is server-2x-epyc-512gb; all of them: localllm plan --hw list",
            )
    return Simulation(preset, None if ram is None else parse_bytes(ram))


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
