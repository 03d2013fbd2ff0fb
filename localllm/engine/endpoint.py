"""Where an OpenAI-compatible server answers."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """An address and its secret.

    Attributes:
        base_url: "http://127.0.0.1:8080"; with a socket its host is only a name.
        socket_path: the unix socket to connect to instead, or None.
        api_key: its secret, or None.
    """

    base_url: str
    socket_path: str | None = None
    api_key: str | None = None


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
