"""Graphics and accelerator functions on the PCI bus, as Linux lists them, driver or no driver.

Knows who made a device and whether it computes; what it can do is for the vendors' modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localllm.probe.files import read_int

NVIDIA = 0x10DE
AMD = 0x1002
INTEL = 0x8086

#: Base classes of the PCI code and ID assignment specification: display controllers, and
#: processing accelerators (AMD Instinct MI300).
_DISPLAY, _ACCELERATOR = 0x03, 0x12

#: Server management chips by vendor: they draw a console and compute nothing. Other makers of
#: such chips (ASPEED 0x1a03, Matrox 0x102b) and of virtual ones make no accelerators at all.
_MANAGEMENT = {AMD: {0x515E, 0x5969}}  # ATI ES1000


@dataclass(frozen=True)
class PciDevice:
    """One function on the bus: address "0000:65:00.0", numbers of vendor and device, its driver."""

    address: str
    vendor: int
    device: int
    driver: str | None = None


def graphics_devices(root: Path, vendor: int) -> tuple[PciDevice, ...]:
    """That vendor's display controllers and accelerators, by address; management chips left out."""
    devices = []
    try:
        folders = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:  # no PCI bus, or not Linux
        return ()
    for folder in folders:
        if read_int(folder / "vendor") != vendor:
            continue
        base_class = (read_int(folder / "class") or 0) >> 16
        device = read_int(folder / "device") or 0
        if base_class in (_DISPLAY, _ACCELERATOR) and device not in _MANAGEMENT.get(vendor, ()):
            driver = folder / "driver"
            name = driver.resolve().name if driver.exists() else None
            devices.append(PciDevice(folder.name, vendor, device, name))
    return tuple(devices)


def normal_address(address: str) -> str:
    """An address as Linux writes it: "00000000:65:00.0" (NVML) -> "0000:65:00.0"."""
    domain, _, rest = address.strip().lower().partition(":")
    try:
        return f"{int(domain, 16):04x}:{rest}"
    except ValueError:
        return address
