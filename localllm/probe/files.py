"""Small kernel files, read whole: /proc and /sys below a root that may be a captured tree.

Knows how to read and to count; what the files mean is for the modules that ask.
"""

from __future__ import annotations

from pathlib import Path

#: Enough for /proc/cpuinfo of a machine with some thousand processors (about 1.5 KB each).
_MOST_BYTES = 8 << 20


def read_text(path: Path) -> str | None:
    """The text of a small file without surrounding white space, None when it cannot be read.

    Many files of /sys exist and answer EINVAL, EIO or ENODATA when read: that is "unknown" too.
    """
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The whole number in a file, decimal or 0x-hexadecimal; None when there is none."""
    return to_int(read_text(path))


def to_int(text: str | None) -> int | None:
    """The whole number that a text spells, decimal or 0x-hexadecimal; None when it is not one."""
    if not text:
        return None
    try:
        return int(text, 16 if text[:2].lower() == "0x" else 10)
    except ValueError:
        return None


def parse_cpu_list(text: str | None) -> frozenset[int] | None:
    """Processor numbers of a kernel list such as "0-3,8,10-11"; None when it is not a list.

    An empty list is None as well: the kernel writes one where a control group inherits.
    """
    numbers: set[int] = set()
    for part in (text or "").replace("\n", ",").split(","):
        if not part.strip():
            continue
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return None
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers) or None


def numbered(folder: Path, prefix: str) -> list[Path]:
    """Entries of a folder named prefix + number ("cpu0", "card1"), in the order of the numbers."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    found = [e for e in entries if e.name.startswith(prefix) and e.name[len(prefix) :].isdecimal()]
    return sorted(found, key=lambda entry: int(entry.name[len(prefix) :]))
