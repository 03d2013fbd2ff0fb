"""Writing that is all or nothing, one process at a time, and still there after a power cut.

Knows files, folders and locks. Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from localllm.errors import DiskError

#: How long one attempt at a lock waits before whoever waits may say so.
_LOCK_SECONDS = 1.0


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a file system says of a write into a DiskError that names the path."""
    try:
        yield
    except OSError as exc:
        raise DiskError(
            f"cannot write {path}: {exc.strerror or exc}",
            "free some space there, or use a folder that you may write to",
        ) from exc


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock of this file; it dies with its process.

    Args:
        path: of the lock file, which is made, with its folders.
        on_wait: called at once and then every second while somebody else holds it. It may raise.

    Raises:
        DiskError: the file cannot be made, or a link stands in its place.
    """
    import filelock  # 30 ms that most commands need not spend

    # Mode and class as in huggingface_hub's WeakFileLock: users of one cache share its locks.
    lock = filelock.FileLock(path, mode=0o664)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds = 0.0
        while not lock.is_locked:
            try:
                lock.acquire(timeout=seconds)
            except filelock.Timeout:
                if on_wait is not None:
                    on_wait()
                seconds = _LOCK_SECONDS
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: Path, raw: bytes, temporary_in: Path) -> None:
    """Writes a file that nobody ever sees half.

    Args:
        path: of the file; its folder exists.
        raw: what it holds then.
        temporary_in: a folder of the same file system where a leftover of a crash does no harm.

    Raises:
        OSError: it cannot be written; then the old one stands.
    """
    with temporary_name(temporary_in) as part:
        with part.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())  # a rename that outlives a power cut must not be of nothing
        os.replace(part, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def temporary_name(folder: Path) -> Iterator[Path]:
    """A name that nobody has, to make something under and then rename; what is left of it goes."""
    path = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last; where a system cannot do that, it does it by itself."""
    if os.name == "nt":  # NTFS journals names, and a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_name(text: str) -> str:
    """A folder's name for any text: readable, and no other text has it, in any case of letters."""
    readable = re.sub(r"[^A-Za-z0-9.]+|\.{2,}", "-", text).strip("-.")[:80]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}--{digest[:32]}"
