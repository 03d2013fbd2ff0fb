"""One request and what became of it: what logs, metrics, limits and percentiles are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

#: How an exchange ended. "refused": by the gateway, before a replica saw it. "failed": a replica
#: died or was silent, and nobody else could answer. "client left": before it had its answer.
Outcome = Literal["answered", "refused", "failed", "client left"]


@dataclass
class Exchange:
    """One request, filled in as it goes. Times are seconds; None is what is not known.

    Attributes:
        id: short, random; also the answer's X-Request-Id.
        arrived_at: Unix time.
        method, path: as sent, without the query.
        route: the path's pattern (routes.py), "other" for one that is not known: bounded in number.
        generates: it takes a slot.
        client: the peer's address.
        key: the name of its key; "" without keys.
        model: as the request names it.
        replica: the name of the one that answered.
        status: of the answer; 0 while there is none.
        outcome: see Outcome. error: why, a sentence, where it is not "answered".
        attempts: replicas that were given it.
        streams: the client asked for a stream.
        received_bytes, sent_bytes: bodies.
        queue_seconds: from arrival to a slot.
        ttft_seconds: from arrival to the first token's bytes; for an answer in one piece, to what
            llama-server says its prompt took.
        total_seconds: from arrival to the answer's last byte.
        n_prompt: prompt tokens, cached ones included; n_cached of them came from a cache.
        n_tokens: written.
        body: the request's, where prompts are logged.
    """

    id: str
    arrived_at: float
    method: str
    path: str
    route: str = "other"
    generates: bool = False
    client: str = ""
    key: str = ""
    model: str = ""
    replica: str = ""
    status: int = 0
    outcome: Outcome = "answered"
    error: str = ""
    attempts: int = 0
    streams: bool = False
    received_bytes: int = 0
    sent_bytes: int = 0
    queue_seconds: float | None = None
    ttft_seconds: float | None = None
    total_seconds: float = 0.0
    n_prompt: int | None = None
    n_cached: int | None = None
    n_tokens: int | None = None
    body: str | None = field(default=None, repr=False)

    @property
    def succeeded(self) -> bool:
        """It was answered, and not with an error: how long a refusal takes says nothing."""
        return self.outcome == "answered" and self.status < 400

    @property
    def seconds_per_token(self) -> float | None:
        """Time per output token after the first; None below two tokens."""
        if self.ttft_seconds is None or self.n_tokens is None or self.n_tokens < 2:
            return None
        return max(0.0, self.total_seconds - self.ttft_seconds) / (self.n_tokens - 1)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens written per second in its slot, the time for its prompt included."""
        if not self.n_tokens or self.queue_seconds is None:
            return None
        seconds = self.total_seconds - self.queue_seconds
        return self.n_tokens / seconds if seconds > 0 else None


class Observer(Protocol):
    """Something that is told of every exchange when it has ended."""

    def ended(self, exchange: Exchange) -> None:
        """Must not raise and not block."""
        ...
