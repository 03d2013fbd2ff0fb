"""Main memory, on captured /proc/meminfo files."""

from __future__ import annotations

import pytest

from localllm.probe.cgroups import CgroupLimits, read_limits
from localllm.probe.memory import parse_meminfo, probe_memory

KIB = 1024


@pytest.mark.parametrize(
    ("capture", "total", "available", "swap_free"),
    [
        pytest.param("linux-6.6", 32658148, 24120408, 8123388, id="kernel-says-available"),
        pytest.param(
            "linux-2.6.32",
            8061372,
            364212 + 5120484 + 556548 - 64240,  # free + cache + reclaimable slabs - shared
            4120912,
            id="old-kernel-without-memavailable",
        ),
    ],
)
def test_meminfo_counts_page_cache_as_available(captured, capture, total, available, swap_free):
    values = parse_meminfo(captured(f"meminfo/{capture}"))

    assert values["total"] == total * KIB
    assert values["available"] == available * KIB
    assert values["swap_free"] == swap_free * KIB


def test_the_control_groups_limit_is_laid_beside_and_bounds_what_is_free(machine, captured):
    root = machine("cgroup/docker-v2", files={"proc/meminfo": captured("meminfo/linux-6.6")})

    memory, findings = probe_memory(root, read_limits(root), os_name="Linux")

    assert memory.total_bytes == 32658148 * KIB
    assert memory.limit_bytes == 2 << 30
    assert memory.limit_source == "/sys/fs/cgroup/memory.max"
    assert memory.free_bytes == (2 << 30) - (512 << 20)
    assert findings == ()


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({}, id="absent"),
        pytest.param({"proc/meminfo": "nonsense\n"}, id="damaged"),
        pytest.param({"proc/meminfo": "MemTotal: 1024 kB\n"}, id="no-available"),
    ],
)
def test_unreadable_meminfo_is_a_finding_and_unknown_not_zero(machine, files):
    memory, findings = probe_memory(machine(files=files), os_name="Linux")

    assert [(f.level, f.code) for f in findings] == [("warn", "probe.memory")]
    assert memory.available_bytes is None
    assert memory.free_bytes is None


def test_a_limit_that_could_not_be_read_is_a_finding(machine, captured):
    root = machine(files={"proc/meminfo": captured("meminfo/linux-6.6")})

    _, findings = probe_memory(root, CgroupLimits(problems=("It is hidden.",)), os_name="Linux")

    assert [(f.code, f.message) for f in findings] == [("probe.cgroup", "It is hidden.")]


def test_elsewhere_psutil_answers():
    memory, findings = probe_memory(os_name="Darwin")

    assert findings == ()
    assert memory.total_bytes is not None
    assert 0 < (memory.available_bytes or 0) <= memory.total_bytes
