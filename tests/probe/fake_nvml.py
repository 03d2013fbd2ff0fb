"""A driver to be probed without one: answers like pynvml, out of values seen on real machines.

It raises pynvml's own error classes, so that a mistake in their names shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass(frozen=True)
class Refusal:
    """In place of an answer: the error that NVML gives."""

    code: int


NOT_SUPPORTED = Refusal(pynvml.NVML_ERROR_NOT_SUPPORTED)
NO_PERMISSION = Refusal(pynvml.NVML_ERROR_NO_PERMISSION)
NOT_FOUND = Refusal(pynvml.NVML_ERROR_NOT_FOUND)


@dataclass
class Gpu:
    """A device's answers, or refusals."""

    name: Any
    uuid: Any
    bus: Any = NOT_SUPPORTED
    memory: Any = NOT_SUPPORTED  # (total, free)
    capability: Any = NOT_SUPPORTED
    width: Any = NOT_SUPPORTED
    clock: Any = NOT_SUPPORTED
    mig: Any = NOT_SUPPORTED  # (current, pending)
    display: Any = 0
    busy: Any = NOT_SUPPORTED  # percent
    slices: list[Any] = field(default_factory=list)
    computing: Any = ()  # (process id, bytes or None) pairs
    drawing: Any = ()


def _answer(value: Any) -> Any:
    if isinstance(value, Refusal):
        raise pynvml.NVMLError(value.code)
    return value


class FakeNvml:
    """The part of the module pynvml that the probe asks."""

    NVML_CLOCK_MEM = pynvml.NVML_CLOCK_MEM
    NVMLError = pynvml.NVMLError
    NVMLError_DriverNotLoaded = pynvml.NVMLError_DriverNotLoaded
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_GpuIsLost = pynvml.NVMLError_GpuIsLost
    NVMLError_LibRmVersionMismatch = pynvml.NVMLError_LibRmVersionMismatch
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_NoData = pynvml.NVMLError_NoData
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported

    def __init__(
        self,
        *gpus: Any,
        driver: str = "550.54.15",
        cuda: int = 12040,
        init: int | None = None,
        has_v3: bool = True,
    ) -> None:
        self.gpus, self.driver, self.cuda, self.init = gpus, driver, cuda, init
        self.has_v3 = has_v3
        self.open = 0

    def nvmlInit(self) -> None:
        if self.init is not None:
            raise pynvml.NVMLError(self.init)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> Any:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return _answer(self.gpus[index])

    def nvmlDeviceGetName(self, handle: Gpu) -> Any:
        return _answer(handle.name)

    def nvmlDeviceGetUUID(self, handle: Gpu) -> Any:
        return _answer(handle.uuid)

    def nvmlDeviceGetPciInfo(self, handle: Gpu) -> Any:
        return SimpleNamespace(busId=_answer(handle.bus))

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> Any:
        total, free = _answer(handle.memory)
        return SimpleNamespace(total=total, free=free, used=total - free)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Gpu) -> Any:
        return _answer(handle.capability)

    def nvmlDeviceGetMemoryBusWidth(self, handle: Gpu) -> Any:
        return _answer(handle.width)

    def nvmlDeviceGetMaxClockInfo(self, handle: Gpu, kind: int) -> Any:
        assert kind == pynvml.NVML_CLOCK_MEM
        return _answer(handle.clock)

    def nvmlDeviceGetMigMode(self, handle: Gpu) -> Any:
        return _answer(handle.mig)

    def nvmlDeviceGetDisplayActive(self, handle: Gpu) -> Any:
        return _answer(handle.display)

    def nvmlDeviceGetUtilizationRates(self, handle: Gpu) -> Any:
        return SimpleNamespace(gpu=_answer(handle.busy), memory=0)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Gpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Gpu, index: int) -> Any:
        return _answer(handle.slices[index] if index < len(handle.slices) else NOT_FOUND)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Gpu) -> Any:
        return self._v3(handle.computing)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: Gpu) -> Any:
        return _processes(handle.computing)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Gpu) -> Any:
        return self._v3(handle.drawing)

    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: Gpu) -> Any:
        return _processes(handle.drawing)

    def _v3(self, pairs: Any) -> Any:
        return _processes(pairs if self.has_v3 else Refusal(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))


def _processes(pairs: Any) -> list[SimpleNamespace]:
    """As pynvml gives them: gpuInstanceId is 2^32 - 1 off MIG."""
    return [
        SimpleNamespace(
            pid=pid, usedGpuMemory=used, gpuInstanceId=0xFFFFFFFF, computeInstanceId=0xFFFFFFFF
        )
        for pid, used in _answer(pairs)
    ]
