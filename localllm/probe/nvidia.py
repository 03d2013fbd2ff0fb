"""NVIDIA GPUs, asked of the driver through NVML (the module pynvml, of nvidia-ml-py).

Knows MIG slices, unified boards, CUDA_VISIBLE_DEVICES and the ways a driver can be missing or out
of step. It never runs nvidia-smi, and does not know what the engine was built for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from localllm.hardware import Accelerator, Finding
from localllm.probe import pci
from localllm.probe.files import read_text

_Answer = TypeVar("_Answer")

#: Boards whose GPU lives in main memory. Most drivers answer NotSupported to the memory question
#: on them, which is the rule here; some answer with main memory's size, hence the names.
_UNIFIED_NAME = re.compile(r"\b(GB10|Thor|Orin|Xavier|Tegra)\b")

_DRIVER_FIX = "install NVIDIA's driver (https://www.nvidia.com/drivers), then restart"
_CONTAINER_FIX = "start the container with --gpus all (it needs the NVIDIA Container Toolkit)"
_WSL_FOLDER = "usr/lib/wsl/lib"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def probe_nvidia(
    root: Path = Path("/"),
    nvml: Any = None,
    container: str | None = None,
    wsl: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[tuple[Accelerator, ...], tuple[Finding, ...]]:
    """NVIDIA's GPUs and MIG slices in PCI order, and what keeps them from being used.

    Those that CUDA_VISIBLE_DEVICES hides are left out, and the others numbered as CUDA then does.

    Args:
        root: where /proc and /sys are.
        nvml: the module to ask; None imports pynvml.
        container: the kind of container around us, which decides the advice.
        wsl: 1 or 2 inside WSL, whose driver comes from Windows.
        environment: for CUDA_VISIBLE_DEVICES, which a batch system sets to what a job may use.
    """
    devices = pci.graphics_devices(root, pci.NVIDIA)
    if nvml is None:
        try:
            import pynvml
        except ImportError as exc:
            message = f"NVIDIA GPUs cannot be asked: {exc}."
            fix = "pip install nvidia-ml-py"
            return (), (Finding("warn", "probe.nvml", message, fix),) if devices else ()
        nvml = pynvml
    try:
        with _session(nvml):
            gpus, findings = _read_all(nvml)
    except nvml.NVMLError as exc:
        board = _tegra(root)
        if board is not None:
            return (board,), ()
        return (), _why_not(nvml, exc, root, devices, container, wsl)
    shown = environment.get(_VISIBLE)
    if shown is None:
        return gpus, findings
    visible = _visible(gpus, shown)
    if len(visible) < len(gpus):
        message = f"{_VISIBLE}={shown} hides {len(gpus) - len(visible)} of {len(gpus)} NVIDIA GPUs."
        findings = (*findings, Finding("ok", "probe.nvidia-hidden", message))
    return visible, findings


def _visible(gpus: tuple[Accelerator, ...], shown: str) -> tuple[Accelerator, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order: "1,0", "GPU-8a7f3f5e,MIG-...".

    As CUDA reads it: a number counts the boards, here in PCI order; a UUID may be cut short where
    that leaves it clear; and the first entry that is neither ends the list.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars
    """
    boards: dict[object, list[Accelerator]] = {}  # a board in slices is several GPUs
    for gpu in gpus:
        boards.setdefault(gpu.pci_bus_id or gpu.index, []).append(gpu)
    found: list[Accelerator] = []
    for entry in (part.strip() for part in shown.split(",")):
        if re.fullmatch("[0-9]{1,4}", entry):
            named = dict(enumerate(boards.values())).get(int(entry), [])
        elif entry.startswith(("GPU-", "MIG-")):
            named = [gpu for gpu in gpus if (gpu.uuid or "").startswith(entry)]
            named = named if len(named) == 1 else []
        else:
            named = []
        if not named:
            break
        found += named
    return tuple(replace(gpu, index=i) for i, gpu in enumerate(dict.fromkeys(found)))


def process_memory(pid: int, nvml: Any = None) -> dict[str, int]:
    """Bytes that a process holds on each GPU, by PCI address; see memory_by_process."""
    return memory_by_process(nvml).get(pid, {})


def memory_by_process(nvml: Any = None) -> dict[int, dict[str, int]]:
    """Bytes that each process holds on each GPU, by its id and by PCI address ("0000:65:00.0").

    What a GPU does not tell is left out: WSL and Windows give no number, MIG none to an ordinary
    user, and in a container the driver knows processes by the host's ids. What a context takes is
    in the number. Never raises.

    Args:
        nvml: the module to ask; None imports pynvml.
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return {}
        nvml = pynvml
    used: dict[int, dict[str, int]] = {}
    with suppress(nvml.NVMLError), _session(nvml):
        for number in range(nvml.nvmlDeviceGetCount()):
            with suppress(nvml.NVMLError):
                device = _Device(nvml, nvml.nvmlDeviceGetHandleByIndex(number), "")
                address = device.bus()
                if address is not None:
                    for pid, n_bytes in device.used_by_processes().items():
                        used.setdefault(pid, {})[address] = n_bytes
    return used


@dataclass(frozen=True)
class Utilization:
    """One GPU or MIG slice now; None is what its driver does not tell.

    Attributes:
        name: as the driver says it.
        utilization: share of the time, of the last second or less, in which it computed: 0 to 1.
        used_bytes: by anybody, the driver's own share included. total_bytes: of its memory.
    """

    name: str
    utilization: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


def utilization(nvml: Any = None) -> list[Utilization]:
    """How busy NVIDIA's GPUs are, in the driver's order; empty where there is none.

    A MIG slice has memory of its own and no utilization, a unified board no memory of its own.
    Takes milliseconds, more where no process keeps the driver awake. Never raises.

    Args:
        nvml: the module to ask; None imports pynvml.
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return []
        nvml = pynvml
    found = []
    with suppress(nvml.NVMLError), _session(nvml):
        for number in range(nvml.nvmlDeviceGetCount()):
            with suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                device = _Device(nvml, handle, "")
                gpu = device.read()
                percent = device.ask("use", lambda h: nvml.nvmlDeviceGetUtilizationRates(h).gpu)
                for part in _slices(nvml, handle, gpu)[0] if gpu.mig else [gpu]:
                    found.append(
                        Utilization(
                            part.name or "NVIDIA GPU",
                            None if gpu.mig or percent is None else percent / 100,
                            _used(part),
                            part.total_bytes,
                        )
                    )
    return found


def _used(gpu: Accelerator) -> int | None:
    if gpu.total_bytes is None or gpu.free_bytes is None:
        return None
    return gpu.total_bytes - gpu.free_bytes


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _why_not(
    nvml: Any,
    exc: Exception,
    root: Path,
    devices: tuple[pci.PciDevice, ...],
    container: str | None,
    wsl: int | None,
) -> tuple[Finding, ...]:
    """The finding for a driver that did not start; none where no NVIDIA device is known of."""
    if isinstance(exc, nvml.NVMLError_LibRmVersionMismatch):
        message = (
            "NVIDIA's driver library and the loaded kernel module are of different versions, "
            "as after an update without a restart."
        )
        return (Finding("warn", "probe.nvidia-mismatch", message, "sudo reboot"),)
    absent = (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded)
    if not isinstance(exc, absent):
        return (Finding("warn", "probe.nvml", f"NVIDIA's driver did not start: {exc}."),)
    if wsl == 2 and (root / "dev/dxg").exists() and not _wsl_cuda(root):
        message = f"This WSL has no libcuda.so in /{_WSL_FOLDER}: an NVIDIA GPU cannot be used."
        fix = "install NVIDIA's driver in Windows (none in WSL), then run: wsl --shutdown"
        return (Finding("warn", "probe.wsl-libcuda", message, fix),)
    if not devices:
        return ()
    names = ", ".join(f"[10de:{d.device:04x}] at {d.address}" for d in devices)
    if isinstance(exc, nvml.NVMLError_DriverNotLoaded):
        message = f"NVIDIA's kernel module is not loaded for {names}."
        return (Finding("warn", "probe.nvidia-driver", message, "sudo modprobe nvidia"),)
    message = f"There is an NVIDIA GPU, {names}, but libnvidia-ml.so.1 was not found: no driver."
    fix = _CONTAINER_FIX if container else _DRIVER_FIX
    return (Finding("warn", "probe.nvidia-driver", message, fix),)


def _wsl_cuda(root: Path) -> bool:
    return any((root / _WSL_FOLDER / name).exists() for name in ("libcuda.so.1", "libcuda.so"))


def _tegra(root: Path) -> Accelerator | None:
    r"""A Jetson whose driver has no NVML (JetPack 6 and older), by its device tree.

    /proc/device-tree/compatible: "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0"
    """
    compatible = read_text(root / "proc/device-tree/compatible") or ""
    if "nvidia,tegra" not in compatible:
        return None
    name = (read_text(root / "proc/device-tree/model") or "").strip("\0 ") or None
    return Accelerator("nvidia", 0, name=name, unified=True)


def _read_all(nvml: Any) -> tuple[tuple[Accelerator, ...], tuple[Finding, ...]]:
    found: list[Accelerator] = []
    findings: list[Finding] = []
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
        except nvml.NVMLError as exc:
            message = f"NVIDIA GPU {number} does not answer: {exc}."
            fix = "sudo reboot" if isinstance(exc, nvml.NVMLError_GpuIsLost) else None
            findings.append(Finding("warn", "probe.nvml", message, fix))
            continue
        device = _Device(nvml, handle, f"NVIDIA GPU {number}")
        parent = device.read()
        findings += device.findings()
        if parent.mig:
            slices, slice_findings = _slices(nvml, handle, parent)
            found += slices
            findings += slice_findings
        else:
            found.append(parent)
    found.sort(key=lambda gpu: gpu.pci_bus_id or "")  # stable: slices stay in their order
    return tuple(replace(gpu, index=i) for i, gpu in enumerate(found)), tuple(findings)


def _slices(nvml: Any, handle: Any, parent: Accelerator) -> tuple[list[Accelerator], list[Finding]]:
    """A GPU's MIG devices; the GPU itself cannot be computed on while MIG is on."""
    slices: list[Accelerator] = []
    findings: list[Finding] = []
    whole = _Device(nvml, handle, f"{parent.name} ({parent.pci_bus_id})")
    places = whole.ask("MIG devices", nvml.nvmlDeviceGetMaxMigDeviceCount) or 0
    findings += whole.findings()
    for number in range(places):
        try:
            slice_handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError_NotFound:
            continue  # a free place
        except nvml.NVMLError as exc:
            message = f"MIG device {number} of {parent.name} does not answer: {exc}."
            findings.append(Finding("warn", "probe.nvml", message))
            continue
        device = _Device(nvml, slice_handle, f"MIG device {number} of {parent.name}")
        total, free, _ = device.memory()
        slices.append(
            replace(
                parent,
                name=device.text("name", nvml.nvmlDeviceGetName) or parent.name,
                uuid=device.text("UUID", nvml.nvmlDeviceGetUUID),
                total_bytes=total,
                free_bytes=free,
                unified=False,
                bandwidth=None,  # a share of the parent's that NVML does not tell
            )
        )
        findings += device.findings()
    if not slices and not findings:
        message = f"MIG is on for {parent.name} ({parent.pci_bus_id}) and it has no MIG device."
        fix = f"sudo nvidia-smi -i {parent.pci_bus_id} -mig 0"
        findings.append(Finding("warn", "probe.nvidia-mig", message, fix))
    return slices, findings


class _Device:
    """Questions to one handle, remembering those that failed for another reason than "no"."""

    def __init__(self, nvml: Any, handle: Any, label: str) -> None:
        self._nvml, self._handle, self._label = nvml, handle, label
        self._failed: list[str] = []

    def ask(self, what: str, question: Callable[[Any], _Answer]) -> _Answer | None:
        """The answer, or None; a plain "not supported" is an answer and no failure."""
        nvml = self._nvml
        nothing = (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound)
        try:
            return question(self._handle)
        except (*nothing, nvml.NVMLError_NoData):
            return None
        except nvml.NVMLError as exc:
            self._failed.append(f"{what} ({exc})")
            return None

    def text(self, what: str, question: Callable[[Any], Any]) -> str | None:
        answer = self.ask(what, question)
        if isinstance(answer, bytes):  # pynvml before 11.5
            answer = answer.decode("utf-8", "replace")
        return str(answer) if answer else None

    def memory(self) -> tuple[int | None, int | None, bool]:
        """(total, free, whether the question is not supported)."""
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except nvml.NVMLError_NotSupported:
            return None, None, True
        except nvml.NVMLError as exc:
            self._failed.append(f"memory ({exc})")
            return None, None, False
        if not memory.total:  # seen on unified boards with other drivers: success, and zeros
            return None, None, True
        return int(memory.total), int(memory.free), False

    def bus(self) -> str | None:
        """The PCI address as Linux writes it."""
        bus = self.ask("PCI address", lambda h: self._nvml.nvmlDeviceGetPciInfo(h).busId)
        return pci.normal_address(_decoded(bus)) if bus else None

    def used_by_processes(self) -> dict[int, int]:
        """Bytes that processes hold, by their ids; those of whom that is not told are left out.

        CUDA is in the list of computing processes, Vulkan in that of drawing ones, and a process
        that does both in both, each time with all that it holds.
        """
        nvml = self._nvml
        told: dict[int, int] = {}
        for newer, older in (
            ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
            (
                "nvmlDeviceGetGraphicsRunningProcesses_v3",
                "nvmlDeviceGetGraphicsRunningProcesses_v2",
            ),
        ):
            processes = self.ask("processes", getattr(nvml, newer))
            if processes is None:  # older drivers do not have the newer one
                processes = self.ask("processes", getattr(nvml, older))
            for process in processes or ():
                if process.usedGpuMemory:  # pynvml turns NVML's "not available" into None
                    before = told.get(process.pid, 0)
                    told[process.pid] = max(before, int(process.usedGpuMemory))
        return told

    def read(self) -> Accelerator:
        """The whole device."""
        nvml = self._nvml
        name = self.text("name", nvml.nvmlDeviceGetName)
        bus = self.bus()
        mig = self.ask("MIG mode", lambda h: nvml.nvmlDeviceGetMigMode(h)[0])
        # A GPU cut into slices refuses its own memory question with NoPermission: no failure.
        total, free, unsupported = (None, None, False) if mig == 1 else self.memory()
        unified = unsupported or bool(_UNIFIED_NAME.search(name or ""))
        capability = self.ask("compute capability", nvml.nvmlDeviceGetCudaComputeCapability)
        width = self.ask("memory bus width", nvml.nvmlDeviceGetMemoryBusWidth)
        clock = self.ask(
            "memory clock", lambda h: nvml.nvmlDeviceGetMaxClockInfo(h, nvml.NVML_CLOCK_MEM)
        )
        display = self.ask("display", nvml.nvmlDeviceGetDisplayActive)
        return Accelerator(
            vendor="nvidia",
            index=0,
            name=name,
            uuid=self.text("UUID", nvml.nvmlDeviceGetUUID),
            pci_bus_id=bus,
            total_bytes=None if unified else total,
            free_bytes=None if unified else free,
            unified=unified,
            compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
            driver=self.text("driver version", lambda _: nvml.nvmlSystemGetDriverVersion()),
            runtime=cuda_version(
                self.ask("CUDA version", lambda _: nvml.nvmlSystemGetCudaDriverVersion_v2())
            ),
            bandwidth=memory_bandwidth(width, clock),
            mig=None if mig is None else mig == 1,
            display=None if display is None else display == 1,
        )

    def findings(self) -> list[Finding]:
        if not self._failed:
            return []
        message = f"{self._label} did not answer for: {', '.join(self._failed)}."
        return [Finding("warn", "probe.nvml", message)]


def cuda_version(number: int | None) -> str | None:
    """CUDA's version number as people write it: 12040 -> "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def memory_bandwidth(bus_width_bits: int | None, clock_mhz: int | None) -> float | None:
    """Bytes per second of a memory bus; every kind that NVML reports moves data twice a clock.

    An RTX 3060 says 192 bits and 7501 MHz: 360 GB/s, as on its data sheet.
    """
    if not bus_width_bits or not clock_mhz:
        return None
    return bus_width_bits / 8 * clock_mhz * 1e6 * 2


def _decoded(text: Any) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text or "")
