"""What the control groups above this process allow: memory, processor time, processors.

Knows versions 1 and 2 and both at once, and takes the root of a file tree, so that a captured one
can be read. Does not know what the machine itself has (memory.py, cpu.py).

Sources: cgroups(7), proc_pid_mountinfo(5), and the kernel's admin-guide/cgroup-v2.rst and
admin-guide/cgroup-v1/{memory,cpusets}.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localllm.probe.files import parse_cpu_list, read_int, read_text


@dataclass(frozen=True)
class CgroupLimits:
    """What all control groups above this process allow together; None where they set no bound.

    Attributes:
        memory_bytes: the limit of the group that has the least room left (a wide group full of
            neighbours can leave less than a narrow one of our own).
        memory_used_bytes: what is charged to that group, its page cache taken off, since the
            kernel drops that before it refuses memory; None when unknown.
        memory_source: the file that sets the limit.
        cpu_quota: processors' worth of time, the least of all ancestors.
        cpu_source: the file that sets the quota.
        cpus: the processors of the cpuset.
        problems: why a limit may exist and could not be read, one sentence each.
    """

    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_source: str | None = None
    cpu_quota: float | None = None
    cpu_source: str | None = None
    cpus: frozenset[int] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A mounted cgroup hierarchy: the part of it at `root` is to be seen at `point`."""

    version: int
    root: str
    point: str
    controllers: frozenset[str]


@dataclass(frozen=True)
class _Room:
    """One memory limit and what is left of it."""

    limit: int
    used: int | None
    source: str

    @property
    def left(self) -> int:
        return self.limit - (self.used or 0)


def read_limits(root: Path = Path("/")) -> CgroupLimits:
    """The limits that bind this process, from `proc/self` and the mounted hierarchies below root.

    No cgroup file at all (macOS, Windows, a kernel without them) is no limit and no problem.
    """
    membership = parse_membership(read_text(root / "proc/self/cgroup") or "")
    mounts = parse_mounts(read_text(root / "proc/self/mountinfo") or "")
    memory, memory_problem = groups(root, "memory", membership, mounts)
    cpu, _ = groups(root, "cpu", membership, mounts)
    cpuset, _ = groups(root, "cpuset", membership, mounts)
    total = _total_memory(root)
    rooms = [room for room in _memory_rooms(root, memory) if total is None or room.limit <= total]
    tightest = min(rooms, key=lambda room: (room.left, room.limit), default=None)
    quota = min(_quotas(root, cpu), default=None)
    return CgroupLimits(
        memory_bytes=tightest.limit if tightest else None,
        memory_used_bytes=tightest.used if tightest else None,
        memory_source=tightest.source if tightest else None,
        cpu_quota=quota[0] if quota else None,
        cpu_source=quota[1] if quota else None,
        cpus=_cpus(cpuset),
        problems=(memory_problem,) if memory_problem else (),
    )


# /proc/self/cgroup of a process in a docker container on a version 1 host, and on a version 2 one
# that has a namespace of its own:
#   9:memory:/docker/0c14c85ae7f4b1b3ff...
#   4:cpu,cpuacct:/docker/0c14c85ae7f4b1b3ff...
#   0::/
def parse_membership(text: str) -> dict[str, str]:
    """Controller -> path of this process's group; the unified (version 2) path is under ""."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            paths.update(dict.fromkeys(fields[1].split(","), fields[2]))
    return paths


# /proc/self/mountinfo, version 1 in a container and version 2:
#   33 25 0:31 /docker/0c14c8 /sys/fs/cgroup/memory ro,nosuid master:13 - cgroup cgroup rw,memory
#   35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate
def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The cgroup mounts of a mountinfo file, in its order."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        if tail[0] in ("cgroup", "cgroup2"):
            version = 2 if tail[0] == "cgroup2" else 1
            controllers = frozenset(tail[2].split(",")) if version == 1 else frozenset[str]()
            mounts.append(Mount(version, unescape(fields[3]), unescape(fields[4]), controllers))
    return tuple(mounts)


def unescape(field: str) -> str:
    """A field of mountinfo, which writes white space and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def groups(
    root: Path, controller: str, membership: dict[str, str], mounts: Iterable[Mount]
) -> tuple[list[tuple[int, Path]], str | None]:
    """This process's groups that may bound a controller: (version, folder), leaf first.

    A controller is in one hierarchy only, but both are walked: where it is not, its files are
    not either. The second value says why nothing could be walked although there are groups.
    """
    found: list[tuple[int, Path]] = []
    named = False
    for version, key in ((1, controller), (2, "")):
        path = membership.get(key)
        if path is None:
            continue
        named = True
        hierarchy = [m for m in mounts if m.version == version]
        if version == 1:
            hierarchy = [m for m in hierarchy if controller in m.controllers]
        for mount in hierarchy:
            folders = _ancestry(root, mount, path)
            if folders:
                found += [(version, folder) for folder in folders]
                break
    if named and not found:
        return [], (
            f"A {controller} limit may bind this process and cannot be read: /proc/self/cgroup "
            "names a control group, and no cgroup file system that shows it is mounted."
        )
    return found, None


def _ancestry(root: Path, mount: Mount, path: str) -> list[Path]:
    """The folders from this process's group up to the mount point, leaf first.

    What lies above the mount's own root cannot be seen from here. A path outside of that root
    ("/.." of a cgroup namespace entered from elsewhere, a docker path inside a container that
    hides it) leaves the mount point itself, which bounds whatever is below it.
    """
    point = root / mount.point.lstrip("/")
    inside: PurePosixPath | None = None
    if ".." not in PurePosixPath(path).parts and ".." not in PurePosixPath(mount.root).parts:
        try:
            inside = PurePosixPath(path).relative_to(mount.root)
        except ValueError:
            inside = None
    if inside is None or not (point / inside).is_dir():
        inside = PurePosixPath()
    if not point.is_dir():
        return []
    folders = [point / inside, *(point / parent for parent in inside.parents)]
    return list(dict.fromkeys(folders))


def _memory_rooms(root: Path, groups: Iterable[tuple[int, Path]]) -> Iterator[_Room]:
    leaf = True
    for version, folder in groups:
        if version == 2:
            # memory.high does not refuse memory, it slows its user down to a crawl (cgroup-v2.rst:
            # "throttled and put under heavy reclaim pressure"): a model must stay below it as well.
            for name in ("memory.max", "memory.high"):
                limit = read_int(folder / name)  # "max" is no number, hence None
                if limit is not None:
                    yield _Room(
                        limit, _used(folder, "memory.current", ""), _seen(root, folder, name)
                    )
            continue
        # Before Linux 5.11 a version 1 group could be set not to count its children.
        counts_children = leaf or read_text(folder / "memory.use_hierarchy") != "0"
        limit = read_int(folder / "memory.limit_in_bytes")  # none is about 2^63, above any total
        if limit is not None and counts_children:
            used = _used(folder, "memory.usage_in_bytes", "total_")
            yield _Room(limit, used, _seen(root, folder, "memory.limit_in_bytes"))
        # Ancestors that a container cannot see are summed up in its own memory.stat.
        above = _statistics(folder).get("hierarchical_memory_limit") if leaf else None
        if above is not None and (limit is None or above < limit):
            used = _used(folder, "memory.usage_in_bytes", "total_")
            yield _Room(above, used, _seen(root, folder, "memory.stat"))
        leaf = False


def _used(folder: Path, usage_file: str, prefix: str) -> int | None:
    """What is charged to a group, without the page cache that can be dropped.

    Only file pages on the two LRU lists: locked ones (`unevictable`) and tmpfs (`shmem`, counted
    as anonymous there) stay. Version 1 counts the children in the `total_` lines alone.
    """
    usage = read_int(folder / usage_file)
    if usage is None:
        return None
    statistics = _statistics(folder)
    names = (prefix + "inactive_file", prefix + "active_file")
    return max(0, usage - sum(statistics.get(name, 0) for name in names))


# memory.stat, version 2 (a line of version 1 may begin with total_):
#   anon 6291456
#   file 104857600
#   inactive_file 73400320
#   active_file 31457280
def _statistics(folder: Path) -> dict[str, int]:
    text = read_text(folder / "memory.stat") or ""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _quotas(root: Path, groups: Iterable[tuple[int, Path]]) -> Iterator[tuple[float, str]]:
    for version, folder in groups:
        if version == 2:
            # "250000 100000", or "max 100000" without a quota
            quota, _, period = (read_text(folder / "cpu.max") or "").partition(" ")
            name = "cpu.max"
        else:
            quota = read_text(folder / "cpu.cfs_quota_us") or ""  # -1 without a quota
            period = read_text(folder / "cpu.cfs_period_us") or ""
            name = "cpu.cfs_quota_us"
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period), _seen(root, folder, name)


def _cpus(groups: Iterable[tuple[int, Path]]) -> frozenset[int] | None:
    # "effective" is already cut down to what the ancestors allow, so the first that answers, from
    # the leaf up, is the one; a group of version 2 lacks the file where the controller is not on.
    for version, folder in groups:
        version_1 = ("cpuset.effective_cpus", "cpuset.cpus")
        for name in ("cpuset.cpus.effective",) if version == 2 else version_1:
            cpus = parse_cpu_list(read_text(folder / name))
            if cpus:
                return cpus
    return None


def _seen(root: Path, folder: Path, name: str) -> str:
    """The file's path as a process inside that root sees it, for the reader."""
    return "/" + (folder / name).relative_to(root).as_posix()


def _total_memory(root: Path) -> int | None:
    match = re.search(
        r"^MemTotal:\s+(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE
    )
    return int(match[1]) * 1024 if match else None
