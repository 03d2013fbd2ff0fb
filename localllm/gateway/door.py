"""Host, Origin and CORS: which web pages may use the server through somebody's browser.

Two attacks are kept out. DNS rebinding: a stranger's page gives its own name this machine's
address, and the browser takes us for the page's own server; Host then holds the stranger's name
(CVE-2024-28224, Ollama). Cross-site requests: a page sends one straight to us, and Origin or
Sec-Fetch-Site tells. Who is no browser can write there what he likes: for him there are keys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from localllm.errors import UsageError

#: How long a browser may remember a preflight: Chromium's bound. What it remembers opens nothing,
#: for the request that follows is judged again.
_PREFLIGHT_SECONDS = 7200
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
# No trailing dot: "localhost." is another host to a browser, and lists are compared by name.
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::([1-9][0-9]{0,4}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_VISIBLE = re.compile(r"[!-~]+")
#: A field name (RFC 9110, 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORTS = {"http": 80, "https": 443}
#: As llama-server's --cors-origins localhost means it.
_LOCALHOST = ("localhost", "127.0.0.1", "[::1]")
_NOWHERE = ipaddress.IPv4Address("0.0.0.0")  # noqa: S104, nobody listens there


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let in, in a sentence, and the HTTP status that says so."""

    status: int
    reason: str


class _Origin(NamedTuple):
    """What the same-origin policy compares. The port is None where the scheme has no usual one."""

    scheme: str
    host: str
    port: int | None


class Door:
    """Judges Host, Origin and Sec-Fetch-Site, and writes CORS headers.

    A Host is let in where no stranger can make it point here: any IP address (no name is looked
    up for it), localhost and its subdomains (RFC 6761 reserves them), the machine's own names,
    and those that a person allows. Its port may be any: containers and proxies map ports.

    Args:
        allowed_hosts: names, without port.
        cors_origins: "https://app.example"; "localhost" for every port there; "*" for every page.
        tls: the server answers with TLS itself.
        own_names: of the machine; what is no host name among them counts for nothing.

    Raises:
        UsageError: an allowed host or an origin that cannot be one.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str] = (),
        cors_origins: Iterable[str] = (),
        *,
        tls: bool = False,
        own_names: Iterable[str] = (),
    ) -> None:
        self._scheme = "https" if tls else "http"
        # The address that the server listens on may be among them, and be 0.0.0.0.
        own = {_to_ascii(name) for name in own_names}
        self._names = {name for name in own if _HOST_NAME.fullmatch(name) and not _parse_ip(name)}
        self._names |= {_allowed_host(name) for name in allowed_hosts}
        listed = set(cors_origins)
        self._has_cors = bool(listed)
        self._any_page = "*" in listed
        self._any_localhost = "localhost" in listed
        self._origins = {_cors_origin(text) for text in listed - {"*", "localhost"}}

    def check(
        self,
        host_headers: Sequence[str],
        origin_headers: Sequence[str],
        sec_fetch_site: str,
        method: str,
        *,
        sec_fetch_mode: str = "",
        sec_fetch_dest: str = "",
    ) -> Refusal | None:
        """Why a request is not let in; None where it is.

        Args:
            host_headers: the values of all of them.
            origin_headers: the values of all of them.
            sec_fetch_site: Sec-Fetch-Site; "" where there is none, as for the two below.
            method: in capitals.
            sec_fetch_mode: Sec-Fetch-Mode.
            sec_fetch_dest: Sec-Fetch-Dest.
        """
        if len(host_headers) != 1:
            # With two of them a proxy and we may go by different ones.
            return Refusal(400, f"a request has one Host header, and not {len(host_headers)}")
        here = _parse_origin(f"{self._scheme}://{host_headers[0]}")
        if here is None:
            return Refusal(400, "the Host header is not a host, with or without a port")
        if not self._is_own(here.host):
            return Refusal(403, f"{here.host} is no name of this server; see allowed_hosts")
        if len(origin_headers) > 1:
            return Refusal(400, f"a request has one Origin header, and not {len(origin_headers)}")
        if origin_headers:
            return self._check_origin(origin_headers[0], here)
        # Browsers leave Origin out of GET and HEAD, unless a script means to read the answer
        # (Fetch, "append a request Origin header"): of links, frames, images, scripts and fetch
        # with "no-cors". Whose page asked is then in Sec-Fetch-Site: "same-origin", or "none"
        # where the person did. They send it to https and to loopback alone, so without it a
        # request may be anybody's: but a page cannot read what it gets that way, and what changes
        # something is no GET and has an Origin.
        if sec_fetch_site in ("", "none", "same-origin") or self._any_page:
            return None
        # Following a link from elsewhere is fine. Framing (to "iframe") is not: a page could lay
        # itself over the web UI and have the person click there.
        if (method, sec_fetch_mode, sec_fetch_dest) == ("GET", "navigate", "document"):
            return None
        return Refusal(403, "the page of another site may only link to this server")

    def cors_headers(self, origin_headers: Sequence[str]) -> dict[str, str]:
        """What the answer to a request that was let in needs besides its own headers.

        Never Access-Control-Allow-Credentials: keys travel in headers that a page sets itself, and
        the cookies of a proxy before us are not for every page.
        """
        if not self._has_cors:
            return {}
        headers = {"Vary": "Origin"}  # also where there is none: caches keep the two apart
        if len(origin_headers) == 1 and self._may_use(origin_headers[0]):
            headers["Access-Control-Allow-Origin"] = origin_headers[0]
        return headers

    def preflight(
        self, origin_headers: Sequence[str], asked_headers: str
    ) -> dict[str, str] | Refusal:
        """The headers of the answer to a preflight, which is empty; or why there is none.

        A preflight is OPTIONS with Origin and Access-Control-Request-Method. It brings no key,
        and must not need one. `check` comes first, as for all requests.

        Args:
            origin_headers: the values of all of them.
            asked_headers: Access-Control-Request-Headers; "" where there is none.
        """
        headers = self.cors_headers(origin_headers)
        if "Access-Control-Allow-Origin" not in headers:
            return Refusal(403, "pages of other origins may not use this server; see cors_origins")
        headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
        names = [name.strip(" \t") for name in asked_headers.split(",")]
        if names != [""]:
            if not all(_TOKEN.fullmatch(name) for name in names):
                return Refusal(400, "Access-Control-Request-Headers holds what is no header's name")
            # Not "*": that leaves out Authorization.
            headers["Access-Control-Allow-Headers"] = ", ".join(names)
        return headers

    def _is_own(self, host: str) -> bool:
        if host in self._names or host == "localhost" or host.endswith(".localhost"):
            return True
        ip = _parse_ip(host)
        if ip is None:
            return False
        # Linux and macOS take 0.0.0.0 for loopback, and browsers long did not: a page could come
        # where 127.0.0.1 was closed to it ("0.0.0.0 day", 2024).
        return not (ip.is_unspecified or (ip.version == 6 and ip.ipv4_mapped == _NOWHERE))

    def _check_origin(self, text: str, here: _Origin) -> Refusal | None:
        origin = _parse_origin(text)
        if origin == here or self._may_use(text):
            return None
        if origin is None and text != "null":
            return Refusal(403, "the Origin header is not an origin")
        return Refusal(403, f"pages of the origin {text} may not use this server; see cors_origins")

    def _may_use(self, text: str) -> bool:
        """Whether pages of that origin are listed."""
        if self._any_page:
            return _VISIBLE.fullmatch(text) is not None
        origin = _parse_origin(text)
        if origin is None:
            return False
        is_localhost = origin.scheme in _PORTS and origin.host in _LOCALHOST
        return origin in self._origins or (self._any_localhost and is_localhost)


def _parse_origin(text: str) -> _Origin | None:
    """Scheme, host and port of "http://localhost:8080"; None for anything more or less.

    "null", the origin of files, sandboxed frames and redirects, is none.
    """
    if not text.isascii():  # before lower(), which makes a "k" of a Kelvin sign
        return None
    scheme, _, authority = text.lower().partition("://")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or not _SCHEME.fullmatch(scheme):
        return None
    host = _parse_host(parts[1])
    port = int(parts[2]) if parts[2] else _PORTS.get(scheme)
    if host is None or (port or 0) > 65535:
        return None
    return _Origin(scheme, host, port)


def _parse_host(text: str) -> str | None:
    """A host name or an address in its one spelling ("[::1]"); None where it is neither.

    Browsers write 127.1, 0x7f.1 and 2130706433 out before they send them; here they are names.
    """
    ip = _parse_ip(text)
    if ip is not None:
        return f"[{ip}]" if ip.version == 6 else str(ip)
    return text if _HOST_NAME.fullmatch(text) else None


def _parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that stands there as in a URL; ipaddress takes no octal and no short form."""
    try:
        if text.startswith("[") and text.endswith("]"):
            return ipaddress.IPv6Address(text[1:-1])
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def _allowed_host(text: str) -> str:
    host = _parse_host(_to_ascii(text))
    if host is None:
        raise UsageError(
            f"allowed_hosts has {text!r}, which is not a host",
            "write the name alone, without http:// and without a port",
        )
    return host


def _cors_origin(text: str) -> _Origin:
    scheme, separator, authority = text.partition("://")
    origin = _parse_origin(scheme + separator + _to_ascii(authority))
    if origin is None:
        raise UsageError(
            f"cors_origins has {text!r}, which is not an origin",
            'write https://app.example, with its port and without a path; or "localhost", or "*"',
        )
    return origin


def _to_ascii(name: str) -> str:
    """The name as it is sent: "müller.example" is "xn--mller-kva.example"; "" where none is."""
    try:
        return name.encode("idna").decode().lower()
    except UnicodeError:
        return ""
