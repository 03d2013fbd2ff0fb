"""What processes hold: of main memory real and captured ones, of GPUs as a driver tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pynvml
import pytest

from localllm.measured import ProcessMemory
from localllm.probe import nvidia
from localllm.probe.process import parse_process, process_memory
from tests.probe.fake_nvml import NO_PERMISSION, FakeNvml, Gpu, Refusal

KIB, MIB = 1 << 10, 1 << 20

#: A llama-server with a mapped model, without the lines of no interest here.
STATUS = """\
Name:\tllama-server
VmHWM:\t  868096 kB
VmRSS:\t  868096 kB
RssAnon:\t  435368 kB
RssFile:\t  432724 kB
RssShmem:\t       4 kB
VmSwap:\t     100 kB
Threads:\t10
"""


def mapping(place: str, size: int, rss: int, anonymous: int, swap: int = 0) -> str:
    """One mapping as the kernel prints it, sizes in kB."""
    return (
        f"7efb8de34000-7efb8e634000 {place}\n"
        f"Size:               {size} kB\nKernelPageSize:        4 kB\n"
        f"Rss:                {rss} kB\n"
        f"Anonymous:          {anonymous} kB\nSwap:                  {swap} kB\n"
        "THPeligible:           0\nVmFlags: rd wr mr mw me ac \n"
    )


#: Of its libraries one; the kernel ends the lines of nameless mappings with a space.
SMAPS = "".join(
    [
        mapping("r--p 00000000 fe:00 21     /opt/lib/libllama.so.0", 800, 700, 0),
        mapping("r-xp 000c8000 fe:00 21     /opt/lib/libllama.so.0", 2000, 1500, 0),
        mapping("rw-p 002bc000 fe:00 21     /opt/lib/libllama.so.0", 80, 60, 40),
        mapping("r--s 00000000 fe:00 33     /models/a b.gguf", 420378, 417664, 0),
        mapping("rw-p 00000000 00:00 0                          [heap]", 20000, 18000, 18000),
        mapping("rw-p 00000000 00:00 0 ", 300000, 200000, 200000, swap=100),
        mapping("rw-p 00000000 00:00 0 ", 8192, 44, 44),
        mapping("---p 00000000 00:00 0 ", 65404, 0, 0),
        mapping("r-xp 00000000 00:00 0                          [vdso]", 8, 4, 0),
    ]
)


def test_kinds_of_memory_are_told_apart() -> None:
    program = (700 + 1500 + 20) * KIB
    assert parse_process(STATUS, SMAPS) == ProcessMemory(
        anonymous_bytes=(435368 + 100) * KIB,
        shared_bytes=4 * KIB,
        program_bytes=program,
        mapped_bytes=432724 * KIB - program,
        untouched_bytes=(2000 + 99900) * KIB,
        peak_bytes=868096 * KIB,
    )


@pytest.mark.parametrize(
    ("status", "smaps"),
    [
        pytest.param("Name:\tllama-server\nState:\tZ (zombie)\n", "", id="zombie"),
        pytest.param(STATUS, "", id="without-mappings"),
        pytest.param(STATUS.replace("RssAnon", "Rss"), SMAPS, id="kernel-before-4.5"),
        pytest.param(STATUS.replace("435368 kB", "many kB"), SMAPS, id="not-a-number"),
    ],
)
def test_what_is_missing_makes_it_unknown(status: str, smaps: str) -> None:
    assert parse_process(status, smaps) is None


def test_a_process_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert process_memory(os.getpid(), tmp_path) is None


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

#: Does one thing at a time, and waits to be looked at before and after.
HOLDER = """
import mmap, sys
def look():
    print("look", flush=True)
    sys.stdin.readline()
MIB = 1 << 20
{before}
look()
{act}
look()
"""


Changed: TypeAlias = Callable[..., tuple[ProcessMemory, ProcessMemory]]


@pytest.fixture
def changed_by(tmp_path: Path) -> Changed:
    """Memory of a fresh process before and after a piece of code."""

    def run(act: str, before: str = "") -> tuple[ProcessMemory, ProcessMemory]:
        code = HOLDER.format(before=before, act=act)
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            seen = []
            for _ in "ab":
                assert child.stdout.readline() == "look\n"
                memory = process_memory(child.pid)
                assert memory is not None
                seen.append(memory)
                child.stdin.write("\n")
                child.stdin.flush()
        assert child.returncode == 0
        return seen[0], seen[1]

    return run


#: Arenas, page tables' rounding and per-processor counters of the kernel (status is exact to 64
#: pages per processor and kind).
SLACK = 4 * MIB


@needs_proc
def test_memory_that_was_written_to_is_anonymous(changed_by: Changed) -> None:
    before, after = changed_by("held = bytearray(64 * MIB); held[:] = b'x' * len(held)")
    assert after.anonymous_bytes - before.anonymous_bytes == pytest.approx(64 * MIB, abs=SLACK)
    assert after.peak_bytes - before.peak_bytes >= 64 * MIB
    assert after.untouched_bytes - before.untouched_bytes < SLACK


@needs_proc
def test_memory_that_was_only_asked_for_is_untouched(changed_by: Changed) -> None:
    private = "flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS"
    before, after = changed_by(
        f"held = mmap.mmap(-1, 64 * MIB, {private}); held[:MIB] = b'x' * MIB"
    )
    assert after.untouched_bytes - before.untouched_bytes == pytest.approx(63 * MIB, abs=SLACK)
    assert after.anonymous_bytes - before.anonymous_bytes < SLACK


@needs_proc
def test_a_mapped_file_is_mapped_and_neither_program_nor_anonymous(changed_by: Changed) -> None:
    before, after = changed_by(
        "held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(held[::4096])",
        before="file = open('weights', 'w+b'); file.write(bytes(32 * MIB)); file.flush()",
    )
    assert after.mapped_bytes - before.mapped_bytes == pytest.approx(32 * MIB, abs=SLACK)
    assert after.program_bytes - before.program_bytes < SLACK
    assert after.anonymous_bytes - before.anonymous_bytes < SLACK


@needs_proc
def test_shared_memory_is_shared(changed_by: Changed) -> None:
    before, after = changed_by("held = mmap.mmap(-1, 32 * MIB); held[:] = b'x' * (32 * MIB)")
    assert after.shared_bytes - before.shared_bytes == pytest.approx(32 * MIB, abs=SLACK)


@needs_proc
def test_a_process_that_has_ended_is_unknown() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert process_memory(child.pid) is None


PID = 4242


def gpu(bus: str = "00000000:19:00.0", **answers: Any) -> Gpu:
    return Gpu("NVIDIA H200", f"GPU-{bus}", bus=bus, memory=(143771 * MIB, 9 * MIB), **answers)


def test_what_a_process_holds_on_each_gpu_is_told_by_its_address() -> None:
    nvml = FakeNvml(
        gpu(computing=[(1, 300 * MIB), (PID, 17_000 * MIB)]),
        gpu("00000000:9A:00.0", computing=[(PID, 500 * MIB)]),
        gpu("00000000:BB:00.0", computing=[(1, 300 * MIB)]),
    )
    assert nvidia.process_memory(PID, nvml) == {
        "0000:19:00.0": 17_000 * MIB,
        "0000:9a:00.0": 500 * MIB,
    }
    assert nvml.open == 0, "the driver's session was left open"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"drawing": [(PID, 900 * MIB)]}, id="vulkan"),
        pytest.param(
            {"computing": [(PID, 900 * MIB)], "drawing": [(PID, 900 * MIB)]}, id="both-at-once"
        ),
        pytest.param({"computing": NO_PERMISSION, "drawing": [(PID, 900 * MIB)]}, id="one-refused"),
    ],
)
def test_a_process_counts_once_whatever_it_does(answers: dict[str, Any]) -> None:
    assert nvidia.process_memory(PID, FakeNvml(gpu(**answers))) == {"0000:19:00.0": 900 * MIB}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"computing": [(PID, None)]}, id="wsl-gives-no-number"),
        pytest.param({"computing": NO_PERMISSION, "drawing": NO_PERMISSION}, id="mig-refuses"),
        pytest.param({"computing": [(31337, 900 * MIB)]}, id="a-container-sees-other-ids"),
        pytest.param({"computing": []}, id="nobody-computes"),
    ],
)
def test_a_gpu_that_does_not_tell_is_left_out(answers: dict[str, Any]) -> None:
    other = gpu("00000000:9A:00.0", computing=[(PID, 5 * MIB)])
    told = nvidia.process_memory(PID, FakeNvml(gpu(**answers), other))
    assert told == {"0000:9a:00.0": 5 * MIB}


def test_older_drivers_are_asked_in_their_own_way() -> None:
    nvml = FakeNvml(gpu(computing=[(PID, 7 * MIB)]), has_v3=False)
    assert nvidia.process_memory(PID, nvml) == {"0000:19:00.0": 7 * MIB}


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    lost = Refusal(pynvml.NVML_ERROR_GPU_IS_LOST)
    nvml = FakeNvml(lost, gpu(computing=[(PID, 7 * MIB)]))
    assert nvidia.process_memory(PID, nvml) == {"0000:19:00.0": 7 * MIB}


def test_without_a_driver_nothing_is_told() -> None:
    nvml = FakeNvml(gpu(), init=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    assert nvidia.process_memory(PID, nvml) == {}
