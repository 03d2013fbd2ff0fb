"""The requests that are under way, and the one clock that ends those which take too long.

A clock for each chunk of each request would cost more than passing the chunk on: so a chunk only
notes the time, and all requests are looked at twice a second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Literal

from localllm.gateway.exchange import Exchange
from localllm.gateway.refusal import Refused
from localllm.gateway.settings import Settings

SWEEP_SECONDS = 0.5

#: Where a request is: its body is being read; it waits for a slot; llama-server works on it; its
#: client takes what was written.
Phase = Literal["body", "queue", "work", "write"]


class Flight:
    """One request under way.

    Attributes:
        exchange: what becomes of it.
        phase: where it is, since `since` (monotonic seconds).
        refusal: why it was ended, where it was.
        n_body: bytes of its body that are held.
    """

    def __init__(self, exchange: Exchange, transport: asyncio.WriteTransport | None) -> None:
        self.exchange = exchange
        self.arrived = self.since = time.monotonic()
        self.phase: Phase = "body"
        self.refusal: Refused | None = None
        self.n_body = 0
        self._transport = transport
        self._n_unsent = 0
        self._task = asyncio.current_task()

    def enter(self, phase: Phase, since: float | None = None) -> None:
        """It is somewhere else now, or it moved there; or has not moved there since."""
        self.phase = phase
        self.since = time.monotonic() if since is None else since

    def watch(self, now: float) -> None:
        """Notes when its client took some of what is written: a large answer takes its time."""
        if self.phase != "write" or self._transport is None:
            return
        if not self._transport.is_closing():  # one of TLS cannot be asked any more (Python 3.10)
            n_unsent = self._transport.get_write_buffer_size()
            if n_unsent != self._n_unsent:
                self._n_unsent, self.since = n_unsent, now

    @property
    def elapsed(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.arrived

    def end(self, refusal: Refused) -> None:
        """Cancels its task, which then finds the reason."""
        if self.refusal is None and self._task is not None:
            self.refusal = refusal
            self._task.cancel()

    def outlive(self) -> Refused | None:
        """Its task goes on, for a moment to tell the reason, which is given; it may be ended again.

        Whoever was told by a client that left goes on for another purpose: there is no reason.
        """
        if self._task is not None and sys.version_info >= (3, 11):
            self._task.uncancel()
        refusal, self.refusal = self.refusal, None
        return refusal


class Flights:
    """All of them."""

    def __init__(self) -> None:
        self._flights: set[Flight] = set()

    def __len__(self) -> int:
        return len(self._flights)

    def begin(self, exchange: Exchange, transport: asyncio.WriteTransport | None = None) -> Flight:
        """A request arrived over a connection; to be called in its task."""
        flight = Flight(exchange, transport)
        self._flights.add(flight)
        return flight

    def done(self, flight: Flight) -> None:
        """It is answered, or nobody waits for it any more."""
        self._flights.discard(flight)

    @property
    def n_generating(self) -> int:
        """Those that take a slot or wait for one."""
        return sum(flight.exchange.generates for flight in self._flights)

    @property
    def n_body(self) -> int:
        """Bytes of bodies that are held."""
        return sum(flight.n_body for flight in self._flights)

    def sweep(self, settings: Settings, *, wait_seconds: float = 1.0) -> None:
        """Ends those that take too long.

        Args:
            settings: the limits.
            wait_seconds: what to tell those who waited in vain.
        """
        now = time.monotonic()
        for flight in list(self._flights):
            flight.watch(now)
            refusal = _late(flight, now, settings, wait_seconds)
            if refusal is not None:
                flight.end(refusal)

    def end_all(self, refusal: Refused) -> None:
        """Ends every one of them."""
        for flight in list(self._flights):
            flight.end(refusal)


def _late(flight: Flight, now: float, settings: Settings, wait_seconds: float) -> Refused | None:
    here = now - flight.since
    if flight.phase == "body" and 0 < settings.body_seconds < here:
        return Refused(408, f"the body did not arrive within {settings.body_seconds:g} s")
    if flight.phase == "queue" and 0 < settings.queue_seconds < here:
        sentence = f"no slot became free within {settings.queue_seconds:g} s"
        return Refused(503, sentence, wait_seconds)
    if flight.phase == "work" and 0 < settings.idle_seconds < here:
        return Refused(504, f"llama-server was silent for {settings.idle_seconds:g} s")
    if flight.phase == "write" and 0 < settings.slow_client_seconds < here:
        sentence = f"the client took nothing for {settings.slow_client_seconds:g} s"
        return Refused(408, sentence)
    if flight.exchange.generates and 0 < settings.deadline_seconds < now - flight.arrived:
        return Refused(504, f"the answer took longer than {settings.deadline_seconds:g} s")
    return None
