"""The verified download: several ranges at once, taken up where it stopped, hashed while it comes.

Knows one file: a RemoteFile, a Part, what is claimed of its digests. Knows nothing of models.

Threads: workers, each with a connection, write the pieces they are given into their places; a
hasher follows behind the last byte up to which everything is here, reading what the page cache
still holds; the caller's thread watches, and adds connections as long as they help. So a download
that is taken up is hashed from its beginning while the rest arrives, and memory stays the same
for files of any size (docs/decisions/0012).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localllm.digests import Algorithm, Claim, Digester
from localllm.errors import DiskError, IntegrityError
from localllm.hub.address import host_of, without_secrets
from localllm.hub.pace import Connections, Pace
from localllm.hub.part import Identity, Part, remove, url_digest
from localllm.hub.patience import Patience, TransientError
from localllm.hub.remote import NoRangesError, RemoteFile
from localllm.hub.web import Reply
from localllm.units import KIB, MIB, format_bytes

#: Read at a time. Of pieces of 512 KiB and more glibc gives each back to the system when it is
#: freed, and every other download takes half as long again (measured; smaller ones cost in Python).
#: Eight connections hold 2 MiB that a killed process loses, beside 4 that are not recorded yet.
_PIECE_BYTES = 256 * KIB
_HASH_BYTES = MIB
#: What one connection is asked for at a time, where there are several. Large enough that asking
#: costs nothing (5 s at 100 Mbit/s), small enough that all of them stay within the page cache.
_SEGMENT_BYTES = 64 * MIB
_LEAST_SEGMENT_BYTES = MIB
_WATCH_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """Where a download stands.

    Attributes:
        done_bytes: of the file that are here.
        size_bytes: of the file.
        hashed_bytes: of those that are digested.
        n_connections: at work.
        trouble: why some of it is being tried again; None while all is well.
    """

    done_bytes: int
    size_bytes: int
    hashed_bytes: int
    n_connections: int
    trouble: str | None = None


@dataclass(frozen=True)
class Downloaded:
    """A file that is whole, synced, and what was claimed of it.

    Attributes:
        digests: of the file.
        proofs: the claims that they met; none where nobody claimed anything.
        fetched_bytes: over the network, in this run.
        kept_bytes: that were here from earlier runs.
    """

    digests: Mapping[Algorithm, str]
    proofs: tuple[Claim, ...]
    fetched_bytes: int
    kept_bytes: int


def download(
    remote: RemoteFile,
    path: Path,
    claims: Sequence[Claim] = (),
    *,
    revision: str = "",
    connections: Connections | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Downloaded:
    """Brings the whole file to the path, which stays a `.part` until its caller names it.

    Whoever calls holds the lock on the path. A digest that is not the claimed one gets a second
    chance from the first byte, over one connection: what was taken up from an earlier run may have
    been damaged, or a proxy on the way.

    Args:
        remote: the file.
        path: the `.part` file.
        claims: what its digests have to be.
        revision: what the file is pinned to.
        connections: how many at once.
        on_progress: called some ten times a second, by the caller's thread.

    Raises:
        IntegrityError: its digest is not the claimed one (what came is thrown away), or the server
            has another file now than the one that was begun.
        NetworkError, AccessError, NotFoundError: the rest is not to be had; the part stays.
        DiskError: the disk is full or fails; the part stays.
        KeyboardInterrupt: likewise.
    """
    limit = connections or Connections()
    size = remote.size_bytes
    best = next((c for c in claims if c.algorithm == "sha256"), next(iter(claims), None))
    # The digest proves the file wherever it comes from; an ETag only says what one server thinks.
    remote.pinned = best is not None
    if not remote.pinned:
        remote.identify()
    identity = Identity(
        url=without_secrets(remote.url),
        url_digest=url_digest(remote.url),
        revision=revision,
        size_bytes=size,
        digest=None if best is None else f"{best.algorithm}:{best.hex}",
        etag=remote.etag,
    )
    fetched = 0
    for chance in (limit, replace(limit, most=1)):
        # Each with a part of its own: a late thread of the first cannot write into the second.
        with Part(path, identity) as part:
            kept = part.have.n_bytes
            run = _Run(remote, part, claims, chance, on_progress)
            digests = run.finish()
        fetched += run.fetched_bytes
        unmet = [claim for claim in claims if digests[claim.algorithm] != claim.hex]
        if not unmet:
            return Downloaded(digests, tuple(claims), fetched, kept)
        remove(path)
        if best not in unmet:
            break  # it is the very file, of which somebody says another thing
    wrong = unmet[0]
    raise IntegrityError(
        f"{remote.name} has the {wrong.algorithm} {digests[wrong.algorithm]}, and"
        f" {wrong.by} says {wrong.hex}",
        "what was downloaded is thrown away. A checksum file may be out of date: --sha256 DIGEST"
        " overrules it"
        if best not in unmet
        else "what was downloaded is thrown away; if this stays, the source is damaged",
    )


@dataclass
class _Segment:
    """What one connection is to bring: from `at`, which moves, to `end`, which may be lowered."""

    at: int
    end: int


class _Run:
    """All threads of one pass over the missing bytes."""

    def __init__(
        self,
        remote: RemoteFile,
        part: Part,
        claims: Sequence[Claim],
        connections: Connections,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._remote = remote
        self._part = part
        self._limits = remote.web.limits
        self._connections = connections
        self._on_progress = on_progress
        self._size = part.identity.size_bytes
        self._digester = Digester([claim.algorithm for claim in claims], self._size)
        self._hashed = 0
        self._lock = threading.Lock()
        self._gaps = part.have.gaps(self._size)  # nobody's yet
        self._segments: list[_Segment] = []  # somebody's
        self._replies: dict[int, Reply] = {}
        self._n_workers = 0
        self._wanted = 1  # workers
        self._allowed = connections.most  # fewer, once some found no way through
        self._is_whole = False  # the server sends whole files only
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._trouble: str | None = None
        self.fetched_bytes = 0

    def finish(self) -> dict[Algorithm, str]:
        """Works until everything is here and hashed; returns the digests."""
        hasher = threading.Thread(target=self._guarded, args=(self._hash,), daemon=True)
        hasher.start()
        try:
            self._watch(hasher)
            self._part.sync()
        finally:
            self._stop()
            hasher.join()
        return self._digester.hexdigests()

    # -- the watcher ---------------------------------------------------------------------------

    def _watch(self, hasher: threading.Thread) -> None:
        pace = Pace(self._connections)
        while hasher.is_alive():
            if self._failure is None and self._has_work():
                self._staff(pace.wanted(self.fetched_bytes, time.monotonic()))
            self._on_progress(self._progress())
            hasher.join(_WATCH_SECONDS)
            if self._failure is not None:
                raise self._failure
        if self._failure is not None:
            raise self._failure
        self._on_progress(self._progress())

    def _has_work(self) -> bool:
        with self._lock:
            return bool(self._gaps or self._segments)

    def _staff(self, wanted: int) -> None:
        """Sees to it that so many workers are there; those too many leave by themselves."""
        with self._lock:
            self._wanted = 1 if self._is_whole else min(wanted, self._allowed)
            n_new = max(0, self._wanted - self._n_workers)
            if n_new and self._n_workers:
                self._share()
            n_new = n_new if self._gaps else 0
            self._n_workers += n_new
        for _ in range(n_new):
            threading.Thread(target=self._guarded, args=(self._work,), daemon=True).start()

    def _share(self) -> None:
        """Takes back from those at work what is far ahead of them; the lock is held."""
        for segment in self._segments:
            if segment.end - segment.at > 2 * _SEGMENT_BYTES:
                self._gaps.append((segment.at + _SEGMENT_BYTES, segment.end))
                segment.end = segment.at + _SEGMENT_BYTES
            elif len(self._segments) == 1 and segment.end - segment.at > 2 * _LEAST_SEGMENT_BYTES:
                middle = (segment.at + segment.end) // 2
                self._gaps.append((middle, segment.end))
                segment.end = middle
        self._gaps.sort()

    def _progress(self) -> Progress:
        with self._lock:
            return Progress(
                self._part.have.n_bytes,
                self._size,
                self._hashed,
                len(self._replies),
                self._trouble,
            )

    def _stop(self) -> None:
        self._stopped.set()
        with self._lock:
            replies = list(self._replies.values())
        for reply in replies:
            reply.abort()
        with self._part.changed:
            self._part.changed.notify_all()

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # handed to the thread that waits
            self._failure = self._failure or error
            with self._part.changed:
                self._part.changed.notify_all()

    # -- the hasher ----------------------------------------------------------------------------

    def _hash(self) -> None:
        buffer = memoryview(bytearray(_HASH_BYTES))
        while self._hashed < self._size:
            with self._part.changed:
                self._part.changed.wait_for(self._may_hash)
                end = self._part.have.frontier
            if self._stopped.is_set() or self._failure is not None:
                return
            n_bytes = self._part.read_into(buffer[: end - self._hashed], self._hashed)
            if not n_bytes:
                raise DiskError(f"{self._part.path} was cut short by another program")
            self._digester.update(buffer[:n_bytes])
            self._hashed += n_bytes

    def _may_hash(self) -> bool:
        ahead = self._part.have.frontier - self._hashed
        # Whole pieces only: a digest of many small ones would cost more than it hides.
        due = min(_HASH_BYTES, self._size - self._hashed)
        return ahead >= due or self._stopped.is_set() or self._failure is not None

    # -- the workers ---------------------------------------------------------------------------

    def _work(self) -> None:
        patience = Patience(self._limits)
        while (segment := self._take()) is not None:
            try:
                self._fetch(segment, patience)
                self._trouble = None
            except NoRangesError:
                self._is_whole = True
            except TransientError as error:
                self._trouble = error.message
                try:
                    self._stopped.wait(patience.pause(error))
                except TransientError:
                    # A server may allow fewer connections than are open; the last one tells.
                    if self._leave(gives_up=True):
                        raise
                    return
            finally:
                self._give_back(segment)
        self._leave()

    def _leave(self, *, gives_up: bool = False) -> bool:
        """Counts this worker out; returns whether no other may go on."""
        with self._lock:
            self._n_workers -= 1
            if gives_up:
                self._allowed = self._n_workers
            return not self._allowed

    def _take(self) -> _Segment | None:
        """The next bytes to fetch; None where there is nothing more to do for this worker."""
        with self._lock:
            if self._stopped.is_set() or self._failure is not None or not self._gaps:
                return None
            if self._n_workers > self._wanted:
                return None
            start, end = self._gaps.pop(0)
            if self._is_whole:  # all that follows comes along anyway
                self._gaps, end = [], self._size
            elif self._wanted > 1:
                n_due = end - start + sum(right - left for left, right in self._gaps)
                share = max(_LEAST_SEGMENT_BYTES, n_due // (2 * self._wanted))
                middle = start + min(_SEGMENT_BYTES, share)
                if middle < end:
                    self._gaps.insert(0, (middle, end))
                    end = middle
            segment = _Segment(start, end)
            self._segments.append(segment)
            return segment

    def _give_back(self, segment: _Segment) -> None:
        with self._lock:
            self._segments.remove(segment)
            if segment.at < segment.end:
                self._gaps.append((segment.at, segment.end))
                self._gaps.sort()

    def _fetch(self, segment: _Segment, patience: Patience) -> None:
        if self._is_whole:
            reply, at = self._remote.open_whole(), 0
        else:
            reply, at = self._remote.open(segment.at, segment.end), segment.at
        me = threading.get_ident()
        with reply:
            with self._lock:
                self._replies[me] = reply
            try:
                self._receive(reply, at, segment, patience)
            finally:
                with self._lock:
                    del self._replies[me]

    def _receive(self, reply: Reply, at: int, segment: _Segment, patience: Patience) -> None:
        """Reads until the segment is here."""
        since, n_since = time.monotonic(), 0
        while segment.at < segment.end and not self._stopped.is_set():
            piece = reply.read(_PIECE_BYTES)
            if self._stopped.is_set():  # what an aborted connection reads may be anything
                return
            if not piece:
                raise TransientError(
                    f"{host_of(reply.url)} ended {self._remote.name} at {format_bytes(at)}",
                    "the same command goes on where it stopped",
                )
            with self._lock:
                # The end may have come nearer; a whole file begins before the segment.
                useful = memoryview(piece)[max(0, segment.at - at) : max(0, segment.end - at)]
                self.fetched_bytes += len(piece)
            at += len(piece)
            if useful:
                self._part.write(segment.at, useful)
                with self._lock:
                    segment.at += len(useful)
            n_since += len(piece)
            seconds = time.monotonic() - since
            # Drips are no progress: a server that only drips is left in the end.
            if useful and n_since >= seconds * self._limits.slow_bytes_per_second:
                patience.progress()
            if seconds >= self._limits.slow_seconds:
                if n_since < seconds * self._limits.slow_bytes_per_second:
                    raise TransientError(f"{host_of(reply.url)} sends next to nothing")
                since, n_since = time.monotonic(), 0
