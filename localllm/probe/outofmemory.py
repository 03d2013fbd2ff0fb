"""How often the kernel has killed for want of memory: asked before and after a death by SIGKILL.

Knows where kernels count that; whom they killed is not to be had without a look into their log.

Sources: the kernel's admin-guide/cgroup-v2.rst (memory.events), admin-guide/cgroup-v1/memory.rst
(memory.oom_control) and proc_vmstat(5).
"""

from __future__ import annotations

from pathlib import Path

from localllm.probe.cgroups import groups, parse_membership, parse_mounts
from localllm.probe.files import read_text, to_int


def read_kills(root: Path = Path("/")) -> int | None:
    """Processes that were killed so far for want of memory; None where the kernel does not say.

    Precedence: 1. the nearest control group with a count, which is of this process's own group
    whoever set the limit, and whether it was a group's or the machine's memory that ran out;
    2. the whole machine's. Children are in the group of their parent: a count that has risen when
    one of them died of SIGKILL tells why.
    """
    membership = parse_membership(read_text(root / "proc/self/cgroup") or "")
    mounts = parse_mounts(read_text(root / "proc/self/mountinfo") or "")
    above, _ = groups(root, "memory", membership, mounts)
    counts = [
        folder / ("memory.events" if version == 2 else "memory.oom_control")
        for version, folder in above
    ]
    for path in (*counts, root / "proc/vmstat"):
        kills = parse_kills(read_text(path) or "")
        if kills is not None:
            return kills
    return None


# memory.events of version 2, memory.oom_control of version 1, /proc/vmstat:
#   oom 1            oom_kill_disable 0     pgmigrate_success 0
#   oom_kill 1       under_oom 0            oom_kill 1
#   oom_group_kill 0 oom_kill 1             numa_hit 1035
def parse_kills(text: str) -> int | None:
    """The count in one of these files; None where it has none (Linux before 4.13)."""
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return to_int(count)
    return None
