"""Everything that a server can do wrong, one class each.

A fault makes another Reply of the right one, or another statement of the true one. It keeps
nothing, and knows neither when it is done (rules.py) nor how a reply is sent (sockets.py).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from time import time
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from tests.loopback_hub.contents import Content, Memory, Padded
from tests.loopback_hub.messages import (
    EPOCH,
    Ending,
    Reply,
    Request,
    Route,
    file_reply,
    text_reply,
    whole,
)
from tests.loopback_hub.repositories import Stated

EVERYWHERE: frozenset[Route] = frozenset(
    ("api", "resolve", "cdn", "files", "modelscope-api", "modelscope-file")
)
#: Where a file's bytes come from.
BODIES: frozenset[Route] = frozenset(("resolve", "cdn", "files", "modelscope-file"))
APIS: frozenset[Route] = frozenset(("api", "modelscope-api"))


@dataclass(frozen=True)
class Somewhere:
    """A position that a seed decides, anywhere in what there is."""

    seed: int = 0

    def within(self, length: int) -> int:
        return random.Random(self.seed).randrange(length)


Position = int | Somewhere


def _within(position: Position, length: int) -> int | None:
    """Where that is, or None if it is not in there."""
    if isinstance(position, Somewhere) and length > 0:
        return position.within(length)
    return position if isinstance(position, int) and position < length else None


class Fault:
    """Something to do wrong.

    Attributes:
        routes: where it is done unless a test says otherwise.
    """

    routes: ClassVar[frozenset[Route]] = EVERYWHERE

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        """The reply to send in place of the right one, or None if it has no such flaw."""
        return None

    def misstate(self, stated: Stated) -> Stated | None:
        """What to say of a file in place of the truth, or None to say the truth."""
        return None

    def hides(self) -> bool:
        """Whether a file is left out of every list."""
        return False


class BodyFault(Fault):
    """A flaw of a file's bytes on their way."""

    routes = BODIES

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        is_body = request.method != "HEAD" and reply.status in (200, 206)
        return self.damage(reply) if is_body else None

    def damage(self, reply: Reply) -> Reply | None:
        raise NotImplementedError


def _cut(reply: Reply, after_bytes: Position, ending: Ending) -> Reply | None:
    sent_bytes = _within(after_bytes, reply.length_bytes)
    return None if sent_bytes is None else replace(reply, sent_bytes=sent_bytes, ending=ending)


@dataclass(frozen=True)
class Truncate(BodyFault):
    """The connection is closed after so many bytes of a reply, fewer than it promised."""

    after_bytes: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        return _cut(reply, self.after_bytes, Ending.CLOSE)


@dataclass(frozen=True)
class Reset(BodyFault):
    """The connection is reset after so many bytes of a reply."""

    after_bytes: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        return _cut(reply, self.after_bytes, Ending.RESET)


@dataclass(frozen=True)
class Stall(BodyFault):
    """After so many bytes of a reply nothing more comes, and the connection stays open."""

    after_bytes: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        return _cut(reply, self.after_bytes, Ending.STALL)


@dataclass(frozen=True)
class ExpireAfter(BodyFault):
    """As Truncate, and the signed URLs handed out so far are then worth nothing."""

    routes = frozenset(("cdn",))
    after_bytes: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        cut = _cut(reply, self.after_bytes, Ending.CLOSE)
        return cut and replace(cut, expires_urls=True)


@dataclass(frozen=True)
class Short(BodyFault):
    """Only so many bytes, and a Content-Length that agrees with them: whole, but not the file."""

    after_bytes: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        length = _within(self.after_bytes, reply.length_bytes)
        if length is None:
            return None
        headers = {**reply.headers, "Content-Length": str(length)}
        return replace(reply, headers=headers, stop=reply.start + length)


@dataclass(frozen=True)
class BitFlip(BodyFault):
    """One wrong bit at an offset in the file; replies that do not hold it are right."""

    offset: Position = Somewhere()

    def damage(self, reply: Reply) -> Reply | None:
        offset = _within(self.offset, reply.content.size_bytes)
        if offset is None or not reply.start <= offset < reply.stop:
            return None
        return replace(reply, flip=offset)


@dataclass(frozen=True)
class Drip(BodyFault):
    """A few bytes at a time, with a pause before each."""

    at_once_bytes: int = 1
    pause_seconds: float = 0.1

    def damage(self, reply: Reply) -> Reply:
        return replace(reply, drip=(self.at_once_bytes, self.pause_seconds))


@dataclass(frozen=True)
class WrongContentLength(BodyFault):
    """The header says more (or, below 0, less) than is sent before the connection is closed."""

    by_bytes: int = 1

    def damage(self, reply: Reply) -> Reply:
        length = max(0, reply.length_bytes + self.by_bytes)
        headers = {**reply.headers, "Content-Length": str(length)}
        return replace(reply, headers=headers, ending=Ending.CLOSE)


@dataclass(frozen=True)
class WrongContentRange(BodyFault):
    """The bytes are right, but are said to come from somewhere else in the file."""

    by_bytes: int = 1

    def damage(self, reply: Reply) -> Reply | None:
        if reply.status != 206:
            return None
        first, last = reply.start + self.by_bytes, reply.stop - 1 + self.by_bytes
        said = f"bytes {first}-{last}/{reply.content.size_bytes}"
        return replace(reply, headers={**reply.headers, "Content-Range": said})


@dataclass(frozen=True)
class IgnoreRange(BodyFault):
    """The whole file and status 200 where a part was asked for."""

    def damage(self, reply: Reply) -> Reply | None:
        if reply.status != 206:
            return None
        size = reply.content.size_bytes
        headers = {**reply.headers, "Content-Length": str(size)}
        del headers["Content-Range"]
        return replace(reply, status=200, headers=headers, start=0, stop=size)


@dataclass(frozen=True)
class RefuseRange(BodyFault):
    """416 for a part that is there."""

    def damage(self, reply: Reply) -> Reply | None:
        if reply.status != 206:
            return None
        said = f"bytes */{reply.content.size_bytes}"
        headers = {**reply.headers, "Content-Range": said, "Content-Length": "0"}
        return replace(reply, status=416, headers=headers, start=0, stop=0)


@dataclass(frozen=True)
class Changed(Fault):
    """The file is another one now: another ETag, a later date, and other bytes if given.

    With If-Range and what was true before, the whole of it comes, with status 200.
    """

    routes = BODIES
    content: Content | bytes | None = None
    etag: str = '"changed"'

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        if reply.status not in (200, 206):
            return None
        content = Memory(self.content) if isinstance(self.content, bytes) else self.content
        now = file_reply(
            request,
            content or reply.content,
            etag=self.etag,
            modified=EPOCH + 1,
            ranges="Accept-Ranges" in reply.headers,
            headers={name: reply.headers[name] for name in _KEPT if name in reply.headers},
        )
        return _in_place_of(reply, now)


@dataclass(frozen=True)
class ServerError(Fault):
    """An error of the server's."""

    status: Literal[500, 502, 503, 504] = 503

    def spoil(self, request: Request, reply: Reply) -> Reply:
        return _in_place_of(reply, text_reply(self.status, "upstream trouble"))


@dataclass(frozen=True)
class TooManyRequests(Fault):
    """429, and in one of three ways how long to wait.

    Attributes:
        wait_seconds: so long.
        said_as: Retry-After in seconds, Retry-After as a date, the hub's own header, or not at all.
    """

    wait_seconds: int = 1
    said_as: Literal["seconds", "date", "ratelimit", "nothing"] = "seconds"

    def spoil(self, request: Request, reply: Reply) -> Reply:
        headers = {
            "seconds": {"Retry-After": str(self.wait_seconds)},
            "date": {"Retry-After": formatdate(time() + self.wait_seconds, usegmt=True)},
            "ratelimit": {
                "RateLimit": f'"resolvers";r=0;t={self.wait_seconds}',
                "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300',
            },
            "nothing": {},
        }[self.said_as]
        return _in_place_of(reply, text_reply(429, "too many requests", **headers))


@dataclass(frozen=True)
class Gone(Fault):
    """404 for a file that is in the list."""

    routes = BODIES

    def spoil(self, request: Request, reply: Reply) -> Reply:
        missing = text_reply(404, "Entry not found", X_Error_Code="EntryNotFound")
        return _in_place_of(reply, missing)


@dataclass(frozen=True)
class RedirectLoop(Fault):
    """A redirect to where one already is."""

    routes = BODIES

    def spoil(self, request: Request, reply: Reply) -> Reply:
        return _in_place_of(reply, text_reply(302, "Found", Location=request.url))


@dataclass(frozen=True)
class RedirectTo(Fault):
    """A redirect to a URL of any scheme and host: "file:///etc/passwd"."""

    routes = BODIES
    location: str

    def spoil(self, request: Request, reply: Reply) -> Reply:
        return _in_place_of(reply, text_reply(302, "Found", Location=self.location))


@dataclass(frozen=True)
class ExpiredRedirect(Fault):
    """A redirect to a signed URL whose time was over before it was sent."""

    routes = frozenset(("resolve", "modelscope-file"))

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        location = reply.headers.get("Location", "")
        if "Expires=" not in urlsplit(location).query:
            return None
        late = re.sub(r"\bExpires=\d+", f"Expires={EPOCH}", location)
        return replace(reply, headers={**reply.headers, "Location": late})


@dataclass(frozen=True)
class NotJson(Fault):
    """A page for people where a program asked for JSON."""

    routes = APIS

    def spoil(self, request: Request, reply: Reply) -> Reply:
        page = Memory(b"<!doctype html><title>Just a moment...</title>")
        return _in_place_of(reply, whole(200, page, {"Content-Type": "text/html"}))


@dataclass(frozen=True)
class CutJson(Fault):
    """JSON that breaks off, and a Content-Length that agrees with it."""

    routes = APIS
    after_bytes: Position = Somewhere()

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        length = _within(self.after_bytes, reply.length_bytes)
        if length is None:
            return None
        headers = {**reply.headers, "Content-Length": str(length)}
        return replace(reply, headers=headers, stop=reply.start + length)


@dataclass(frozen=True)
class HugeJson(Fault):
    """The right JSON, with blanks behind it up to any size."""

    routes = APIS
    size_bytes: int = 2**30

    def spoil(self, request: Request, reply: Reply) -> Reply:
        document = reply.content.read(0, reply.content.size_bytes)
        huge = whole(reply.status, Padded(document, self.size_bytes), reply.headers)
        return _in_place_of(reply, huge)


@dataclass(frozen=True)
class WrongSha256(Fault):
    """Another digest than the file's, wherever the hub states one."""

    sha256: str = "0" * 64

    def misstate(self, stated: Stated) -> Stated:
        return replace(stated, sha256=self.sha256)


@dataclass(frozen=True)
class WrongSize(Fault):
    """Another size than the file's, wherever the hub states one beside the bytes."""

    by_bytes: int = 1

    def misstate(self, stated: Stated) -> Stated:
        return replace(stated, size_bytes=stated.size_bytes + self.by_bytes)


@dataclass(frozen=True)
class Unlisted(Fault):
    """A file that can be had and is in no list."""

    def hides(self) -> bool:
        return True


#: What a file that has changed still says of itself.
_KEPT = ("X-Repo-Commit", "Content-Disposition")


def _in_place_of(reply: Reply, another: Reply) -> Reply:
    return replace(another, route=reply.route, file=reply.file)
