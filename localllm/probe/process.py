"""What a process holds of main memory, by kind: /proc/PID/status and /proc/PID/smaps of Linux.

Knows which pages cost a machine their room for good and which can be taken back. What a process
needs them for is not known here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from localllm.measured import ProcessMemory
from localllm.probe.files import read_text
from localllm.units import KIB, MIB

#: A thread's stack is reserved whole (8 MiB by glibc's default) and hardly used: no allocation
#: that somebody is about to fill.
_LARGE_BYTES = 16 * MIB

# 7f21a4000000-7f21a8000000 rw-p 00000000 00:00 0
# 7f3ca8e00000-7f3cc23a1000 r--s 00000000 fe:00 1450277      /models/qwen3-8b-q4_k_m.gguf
_MAPPING = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ (?P<mode>[-rwxsp]{4}) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ (?P<inode>\d+)"
    r"(?: +(?P<path>.+))?$"
)
# Rss:              417664 kB
_FIELD = re.compile(r"^(?P<name>\w+): +(?P<kib>\d+) kB$")


def process_memory(pid: int, root: Path = Path("/")) -> ProcessMemory | None:
    """What the process holds now; None where that cannot be told.

    That is: off Linux, of a process that is gone or another user's, and on kernels without smaps.
    """
    folder = root / "proc" / str(pid)
    try:
        # Not files.read_text: smaps of a process with many libraries may be larger than its bound.
        maps = (folder / "smaps").read_text("utf-8", "replace")
        status = (folder / "status").read_text("utf-8", "replace")
    except OSError:
        return None
    return parse_process(status, maps)


# /proc/PID/status of llama-server, in part:
#   VmHWM:    868096 kB
#   RssAnon:          435368 kB
#   RssFile:          432724 kB
#   RssShmem:              0 kB
#   VmSwap:        0 kB
def parse_process(status: str, smaps: str) -> ProcessMemory | None:
    """The two files of one process; None where one lacks what it should have (a zombie's do)."""
    kib = {}
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            kib[name] = int(words[0])
    if not {"VmHWM", "RssAnon", "RssFile", "RssShmem"} <= kib.keys():
        return None
    pages = _parse_smaps(smaps)
    if pages is None:
        return None
    program_bytes, untouched_bytes = pages
    return ProcessMemory(
        anonymous_bytes=(kib["RssAnon"] + kib.get("VmSwap", 0)) * KIB,
        shared_bytes=kib["RssShmem"] * KIB,
        program_bytes=program_bytes,
        mapped_bytes=max(0, kib["RssFile"] * KIB - program_bytes),
        untouched_bytes=untouched_bytes,
        peak_bytes=kib["VmHWM"] * KIB,
    )


def _parse_smaps(text: str) -> tuple[int, int] | None:
    """(resident file pages of programs, untouched part of large private allocations), bytes.

    A program is a file of which some part is mapped to be executed; its data and its read-only
    parts are mappings of their own.
    """
    resident: dict[str, int] = {}
    programs: set[str] = set()
    untouched = 0
    for mode, path, sizes in _mappings(text):
        rss, anonymous = sizes.get("Rss", 0), sizes.get("Anonymous", 0)
        if path is not None:
            resident[path] = resident.get(path, 0) + rss - anonymous
            if "x" in mode:
                programs.add(path)
        elif mode == "rw-p" and sizes.get("Size", 0) >= _LARGE_BYTES:
            untouched += sizes["Size"] - rss - sizes.get("Swap", 0)
    if not programs:
        return None
    return sum(resident[path] for path in programs), max(0, untouched)


def _mappings(text: str) -> list[tuple[str, str | None, dict[str, int]]]:
    """(mode, path of the file or None, sizes in bytes by name) of each mapping."""
    found: list[tuple[str, str | None, dict[str, int]]] = []
    for line in text.splitlines():
        if match := _FIELD.match(line):
            if found:
                found[-1][2][match["name"]] = int(match["kib"]) * KIB
        # The kernel leaves a space at the end of those without a name.
        elif match := _MAPPING.match(line.rstrip()):
            # Without an inode the name is the kernel's own word: [heap], [stack], [vdso].
            found.append((match["mode"], match["path"] if match["inode"] != "0" else None, {}))
    return found


def resident_bytes(pid: int, root: Path = Path("/")) -> tuple[int, int] | None:
    """(main memory that the process holds now, the most that it ever held), bytes.

    Pages that it shares with others count in full. None where that cannot be told; the peak is of
    this look alone where the system does not keep one.
    """
    text = read_text(root / "proc" / str(pid) / "status")
    kib = {
        name: int(number)
        for name, number in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text or "", re.MULTILINE)
    }
    if "VmRSS" in kib:
        return kib["VmRSS"] * KIB, kib.get("VmHWM", kib["VmRSS"]) * KIB
    if sys.platform == "linux":
        return None
    import psutil

    try:
        now = int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
    return now, now
