"""A file under way: its bytes in `NAME.part`, and beside it which of them are here.

Knows one file and its side-car. Knows nothing of where bytes come from.

The side-car is written anew, atomically, at most _RECORD_BYTES behind the bytes, so that a process
that is killed loses no more than that. What the kernel had not yet brought to the disk when the
power went is lost as well, whatever that side-car says. A second one (`.synced`) therefore follows
the syncs, synced itself, and after a restart of the machine it alone counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import DiskError
from localllm.units import MIB, format_bytes

_SCHEMA_VERSION = 1
_RECORD_BYTES = 4 * MIB
#: Synced behind the download's back, in pieces of this size or more.
_SYNC_BYTES = 8 * MIB


@dataclass(frozen=True)
class Identity:
    """What makes two downloads the same file.

    Attributes:
        url: without secrets, for a person who looks into the side-car.
        url_digest: of the whole URL, which may hold secrets.
        revision: the commit, or what stands for one.
        size_bytes: of the file.
        digest: "sha256:…", where somebody claims one; the file is then the same wherever it
            comes from.
        etag: what the server called it, where nobody claims a digest.
    """

    url: str
    url_digest: str
    revision: str
    size_bytes: int
    digest: str | None = None
    etag: str | None = None

    def is_same(self, other: Identity) -> bool:
        """Whether bytes of the one go on the other."""
        if self.size_bytes != other.size_bytes or self.digest != other.digest:
            return False
        if self.digest is not None:
            return True
        return (self.url_digest, self.etag) == (other.url_digest, other.etag) and bool(self.etag)


class Ranges:
    """Which bytes of a file are here, as (start, end) pairs in order, apart from one another."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._pairs: list[tuple[int, int]] = []
        for start, end in pairs:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Puts a piece to the others."""
        if start >= end:
            return
        apart = []
        for left, right in self._pairs:
            if right < start or left > end:
                apart.append((left, right))
            else:
                start, end = min(start, left), max(end, right)
        apart.append((start, end))
        self._pairs = sorted(apart)

    def pairs(self) -> list[tuple[int, int]]:
        """All of them."""
        return list(self._pairs)

    def gaps(self, size_bytes: int) -> list[tuple[int, int]]:
        """What is not here, up to the size."""
        found, at = [], 0
        for start, end in self._pairs:
            if start > at:
                found.append((at, start))
            at = max(at, end)
        if at < size_bytes:
            found.append((at, size_bytes))
        return found

    @property
    def frontier(self) -> int:
        """Up to where everything is here."""
        return self._pairs[0][1] if self._pairs and self._pairs[0][0] == 0 else 0

    @property
    def n_bytes(self) -> int:
        """How much is here."""
        return sum(end - start for start, end in self._pairs)


class Part:
    """An open `.part` file; safe for several threads; use as a context manager.

    On entry it takes up what an earlier run left, where that was of the same file.

    Raises (on entry and on writing):
        DiskError: the disk is full, or fails; what is here stays.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self.have = Ranges()
        self._n_synced = 0
        self._unrecorded = 0
        self._fd = -1
        self._lock = threading.Lock()
        #: Waited on by whoever follows the frontier.
        self.changed = threading.Condition(self._lock)
        self._syncer: threading.Thread | None = None
        self._is_open = False
        self._n_writing = 0
        self._boot = _boot()

    def __enter__(self) -> Part:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        with _disk(self.path):
            self._fd = os.open(self.path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                self._take_up()
                # First the word, then the room: an older word would call the room bytes.
                self._record()
                os.ftruncate(self._fd, self.identity.size_bytes)
            except BaseException:
                os.close(self._fd)
                raise
        self._is_open = True
        self._syncer = threading.Thread(target=self._keep_synced, daemon=True)
        self._syncer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._is_open = False
            self.changed.notify_all()
            # A number that was closed under a writer may be another file's by the time it writes.
            self.changed.wait_for(lambda: not self._n_writing)
        if self._syncer is not None:
            self._syncer.join()
        with contextlib.suppress(DiskError), self._lock:
            self._record()  # a full disk keeps the older side-car: a few MiB are fetched again
        os.close(self._fd)

    @property
    def frontier(self) -> int:
        """Up to where everything is here."""
        with self._lock:
            return self.have.frontier

    def write(self, offset: int, piece: bytes | memoryview) -> None:
        """Puts bytes into their place; does nothing once the part is closed."""
        with self._lock:
            if not self._is_open:
                return
            self._n_writing += 1
        try:
            with _disk(self.path):
                _write_at(self._fd, piece, offset)
            with self._lock:
                self.have.add(offset, offset + len(piece))
                self._unrecorded += len(piece)
                if self._unrecorded >= _RECORD_BYTES:
                    self._record()
        finally:
            with self.changed:
                self._n_writing -= 1
                self.changed.notify_all()

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fills the buffer from the offset on; returns how many bytes that were."""
        with _disk(self.path):
            return _read_at(self._fd, buffer, offset)

    def sync(self) -> None:
        """Waits until all bytes are on the disk."""
        with _disk(self.path):
            os.fsync(self._fd)

    def _take_up(self) -> None:
        """Goes on with what an earlier run left of this file, or begins anew."""
        synced = self._read(synced_side_car(self.path))
        written = self._read(side_car(self.path))
        left = written if written is not None and written.boot == self._boot else synced
        if left is None:
            synced_side_car(self.path).unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            return
        size = min(os.fstat(self._fd).st_size, self.identity.size_bytes)
        self.have = Ranges((max(0, start), min(size, end)) for start, end in left.pairs)
        self._n_synced = Ranges(synced.pairs).n_bytes if synced is not None else 0

    def _read(self, path: Path) -> _Note | None:
        """A side-car of this very file; None for none, another file's, or a damaged one."""
        try:
            told = json.loads(path.read_bytes())
            if told["schema_version"] != _SCHEMA_VERSION:
                return None
            if not self.identity.is_same(Identity(**told["identity"])):
                return None
            return _Note(tuple((int(a), int(b)) for a, b in told["have"]), str(told["boot"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            return None

    def _record(self) -> None:
        """Writes what is here into the side-car; the lock is held, or nobody else is here yet."""
        self._write(side_car(self.path), self.have.pairs())
        self._unrecorded = 0

    def _write(
        self, path: Path, pairs: Sequence[tuple[int, int]], *, is_synced: bool = False
    ) -> None:
        told = {
            "schema_version": _SCHEMA_VERSION,
            "identity": vars(self.identity),
            "have": pairs,
            "boot": self._boot,
        }
        fresh = path.with_name(path.name + ".new")
        with _disk(self.path):
            # Never through a link that somebody planted there.
            fresh.unlink(missing_ok=True)
            with fresh.open("xb", buffering=0) as file:
                file.write(json.dumps(told).encode())
                if is_synced:
                    os.fsync(file.fileno())
            os.replace(fresh, path)

    def _keep_synced(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(self._sync_is_due)
                if not self._is_open:
                    return
                pairs, n_bytes = self.have.pairs(), self.have.n_bytes
            try:
                getattr(os, "fdatasync", os.fsync)(self._fd)
                self._write(synced_side_car(self.path), pairs, is_synced=True)
            except (OSError, DiskError):
                return  # the next write meets the same disk, and says so
            self._n_synced = n_bytes

    def _sync_is_due(self) -> bool:
        return not self._is_open or self.have.n_bytes - self._n_synced >= _SYNC_BYTES


@dataclass(frozen=True)
class _Note:
    """What a side-car says: ranges that are here, and since which start of the machine."""

    pairs: tuple[tuple[int, int], ...]
    boot: str


def side_car(part: Path) -> Path:
    """Where the side-car of a `.part` file is."""
    return part.with_name(part.name + ".json")


def synced_side_car(part: Path) -> Path:
    """Where the one is that tells what a power cut leaves."""
    return part.with_name(part.name + ".json.synced")


def settle(part: Path, final: Path) -> None:
    """Gives a finished file its name, for good: whoever sees the name sees all of the file.

    The side-car stays, and says whose the file is until somebody has taken note of that (`forget`).

    Raises:
        DiskError: the disk fails.
    """
    with _disk(final):
        os.replace(part, final)
        _sync_folder(final.parent)


def forget(part: Path) -> None:
    """Removes the side-cars of a file that is whole."""
    for path in (synced_side_car(part), side_car(part)):
        with contextlib.suppress(OSError):
            path.unlink()


def remove(part: Path) -> None:
    """Removes a `.part` file with its side-cars."""
    forget(part)
    with contextlib.suppress(OSError):
        part.unlink()


def partial_bytes(part: Path) -> int:
    """How much of an unfinished file is here, as its side-car says; 0 where there is none."""
    try:
        return Ranges(map(tuple, json.loads(side_car(part).read_bytes())["have"])).n_bytes
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def url_digest(url: str) -> str:
    """A name for a URL that tells nothing of its secrets."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A disk's errors as ours."""
    try:
        yield
    except OSError as exc:
        folder = path.parent
        # EFBIG: a limit on the size of files (ulimit -f), or FAT32's 4 GiB.
        if exc.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1), errno.EFBIG):
            raise DiskError(
                f"there is no room for {path.name} in {folder}: {exc.strerror}",
                "free some space and give the same command again: it goes on where it stopped",
            ) from exc
        raise DiskError(
            f"cannot write {path.name} in {folder}: {exc.strerror}",
            "what is here stays; the same command goes on",
        ) from exc


def _write_at(fd: int, piece: bytes | memoryview, offset: int) -> None:
    view = memoryview(piece)
    while view:
        n_bytes = _pwrite(fd, view, offset)
        view, offset = view[n_bytes:], offset + n_bytes


if hasattr(os, "preadv"):

    def _pwrite(fd: int, view: memoryview, offset: int) -> int:
        return os.pwrite(fd, view, offset)

    def _read_at(fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

else:  # Windows, and macOS 10: one position for all threads
    _POSITION = threading.Lock()

    def _pwrite(fd: int, view: memoryview, offset: int) -> int:
        with _POSITION:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, view)

    def _read_at(fd: int, buffer: memoryview, offset: int) -> int:
        with _POSITION:
            os.lseek(fd, offset, os.SEEK_SET)
            raw = os.read(fd, len(buffer))
        buffer[: len(raw)] = raw
        return len(raw)


def _sync_folder(folder: Path) -> None:
    """Makes a name last; Windows has no such thing."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _boot() -> str:
    """What changes when the machine starts again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        # Computed from a clock that may be set, and so not the same to the second.
        return str(round(psutil.boot_time() / 60))


def room_missing(folder: Path, n_bytes: int, reserve_bytes: int) -> str | None:
    """A sentence when the disk has not the room for so much more, and None when it has."""
    import shutil

    free = shutil.disk_usage(folder).free
    if n_bytes + reserve_bytes <= free:
        return None
    return (
        f"{format_bytes(n_bytes)} are to be downloaded to {folder} and {format_bytes(free)} are"
        f" free, of which {format_bytes(reserve_bytes)} are to stay so"
    )
