"""Cards of the wanted size: a GPU of which all else is taken away, or a loopback device.

They give a size, say how much of it is used, and know nothing of models. To take memory away is a
program of its own, `python -m benchmarks.gpu.cards BYTES`: its memory is free again once it ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psutil

from localllm.engine.locate import RPC_SERVER, require_tools
from localllm.engine.loopback import loopback_devices
from localllm.plan import Device, DeviceMemory, MemoryOracle, Plan

#: What cuMemAlloc rounds up to.
_GRAIN_BYTES = 2 << 20
_MOST_AT_ONCE_BYTES = 8 << 30


class CardError(Exception):
    """There is no such card to be had, and why."""


class Card(Protocol):
    """A device with a known amount of free memory."""

    @property
    def device(self) -> str:
        """As llama.cpp names it."""
        ...

    @property
    def size_bytes(self) -> int:
        """What was free on it before anything ran."""
        ...

    @property
    def rpc(self) -> tuple[str, ...]:
        """Its endpoint, for a device behind one."""
        ...

    @property
    def idle_bytes(self) -> int:
        """What was used of it then, by its own account."""
        ...

    def used_bytes(self) -> int:
        """What is used of it now, by anybody; differences count."""
        ...

    def is_overfull(self, peak_bytes: int) -> bool:
        """Whether a run that took so much would not have ended well on a real card."""
        ...

    def seen_by(self, oracle: MemoryOracle) -> MemoryOracle:
        """The oracle, with the card's size as the free memory of its device."""
        ...


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU, by NVML."""

    size_bytes: int
    idle_bytes: int
    nvml: Any
    device: str = "CUDA0"
    rpc: tuple[str, ...] = ()

    def used_bytes(self) -> int:
        """By the driver, contexts included."""
        return _nvml_used(self.nvml)

    def is_overfull(self, peak_bytes: int) -> bool:
        """Never: a real card refuses by itself."""
        return False

    def seen_by(self, oracle: MemoryOracle) -> MemoryOracle:
        """As it is: driver and engine tell what is free."""
        return oracle


@dataclass(frozen=True)
class StandIn:
    """A ggml-rpc-server on loopback; its process's memory is the card's."""

    size_bytes: int
    idle_bytes: int
    rpc: tuple[str, ...]
    process: psutil.Process
    device: str = "RPC0"

    def used_bytes(self) -> int:
        """What is resident of the server."""
        return int(self.process.memory_info().rss)

    def is_overfull(self, peak_bytes: int) -> bool:
        """Main memory is larger than the card that it stands for."""
        return peak_bytes > self.size_bytes

    def seen_by(self, oracle: MemoryOracle) -> MemoryOracle:
        """With a device of the card's size."""
        return _OfSize(oracle, self)


@dataclass(frozen=True)
class _OfSize:
    inner: MemoryOracle
    card: StandIn

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """The card."""
        size = self.card.size_bytes
        found = self.inner.devices(rpc)
        return tuple(replace(device, free_bytes=size, total_bytes=size) for device in found)

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """The inner one's answer."""
        return self.inner.memory(plan)


@contextlib.contextmanager
def gpu(size_bytes: int) -> Iterator[Gpu]:
    """The first GPU with so much left free, for as long as the block lasts.

    Raises:
        CardError: there is no GPU, or less than that is free on it.
    """
    import pynvml

    # Number 0 is the same one to NVML and to CUDA, and the only one.
    os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        raise CardError(f"no NVIDIA GPU answers: {exc}") from exc
    ballast = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.cards", str(size_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ballast:  # leaving it closes its standard input, which ends it
        assert ballast.stdout is not None
        line = ballast.stdout.readline()
        if not line.startswith("free "):
            raise CardError(line.strip() or "the ballast ended without a word")
        try:
            yield Gpu(int(line.split()[1]), _nvml_used(pynvml), pynvml)
        finally:
            pynvml.nvmlShutdown()


@contextlib.contextmanager
def stand_in(size_bytes: int) -> Iterator[StandIn]:
    """A loopback device that passes for a card of that size, for as long as the block lasts."""
    # With a threshold of its own glibc gives freed buffers back to the system at once; it would
    # raise its default by and by, and one run's memory would be counted in the next.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
    with loopback_devices(require_tools(RPC_SERVER), 1) as rpc:
        below = psutil.Process().children(recursive=True)
        process = next(child for child in below if child.name() == RPC_SERVER)
        yield StandIn(size_bytes, int(process.memory_info().rss), rpc, process)


def _nvml_used(nvml: Any) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(0)).used)


def take(cuda: Any, leave_bytes: int) -> int:
    """Allocates on the first device until no more than leave_bytes are free; what is free then.

    Args:
        cuda: the driver's library, libcuda.so.1.
        leave_bytes: of the device's memory.

    Raises:
        CardError: the driver refuses, or less than that is free from the start.
    """

    def call(name: str, *arguments: Any) -> None:
        status = getattr(cuda, name)(*arguments)
        if status:
            raise CardError(f"{name} says {status}")  # a CUresult, cuda.h

    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    while True:
        call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        too_much = free.value - leave_bytes
        if too_much < -_GRAIN_BYTES:
            raise CardError(f"only {free.value} bytes are free")
        if too_much < _GRAIN_BYTES:
            return free.value
        piece = min(too_much, _MOST_AT_ONCE_BYTES) // _GRAIN_BYTES * _GRAIN_BYTES
        call("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), ctypes.c_size_t(piece))


def main() -> None:
    try:
        print("free", take(ctypes.CDLL("libcuda.so.1"), int(sys.argv[1])), flush=True)
    except (OSError, CardError) as exc:
        print(exc, flush=True)
        return
    sys.stdin.read()


if __name__ == "__main__":
    main()
