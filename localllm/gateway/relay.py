"""One request's bytes: to a backend, and its answer's back, as they are.

An answer that has not begun may come from another backend, or the same one started again; one that
has begun ends with an error in its own form. A client that leaves takes its work with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from localllm.gateway.ask import Ask, conversation
from localllm.gateway.backends import Backend, BrokenError, Pool
from localllm.gateway.passing import PING, Passing
from localllm.gateway.queue import Queue
from localllm.gateway.refusal import Refused

if TYPE_CHECKING:
    from localllm.gateway.flights import Flight
    from localllm.gateway.routes import Route

#: Backends that one request is given before it is called its own fault.
MOST_ATTEMPTS = 3
#: An answer in one piece is held until it is whole, so that another backend can still give it.
_STREAM = "text/event-stream"
_NO_ASK = Ask()

#: RFC 9110 7.6.1: for one connection, not for the next. And what is the gateway's to say.
_NOT_PASSED_ON = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "host", "content-length", "expect", "forwarded", "via",
        "authorization", "x-api-key", "cookie", "origin", "referer",
    )
)  # fmt: skip
_NOT_PASSED_BACK = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "te", "trailer",
        "transfer-encoding", "upgrade", "content-length", "x-request-id",
    )
)  # fmt: skip


class Relay:
    """Passes requests on to a pool.

    Args:
        pool: whose backends answer.
        queue: gives slots of them.
        moved: told how many tokens of a stream went by.
    """

    def __init__(self, pool: Pool, queue: Queue, moved: Callable[[int], None]) -> None:
        self._pool = pool
        self._queue = queue
        self._moved = moved

    async def generate(
        self,
        request: web.BaseRequest,
        flight: Flight,
        route: Route,
        target: str,
        body: bytes,
        ask: Ask,
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        """The answer to a request that takes a slot, sent to its client.

        Args:
            request: as it came.
            flight: its record.
            route: what it is.
            target: path and query for the backend.
            body: its body, whole.
            ask: what is known of that.
            headers: to put on the answer.

        Raises:
            Refused: no backend could answer; nothing was sent.
        """
        exchange = flight.exchange
        passed_on = forwarded(request)
        while True:
            flight.enter("queue")
            lease = await self._queue.enter(ask.n_slots, ask.prefix, in_front=exchange.attempts > 0)
            if exchange.queue_seconds is None:
                exchange.queue_seconds = flight.elapsed
            exchange.attempts += 1
            exchange.replica = lease.backend.name
            flight.enter("work")
            one = _One(request, flight, route, headers, self._moved, lease.backend, ask)
            try:
                return await one.answer(target, passed_on, body)
            except BrokenError as broken:
                lease.backend.doubt()
                if exchange.attempts >= MOST_ATTEMPTS:
                    raise Refused(
                        502, f"llama-server ended {exchange.attempts} times over this request"
                    ) from broken
            finally:
                lease.release()

    async def pass_on(
        self,
        request: web.BaseRequest,
        flight: Flight,
        route: Route,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        with_key: bool = True,
    ) -> web.StreamResponse:
        """The answer to a request that takes no slot.

        Args:
            request: as it came.
            flight: its record.
            route: what it is.
            target: path and query for the backend.
            body: its body, whole.
            headers: to put on the answer.
            with_key: without it llama-server answers what it shows to everybody, and refuses
                everything else.

        Raises:
            Refused: no backend is ready, or it broke.
        """
        # A stream that is taken up again (/v1/stream) is on the replica that it began on.
        name = request.query.get("conv_id")
        backend = self._pool.any_ready((conversation(name),) if name else ())
        if backend is None:
            raise Refused(503, "Loading model", 1)
        flight.exchange.replica = backend.name
        flight.exchange.attempts = 1
        passed_on = forwarded(request)
        if not with_key:
            passed_on["Authorization"] = "none"
        flight.enter("work")
        one = _One(request, flight, route, headers, self._moved, backend)
        try:
            return await one.answer(target, passed_on, body)
        except BrokenError as broken:
            backend.doubt()
            raise Refused(503, "llama-server ended; it is being started again", 1) from broken


class _One:
    """One request with one backend."""

    def __init__(
        self,
        request: web.BaseRequest,
        flight: Flight,
        route: Route,
        headers: Mapping[str, str],
        moved: Callable[[int], None],
        backend: Backend,
        ask: Ask = _NO_ASK,
    ) -> None:
        self._request = request
        self._flight = flight
        self._route = route
        self._headers = headers
        self._moved = moved
        self._backend = backend
        self._ask = ask
        self._passing = Passing()

    async def answer(
        self, target: str, passed_on: Mapping[str, str], body: bytes | None
    ) -> web.StreamResponse:
        """Sends the answer to the client.

        Raises:
            BrokenError: the backend broke before anything was sent.
        """
        upstream = await self._backend.open(self._request.method, target, passed_on, body)
        self._passing.is_stream = upstream.content_type == _STREAM
        self._flight.exchange.streams |= self._passing.is_stream
        try:
            if not self._passing.is_stream:
                return await self._whole(upstream)
            try:
                return await self._stream(upstream)
            except asyncio.CancelledError:
                # A stream with this header is meant to outlive its client, who comes back for it
                # (llama-server's GET /v1/stream): it keeps its slot and its limits to its end.
                if self._flight.refusal is None and "X-Conversation-Id" in self._request.headers:
                    await self._read_on(upstream)
                raise
        finally:
            self._count()
            upstream.close()

    async def _whole(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        try:
            body = await upstream.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise BrokenError(str(exc)) from exc
        if upstream.status == 503 and self._route.generates:
            raise BrokenError("it is still loading")
        self._backend.moved()
        self._passing.take(body)
        exchange = self._flight.exchange
        exchange.status = upstream.status
        prompt_seconds = self._passing.prompt_seconds()
        if prompt_seconds is not None and exchange.queue_seconds is not None:
            exchange.ttft_seconds = exchange.queue_seconds + prompt_seconds
        headers = self._passed_back(upstream)
        if self._request.method == "HEAD":
            headers["Content-Length"] = upstream.headers.get("Content-Length", "0")
        response = web.Response(
            status=upstream.status, reason=upstream.reason, headers=headers, body=body
        )
        self._flight.enter("write")
        await response.prepare(self._request)
        await response.write_eof()
        exchange.sent_bytes = len(body)
        return response

    async def _stream(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        flight, exchange, passing = self._flight, self._flight.exchange, self._passing
        backend, chunks = self._backend, upstream.content
        response = web.StreamResponse(status=upstream.status, headers=self._passed_back(upstream))
        begun = False
        try:
            # llama-server's head comes at once and proves nothing, and neither does a ping.
            held = await chunks.readany()
            while held and not held.replace(PING, b""):
                more = await chunks.readany()
                if not more:
                    break
                held += more
            exchange.ttft_seconds = flight.elapsed if held else None
            exchange.status = upstream.status
            backend.moved()
            self._moved(passing.take(held))
            flight.enter("write")
            await response.prepare(self._request)
            begun = True
            if held:
                await response.write(held)
            silent_since: float | None = None
            while True:
                flight.enter("work", silent_since)
                chunk = await chunks.readany()
                if not chunk:
                    break
                if not chunk.replace(PING, b""):  # is passed on, and is no sign of work
                    silent_since = flight.since
                else:
                    silent_since = None
                    backend.moved()
                self._moved(passing.take(chunk))
                flight.enter("write")
                await response.write(chunk)
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as exc:
            if self._request.transport is None or self._request.transport.is_closing():
                raise asyncio.CancelledError from None  # it was the client's side
            if not begun:
                raise BrokenError(str(exc)) from exc
            backend.doubt()
            exchange.outcome, exchange.error = "failed", "llama-server ended in the middle"
            refusal = Refused(500, "llama-server ended in the middle of this answer")
            await self._end(response, refusal)
            return response
        except asyncio.CancelledError:
            # Too long, not left: who has begun to read is told why it ends.
            if flight.refusal is None or not begun:
                raise
            was_writing = flight.phase == "write"
            refused = flight.outlive()
            assert refused is not None
            exchange.outcome, exchange.error = "failed", refused.message
            if was_writing:
                cut_off(self._request)  # to one who does not read, nothing can be told
            else:
                await self._end(response, refused)
            return response
        finally:
            exchange.sent_bytes = passing.n_bytes
        flight.enter("write")
        await response.write_eof()
        return response

    async def _read_on(self, upstream: aiohttp.ClientResponse) -> None:
        """Reads a stream to its end for nobody."""
        self._flight.outlive()
        try:
            while True:
                self._flight.enter("work")
                chunk = await upstream.content.readany()
                if not chunk:
                    return
                self._backend.moved()
                self._moved(self._passing.take(chunk))
        except (aiohttp.ClientError, OSError):
            self._backend.doubt()

    async def _end(self, response: web.StreamResponse, refusal: Refused) -> None:
        self._flight.enter("write")
        # Half an event may have come before it.
        before = b"" if self._passing.is_between_events else b"\n\n"
        await response.write(before + refusal.event(is_messages=self._route.is_messages))
        await response.write_eof()

    def _passed_back(self, upstream: aiohttp.ClientResponse) -> dict[str, str]:
        headers = {
            name: value
            for name, value in upstream.headers.items()
            if (low := name.lower()) not in _NOT_PASSED_BACK
            and not low.startswith("access-control-")
        }
        vary = [of for of in (upstream.headers.get("Vary"), self._headers.get("Vary")) if of]
        return {**self._headers, **headers, **({"Vary": ", ".join(vary)} if vary else {})}

    def _count(self) -> None:
        """What the answer cost; of one that ended early, what went by."""
        if not self._route.generates:
            return
        counts = self._passing.counts()
        n_events = self._passing.n_events
        if self._ask.n_slots > 1:
            self._of_all_results(counts, n_events)
        # Events were counted as tokens while they passed; a few of them are not. The beginning of
        # a /v1/messages stream tells of 0 tokens, and that is all that one cut short tells.
        if n_events and counts.get("n_tokens"):
            self._moved(counts["n_tokens"] - n_events)
        elif n_events:
            counts["n_tokens"] = n_events
        for name, number in counts.items():
            setattr(self._flight.exchange, name, number)

    def _of_all_results(self, counts: dict[str, int], n_events: int) -> None:
        """llama-server tells the numbers of one result (n, several prompts): at most, of all."""
        if "n_prompt" in counts:
            counts["n_prompt"] *= self._ask.n_prompts
        if self._passing.is_stream:
            counts["n_tokens"] = max(counts.get("n_tokens", 0), n_events)
        elif "n_tokens" in counts:
            counts["n_tokens"] *= self._ask.n_slots


def cut_off(request: web.BaseRequest) -> None:
    """Breaks the connection: an answer that has begun cannot be taken back."""
    if request.transport is not None:
        request.transport.abort()


def forwarded(request: web.BaseRequest) -> dict[str, str]:
    """The request's headers as a backend gets them: without those that end here."""
    named = request.headers.get("Connection", "").lower()
    listed = {name.strip() for name in named.split(",")} if named else set()
    return {
        name: value
        for name, value in request.headers.items()
        if (low := name.lower()) not in _NOT_PASSED_ON and low not in listed
    }
