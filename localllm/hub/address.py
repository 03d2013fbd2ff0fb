"""Addresses: what of a URL may be shown, and who may see which secret.

Values alone; no requests are made here.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from localllm.errors import UsageError


class Secret:
    """A token that shows itself to nobody who only prints it.

    Raises (on construction):
        UsageError: no header can carry it. http.client would say so with the token in its error.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not (value.isascii() and value.isprintable()):
            raise UsageError(
                "a token or password holds a character that no header can carry",
                "copy it again, without line ends",
            )
        self._value = value

    def reveal(self) -> str:
        """The token, for the one header that it belongs into."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True)
class Credentials:
    """Headers for one origin alone ("https://huggingface.co"): what a redirect leaves behind."""

    origin: str
    headers: Mapping[str, Secret]


def without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment: where those may be seen."""
    parts = _split(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if _port(parts) else ""
    return urllib.parse.urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def origin_of(url: str) -> str:
    """Scheme, host and port: "https://huggingface.co", "http://127.0.0.1:8000".

    Raises:
        UsageError: no URL of http or https.
    """
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{without_secrets(url)!r} is not an http address", "write https://…")
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = _port(parts)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != usual else "")


def host_of(url: str) -> str:
    """The host, with its port where it is not the usual one: for a person."""
    return origin_of(url).partition("://")[2]


def _split(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL, or an error that says none of them: a password may be among them."""
    try:
        return urllib.parse.urlsplit(url)
    except ValueError:
        raise UsageError(
            "what stands for a host in an address is none", "write https://…"
        ) from None


def _port(parts: urllib.parse.SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # out of range, or no number
        return None
