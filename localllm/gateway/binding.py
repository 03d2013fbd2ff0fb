"""Addresses to listen on: how clients come to one, and why one cannot be had, in a sentence."""

from __future__ import annotations

import errno
import ipaddress
import socket

from localllm.errors import AccessError, LocalllmError, UsageError


def url_of(host: str, port: int, *, tls: bool) -> str:
    """Where a client on this machine finds what listens there.

    0.0.0.0 and :: are every address, and none to go to: the door refuses them as a Host. What
    listens there is found on loopback, too.

    Args:
        host: an address, a name, or the path of a unix socket, which ends in .sock.
        port: of an address or a name.
        tls: whether it is https.
    """
    if host.endswith(".sock"):
        return f"http+unix://{host}"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass  # a name
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http{'s' if tls else ''}://{_bracketed(host)}:{port}"


def explain_bind_failure(host: str, port: int, exc: OSError | UnicodeError) -> LocalllmError:
    """The error for an address that was not found, or could not be bound.

    UsageError where it is none of this machine's, AccessError where the port is not for this user.
    """
    if isinstance(exc, UnicodeError):  # "a..b" is not even asked for
        return UsageError(f"{host!r} is not an address of this machine, nor the name of any")
    why = exc.strerror or exc
    if isinstance(exc, socket.gaierror) or exc.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{host!r} is not an address of this machine: {why}",
            "127.0.0.1 is for this machine alone, 0.0.0.0 is every IPv4 address that it has",
        )
    if isinstance(exc, PermissionError):
        return AccessError(
            f"port {port} may not be used by this user", "ports above 1023 may: --port 8080"
        )
    return LocalllmError(
        f"cannot listen on {_bracketed(host)}:{port}: {why}",
        "is another server running there? --port takes another one",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
