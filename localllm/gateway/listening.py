"""Sockets and connections: where the gateway listens, how many may come, and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from localllm.errors import LocalllmError, UsageError
from localllm.gateway.binding import explain_bind_failure, url_of
from localllm.gateway.settings import Settings

#: A person's cookie jar or a long query are a few KiB; llama-server allows 8 KiB for each line.
_LINE_BYTES = 16384
_FIELD_BYTES = 16384
_MOST_HEADERS = 100
#: How long what is left of a refused body is read, so that its client sees the answer.
_LINGER_SECONDS = 2.0
_BACKLOG = 1024
#: Of one connection, that the system may hold beyond what is on its way.
_UNSENT_BYTES = 65536
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\n\r\n"
)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server(web.Server):
    """aiohttp's low-level server, for so many connections and no more.

    The low-level one, because there is nothing to route: all paths are llama-server's.

    Args:
        handler: answers a request; it is cancelled when its client leaves.
        settings: head_seconds and max_connections.
    """

    def __init__(self, handler: Handler, settings: Settings) -> None:
        quiet = logging.getLogger("localllm.http")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False  # what clients send wrong is theirs to hear, in a 400
        super().__init__(
            handler,
            handler_cancellation=True,
            # This bounds the time for a head as well: it runs until a request is complete.
            keepalive_timeout=settings.head_seconds or 3600.0,
            lingering_time=_LINGER_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_FIELD_BYTES,
            max_headers=_MOST_HEADERS,
            auto_decompress=False,
            access_log=None,
            logger=quiet,
        )
        self._most = settings.max_connections

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]
        """The protocol of a new connection."""
        return super().__call__() if len(self.connections) < self._most else _Full()


class _Full(asyncio.Protocol):
    """Tells one client too many to come again."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FULL)
        transport.close()


async def listen(server: Server, settings: Settings) -> tuple[asyncio.AbstractServer, str]:
    """Begins to accept connections; the listener, and the URL for clients on this machine.

    Raises:
        UsageError: the host is no address of this machine, or the certificate is not one.
        AccessError: the port is not for this user. LocalllmError: it is taken.
    """
    loop = asyncio.get_running_loop()
    tls = tls_context(settings.tls_cert, settings.tls_key)
    host, port = settings.host, settings.port
    if host.endswith(".sock"):
        return await _listen_on_path(server, host), url_of(host, port, tls=False)
    try:
        hosts = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise explain_bind_failure(host, port, exc) from exc
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in hosts))
    if port == 0:  # each address would get a port of its own
        addresses = addresses[:1]
    try:
        listener = await loop.create_server(
            server, addresses, port, ssl=tls, backlog=_BACKLOG, reuse_address=True
        )
    except OSError as exc:
        raise explain_bind_failure(host, port, exc) from exc
    for of_address in listener.sockets:
        _bound_unsent(of_address)
    bound = listener.sockets[0].getsockname()[1]
    return listener, url_of(host, bound, tls=tls is not None)


def _bound_unsent(listener: socket.socket) -> None:
    """What clients do not take stays with us, and not with the system, which would hold megabytes.

    Without it a client that reads steadily, but slowly, seems to take nothing: the system asks for
    more only when a third of all that is free again (measured: 4 MB for each slow reader, and
    200 KB/s taken for a standstill of 2 s). Connections inherit it.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, _UNSENT_BYTES)


async def _listen_on_path(server: Server, path: str) -> asyncio.AbstractServer:
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
        raise LocalllmError(f"another server listens on {path}")
    try:
        return await asyncio.get_running_loop().create_unix_server(server, path, backlog=_BACKLOG)
    except OSError as exc:
        # Python tells of a path that is too long without the system, hence without strerror.
        raise LocalllmError(f"cannot listen on {path}: {exc.strerror or exc}") from exc


def close(listener: asyncio.AbstractServer) -> None:
    """Accepts no more connections; the path of a unix socket goes. A second time does nothing."""
    assert isinstance(listener, asyncio.Server)
    for sock in listener.sockets:
        path = sock.getsockname()
        if isinstance(path, str):  # of others it is a host and a port
            # First, since once it is closed another server may take the path.
            with contextlib.suppress(OSError):
                os.unlink(path)
    listener.close()


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The server's TLS, or None without a certificate.

    Raises:
        UsageError: one of the two is missing, or they are not what they should be.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except FileNotFoundError as exc:
        missing = cert if not cert.exists() else key
        raise UsageError(f"there is no file {missing}") from exc
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(
            f"{cert} and {key} are not a certificate and its key: {exc.strerror or exc}",
            "both are PEM; the certificate may be followed by its chain",
        ) from exc
    return context
