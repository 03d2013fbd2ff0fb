"""Tells systemd how we are, where it asks: sd_notify(3), a datagram to a socket."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Sends "READY=1", "STOPPING=1", "RELOADING=1" or the like; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
