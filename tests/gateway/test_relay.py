"""What no real llama-server can be made to answer in a test, through the gateway's own App."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import pytest
from aiohttp import web

from localllm.gateway.app import App, Rules
from localllm.gateway.backends import Pool
from localllm.gateway.door import Door
from localllm.gateway.exchange import Exchange
from localllm.gateway.flights import Flights
from localllm.gateway.limits import Limiter
from localllm.gateway.listening import Server
from localllm.gateway.passing import PING
from localllm.gateway.queue import Queue
from localllm.gateway.settings import KeyLimits, Settings
from localllm.gateway.status import ReplicaStatus, State
from localllm.gateway.window import Window
from tests.load import Address, Answer, Leave, Slow, ask

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
CHAT = "/v1/chat/completions"
EVENT = b'data: {"x": 1}\n\n'
#: More than all buffers between the two ends hold.
LARGE = b"x" * (24 << 20)


class Elsewhere:
    """A Backend whose answers this process makes."""

    name = "0"
    n_slots = 4
    state: State = "ready"

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.n_busy = 0
        self._url, self._session = url, session

    async def open(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        return await self._session.request(method, self._url + target, data=body)

    def moved(self) -> None:
        pass

    def doubt(self) -> None:
        pass

    def status(self) -> ReplicaStatus:
        return ReplicaStatus(self.name, self.state, self.n_slots)

    async def metrics(self) -> bytes:
        return b""

    async def run(self) -> None:
        pass


class Through:
    """An App before one Elsewhere."""

    def __init__(self, backend: Elsewhere, settings: Settings) -> None:
        self.backend, self.settings = backend, settings
        self.flights, self.limiter = Flights(), Limiter(settings.limits, {})
        self.window, self.exchanges = Window(), list[Exchange]()
        self.bugs = list[BaseException]()
        pool = Pool([backend])
        self.app = App(
            pool,
            Queue(pool),
            self.flights,
            Rules(settings, (), Door()),
            self.limiter,
            model_names=(),
            observers=(self.window, self),
            moved=self.window.moved,
            metrics=self._metrics,
            bug=self.bugs.append,
        )
        self.server = Server(self.app.handle, settings)
        self.address: Address = ("", 0)

    def ended(self, exchange: Exchange) -> None:
        """See Observer."""
        self.exchanges.append(exchange)

    async def _metrics(self) -> tuple[bytes, Mapping[str, str]]:
        return b"", {}

    async def sweep(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.flights.sweep(self.settings)

    async def ask(self, body: Mapping[str, Any] | None = None, **options: Any) -> Answer:
        content = json.dumps({"messages": [], "stream": True, **(body or {})}).encode()
        path = options.pop("path", CHAT)
        return await ask(self.address, path, content, keep_body=True, **options)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1200):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it did not come true within a minute")


@asynccontextmanager
async def through(handler: Handler, settings: Settings) -> AsyncIterator[Through]:
    """The handler stands for llama-server."""
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        upstream = web.Server(handler, handler_cancellation=True)
        behind = await loop.create_server(upstream, "127.0.0.1", 0)
        backend = Elsewhere(f"http://127.0.0.1:{behind.sockets[0].getsockname()[1]}", session)
        one = Through(backend, settings)
        before = await loop.create_server(one.server, "127.0.0.1", 0)
        one.address = ("127.0.0.1", before.sockets[0].getsockname()[1])
        sweeper = asyncio.ensure_future(one.sweep())
        try:
            yield one
        finally:
            sweeper.cancel()
            before.close()
            behind.close()
            await one.server.shutdown(1)
            await upstream.shutdown(1)


def run(handler: Handler, check: Callable[[Through], Awaitable[None]], **settings: Any) -> None:
    async def inside() -> None:
        async with through(handler, Settings(**settings)) as one:
            await check(one)
        assert one.bugs == []

    asyncio.run(inside())


def streaming(*pieces: bytes | float, endless: bool = False) -> Handler:
    """A stream of these bytes; numbers are seconds of silence."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                for piece in pieces:
                    if isinstance(piece, bytes):
                        await response.write(piece)
                    else:
                        await asyncio.sleep(piece)
                if not endless:
                    break
        return response

    return handle


def whole(body: bytes, **headers: str) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=body, content_type="application/json", headers=headers)

    return handle


def test_a_stream_that_ends_after_nothing_but_pings_ends_for_its_client() -> None:
    async def check(one: Through) -> None:
        answer = await one.ask(timeout_seconds=30)
        assert (answer.status, answer.error, answer.body) == (200, "", PING + PING)

    run(streaming(PING, 0.1, PING), check)


def test_pings_are_passed_on_and_do_not_keep_a_silent_stream_alive() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(EVENT)
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.1)
                await response.write(PING)
        return response

    async def check(one: Through) -> None:
        answer = await one.ask()
        assert answer.body.startswith(EVENT)
        assert PING in answer.body
        assert b"was silent for 1 s" in answer.body

    run(handle, check, idle_seconds=1.0)


def test_a_stream_that_moves_between_pings_goes_on() -> None:
    async def check(one: Through) -> None:
        answer = await one.ask(timeout_seconds=7)
        assert "was not whole after 7 s" in answer.error
        assert b"silent" not in answer.body

    run(streaming(EVENT, 0.1, PING, 0.1, endless=True), check, idle_seconds=4.0)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(whole(b'{"x": "' + LARGE + b'"}'), id="whole"),
        pytest.param(streaming(EVENT + LARGE), id="a stream at its end"),
        pytest.param(streaming(EVENT, *[LARGE] * 4, 60.0), id="a stream in the middle"),
    ],
)
def test_who_does_not_take_an_answer_is_cut_off_and_gets_no_second_one(handler: Handler) -> None:
    async def check(one: Through) -> None:
        stalled = asyncio.ensure_future(one.ask(slow=Slow(1), timeout_seconds=600))
        await one.until(lambda: len(one.exchanges) == 1 and one.backend.n_busy == 0)
        [exchange] = one.exchanges
        assert exchange.outcome == "failed"
        assert "took nothing for" in exchange.error
        await one.until(lambda: not one.server.connections)
        stalled.cancel()

    run(handler, check, slow_client_seconds=1.0)


def test_a_stream_to_come_back_to_keeps_its_slot_its_limits_and_its_deadline() -> None:
    async def check(one: Through) -> None:
        named = {"X-Conversation-Id": "talk"}
        answer = await one.ask(headers=named, leave=Leave(2))
        assert answer.left
        assert one.backend.n_busy == 1
        refused = await one.ask(headers=named)
        assert refused.status == 429
        assert b"may have 1" in refused.body
        await one.until(lambda: one.backend.n_busy == 0)
        [left] = [of for of in one.exchanges if of.status != 429]
        assert left.outcome == "failed"
        assert "took longer than 5 s" in left.error
        assert (left.n_tokens or 0) > 2

    run(
        streaming(EVENT, 0.1, endless=True),
        check,
        limits=KeyLimits(concurrency=1),
        deadline_seconds=5.0,
    )


def test_a_stream_to_come_back_to_is_read_to_its_end() -> None:
    async def check(one: Through) -> None:
        answer = await one.ask(headers={"X-Conversation-Id": "talk"}, leave=Leave(1))
        assert answer.left
        await one.until(lambda: one.backend.n_busy == 0)
        [left] = one.exchanges
        assert (left.outcome, left.n_tokens) == ("client left", 11)

    run(streaming(EVENT, *[0.05, EVENT] * 10), check)


USAGE = b'"usage": {"completion_tokens": 100, "prompt_tokens": 7}'


@pytest.mark.parametrize(
    ("handler", "body", "n_prompt", "n_tokens"),
    [
        pytest.param(
            whole(b'{"choices": [], ' + USAGE + b"}"),
            {"stream": False, "n": 3},
            7,
            300,
            id="three choices",
        ),
        pytest.param(
            whole(b'{"choices": [], ' + USAGE + b"}"),
            {"stream": False, "prompt": ["a", "b"]},
            14,
            200,
            id="two prompts",
        ),
        pytest.param(
            streaming(EVENT * 404, b"data: {" + USAGE + b"}\n\n"),
            {"n": 4},
            7,
            405,
            id="four choices of a stream",
        ),
        pytest.param(
            whole(b'{"content": "Here is the data: 42", ' + USAGE + b"}"),
            {"stream": False},
            7,
            100,
            id="a text like an event",
        ),
    ],
)
def test_what_all_results_cost_is_counted_once(
    handler: Handler, body: Mapping[str, Any], n_prompt: int, n_tokens: int
) -> None:
    async def check(one: Through) -> None:
        answer = await one.ask(body)
        assert answer.status == 200
        [exchange] = one.exchanges
        assert (exchange.n_prompt, exchange.n_tokens) == (n_prompt, n_tokens)
        traffic = one.window.traffic()
        assert round(traffic.tokens_per_second * traffic.seconds) == n_tokens

    run(handler, check)
