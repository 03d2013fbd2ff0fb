"""Clients that cost little: HTTP/1.1 on raw streams, well-behaved or misbehaving on purpose.

Knows HTTP and where server-sent events begin; nothing of models, gateways and what answers mean.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

#: A host (as digits) and its port, or the path of a unix socket.
Address: TypeAlias = "tuple[str, int] | str"

_PIECE_BYTES = 64 << 10
_EVENT = b"\ndata:"
#: close() then throws away what was not sent and resets the connection (socket(7)).
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Leave:
    """When a client goes away, before its answer is whole.

    Attributes:
        after_events: so many were received; 0 is before the answer's first byte.
        wait_seconds: only where after_events is 0: for the server to begin with the request.
        abruptly: the connection is reset (a TCP one; unix sockets know no reset), not closed.
    """

    after_events: int = 0
    wait_seconds: float = 0.05
    abruptly: bool = True


@dataclass(frozen=True)
class Slow:
    """A client that takes what is sent to it slowly.

    Attributes:
        bytes_per_second: that it reads.
        receive_buffer_bytes: of its socket (SO_RCVBUF; Linux doubles it, and has 2304 at least).
    """

    bytes_per_second: float
    receive_buffer_bytes: int = 4096


@dataclass
class Answer:
    """What came back, filled in as it comes.

    Attributes:
        status: 0 while there is none.
        headers: by name in lower case; of a repeated one the last.
        ttft_seconds: from before connecting to the first event, or to the body's first byte where
            it is not a stream of events; None where neither came.
        total_seconds: from before connecting to the end, whatever the end was.
        n_events: `data:` lines; pings are none.
        n_bytes: of the body, without its transfer coding.
        body: it, where it was wanted.
        left: the client went away, as it was told to.
        error: why the answer is not whole, where that was not meant; empty otherwise.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    ttft_seconds: float | None = None
    total_seconds: float = 0.0
    n_events: int = 0
    n_bytes: int = 0
    body: bytes = b""
    left: bool = False
    error: str = ""


async def ask(
    address: Address,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "",
    leave: Leave | None = None,
    slow: Slow | None = None,
    keep_body: bool = False,
    timeout_seconds: float = 120.0,
) -> Answer:
    """One request on a connection of its own. Never raises over what a server does.

    Args:
        address: where the server is.
        path: with the query.
        body: sent as JSON unless the headers say otherwise.
        headers: besides Host, Content-Type and Content-Length.
        method: empty is POST with a body and GET without.
        leave: when to go away; None stays to the end.
        slow: how slowly to read; None reads at once.
        keep_body: in the answer.
        timeout_seconds: for all of it.
    """
    method = method or ("GET" if body is None else "POST")
    request = _request(method, path, body, headers or {})
    visit = _Visit(address, method == "HEAD", leave, slow, keep_body)
    answer = visit.answer
    try:
        await asyncio.wait_for(visit.talk(request), timeout_seconds)
    except asyncio.TimeoutError:  # first: it is an OSError since Python 3.11
        answer.error = f"it was not whole after {timeout_seconds:g} s"
    except (OSError, EOFError, ValueError) as exc:
        answer.error = str(exc) or type(exc).__name__
    answer.total_seconds = time.perf_counter() - visit.started
    return answer


async def run_load(
    n_clients: int,
    make_request: Callable[[int], Awaitable[Answer]],
    *,
    n_requests: float = math.inf,
    seconds: float = math.inf,
    think_seconds: float = 0.0,
) -> list[Answer]:
    """So many clients at the same time, each asking one thing after another.

    Args:
        n_clients: at the same time.
        make_request: from the request's number, 0 for the first, to its answer: a call of `ask`.
        n_requests: of all clients together.
        seconds: after which none begins another request; those that run are waited for.
        think_seconds: that a client waits between an answer and its next request.

    Returns:
        The answers, in the order in which they ended.
    """
    answers: list[Answer] = []
    numbers = itertools.count()
    deadline = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < deadline and (number := next(numbers)) < n_requests:
            answers.append(await make_request(number))
            await asyncio.sleep(think_seconds)

    await asyncio.gather(*(client() for _ in range(n_clients)))
    return answers


def _request(method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    lines = {"Host": "localhost"}
    if body is not None:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


class _Visit:
    """One connection, one request and its answer."""

    def __init__(
        self,
        address: Address,
        head_only: bool,
        leave: Leave | None,
        slow: Slow | None,
        keep_body: bool,
    ) -> None:
        self._address = address
        self._head_only = head_only
        self._leave = leave
        self._slow = slow
        self._keep_body = keep_body
        # What is read ahead of a slow client's wish is bounded by this, too (twice the limit).
        self._piece_bytes = max(1, int(slow.bytes_per_second / 10)) if slow else _PIECE_BYTES
        self.started = time.perf_counter()
        self.answer = Answer()

    async def talk(self, request: bytes) -> None:
        sock = await self._connect()
        self._reader, writer = await asyncio.open_connection(sock=sock, limit=self._piece_bytes)
        try:
            # Not drained: a server may answer before it has read all, and that answer counts.
            writer.write(request)
            if self._leave and not self._leave.after_events:
                await asyncio.sleep(self._leave.wait_seconds)
            else:
                await self._read_body(await self._read_head())
            if self._is_time_to_leave() and self._leave:
                self.answer.left = True
                if self._leave.abruptly:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        finally:
            writer.transport.abort()

    async def _connect(self) -> socket.socket:
        if isinstance(self._address, str):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        sock = socket.socket(family)
        try:
            sock.setblocking(False)
            if self._slow:
                size = self._slow.receive_buffer_bytes
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            if family != socket.AF_UNIX:
                await asyncio.get_running_loop().sock_connect(sock, self._address)
                return sock
            # A unix socket whose queue is full says EAGAIN, which asyncio takes for "under way".
            while (error := sock.connect_ex(self._address)) == errno.EAGAIN:
                await asyncio.sleep(0.001)
            if error:
                raise OSError(error, f"cannot connect: {errno.errorcode[error]}")
            return sock
        except BaseException:
            sock.close()
            raise

    async def _read(self) -> bytes:
        piece = await self._reader.read(self._piece_bytes)
        if self._slow:
            await asyncio.sleep(len(piece) / self._slow.bytes_per_second)
        return piece

    async def _read_head(self) -> bytes:
        """Gives what came of the body with it."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            piece = await self._read()
            if not piece:
                raise EOFError("the connection ended before the answer's headers")
            raw += piece
        head, _, rest = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.answer.status = int(status.partition(" ")[2][:3])
        for line in lines:
            name, _, value = line.partition(":")
            self.answer.headers[name.strip().lower()] = value.strip()
        return rest

    async def _read_body(self, piece: bytes) -> None:
        answer = self.answer
        body = _Body(answer, self._head_only)
        streams = answer.headers.get("content-type", "").startswith("text/event-stream")
        kept: list[bytes] = []
        tail = b"\n"  # an event may begin at the body's first byte, and be cut anywhere
        try:
            while True:
                payload = body.feed(piece)
                if payload:
                    seen = tail + payload
                    tail = seen[1 - len(_EVENT) :]
                    answer.n_events += seen.count(_EVENT)
                    answer.n_bytes += len(payload)
                    if self._keep_body:
                        kept.append(payload)
                    if answer.ttft_seconds is None and (answer.n_events or not streams):
                        answer.ttft_seconds = time.perf_counter() - self.started
                if body.whole or self._is_time_to_leave():
                    return
                piece = await self._read()
                if not piece:
                    if body.until_close:
                        return
                    raise EOFError("the connection ended before the answer did")
        finally:
            answer.body = b"".join(kept)

    def _is_time_to_leave(self) -> bool:
        return self._leave is not None and self.answer.n_events >= self._leave.after_events


class _Body:
    """An answer's body without its transfer coding (RFC 9112, 6.3 and 7.1), cut anywhere."""

    def __init__(self, answer: Answer, head_only: bool) -> None:
        length = answer.headers.get("content-length")
        self._chunked = "chunked" in answer.headers.get("transfer-encoding", "").lower()
        self._n_missing = int(length) if length is not None and not self._chunked else None
        self._rest = b""
        self.until_close = not self._chunked and self._n_missing is None
        self.whole = head_only or answer.status in (204, 304) or self._n_missing == 0

    def feed(self, piece: bytes) -> bytes:
        """What the piece adds to the body."""
        if self._chunked:
            return self._unchunk(self._rest + piece)
        if self._n_missing is not None:
            self._n_missing -= len(piece)
            self.whole = self._n_missing <= 0
        return piece

    def _unchunk(self, raw: bytes) -> bytes:
        payload = []
        at = 0
        while (end := raw.find(b"\r\n", at)) >= 0:
            size = int(raw[at:end].split(b";")[0], 16)
            stop = end + 2 + size
            if len(raw) < stop + 2:
                break
            if not size:  # then trailers, which nobody sends, and an empty line
                self.whole = True
                break
            payload.append(raw[end + 2 : stop])
            at = stop + 2
        self._rest = raw[at:]
        return b"".join(payload)
