"""How often the kernel has killed: on captured trees, and with a real kill in a real group."""

from __future__ import annotations

import json

import pytest

from localllm.probe.outofmemory import parse_kills, read_kills
from tests.control_groups import limited_groups, run_inside

LIMIT = 256 << 20
VMSTAT = "nr_free_pages 5940\noom_kill 7\nnuma_hit 1035\n"
EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("capture", "files", "kills"),
    [
        pytest.param(
            "docker-v2", {"sys/fs/cgroup/memory.events": EVENTS}, 2, id="version-2-container"
        ),
        pytest.param(
            "docker-v1",
            {"sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 4"},
            4,
            id="version-1-container",
        ),
        pytest.param(
            "systemd-user",
            {
                "sys/fs/cgroup/user.slice/memory.events": "oom_kill 9",
                "sys/fs/cgroup/user.slice/user-1000.slice/memory.events": EVENTS,
            },
            2,
            id="the-nearest-group-that-counts",
        ),
        pytest.param(
            "docker-v1",
            {"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0"},
            7,
            id="a-group-of-before-4.13",
        ),
        pytest.param("docker-v2", {}, 7, id="a-group-without-the-controller"),
    ],
)
def test_kills_of_captured_machines(machine, capture, files, kills):
    root = machine(f"cgroup/{capture}", files={"proc/vmstat": VMSTAT, **files})
    assert read_kills(root) == kills


def test_where_no_file_counts_nobody_knows(machine):
    assert read_kills(machine()) is None
    assert read_kills(machine(files={"proc/vmstat": "nr_free_pages 5940\n"})) is None


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("", None),
        ("oom_kill_disable 0\n", None),
        ("oom_group_kill 5\noom_kill 0\n", 0),
        ("oom_kill\n", None),
        ("oom_kill many\n", None),
    ],
)
def test_only_the_count_of_kills_is_read(text, kills):
    assert parse_kills(text) == kills


#: Reads the count, lets two children die of SIGKILL, and tells the counts and how they died.
PARENT = f"""
import json, os, signal, subprocess, sys
from localllm.probe.outofmemory import read_kills
counts, deaths = [read_kills()], []
for code in ("import os; os.kill(os.getpid(), 9)", "bytearray(b'x') * {2 * LIMIT}"):
    deaths.append(subprocess.run([sys.executable, "-c", code]).returncode)
    counts.append(read_kills())
print(json.dumps([counts, deaths]))
"""


def test_a_child_that_the_kernel_killed_is_told_from_one_that_somebody_killed():
    with limited_groups(LIMIT, 2) as groups:
        done = run_inside(groups, "-c", PARENT)
    assert done.returncode == 0, done.stderr
    (before, by_hand, by_kernel), deaths = json.loads(done.stdout)
    if deaths[1] != -9:
        pytest.skip("the system swaps what the group may not have")
    assert deaths == [-9, -9]
    assert before == by_hand
    assert by_kernel == by_hand + 1
