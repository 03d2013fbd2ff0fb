"""Requests as the test hub reads them and replies as it means to send them: plain values.

Knows HTTP's ranges and validators (RFC 9110); knows no protocol above it, and no socket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from enum import Enum
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.loopback_hub.contents import Content, Memory

#: Which part of the hub answered.
Route = Literal["api", "resolve", "cdn", "files", "modelscope-api", "modelscope-file"]
#: 2026-01-01: when everything on the hub was last changed, unless a commit says otherwise.
EPOCH = 1767225600


@dataclass(frozen=True)
class Request:
    """A request.

    Attributes:
        method: GET, HEAD.
        endpoint: of the listener that it came to, "http://127.0.0.1:8080".
        target: path and query as sent, percent-encoded.
        headers: looked up without regard to case.
    """

    method: str
    endpoint: str
    target: str
    headers: Message

    @property
    def path(self) -> str:
        """Still percent-encoded, so that an encoded slash is none."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def url(self) -> str:
        return self.endpoint + self.target

    def flag(self, name: str) -> bool:
        """A yes or no in the query: clients write true, True and 1."""
        return self.query.get(name, "").lower() in ("1", "true")


class Ending(Enum):
    """What becomes of a connection behind a reply."""

    KEEP = "it waits for the next request"
    CLOSE = "it is closed, in order"
    RESET = "it is reset"
    STALL = "it stays open and nothing more comes"


@dataclass(frozen=True)
class Reply:
    """A reply, and how it is to be sent.

    Attributes:
        status: 200, 206, ...
        headers: all of them, Content-Length included.
        content: what the body is a part of; the whole file, not the part.
        start, stop: the part.
        route: which part of the hub answers.
        file: what was asked for: a path in a repository, a name; of the APIs the repository.
        sent_bytes: how much of the part is really sent; None for all.
        ending: what becomes of the connection then.
        drip: (bytes, seconds): so many at once, and a pause of so long before each.
        flip: an offset in the content whose byte is sent with one bit wrong.
        expires_urls: every signed URL so far is worth nothing once this was sent.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=lambda: Memory(b""))
    start: int = 0
    stop: int = 0
    route: Route = "api"
    file: str = ""
    sent_bytes: int | None = None
    ending: Ending = Ending.KEEP
    drip: tuple[int, float] | None = None
    flip: int | None = None
    expires_urls: bool = False

    @property
    def length_bytes(self) -> int:
        return self.stop - self.start


def whole(status: int, content: Content, headers: Mapping[str, str]) -> Reply:
    """A reply whose body is all of a content."""
    size = content.size_bytes
    return Reply(status, {**headers, "Content-Length": str(size)}, content, 0, size)


def text_reply(status: int, text: str, **headers: str) -> Reply:
    """A reply with a line of text; a header's underscores stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    typed = {"Content-Type": "text/plain; charset=utf-8", **named}
    return whole(status, Memory(text.encode()), typed)


def json_reply(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with a JSON document."""
    typed = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return whole(status, Memory(json.dumps(document).encode()), typed)


def file_reply(
    request: Request,
    content: Content,
    *,
    etag: str,
    modified: float = EPOCH,
    ranges: bool = True,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """A file, or the part of it that the request asks for.

    Args:
        request: Range and If-Range are looked at.
        content: the whole file.
        etag: with its quotes.
        modified: when, seconds since 1970.
        ranges: False for a server that has never heard of them.
        headers: to be sent besides.
    """
    size = content.size_bytes
    date = formatdate(modified, usegmt=True)
    common = {
        "Content-Type": "application/octet-stream",
        "ETag": etag,
        "Last-Modified": date,
        **({"Accept-Ranges": "bytes"} if ranges else {}),
        **(headers or {}),
    }
    is_current = request.headers.get("If-Range", etag) in (etag, date)
    part = parse_range(request.headers.get("Range", ""), size) if ranges and is_current else None
    if part is None:
        return whole(200, content, common)
    if not part:
        return whole(416, Memory(b""), {**common, "Content-Range": f"bytes */{size}"})
    described = {
        "Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}",
        "Content-Length": str(len(part)),
    }
    return Reply(206, {**common, **described}, content, part.start, part.stop)


def parse_range(value: str, size_bytes: int) -> range | None:
    """What a Range header asks for: None for all of the file, empty for nothing that there is.

    Several ranges at once are answered with the whole file, as a server may.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", value)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None
    stop = min(int(last) + 1, size_bytes) if last else size_bytes
    return range(int(first), max(stop, int(first)))
