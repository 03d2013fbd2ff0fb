"""AMD and Intel GPUs, as Linux shows them under /sys: no driver library is asked.

Knows the files of amdgpu, i915 and xe and of AMD's compute driver (kfd), below a root that may be
a captured tree. Names from the PCI list are not carried: where the driver gives no name, the
numbers stand for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from localllm.hardware import Accelerator, Finding, Memory
from localllm.probe import pci
from localllm.probe.files import numbered, read_int, read_text, to_int

#: GPU targets that are part of a processor and live in main memory (LLVM's AMDGPUUsage, table
#: "AMDGPU Processors", rows marked APU; MI300A, gfx942 as well, has memory of its own).
_APU_TARGETS = frozenset(
    {
        "gfx902",
        "gfx909",
        "gfx90c",
        "gfx1013",
        "gfx1033",
        "gfx1035",
        "gfx1036",
        "gfx1037",
        "gfx1103",
        "gfx1150",
        "gfx1151",
        "gfx1152",
        "gfx1153",
    }
)


def probe_sysfs_gpus(
    root: Path = Path("/"), memory: Memory | None = None
) -> tuple[tuple[Accelerator, ...], tuple[Finding, ...]]:
    """AMD's and Intel's GPUs by address, each vendor numbered from 0.

    Args:
        root: where /sys is.
        memory: main memory; what a GPU without memory of its own has free cannot be more.
    """
    found: list[Accelerator] = []
    findings: list[Finding] = []
    cards = _cards(root)
    targets = _kfd_targets(root)
    for vendor in (pci.AMD, pci.INTEL):
        for device in pci.graphics_devices(root, vendor):
            card = cards.get(device.address)
            if vendor == pci.AMD:
                gpu, finding = _amd(root, device, card, targets.get(device.address), memory)
            else:
                gpu, finding = _intel(root, device, card)
            found += [gpu] if gpu else []
            findings += [finding] if finding else []
    numbers = {"amd": 0, "intel": 0}
    for place, gpu in enumerate(found):
        found[place] = replace(gpu, index=numbers[gpu.vendor])
        numbers[gpu.vendor] += 1
    return tuple(found), tuple(findings)


def _cards(root: Path) -> dict[str, Path]:
    """PCI address -> /sys/class/drm/cardN, for the cards that a graphics driver made."""
    return {
        (card / "device").resolve().name: card
        for card in numbered(root / "sys/class/drm", "card")
        if (card / "device").exists()
    }


def _device_folder(root: Path, device: pci.PciDevice) -> Path:
    return root / "sys/bus/pci/devices" / device.address


def _amd(
    root: Path,
    device: pci.PciDevice,
    card: Path | None,
    target: str | None,
    memory: Memory | None,
) -> tuple[Accelerator | None, Finding | None]:
    folder = _device_folder(root, device)
    name = _name(folder, "AMD", device)
    vram = read_int(folder / "mem_info_vram_total")
    if vram is None:
        # The older driver "radeon", vfio for a virtual machine, or none: nothing computes on it.
        driver = f"driven by {device.driver}" if device.driver else "without a driver"
        message = f"{name} at {device.address} is {driver}: it can be used only with amdgpu."
        return None, Finding("warn", "probe.amd-driver", message, "sudo modprobe amdgpu")
    vram_used = read_int(folder / "mem_info_vram_used")
    gtt = read_int(folder / "mem_info_gtt_total")
    gtt_used = read_int(folder / "mem_info_gtt_used")
    unified = is_apu(target, _first_voltage(folder), vram)
    total, free = vram, None if vram_used is None else vram - vram_used
    if unified and gtt is not None:
        # What firmware set aside plus what the driver may map of main memory besides. A mapping
        # is only as good as the memory behind it.
        total += gtt
        room = None if gtt_used is None else gtt - gtt_used
        main = memory.free_bytes if memory else None
        room = room if main is None or room is None else min(room, main)
        free = None if free is None or room is None else free + room
    unique = read_text(folder / "unique_id")
    return Accelerator(
        vendor="amd",
        index=0,
        name=name,
        uuid=f"GPU-{unique}" if unique and to_int("0x" + unique) else None,
        pci_bus_id=device.address,
        total_bytes=total,
        free_bytes=free,
        unified=unified,
        compute_capability=target,
        driver=read_text(root / "sys/module/amdgpu/version"),  # only AMD's own packages have one
        display=_draws(card),
    ), None


def is_apu(target: str | None, first_voltage: str | None, vram_bytes: int) -> bool:
    """Whether an AMD GPU lives in main memory.

    1. Its compute target, where the compute driver tells it.
    2. Its first voltage sensor: only APUs have "vddnb", the north bridge (docs.kernel.org,
       gpu/amdgpu/thermal.html).
    3. A carve-out of 1 GiB or less: cards with so little are older than amdgpu.
    """
    if target is not None:
        return target in _APU_TARGETS
    return first_voltage == "vddnb" or vram_bytes <= 1 << 30


def _first_voltage(folder: Path) -> str | None:
    labels = (read_text(label) for label in sorted(folder.glob("hwmon/hwmon*/in1_label")))
    return next((label for label in labels if label), None)


def _kfd_targets(root: Path) -> dict[str, str]:
    """PCI address -> "gfx1100", from the compute driver's topology; CPU nodes left out."""
    targets = {}
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for node in numbered(nodes, ""):
        properties = parse_kfd_properties(read_text(node / "properties") or "")
        target = gfx_target(properties.get("gfx_target_version", 0))
        if target:
            # location_id packs bus, device and function as PCI does: 0x0300 is 03:00.0.
            where = properties.get("location_id", 0)
            address = (
                f"{properties.get('domain', 0):04x}:{where >> 8 & 0xFF:02x}"
                f":{where >> 3 & 0x1F:02x}.{where & 7}"
            )
            targets[address] = target
    return targets


# /sys/class/kfd/kfd/topology/nodes/1/properties of a Radeon RX 7900 XTX, a part:
#   simd_count 192
#   gfx_target_version 110000
#   vendor_id 4098
#   location_id 768
#   domain 0
def parse_kfd_properties(text: str) -> dict[str, int]:
    """The numbers of a kfd node by name."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def gfx_target(version: int) -> str | None:
    """AMD's target name: two decimal digits each of minor and stepping, written as hexadecimal.

    110000 -> "gfx1100", 90010 -> "gfx90a", 110501 -> "gfx1151"; 0 (a CPU) -> None.
    """
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}" if major else None


def _intel(
    root: Path, device: pci.PciDevice, card: Path | None
) -> tuple[Accelerator | None, Finding | None]:
    folder = _device_folder(root, device)
    name = _name(folder, "Intel", device)
    if card is None:
        message = f"{name} at {device.address} has no graphics driver (i915 or xe) bound to it."
        return None, Finding("warn", "probe.intel-driver", message)
    gpu = Accelerator(
        vendor="intel", index=0, name=name, pci_bus_id=device.address, display=_draws(card)
    )
    # Intel's integrated GPUs are device 2 on the root bus, of every generation; a card is behind
    # a bridge, on a bus of its own.
    if device.address == "0000:00:02.0":
        return replace(gpu, unified=True), None
    # xe counts each tile's memory, some builds of i915 the card's; plain i915 shows none.
    tiles = [read_int(tile / "physical_vram_size_bytes") for tile in numbered(folder, "tile")]
    total = sum(size for size in tiles if size) or read_int(card / "lmem_total_bytes")
    if total:
        return replace(gpu, total_bytes=total), None
    message = f"The driver of {name} at {device.address} does not show its memory's size."
    return gpu, Finding("warn", "probe.intel-memory", message)


def _name(folder: Path, vendor: str, device: pci.PciDevice) -> str:
    # product_name exists with amdgpu and is empty but on server cards (docs.kernel.org,
    # gpu/amdgpu/driver-misc.html).
    return read_text(folder / "product_name") or (
        f"{vendor} GPU [{device.vendor:04x}:{device.device:04x}]"
    )


def _draws(card: Path | None) -> bool | None:
    """Whether a connector of the card shows a picture (cardN-HDMI-A-1/enabled)."""
    if card is None:
        return None
    states = [read_text(c / "enabled") for c in card.parent.glob(f"{card.name}-*")]
    return "enabled" in states
