"""The disk where models go: its file system and what is free for a user without privileges.

Knows the nearest folder that exists, and asks that one; makes none.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from localllm.hardware import Disk, Finding
from localllm.probe.cgroups import unescape
from localllm.probe.files import read_text


def probe_disk(path: Path, root: Path = Path("/")) -> tuple[Disk, tuple[Finding, ...]]:
    """The file system that a folder is or would be on."""
    place = nearest_existing(path)
    try:
        # On POSIX `free` is f_bavail: without the blocks that are kept for root.
        usage = shutil.disk_usage(place)
    except OSError as exc:
        message = f"The free space of {place} could not be read: {exc.strerror}."
        return Disk(str(path)), (Finding("warn", "probe.disk", message),)
    mounts = read_text(root / "proc/self/mountinfo")
    resolved = os.path.realpath(place)
    kind = parse_mount_type(mounts, resolved) if mounts else _psutil_type(resolved)
    # `used + free` rather than `total`: what root keeps is nobody's to fill.
    return Disk(str(path), usage.used + usage.free, usage.free, kind), ()


def nearest_existing(path: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next((p for p in (path, *path.parents) if p.exists()), Path(path.anchor))


# /proc/self/mountinfo:
#   27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
#   61 27 0:45 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2
def parse_mount_type(text: str, path: str) -> str | None:
    """The type of the file system that a path (absolute, without links) is on."""
    best: tuple[int, str] | None = None
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = PurePosixPath(unescape(fields[4]))
        # The deepest mount point holds the path; of two at one point the later hides the earlier.
        if PurePosixPath(path).is_relative_to(point) and (not best or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split(" ")[0])
    return best[1] if best else None


def _psutil_type(path: str) -> str | None:
    try:
        import psutil

        partitions = psutil.disk_partitions(all=True)
    except (ImportError, OSError, RuntimeError):
        return None
    holding = [p for p in partitions if Path(path).is_relative_to(p.mountpoint)]
    best = max(holding, key=lambda p: len(p.mountpoint), default=None)
    return best.fstype.lower() or None if best else None
