"""Listeners of the test hub: real sockets, HTTP/1.1, a thread for each connection.

Knows how to send a Reply, also when it is to go wrong half way; not what is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback_hub.contents import OnDisk
from tests.loopback_hub.messages import Ending, Reply, Request
from tests.loopback_hub.record import Record

_SEND_BYTES = 2**20
#: A capped connection sends this often: smooth, and little work.
_PACE_SECONDS = 0.02
#: How long a reset waits for the bytes before it to be taken.
_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Manner:
    """How a listener serves.

    Attributes:
        answer: what to reply to a request.
        sent: called when a reply is out, or as much of it as was meant to be.
        cap_bytes_per_second: of each connection, for a reply; None for as fast as it goes.
    """

    answer: Callable[[Request], Reply]
    sent: Callable[[Reply], None]
    cap_bytes_per_second: Callable[[Reply], int | None]


class Listener:
    """A port on loopback that can be closed and opened again under the same number."""

    def __init__(self, host: str, manner: Manner, record: Record) -> None:
        self.manner = manner
        self.record = record
        self.stopping = threading.Event()
        self._host = host
        self._port = 0
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self.open()

    @property
    def endpoint(self) -> str:
        """ "http://127.0.0.1:8080"."""
        return f"http://{self._host}:{self._port}"

    @property
    def max_connections(self) -> int:
        """The most that were open here at the same time."""
        return self.record.peaks[self.endpoint]

    def open(self) -> None:
        """Accepts connections."""
        self.stopping.clear()
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._socket.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection, and refuses new ones."""
        self.stopping.set()
        self._waker.send(b"x")
        self._acceptor.join()
        for opened in (self._socket, self._waker, self._woken):
            opened.close()
        with self._lock:
            connections = dict(self._connections)
        for thread, connection in connections.items():
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._woken], [], [])
            if self._woken in ready:
                return
            connection, _ = self._socket.accept()
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self.record.count_connection(self.endpoint, +1)
            with self._lock:
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # the client has gone
                _Handler(connection, None, self)  # type: ignore[arg-type]
        finally:
            self.record.count_connection(self.endpoint, -1)
            with self._lock:
                del self._connections[threading.current_thread()]


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connection: socket.socket
    server: Listener  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self._due_seconds = 0.0

    def do_GET(self) -> None:
        request = Request(self.command, self.server.endpoint, self.path, self.headers)
        reply = self.server.manner.answer(request)
        self.server.record.answered(request, reply)
        phrase = responses.get(reply.status, "")
        lines = [f"{name}: {_one_line(value)}" for name, value in reply.headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {reply.status} {phrase}", *lines, "", ""])
        self.connection.sendall(head.encode("latin-1", "backslashreplace"))
        if request.method != "HEAD":
            self._send_body(reply)
        self.server.manner.sent(reply)
        self._end(reply.ending)

    do_HEAD = do_GET

    def _send_body(self, reply: Reply) -> None:
        position = reply.start
        stop = reply.stop if reply.sent_bytes is None else reply.start + reply.sent_bytes
        cap = self.server.manner.cap_bytes_per_second(reply)
        with contextlib.ExitStack() as stack:
            file = None
            if isinstance(reply.content, OnDisk):
                file = stack.enter_context(open(reply.content.path, "rb"))
            while position < stop:
                end = min(stop, position + self._next_bytes(reply, cap))
                if self.server.stopping.is_set():
                    return
                # Counted first, or a client could have the bytes before the counter has them.
                self.server.record.count_sent(reply.file, end - position)
                sent = 0
                try:
                    if file is None or (reply.flip is not None and position <= reply.flip < end):
                        sent = self.connection.send(_part(reply, position, end))
                    else:
                        into, out_of = self.connection.fileno(), file.fileno()
                        sent = os.sendfile(into, out_of, position, end - position)
                finally:
                    self.server.record.count_sent(reply.file, position + sent - end)
                position += sent

    def _next_bytes(self, reply: Reply, cap_bytes_per_second: int | None) -> int:
        """How much to send at once; waits until it may be sent."""
        if reply.drip is not None:
            at_once, pause_seconds = reply.drip
            self.server.stopping.wait(pause_seconds)
            return at_once
        if cap_bytes_per_second is None:
            return _SEND_BYTES
        at_once = min(_SEND_BYTES, max(1, int(cap_bytes_per_second * _PACE_SECONDS)))
        # A bucket of one portion: time in which nothing was sent is not made up for.
        now = time.monotonic()
        self._due_seconds = max(self._due_seconds, now - _PACE_SECONDS)
        self._due_seconds += at_once / cap_bytes_per_second
        if self._due_seconds > now:
            self.server.stopping.wait(self._due_seconds - now)
        return at_once

    def _end(self, ending: Ending) -> None:
        self.close_connection = self.close_connection or ending is not Ending.KEEP
        if ending is Ending.STALL:
            while self.connection.recv(4096):  # until one side hangs up
                pass
        if ending is Ending.RESET:
            _drain(self.connection)
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the record tells."""


def _one_line(value: str) -> str:
    """A header's value without control characters: hostile file names come by here."""
    return re.sub(r"[\x00-\x1f]", "?", value)


def _part(reply: Reply, start: int, stop: int) -> bytes:
    part = reply.content.read(start, stop)
    if reply.flip is None or not start <= reply.flip < stop:
        return part
    wrong = bytearray(part)
    wrong[reply.flip - start] ^= 1
    return bytes(wrong)


def _drain(connection: socket.socket) -> None:
    """Waits until the other side's kernel has what was sent: a reset throws away the rest."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        unsent = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
        if int.from_bytes(unsent, "little") == 0:
            return
        time.sleep(0.001)
