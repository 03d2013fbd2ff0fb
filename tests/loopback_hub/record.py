"""What happened at the test hub: requests, bytes, connections. Thread-safe; can be waited on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.loopback_hub.messages import Reply, Request, Route

_SECRETS = ("Authorization", "Cookie")


@dataclass(frozen=True)
class Seen:
    """A request that was answered; the bytes of its body may still be on their way.

    Attributes:
        method: GET, HEAD.
        endpoint: of the listener that it came to.
        target: path and query as sent.
        headers: as sent; names in lower case.
        route: which part of the hub answered.
        file: what it was about: a path in a repository, a name; of the APIs the repository.
        status: of the reply.
    """

    method: str
    endpoint: str
    target: str
    headers: dict[str, str]
    route: Route
    file: str
    status: int

    @property
    def host(self) -> str | None:
        return self.headers.get("host")

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class Record:
    """Counters of one hub.

    Attributes:
        changed: held while anything is read or counted; notified of every change.
        requests: all that were answered.
        sent: bytes of bodies given to the kernel, by file.
        leaks: requests that brought a secret to where none is asked for.
        connections, peaks: open now, and the most at the same time; by endpoint, and "" for all.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: list[Seen] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    leaks: list[Seen] = field(default_factory=list)
    connections: Counter[str] = field(default_factory=Counter)
    peaks: Counter[str] = field(default_factory=Counter)

    def answered(self, request: Request, reply: Reply) -> None:
        seen = Seen(
            request.method,
            request.endpoint,
            request.target,
            {name.lower(): value for name, value in request.headers.items()},
            reply.route,
            reply.file,
            reply.status,
        )
        with self.changed:
            self.requests.append(seen)
            # Neither ever asks for a secret, so whatever comes there was leaked.
            if reply.route in ("cdn", "files") and any(map(request.headers.get, _SECRETS)):
                self.leaks.append(seen)
            self.changed.notify_all()

    def count_sent(self, file: str, sent_bytes: int) -> None:
        with self.changed:
            self.sent[file] += sent_bytes
            self.changed.notify_all()

    def count_connection(self, endpoint: str, change: int) -> None:
        with self.changed:
            for key in (endpoint, ""):
                self.connections[key] += change
                self.peaks[key] = max(self.peaks[key], self.connections[key])
            self.changed.notify_all()

    def sent_bytes(self, file: str) -> int:
        with self.changed:
            return sum(count for name, count in self.sent.items() if fnmatchcase(name, file))

    def reset(self) -> None:
        """Forgets all but the leaks and the connections that are open."""
        with self.changed:
            self.requests.clear()
            self.sent.clear()
            self.peaks = Counter(self.connections)

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float) -> None:
        with self.changed:
            happened = self.changed.wait_for(condition, timeout_seconds)
        assert happened, f"waited {timeout_seconds:g} s in vain at the loopback hub"
