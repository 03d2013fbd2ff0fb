"""Which control-group limits bind a process, on captured trees of both versions."""

from __future__ import annotations

import pytest

from localllm.probe.cgroups import CgroupLimits, read_limits

GIB = 1 << 30
MIB = 1 << 20


@pytest.mark.parametrize(
    ("capture", "memory", "used", "source", "quota", "cpus"),
    [
        pytest.param(
            "docker-v1",
            2 * GIB,
            512 * MIB,  # 1.5 GiB charged, 1 GiB of it page cache
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            1.5,
            set(range(8)),
            id="docker-v1-memory-and-cpus",
        ),
        pytest.param(
            "docker-v2",
            2 * GIB,
            512 * MIB,
            "/sys/fs/cgroup/memory.max",
            1.5,
            set(range(8)),
            id="docker-v2-in-its-own-namespace",
        ),
        pytest.param(
            "systemd-user",
            8 * GIB,
            5 * GIB,  # 7 GiB charged, 2 GiB of it page cache
            "/sys/fs/cgroup/user.slice/user-1000.slice/memory.high",
            4.0,
            set(range(16)),
            id="systemd-soft-limit-at-an-ancestor",
        ),
        pytest.param(
            "kubernetes-v1",
            4 * GIB,
            400 * MIB,
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            2.5,
            set(range(32)),
            id="kubernetes-v1",
        ),
        pytest.param(
            "kubernetes-v2",
            4 * GIB,
            400 * MIB,
            "/sys/fs/cgroup/memory.max",
            2.5,
            set(range(32)),
            id="kubernetes-v2",
        ),
        pytest.param("lxc", None, None, None, None, {2, 3, 4, 5}, id="lxc-cpuset-above-a-service"),
        pytest.param(
            "hybrid",
            3 * GIB,
            724 * MIB,
            "/sys/fs/cgroup/memory/system.slice/runner.service/memory.limit_in_bytes",
            0.5,
            set(range(4)),
            id="hybrid-controllers-on-v1",
        ),
    ],
)
def test_limits_of_captured_machines(machine, capture, memory, used, source, quota, cpus):
    limits = read_limits(machine(f"cgroup/{capture}"))

    assert (limits.memory_bytes, limits.memory_used_bytes) == (memory, used)
    assert limits.memory_source == source
    assert limits.cpu_quota == quota
    assert limits.cpus == cpus
    assert limits.problems == ()


V2 = {
    "proc/meminfo": "MemTotal:       32658148 kB\n",
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "35 25 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
}


def test_a_wide_ancestor_full_of_neighbours_binds_more_than_a_narrow_group_of_ours(machine):
    root = machine(
        files=V2
        | {
            "sys/fs/cgroup/a/memory.max": str(8 * GIB),
            "sys/fs/cgroup/a/memory.current": str(7 * GIB),
            "sys/fs/cgroup/a/b/memory.max": str(4 * GIB),
            "sys/fs/cgroup/a/b/memory.current": str(GIB // 2),
        }
    )

    limits = read_limits(root)

    assert limits.memory_source == "/sys/fs/cgroup/a/memory.max"
    assert (limits.memory_bytes, limits.memory_used_bytes) == (8 * GIB, 7 * GIB)


def test_page_cache_of_neighbours_in_an_ancestor_can_be_reclaimed_too(machine):
    root = machine(
        files=V2
        | {
            "sys/fs/cgroup/a/memory.max": str(8 * GIB),
            "sys/fs/cgroup/a/memory.current": str(7 * GIB),
            "sys/fs/cgroup/a/memory.stat": f"inactive_file {4 * GIB}\nactive_file {2 * GIB}\n",
            "sys/fs/cgroup/a/b/memory.max": str(4 * GIB),
            "sys/fs/cgroup/a/b/memory.current": str(GIB // 2),
        }
    )

    limits = read_limits(root)

    assert limits.memory_source == "/sys/fs/cgroup/a/b/memory.max"


def test_the_least_quota_of_all_ancestors_counts(machine):
    root = machine(
        files=V2
        | {
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
        }
    )

    limits = read_limits(root)

    assert (limits.cpu_quota, limits.cpu_source) == (1.5, "/sys/fs/cgroup/a/cpu.max")


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param("max", id="max"),
        pytest.param("9223372036854771712", id="two-to-the-63"),
        pytest.param(str(64 * GIB), id="more-than-the-machine-has"),
    ],
)
def test_what_cannot_bind_is_no_limit(machine, limit):
    root = machine(files=V2 | {"sys/fs/cgroup/a/b/memory.max": limit})

    assert read_limits(root) == CgroupLimits()


def test_version_1_without_namespace_learns_of_hidden_ancestors_from_its_statistics(machine):
    root = machine("cgroup/docker-v1")
    folder = root / "sys/fs/cgroup/memory"
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    stat = (folder / "memory.stat").read_text()
    stat = stat.replace("memory_limit 2147483648", "memory_limit 1073741824")
    (folder / "memory.stat").write_text(stat)

    limits = read_limits(root)

    assert limits.memory_bytes == GIB
    assert limits.memory_source == "/sys/fs/cgroup/memory/memory.stat"


def test_version_1_parent_that_does_not_count_its_children_does_not_bind_them(machine):
    root = machine("cgroup/hybrid")
    above = root / "sys/fs/cgroup/memory/system.slice"
    (above / "memory.limit_in_bytes").write_text("1073741824\n")
    (above / "memory.use_hierarchy").write_text("0\n")

    assert read_limits(root).memory_bytes == 3 * GIB


@pytest.mark.parametrize(
    ("membership", "mount_root"),
    [
        pytest.param("0::/../sibling", "/", id="entered-a-namespace-from-outside"),
        pytest.param("0::/", "/../../docker/abc", id="host-mount-in-a-namespace"),
        pytest.param("0::/docker/abc", "/", id="host-path-that-is-hidden-here"),
    ],
)
def test_a_group_that_cannot_be_seen_leaves_the_mount_point(machine, membership, mount_root):
    root = machine(
        files={
            "proc/meminfo": "MemTotal:       32658148 kB\n",
            "proc/self/cgroup": membership,
            "proc/self/mountinfo": f"35 25 0:30 {mount_root} /sys/fs/cgroup rw - cgroup2 c rw\n",
            "sys/fs/cgroup/memory.max": str(GIB),
        }
    )

    assert read_limits(root).memory_bytes == GIB


def test_mount_points_with_spaces_are_found(machine):
    root = machine(
        files={
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": r"35 25 0:30 / /mnt/c\040groups rw - cgroup2 c rw",
            "mnt/c groups/memory.max": str(GIB),
        }
    )

    assert read_limits(root).memory_source == "/mnt/c groups/memory.max"


def test_membership_without_a_mounted_file_system_is_told_and_not_taken_for_no_limit(machine):
    root = machine(files={"proc/self/cgroup": "0::/docker/abc\n", "proc/self/mountinfo": ""})

    limits = read_limits(root)

    assert limits.memory_bytes is None
    assert len(limits.problems) == 1
    assert "cannot be read" in limits.problems[0]


def test_a_system_without_control_groups_has_no_limits_and_no_problem(tmp_path):
    assert read_limits(tmp_path) == CgroupLimits()
