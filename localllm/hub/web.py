"""HTTP as the hub needs it: redirects, refusals, and secrets that stay where they belong.

Knows urllib3 and turns its errors into ours, once. Knows nothing of models, hubs or files on this
disk. A token goes to the origin that it was given for and nowhere else, and no message names a
query, a user or a password of a URL.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from localllm import __version__
from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError, UsageError
from localllm.hub.address import Credentials, host_of, origin_of, without_secrets
from localllm.hub.patience import Limits, Patience, TransientError, wait_asked
from localllm.hub.proxies import make_pool, proxy_of
from localllm.units import KIB, MIB, format_seconds

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

_MAX_REDIRECTS = 8
#: What a person waits for a page of metadata where a server asks for it; a download waits longer.
_SOON_SECONDS = 15.0
_REDIRECTS = (301, 302, 303, 307, 308)
#: A redirect's own page up to this is read, to keep the connection.
_REDIRECT_BYTES = 64 * KIB


class Reply:
    """One answer whose body is still to be read; use as a context manager."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def location(self) -> str | None:
        """Where a redirect leads, as it says; None for any other answer."""
        return (self.headers.get("Location") or None) if self.status in _REDIRECTS else None

    def read(self, n_bytes: int) -> bytes:
        """The next bytes as they come, at most so many; empty at the end.

        Raises:
            TransientError: the connection broke, or stood still for too long.
        """
        with _translated(self.url):
            return self._response.read1(n_bytes)

    def abort(self) -> None:
        """Ends a read that another thread waits in."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # it is over already
            self._response.shutdown()

    def __enter__(self) -> Reply:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What is left of a body would have to be read before the connection is of use again.
        if self._response.closed or getattr(self._response, "length_remaining", None) == 0:
            self._response.release_conn()
        else:
            self._response.close()


class Web:
    """A person's way to the network: proxies, certificates, one pool of connections.

    Args:
        limits: how patient to be.
        offline: nobody is asked anything.
    """

    def __init__(self, limits: Limits | None = None, *, offline: bool = False) -> None:
        self.limits = limits or Limits()
        self.offline = offline
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
    ) -> Reply:
        """One request, redirects followed; any status is an answer.

        Args:
            method: "GET" or "HEAD".
            url: of http or https.
            headers: for every host on the way.
            credentials: for their origin alone.

        Raises:
            TransientError: nobody answered, or the connection broke.
            NetworkError: offline, a certificate that is not believed, redirects that lead nowhere.
            UsageError: the address is none.
        """
        if self.offline:
            raise NetworkError(
                f"{host_of(url)} was not asked, because this is offline mode",
                "leave out --offline, or unset HF_HUB_OFFLINE",
            )
        for hop in range(_MAX_REDIRECTS):
            origin = origin_of(url)
            wanted = {"User-Agent": f"localllm/{__version__}", "Accept-Encoding": "identity"}
            wanted.update(headers or {})
            if credentials is not None and credentials.origin == origin:
                wanted.update({k: v.reveal() for k, v in credentials.headers.items()})
            with _translated(url, is_asked=hop == 0):
                response = self._pool(url).request(
                    method,
                    url,
                    headers=wanted,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=self._timeout(),
                )
            reply = Reply(response, url)
            self.answered(reply)
            if reply.location is None:
                return reply
            left = response.length_remaining
            if left is not None and left <= _REDIRECT_BYTES:
                response.drain_conn()
            else:
                response.close()
            try:
                target = urllib.parse.urljoin(url, reply.location)
                is_secure = origin_of(target).startswith("https:")
            except (ValueError, UsageError):
                raise NetworkError(f"{host_of(url)} redirects to what is no web address") from None
            if origin.startswith("https:") and not is_secure:
                raise NetworkError(f"{host_of(url)} redirects to an address that is not secure")
            url = target
        raise NetworkError(f"{host_of(url)} redirects in circles")

    def answered(self, reply: Reply) -> None:
        """Called with every answer of `request`, redirects included; for whoever looks on."""

    def document(
        self,
        url: str,
        credentials: Credentials | None = None,
        *,
        accept: str = "*/*",
        refuse: Callable[[Reply, str], LocalllmError] | None = None,
    ) -> bytes:
        """A small document as a whole.

        Args:
            url: of the document.
            credentials: for the URL's origin.
            accept: the type that is wanted.
            refuse: what another status than 200 means; `refusal` where it is None.

        Raises:
            As `request` and `refuse`; NetworkError: it is longer than any real one.
        """

        def fetch() -> bytes:
            with self.request(
                "GET", url, headers={"Accept": accept}, credentials=credentials
            ) as reply:
                if reply.status != 200:
                    raise (refuse or refusal)(reply, without_secrets(url))
                pieces, n_bytes = [], 0
                while piece := reply.read(MIB):
                    pieces.append(piece)
                    n_bytes += len(piece)
                    if n_bytes > self.limits.document_bytes:
                        raise NetworkError(f"the answer of {host_of(url)} does not end")
                return b"".join(pieces)

        return self.persist(fetch)

    def persist(self, action: Callable[[], T], attempts: int = 3) -> T:
        """The action's result, tried again where trying again may help soon.

        Raises:
            Whatever the last attempt raised.
        """
        patience = Patience(replace(self.limits, wait_seconds=_SOON_SECONDS), attempts)
        while True:
            try:
                return action()
            except TransientError as error:
                time.sleep(patience.pause(error))

    def _timeout(self) -> Any:
        import urllib3

        return urllib3.Timeout(connect=self.limits.connect_seconds, read=self.limits.idle_seconds)

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections through the proxy that the environment names for this host."""
        proxy = proxy_of(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = make_pool(proxy)
            return self._pools[proxy]


def refusal(reply: Reply, what: str) -> LocalllmError:
    """The error that a status other than 2xx means.

    408, 425, 429 and 5xx are transient, and wait as long as the server asks; 401 and 403 are a
    matter of access; 404 and 410 mean that it is not there.
    """
    host, status = host_of(reply.url), reply.status
    if status in (408, 416, 425, 429) or status >= 500:
        words = {416: "refuses a range of", 429: "has had too many requests and refuses"}
        error = TransientError(
            f"{host} {words.get(status, 'fails to send')} {what} ({status})",
            "try again in some minutes",
        )
        error.wait_seconds = wait_asked(reply.headers) if status in (429, 503) else None
        if error.wait_seconds is not None:
            error.hint = f"it asks to wait {format_seconds(error.wait_seconds)}"
        return error
    if status in (401, 403):
        return AccessError(f"{host} does not give {what} to this user ({status})")
    if status in (404, 410):
        return NotFoundError(f"{host} has no {what} ({status})", "check its spelling")
    return NetworkError(f"{host} answers {what} with status {status}")


@contextlib.contextmanager
def _translated(url: str, *, is_asked: bool = True) -> Iterator[None]:
    """urllib3's errors as ours; its own may carry a whole URL, and are not chained.

    Args:
        url: where it happens.
        is_asked: a person gave it; False for one that a server sent us to.
    """
    import urllib3.exceptions as wrong

    try:
        yield
    except wrong.SSLError as exc:
        raise NetworkError(
            f"the certificate of {host_of(url)} is not believed: {_reason(exc)}",
            "behind a company's proxy, set SSL_CERT_FILE to its certificates",
        ) from None
    except wrong.ProxyError as exc:
        raise TransientError(
            f"the proxy does not reach {host_of(url)}: {_reason(exc)}",
            "look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        ) from None
    except wrong.NameResolutionError:
        raise TransientError(
            f"the name {host_of(url)} is not known: no network, or a wrong name",
            "--offline works with what is on this disk",
        ) from None
    except (wrong.TimeoutError, TimeoutError):
        raise TransientError(f"{host_of(url)} does not answer", "try again later") from None
    except wrong.LocationValueError:
        if not is_asked:
            raise NetworkError("a redirect leads to what is no web address") from None
        raise UsageError(f"{without_secrets(url)!r} is not an http address") from None
    except (wrong.HTTPError, OSError) as exc:
        raise TransientError(
            f"the connection to {host_of(url)} broke: {_reason(exc)}", "try again later"
        ) from None


def _reason(error: BaseException) -> str:
    """The innermost cause, in the system's own words and without addresses."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"https?://\S+|0x[0-9a-f]+", "…", str(error.args[0] if error.args else error))
    return text[:120] or type(error).__name__
