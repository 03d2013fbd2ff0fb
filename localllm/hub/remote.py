"""A file behind a URL: where it is now, its ranges, and whether it is still the same one.

Knows what servers and CDNs answer to ranges. Knows nothing of where the bytes go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from localllm.errors import IntegrityError, LocalllmError, NetworkError, NotFoundError
from localllm.hub.address import Credentials, host_of, origin_of
from localllm.hub.patience import TransientError
from localllm.hub.web import Reply, Web, refusal
from localllm.units import MIB, format_bytes

# No more digits than any file needs: int() refuses thousands of them.
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)
#: What a place answers to which we were sent for a while that is over.
_STALE = (401, 403, 404, 410)
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


class ChangedError(IntegrityError):
    """The server has another file than the one that was begun."""


class NoRangesError(NetworkError):
    """The server sends whole files only."""


def total_bytes(reply: Reply) -> int | None:
    """How long the whole file is that this reply, with status 200 or 206, is of; None: unsaid."""
    total: str | None = reply.headers.get("Content-Length", "")
    if reply.status == 206:
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        total = match[3] if match else ""
    return int(total) if total and _LENGTH.fullmatch(total) else None


class RemoteFile:
    """A file behind a URL, read by ranges from any number of threads.

    Where the URL redirects to (a CDN, for a signed while) is kept, and asked for again when it
    does not serve any more.

    Args:
        web: the way there.
        url: the address that stays right.
        name: what a person calls the file.
        credentials: for the URL's origin.
        size_bytes: as its listing says; None where there is none.
        refuse: what a refusal by the URL's own host means.
    """

    def __init__(
        self,
        web: Web,
        url: str,
        name: str,
        *,
        credentials: Credentials | None = None,
        size_bytes: int | None = None,
        refuse: Callable[[Reply, str], LocalllmError] = refusal,
    ) -> None:
        self.web = web
        self.url = url
        self.name = name
        #: What the server calls this very content; None where it was not asked, or does not say.
        self.etag: str | None = None
        self._etag_host = ""
        #: Its content is known by a digest: what ETags say is of no interest.
        self.pinned = False
        self._credentials = credentials
        self._refuse = refuse
        self._is_listed = size_bytes is not None
        self._size = size_bytes
        self._located: str | None = None

    @property
    def size_bytes(self) -> int:
        """How long it is: as listed, or as the server says when first asked.

        Raises:
            As `open`; NetworkError: the server does not say.
        """
        if self._size is None:
            self._size = self.web.persist(self._ask_size)
        return self._size

    def identify(self) -> None:
        """Asks for the ETag, where it is not known; errors as `open`."""
        if self.etag is None:
            self.web.persist(self._ask_size)

    def open(self, start: int, end: int) -> Reply:
        """The bytes from start to end (exclusive), to be read.

        Raises:
            TransientError: worth another attempt; a signed URL that expired is one.
            NoRangesError: the server would send it all, and that is not what was asked for.
            ChangedError: it has another size or ETag than before.
            AccessError, NotFoundError, NetworkError: it is not to be had.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"}
        reply = self._get("GET", headers)
        if reply.status == 206:
            try:
                self._check_range(reply, start, end)
            except BaseException:
                reply.__exit__(None, None, None)
                raise
            return reply
        with reply:
            if reply.status == 200:
                self._check_whole(reply)
                raise NoRangesError(f"{host_of(reply.url)} sends {self.name} only as a whole")
            raise self._refused(reply)

    def open_whole(self) -> Reply:
        """All of it, from a server that knows no ranges; errors as `open`."""
        reply = self._get("GET", {})
        if reply.status == 200:
            try:
                self._check_whole(reply)
            except BaseException:
                reply.__exit__(None, None, None)
                raise
            return reply
        with reply:
            raise self._refused(reply)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """A piece, as a ByteSource gives it: fewer bytes only at the file's end."""
        end = min(offset + n_bytes, self.size_bytes)
        if end <= offset:
            return b""
        return self.web.persist(lambda: self._read_once(offset, end))

    def _read_once(self, start: int, end: int) -> bytes:
        try:
            reply = self.open(start, end)
        except NoRangesError:
            # Only to look at a header: not worth a file of gigabytes, where the piece lies deep.
            if end > self.web.limits.document_bytes:
                raise
            reply, skip = self.open_whole(), start
        else:
            skip = 0
        pieces, n_due = [], end - start + skip
        with reply:
            while n_due > 0:
                piece = reply.read(min(n_due, MIB))
                if not piece:
                    raise TransientError(f"{host_of(reply.url)} sent less of {self.name} than due")
                pieces.append(piece)
                n_due -= len(piece)
        return b"".join(pieces)[skip:]

    def _ask_size(self) -> int:
        reply = self._get("GET", {"Range": "bytes=0-0"})
        with reply:
            if reply.status not in (200, 206):
                raise self._refused(reply)
            self._check_etag(reply)
            total = total_bytes(reply)
        if total is None:
            raise NetworkError(
                f"{host_of(reply.url)} does not say how long {self.name} is",
                "download it with another program and name the file",
            )
        return total

    def _get(self, method: str, headers: Mapping[str, str]) -> Reply:
        kept, credentials = self._located, self._credentials
        try:
            reply = self.web.request(
                method, kept or self.url, headers=headers, credentials=credentials
            )
        except TransientError:
            self._located = None  # the next attempt may be sent elsewhere
            raise
        if kept is not None and reply.status in _STALE:
            reply.__exit__(None, None, None)
            self._located = None
            reply = self.web.request(method, self.url, headers=headers, credentials=credentials)
        if reply.status in (200, 206):
            self._located = reply.url
        return reply

    def _refused(self, reply: Reply) -> LocalllmError:
        """What to make of a refusal; one by a place that we were sent to may be out of date."""
        self._located = None
        if origin_of(reply.url) != origin_of(self.url) and reply.status in _STALE:
            return TransientError(
                f"{host_of(reply.url)} refuses {self.name} ({reply.status}), though"
                f" {host_of(self.url)} sent us there"
            )
        error = self._refuse(reply, self.name)
        if self._is_listed and isinstance(error, NotFoundError):
            return NetworkError(
                f"{host_of(self.url)} lists {self.name}, and does not have it ({reply.status})",
                "try again later; if it stays, tell the owner of the repository",
            )
        return error

    def _check_range(self, reply: Reply, start: int, end: int) -> None:
        self._check_etag(reply)
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        if match is None or match[1] is None or int(match[1]) != start or int(match[2]) >= end:
            raise TransientError(f"{host_of(reply.url)} answers for another range of {self.name}")
        if match[3] != "*" and self._size is not None and int(match[3]) != self._size:
            raise self._other_size(int(match[3]))

    def _check_whole(self, reply: Reply) -> None:
        self._check_etag(reply)
        total = total_bytes(reply)
        if total is not None and self._size is not None and total != self._size:
            raise self._other_size(total)

    def _check_etag(self, reply: Reply) -> None:
        """That the file is still the one that was begun, as far as the same host says so.

        Each host behind a redirect has its own way to make ETags, and where there is a digest it
        proves more.
        """
        if self.pinned:
            return
        host = host_of(reply.url)
        etag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
        if self.etag is None:
            self.etag, self._etag_host = etag, host
        elif etag != self.etag and host == self._etag_host:
            raise ChangedError(
                f"{self.name} changed on {host} while it was read",
                "the same command again gets the new one",
            )

    def _other_size(self, n_bytes: int) -> ChangedError:
        assert self._size is not None
        return ChangedError(
            f"{self.name} is {format_bytes(n_bytes)} ({n_bytes}) long where it is served, and"
            f" {format_bytes(self._size)} ({self._size}) where it is listed",
            "the same command again asks for the listing anew",
        )
