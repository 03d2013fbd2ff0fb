"""Real control groups with limits, for tests that run something inside them.

Needs the right to make groups below this process's own (root on a machine or in a privileged
container); elsewhere a test that asks for one is skipped, and captured trees must do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.probe.cgroups import parse_membership, parse_mounts

#: Joins the groups, then becomes the command.
_ENTER = """
import os, sys
split = sys.argv.index("--")
for folder in sys.argv[1:split]:
    with open(os.path.join(folder, "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[split + 1:]])
"""


def own_group(controller: str) -> tuple[int, Path] | None:
    """(version, folder) of this process's group where that controller is to be had."""
    try:
        membership = parse_membership(Path("/proc/self/cgroup").read_text())
        mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    except OSError:
        return None
    for mount in mounts:
        if mount.version == 1 and controller in mount.controllers and mount.root == "/":
            return 1, Path(mount.point + membership[controller])
    for mount in mounts:
        folder = Path(mount.point + membership.get("", "/"))
        there = folder / "cgroup.controllers"
        controllers = there.read_text().split() if there.is_file() else []
        if mount.version == 2 and mount.root == "/" and controller in controllers:
            return 2, folder
    return None


@contextlib.contextmanager
def limited_groups(memory_bytes: int, n_processors: float) -> Iterator[list[Path]]:
    """Folders of new groups (memory's first) with these limits, removed afterwards."""
    quota = round(n_processors * 100_000)
    settings = {
        ("memory", 1): [("memory.limit_in_bytes", str(memory_bytes))],
        ("memory", 2): [("memory.max", str(memory_bytes))],
        ("cpu", 1): [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", str(quota))],
        ("cpu", 2): [("cpu.max", f"{quota} 100000")],
    }
    made: list[Path] = []
    try:
        for controller in ("memory", "cpu"):
            group = own_group(controller)
            if group is None:
                pytest.skip(f"no control group file system with the controller {controller}")
            version, parent = group
            folder = parent / f"localllm-test-{os.getpid()}"
            try:
                if version == 2:
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
                if folder not in made:
                    folder.mkdir()
                    made.append(folder)
                for name, value in settings[controller, version]:
                    (folder / name).write_text(value)
            except OSError as exc:
                pytest.skip(f"control groups cannot be made here: {exc}")
        yield made
    finally:
        for folder in made:
            folder.rmdir()


def run_inside(groups: list[Path], *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with these arguments inside the groups."""
    return subprocess.run(
        [sys.executable, "-c", _ENTER, *map(str, groups), "--", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
