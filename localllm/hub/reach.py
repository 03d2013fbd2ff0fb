"""The way to a model, hop by hop: what was asked, what answered, how long it took, what is wrong.

Makes the requests that a download makes, once each: what comes right at a second attempt is a
finding. Prints nothing and keeps nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from localllm.errors import AccessError, LocalllmError, NetworkError, NotFoundError
from localllm.hardware import Finding
from localllm.hub import huggingface, modelscope, open_source
from localllm.hub.address import Credentials, Secret, host_of, origin_of
from localllm.hub.hop import (
    Hop,
    HopName,
    connect,
    find_name,
    look_at_settings,
    make_finding,
    shown_proxy,
)
from localllm.hub.patience import TransientError
from localllm.hub.proxies import certificates
from localllm.hub.remote import NoRangesError, RemoteFile
from localllm.hub.source import Listing, Source
from localllm.hub.web import Reply, Web
from localllm.naming import ModelRef
from localllm.units import GIB, KIB, MIB, format_bytes, format_seconds
from localllm.variants import RepoFile

T = TypeVar("T")

_ORDER: tuple[HopName, ...] = (
    "settings", "name", "connection", "api", "resolve", "first-byte", "throughput",
)  # fmt: skip
#: Enough to see a rate of 100 MB/s, little for a slow line; whichever comes first.
_SAMPLE_BYTES = 4 * MIB
_SAMPLE_SECONDS = 3.0
_PIECE_BYTES = 64 * KIB
# The hub's own header (RFC draft httpapi-ratelimit-headers): "api";r=489;t=123
_RATE_LIMIT = re.compile(r"\br=(\d{1,9})\s*;\s*t=(\d{1,9})", re.ASCII)


def probe_reach(ref: ModelRef, web: Web) -> Iterator[Hop]:
    """The hops to a model, each as it is gone; those behind one that fails are not reached.

    Args:
        ref: of kind "hf", "ms" or "url".
        web: whose limits and offline mode count.

    Raises:
        UsageError: the reference, or a setting, is no address.
    """
    walk = _Walk(ref, _Watched(web.limits, offline=web.offline))
    seen: set[HopName] = {"api"} if walk.source.kind == "url" else set()
    for hop in walk.hops():
        yield hop
        seen.add(hop.name)
        if hop.failed:
            break
    yield from (Hop(name) for name in _ORDER if name not in seen)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 when all is well, 1 with a warning, 3 or 4 for no such model or no access, 5 otherwise."""
    codes = {finding.code for finding in findings}
    if "network.access" in codes:
        return AccessError.exit_code
    if "network.not-found" in codes:
        return NotFoundError.exit_code
    by_level = {"ok": 0, "warn": 1, "fail": NetworkError.exit_code}
    return max((by_level[finding.level] for finding in findings), default=0)


@dataclass(frozen=True)
class _Answer:
    """An HTTP answer without its body; the seconds are those until its headers were here."""

    url: str
    status: int
    headers: Mapping[str, str]
    location: str | None
    seconds: float

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people."""
        kind = self.headers.get("Content-Type", "")
        return self.status == 200 and kind.lower().startswith("text/html")

    def limit(self) -> dict[str, int]:
        """How many requests are left and for how long, where it tells."""
        match = _RATE_LIMIT.search(self.headers.get("RateLimit", ""))
        return {"n_left": int(match[1]), "left_seconds": int(match[2])} if match else {}


class _Watched(Web):
    """A Web that tries once, and remembers what answered."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.answers: list[_Answer] = []
        self._since = 0.0

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
    ) -> Reply:
        """See Web."""
        with contextlib.suppress(OSError):  # which the request itself will say
            self._pool(url)  # reading our certificates is not the host's time
        self._since = time.monotonic()
        return super().request(method, url, headers=headers, credentials=credentials)

    def answered(self, reply: Reply) -> None:
        """Keeps it."""
        now = time.monotonic()
        answer = _Answer(reply.url, reply.status, reply.headers, reply.location, now - self._since)
        self.answers.append(answer)
        self._since = now

    def persist(self, action: Callable[[], T], attempts: int = 1) -> T:
        """The action's result, or its failure."""
        return action()


class _Walk:
    """The way to one model, and how far it was gone.

    Raises (on construction):
        UsageError: the reference, or a setting, is no address.
    """

    def __init__(self, ref: ModelRef, web: _Watched) -> None:
        self._web = web
        self.source, self._named = open_source(ref, web)
        self._start = _address_of(self.source, ref)
        self._host = host_of(self._start)
        self._has_user = self.source.kind == "url" and urlsplit(ref.text).username is not None
        self._listing: Listing | None = None
        self._remote: RemoteFile | None = None
        self._has_ranges = True
        #: Where the redirects lead, and what went wrong there.
        self._landed = self._start
        self._trouble: LocalllmError | None = None

    def hops(self) -> Iterator[Hop]:
        """All of them; whoever asks stops at the first that fails."""
        yield look_at_settings(
            self.source.kind,
            self._start,
            is_mirror=self.source.key.endswith(f" at {self._host}"),
            offline=self._web.offline,
            has_user=self._has_user,
        )
        yield from self._to_host(self._start)
        if self.source.kind != "url":
            yield self._api()
        yield self._resolve()
        if self._is_led_on:
            yield from self._to_host(self._landed)
        yield from self._bytes()

    @property
    def _is_led_on(self) -> bool:
        return host_of(self._landed) != self._host

    def _to_host(self, url: str) -> Iterator[Hop]:
        named = find_name(url)
        yield named
        yield Hop("connection") if named.failed else connect(url, self._web.limits.connect_seconds)

    def _api(self) -> Hop:
        since, told = time.monotonic(), None
        try:
            if self.source.kind == "hf":
                told = self._ask_hub()
            self._listing = self.source.listing()
        except LocalllmError as error:
            return self._failed("api", error, since, self._web.answers)
        answers, listing = self._web.answers, self._listing
        is_private = bool(told.get("private")) if told is not None else None
        n_models = sum(map(_is_model, listing.files))
        words = [f"{self.source.repo} is there"]
        words += ["private"] if is_private else []
        words += ["gated"] if listing.gated else []
        words += [f"{n_models} GGUF among {len(listing.files)} files"]
        facts = {
            "n_files": len(listing.files),
            "revision": listing.revision,
            "is_gated": listing.gated,
            "is_private": is_private,
        }
        message = ", ".join(words)
        # Seen only of the first request: huggingface_hub makes the second.
        refused = next((each.status for each in answers if each.status >= 400), None)
        if refused is not None:
            message = f"{message}; but the first request was answered with {refused}"
            finding = make_finding("warn", "unsteady", message, "try again in some minutes")
        elif not n_models:
            fix = "look for a repository whose name ends in -GGUF"
            finding = make_finding("warn", "no-model", message, fix)
        else:
            finding = make_finding("ok", "api", message + _left(answers[-1]))
        return _answered("api", answers[-1], finding, facts)

    def _ask_hub(self) -> Mapping[str, Any] | None:
        """The repository as the hub describes it; None where it refuses, which `listing` explains.

        huggingface_hub shows neither how many requests are left nor what came in place of JSON.

        Raises:
            NetworkError: nobody answers, or somebody who is not the hub.
        """
        from huggingface_hub import get_token

        token, credentials = get_token(), None
        if token is not None:
            bearer = Secret(f"Bearer {token}")
            credentials = Credentials(origin_of(self._start), {"Authorization": bearer})
        url = f"{self._start}/api/models/{self.source.repo}"
        try:
            raw = self._web.document(url, credentials, accept="application/json")
        except LocalllmError:
            if not self._web.answers or self._web.answers[-1].location is not None:
                raise
            return None
        try:
            told = json.loads(raw)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            message = f"{self._host} does not answer as the hub does"
            raise NetworkError(message, "is HF_ENDPOINT right?")
        return told

    def _resolve(self) -> Hop:
        since, n_before = time.monotonic(), len(self._web.answers)
        try:
            if self._listing is None:
                self._listing = self.source.listing()
            file = _sample_of(self._listing, self._named)
            self._remote = self.source.remote(self._listing, file)
            with self._remote.open(0, 1):
                pass
        except NoRangesError:
            self._has_ranges = False
        except LocalllmError as error:
            self._trouble = error
        answers = self._web.answers[n_before:]
        self._follow(answers)
        if self._trouble is not None and not self._is_led_on:
            return self._failed("resolve", self._trouble, since, answers)
        to = host_of(self._landed) if self._is_led_on else None
        message = f"sends on to {to}" if to else "has the file itself"
        finding = make_finding("ok", "resolve", message + _left(answers[0]))
        facts = {"file": self._remote.name if self._remote else None, "redirects_to": to}
        return _answered("resolve", answers[0], finding, facts)

    def _follow(self, answers: Sequence[_Answer]) -> None:
        """Finds the host that redirects lead to, where it is one that may be asked."""
        for answer in answers:
            try:
                landed = urljoin(answer.url, answer.location or "")
                is_secure = origin_of(landed).startswith("https:")
                if answer.url.startswith("https:") and not is_secure:
                    return
            except (ValueError, LocalllmError):
                return
            self._landed = landed

    def _bytes(self) -> Iterator[Hop]:
        since, n_before = time.monotonic(), len(self._web.answers)
        if self._trouble is not None:
            yield self._failed("first-byte", self._trouble, since, self._web.answers)
            return
        assert self._remote is not None
        n_due = min(self._remote.size_bytes, _SAMPLE_BYTES)
        try:
            has_ranges = self._has_ranges
            reply = self._remote.open(0, n_due) if has_ranges else self._remote.open_whole()
            with reply:
                n_first = len(_read(reply))
                now = time.monotonic()
                yield self._first_byte(self._web.answers[-1], now - since)
                yield self._throughput(reply, n_first, n_due, now)
        except LocalllmError as error:
            yield self._failed("first-byte", error, since, self._web.answers[n_before:])

    def _first_byte(self, answer: _Answer, seconds: float) -> Hop:
        assert self._remote is not None
        finding = make_finding("ok", "first-byte", f"{self._remote.name} begins to come")
        if not self._has_ranges:
            message = f"{self._remote.name} comes only as a whole: what breaks off begins anew"
            finding = make_finding("warn", "no-ranges", message)
        host, proxy = host_of(answer.url), shown_proxy(answer.url)
        return Hop("first-byte", host, proxy, answer.status, seconds, finding)

    def _throughput(self, reply: Reply, n_first: int, n_due: int, since: float) -> Hop:
        n_bytes, seconds = n_first, 0.0
        try:
            while n_bytes < n_due and seconds < _SAMPLE_SECONDS:
                n_bytes += len(_read(reply))
                seconds = time.monotonic() - since
        except LocalllmError as error:
            return self._failed("throughput", error, since, self._web.answers)
        # The first piece had the wait before it, and tells nothing of the rate.
        rate = (n_bytes - n_first) / seconds if seconds else None
        measured = f"{format_bytes(rate)}/s over {format_bytes(n_bytes)}"
        if rate is None:
            message = f"{format_bytes(n_bytes)} are too little to tell a rate"
            finding = make_finding("ok", "throughput", message)
        elif rate < self._web.limits.slow_bytes_per_second:
            message = f"{measured}: a download gives up what is so slow"
            finding = make_finding("warn", "slow", message, "try again later, or use a mirror")
        else:
            message = f"{measured}: 1 GiB takes about {format_seconds(GIB / rate)}"
            finding = make_finding("ok", "throughput", message)
        facts = {"n_bytes": n_bytes, "bytes_per_second": rate}
        host, proxy = host_of(reply.url), shown_proxy(reply.url)
        return Hop("throughput", host, proxy, None, seconds, finding, facts)

    def _failed(
        self, name: HopName, error: LocalllmError, since: float, answers: Sequence[_Answer]
    ) -> Hop:
        """The hop at which an error came up, where the redirects had led by then."""
        seconds, host = time.monotonic() - since, host_of(self._landed)
        last = answers[-1] if answers else None
        status = last.status if last is not None and host_of(last.url) == host else None
        code, message, fix = str(name), error.message, error.hint
        if last is not None and last.is_page and self.source.kind != "url":
            code = "login-page"
            message = f"{host_of(last.url)} answers with a web page: a login page of this network?"
            fix = "log in with a browser, or leave this network; then try again"
        elif isinstance(error, AccessError):
            code = "access"
        elif isinstance(error, NotFoundError):
            code = "not-found"
        elif status == 429:
            code = "rate-limited"
        elif name == "api" and status == 200 and _is_unreached(error):
            code = "library"
            message = f"{host} answers, but not the library that asks for the files: {message}"
            fix = "look at SSL_CERT_FILE, HTTPS_PROXY and NO_PROXY"
            if (file := certificates()[0]) is not None:
                # The library knows that variable, and not those of requests and curl.
                fix = f"export SSL_CERT_FILE={file}"
        finding = make_finding("fail", code, message, fix)
        return Hop(name, host, shown_proxy(self._landed), status, seconds, finding)


def _answered(name: HopName, answer: _Answer, finding: Finding, facts: Mapping[str, Any]) -> Hop:
    host, proxy = host_of(answer.url), shown_proxy(answer.url)
    told = {**facts, **answer.limit()}
    return Hop(name, host, proxy, answer.status, answer.seconds, finding, told)


def _left(answer: _Answer) -> str:
    limit = answer.limit()
    if not limit:
        return ""
    return f"; {limit['n_left']} requests left for {format_seconds(limit['left_seconds'])}"


def _is_unreached(error: LocalllmError) -> bool:
    """Whether huggingface_hub had no answer at all: one that refuses has another cause."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, TransientError) and not isinstance(error.__context__, HfHubHTTPError)


def _address_of(source: Source, ref: ModelRef) -> str:
    """What is asked first: an endpoint, with a path where it has one; of a URL its server."""
    if source.kind == "hf":
        return huggingface.endpoint()
    if source.kind == "ms":
        endpoint = modelscope.configured_endpoint().rstrip("/")
        return endpoint if "://" in endpoint else f"https://{endpoint}"
    return origin_of(ref.text)


def _is_model(file: RepoFile) -> bool:
    return file.path.lower().endswith((".gguf", ".llamafile"))


def _sample_of(listing: Listing, named: str | None) -> RepoFile:
    """The file that is named, or the smallest model that a whole sample can be taken of.

    Raises:
        NotFoundError: there is none.
    """
    files = [file for file in listing.files if file.size_bytes and named in (None, file.path)]
    files = [file for file in files if _is_model(file)] or files
    if not files:
        raise NotFoundError(f"{listing.repo} has no file {named or 'with anything in it'}")
    enough = [file for file in files if file.size_bytes >= _SAMPLE_BYTES]
    if enough:
        return min(enough, key=lambda file: file.size_bytes)
    return max(files, key=lambda file: file.size_bytes)


def _read(reply: Reply) -> bytes:
    piece = reply.read(_PIECE_BYTES)
    if not piece:
        raise TransientError(f"{host_of(reply.url)} sent less than it promised")
    return piece
