"""One stretch of the way to a model, and those that need no HTTP: settings, names, connections.

Knows the environment, the resolver, sockets and TLS. What it returns names no user, password or
token, and holds no control characters.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from localllm.hardware import Finding, Level
from localllm.hub.address import host_of, without_secrets
from localllm.hub.proxies import certificates, proxy_headers, proxy_of
from localllm.hub.source import SourceKind

HopName = Literal["settings", "name", "connection", "api", "resolve", "first-byte", "throughput"]

_OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_ENDPOINTS: Mapping[SourceKind, tuple[str, ...]] = {
    "hf": ("HF_ENDPOINT",),
    "ms": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
    "url": (),
}
_TOKENS: Mapping[SourceKind, tuple[str, ...]] = {
    "hf": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "ms": ("MODELSCOPE_API_TOKEN",),
    "url": (),
}
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PORTS = {"http": 80, "https": 443}
_SOCKS_PORT = 1080
_LOOK_AT_PROXY = "look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY"


@dataclass(frozen=True)
class Hop:
    """One stretch of the way.

    Attributes:
        name: "settings" asks nobody; "name" and "connection" come again for a host that a
            redirect leads to; a plain URL has no "api".
        host: that was asked, with its port where it is not the usual one.
        proxy: that stands between, without user and password; None for none.
        status: of the HTTP answer.
        seconds: until the answer, or until it was given up.
        finding: what is to be said of it; None where an earlier hop failed, so that this one was
            not reached.
        facts: what else it answered, for scripts. "settings": endpoint, named_by, is_mirror,
            token_from, certificates, certificates_from, offline. "name": addresses. "connection":
            tls. "api": n_files, revision, is_gated, is_private. "api" and "resolve": n_left and
            left_seconds of the rate limit, where it is told. "resolve": file, redirects_to.
            "throughput": n_bytes, bytes_per_second.
    """

    name: HopName
    host: str | None = None
    proxy: str | None = None
    status: int | None = None
    seconds: float | None = None
    finding: Finding | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the way ends here."""
        return self.finding is not None and self.finding.level == "fail"


def make_finding(level: Level, code: str, message: str, fix: str | None = None) -> Finding:
    """A finding about the network; see Finding.

    Args:
        level: see there.
        code: without "network.".
        message: see there; it may hold what servers say.
        fix: likewise.
    """
    return Finding(level, f"network.{code}", _printable(message), _printable(fix) if fix else None)


def shown_proxy(url: str) -> str | None:
    """The proxy on the way to a URL, without user and password; None for none."""
    proxy = proxy_of(url)
    return without_secrets(proxy) if proxy else None


def look_at_settings(
    kind: SourceKind, url: str, *, is_mirror: bool, offline: bool, has_user: bool
) -> Hop:
    """What is set for the way to a source.

    Args:
        kind: of the source.
        url: that is asked first.
        is_mirror: it is not the one where people publish.
        offline: nobody is to be asked.
        has_user: the reference itself has a user.
    """
    file, by = certificates()
    host, proxy = host_of(url), shown_proxy(url)
    named_by = next(filter(os.environ.get, _ENDPOINTS[kind]), None)
    token_from = "the URL" if has_user else _token_from(kind)
    switches = [name for name in _OFFLINE_SWITCHES if os.environ.get(name)]
    told = [
        host,
        f"{'a mirror' if is_mirror else 'as'} named by {named_by}" if named_by else None,
        f"proxy {proxy}" if proxy else "no proxy",
        f"token from {token_from}" if token_from else "no token",
        f"certificates of {by}",
    ]
    message = ", ".join(filter(None, told))
    lost = next((name for name in _CERTIFICATES if _leads_nowhere(os.environ.get(name))), None)
    if offline:
        finding = make_finding(
            "fail",
            "offline",
            f"{message}; but this is offline mode, and nobody is asked",
            f"unset {' '.join(switches)}" if switches else None,
        )
    elif lost:
        finding = make_finding(
            # Python itself passes over what SSL_CERT_FILE names and is not there.
            "fail" if lost == by else "warn",
            "certificates-missing",
            f"{message}; but {lost} is {os.environ[lost]}, which is not there",
            f"unset {lost}",
        )
    else:
        finding = make_finding("ok", "settings", message)
    facts = {
        "endpoint": without_secrets(url),
        "named_by": named_by,
        "is_mirror": is_mirror,
        "token_from": token_from,
        "certificates": file or os.environ.get(by),
        "certificates_from": by,
        "offline": switches,
    }
    return Hop("settings", host, proxy, finding=finding, facts=facts)


def find_name(url: str) -> Hop:
    """Resolves a URL's host, or the proxy's in its place: the host is then the proxy's to find."""
    proxy = shown_proxy(url)
    host = urlsplit(proxy or url).hostname or ""
    since = time.monotonic()
    addresses: list[str] = []
    try:
        found = socket.getaddrinfo(*_address(proxy or url), type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        message = f"{'the proxy ' if proxy else ''}{host} is "
        message += "an address" if addresses == [host] else addresses[0]
        message += f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        finding = make_finding("ok", "name", message)
    except (OSError, ValueError) as exc:  # the latter for what cannot be a name or a port
        finding = make_finding(
            "fail",
            "name",
            f"the name {host} is not known: {_reason(exc)}",
            _LOOK_AT_PROXY if proxy else "is there a network, and is the name right?",
        )
    seconds = time.monotonic() - since
    return Hop("name", host_of(url), proxy, None, seconds, finding, {"addresses": addresses})


def connect(url: str, timeout_seconds: float) -> Hop:
    """Opens a connection to a URL's host, with TLS where it has that, and closes it again.

    Through a proxy as far as the standard library can: one for http is asked with the request
    itself, and SOCKS or a proxy behind TLS need more; those are only reached.
    """
    host, proxy = host_of(url), shown_proxy(url)
    through = f" through {proxy}" if proxy else ""
    since = time.monotonic()
    tls = None
    try:
        tls = _connect(url, timeout_seconds)
        message = f"connected{through}{f', {tls}' if tls else ''}"
        finding = make_finding("ok", "connection", message)
    except ssl.SSLCertVerificationError as exc:
        why = exc.verify_message.rstrip(".")
        clock = "is this machine's clock right? " if "expired" in why or "yet" in why else ""
        finding = make_finding(
            "fail",
            "certificate",
            f"the certificate of {host} is not believed: {why}",
            f"{clock}behind a company's proxy, set SSL_CERT_FILE to its certificates;"
            " behind a login page, log in first",
        )
    except (OSError, http.client.HTTPException) as exc:
        why = "no answer" if isinstance(exc, TimeoutError) else _reason(exc)
        finding = make_finding(
            "fail",
            "proxy" if proxy else "connection",
            f"no connection to {host}{through}: {why}",
            _LOOK_AT_PROXY if proxy else "does a firewall stand between? is HTTPS_PROXY missing?",
        )
    seconds = time.monotonic() - since
    return Hop("connection", host, proxy, None, seconds, finding, {"tls": tls})


def _connect(url: str, timeout_seconds: float) -> str | None:
    """The version of TLS, where there is one; see `connect`.

    Raises:
        OSError (ssl.SSLError is one), http.client.HTTPException.
    """
    proxy = proxy_of(url)
    is_tunnel = url.startswith("https:") and proxy.startswith("http:")
    host, port = _address(proxy or url)
    if not is_tunnel and (proxy or url.startswith("http:")):
        socket.create_connection((host, port), timeout_seconds).close()
        return None
    context = ssl.create_default_context(cafile=certificates()[0])
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=context)
    if is_tunnel:
        connection.set_tunnel(*_address(url), headers=proxy_headers(proxy))
    with closing(connection):
        connection.connect()
        return str(connection.sock.version())


def _token_from(kind: SourceKind) -> str | None:
    """The variable or the file that has the token, never the token; None where there is none.

    Precedence, as huggingface_hub has it: 1. variables, 2. the file that `hf auth login` writes,
    3. what that library finds by itself (a notebook's secrets).
    """
    named = next((name for name in _TOKENS[kind] if os.environ.get(name, "").strip()), None)
    if named is not None or kind != "hf":
        return named
    from huggingface_hub import constants, get_token

    if get_token() is None:
        return None
    return constants.HF_TOKEN_PATH if os.path.exists(constants.HF_TOKEN_PATH) else "huggingface_hub"


def _address(url: str) -> tuple[str, int]:
    """Host and port of a server or a proxy."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, _SOCKS_PORT)


def _leads_nowhere(path: str | None) -> bool:
    return bool(path) and not os.path.exists(path or "")


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _reason(error: BaseException) -> str:
    """In the system's own words."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:120]
