"""Which HTTP stack costs a gateway least: one llama-server, the same small proxy in four stacks.

    .venv/bin/python -m benchmarks.http_stacks [--rounds 5] [--only demo]

Needs what localllm does not, for this benchmark alone: starlette, uvicorn, httptools and uvloop.

Each proxy is a process of its own: a new connection to llama-server's socket for each request, the
body's bytes through as they come, the upstream given up when the client leaves. One client for all,
raw sockets that count events, also straight at the socket ("direct"). Interleaved:
- the time to the first event, one request after the other;
- tokens per second of 1, 8 and 32 streams on 8 slots, as medians of ratios to direct;
- the proxy's CPU time per 1,000 events of these streams (the 0.6B's are short: what a request
  costs weighs more there), and what it holds in memory after all that;
- a client that leaves before the head of the answer came, and after the first event: when the
  upstream is closed. For this the upstream is one that says nothing more.
The demo model, thousands of tokens a second, shows what a stack costs; the 0.6B what is left of
that beside a model that keeps all processors busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# What only the measuring side needs is imported there: a proxy's memory is to be its stack's.
if TYPE_CHECKING:
    import psutil

STACKS = ("aiohttp", "aiohttp uvloop", "starlette", "starlette uvloop")
DIRECT = "direct"
WAYS = (DIRECT, *STACKS)
PACKAGES = ("aiohttp", "starlette", "uvicorn", "httptools", "httpx", "uvloop")
N_SLOTS = 8
#: How long a client that left may go unnoticed before we say that it is.
UNNOTICED_SECONDS = 5.0
_EVENT = b"data: "
_HEAD_AND_EVENT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"d\r\ndata: hello\n\n\r\n"
)
_UPSTREAM = "http://engine"
#: Of one connection each (RFC 9110, 7.6.1), and what each side says for itself.
_OWN = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host",
     "content-length", "date", "server")
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """So many requests of so many tokens, so many of them at the same time."""

    n_streams: int
    n_requests: int
    n_tokens: int


#: For each model: how many requests time the first event, of how many tokens, and what follows.
LOADS = {
    "demo": (100, 4, (Load(1, 10, 200), Load(8, 32, 200), Load(32, 64, 200))),
    "0.6B": (40, 1, (Load(1, 1, 24), Load(8, 8, 16), Load(32, 32, 8))),
}


@dataclass
class Measured:
    """What one way to the model showed; seconds, events and tokens per second."""

    ttft: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[int, float] = field(default_factory=dict)
    n_events: dict[int, int] = field(default_factory=dict)
    rss_bytes: int | None = None

    def add(self, load: Load, seconds: float, n_events: int, cpu_seconds: float) -> None:
        """One run of the load, and what the proxy spent on it."""
        n = load.n_streams
        self.rates.setdefault(n, []).append(load.n_requests * load.n_tokens / seconds)
        self.cpu_seconds[n] = self.cpu_seconds.get(n, 0.0) + cpu_seconds
        self.n_events[n] = self.n_events.get(n, 0) + n_events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(LOADS), help="one of the two models")
    parser.add_argument("--proxy", choices=STACKS, help="be that proxy, and measure nothing")
    parser.add_argument("--upstream", help="the proxy's upstream, a unix socket")
    arguments = parser.parse_args()
    if arguments.proxy:
        be_proxy(arguments.proxy, arguments.upstream)
        return
    from benchmarks.common import store

    noticed = asyncio.run(measure_leaving())
    show_leaving(noticed)
    versions = {name: version(name) for name in PACKAGES}
    for name in [arguments.only] if arguments.only else LOADS:
        ways = measure(name, arguments.rounds)
        show(name, ways)
        result = {"versions": versions, "noticed_seconds": noticed, "ways": ways}
        store(f"http-stacks-{name.lower()}", result)


# The proxies.


def be_proxy(stack: str, upstream: str) -> None:
    """Prints its port, and answers until its standard input ends."""
    name, _, loop = stack.partition(" ")
    serve = {"aiohttp": serve_aiohttp, "starlette": serve_starlette}[name]
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    if loop:
        import uvloop

        uvloop.run(serve(listener, upstream))
    else:
        asyncio.run(serve(listener, upstream))


async def serve_aiohttp(listener: socket.socket, upstream: str) -> None:
    import aiohttp
    from aiohttp import web

    async def relay(request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            _UPSTREAM + request.path_qs,
            headers=_passed(request.headers),
            data=await request.read(),
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async with aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(upstream, limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    ) as session:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", relay)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener, shutdown_timeout=1).start()
        await _input_ends()
        await runner.cleanup()


async def serve_starlette(listener: socket.socket, upstream: str) -> None:
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def relay(request: Request) -> StreamingResponse:
        answer = await client.send(
            client.build_request(
                request.method,
                f"{_UPSTREAM}{request.url.path}",
                headers=_passed(request.headers),
                content=await request.body(),
            ),
            stream=True,
        )
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            _passed(answer.headers),
            background=BackgroundTask(answer.aclose),
        )

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(uds=upstream, limits=limits)
    async with httpx.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:
        routes = [Route("/{path:path}", relay, methods=["GET", "POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes),
            http="httptools",
            lifespan="off",
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await _input_ends()
        server.should_exit = True
        await serving


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OWN}


async def _input_ends() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Since it began, in user and kernel; counted in hundredths of a second."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def proxy(stack: str, upstream: str) -> Iterator[Proxy]:
    import psutil

    command = [sys.executable, __file__, "--proxy", stack, "--upstream", upstream]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            yield Proxy(int(child.stdout.readline()), psutil.Process(child.pid))
        finally:
            child.communicate(timeout=20)  # closes its standard input, on which it ends


# The client.


class Answer(asyncio.Protocol):
    """Sends one request and keeps what comes; done when the server closes the connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.pieces: list[bytes] = []
        self.first_at: float | None = None
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self.pieces.append(data)
        if self.first_at is None and _EVENT in data:
            self.first_at = time.perf_counter()
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self.done.set_result(None)

    def n_events(self) -> int:
        """Events of a whole answer."""
        text = b"".join(self.pieces)
        if not text.startswith(b"HTTP/1.1 200 ") or b"data: [DONE]" not in text:
            raise SystemExit(f"not a whole answer: {text[:300]!r}")
        return text.count(_EVENT)


#: The path of a unix socket, or a port of 127.0.0.1.
Address = str | int


async def connect(to: Address, request: bytes) -> tuple[asyncio.BaseTransport, Answer]:
    loop = asyncio.get_running_loop()
    if isinstance(to, str):
        return await loop.create_unix_connection(lambda: Answer(request), to)
    return await loop.create_connection(lambda: Answer(request), "127.0.0.1", to)


def request_bytes(n_tokens: int, key: str) -> bytes:
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": n_tokens,
            "ignore_eos": True,
            "stream": True,
            "seed": 7,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(to: Address, request: bytes) -> Answer:
    _, answer = await connect(to, request)
    await answer.done
    return answer


async def time_first(to: Address, request: bytes) -> float:
    started = time.perf_counter()
    answer = await ask(to, request)
    answer.n_events()
    assert answer.first_at is not None
    return answer.first_at - started


async def run_load(to: Address, load: Load, key: str) -> tuple[float, int]:
    """Seconds, and events that came."""
    request = request_bytes(load.n_tokens, key)
    waiting = iter(range(load.n_requests))
    answers: list[Answer] = []

    async def one_after_the_other() -> None:
        for _ in waiting:
            answers.append(await ask(to, request))

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(load.n_streams)))
    seconds = time.perf_counter() - started
    return seconds, sum(answer.n_events() for answer in answers)


# The measurements.


def measure(name: str, rounds: int) -> dict[str, dict[str, Any]]:
    from benchmarks.common import half_billion_model
    from localllm import demo
    from localllm.cli.finding import find_here
    from localllm.cli.prepare import prepare
    from localllm.engine.locate import SERVER, require_tools
    from localllm.engine.server import LlamaServer
    from localllm.planner import Wishes

    path = demo.model_path() if name == "demo" else half_billion_model()
    plan = prepare(find_here(str(path)), Wishes(n_parallel=N_SLOTS), "serve").plan
    with ExitStack() as stack:
        endpoint = stack.enter_context(LlamaServer(require_tools(SERVER), plan)).require_endpoint()
        assert endpoint.socket_path is not None
        proxies = {each: stack.enter_context(proxy(each, endpoint.socket_path)) for each in STACKS}
        return asyncio.run(
            measure_ways(name, rounds, endpoint.socket_path, endpoint.api_key or "", proxies)
        )


async def measure_ways(
    name: str, rounds: int, path: str, key: str, proxies: Mapping[str, Proxy]
) -> dict[str, dict[str, Any]]:
    n_first, n_tokens, loads = LOADS[name]
    ways: dict[str, Address] = {DIRECT: path}
    ways |= {each: proxies[each].port for each in STACKS}
    measured = {way: Measured() for way in WAYS}
    short = request_bytes(n_tokens, key)
    for way in WAYS:  # once unmeasured: imports, caches
        await run_load(ways[way], loads[1], key)
    for number in range(rounds):
        # Who comes first changes, so that nobody always follows the same neighbour.
        order = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
        for _ in range(n_first):
            for way in order:
                measured[way].ttft.append(await time_first(ways[way], short))
        for load in loads:
            for way in order:
                before = proxies[way].cpu_seconds() if way in proxies else 0.0
                seconds, n_events = await run_load(ways[way], load, key)
                after = proxies[way].cpu_seconds() if way in proxies else 0.0
                measured[way].add(load, seconds, n_events, after - before)
    for each in STACKS:
        measured[each].rss_bytes = proxies[each].process.memory_info().rss
    return {way: summary(measured[way], measured[DIRECT]) for way in WAYS}


async def measure_leaving() -> dict[str, dict[str, float | None]]:
    moments = {"before the head": b"", "after an event": _HEAD_AND_EVENT}
    return {
        stack: {when: await leave(stack, sent) for when, sent in moments.items()}
        for stack in STACKS
    }


async def leave(stack: str, sent: bytes) -> float | None:
    """Seconds from the client's leaving to the end of the proxy's connection to its upstream.

    Args:
        stack: whose proxy.
        sent: what the upstream says before it falls silent.
    """
    asked, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(sent)
        asked.set()
        while await reader.read(4096):
            pass
        closed.set()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        async with await asyncio.start_unix_server(silent, path):
            with proxy(stack, path) as running:
                transport, answer = await connect(running.port, request_bytes(1, "any"))
                begun = answer.begun if sent else asked.wait()
                await asyncio.wait_for(begun, 30)
                transport.close()
                left_at = time.perf_counter()
                try:
                    await asyncio.wait_for(closed.wait(), UNNOTICED_SECONDS)
                except asyncio.TimeoutError:
                    return None
                return time.perf_counter() - left_at


# What is told.


def summary(measured: Measured, direct: Measured) -> dict[str, Any]:
    """The figures of one way, beside direct."""
    from benchmarks.common import median_ratio

    ttft, ttft_direct = median_and_p99(measured.ttft), median_and_p99(direct.ttft)
    return {
        "n_ttft": len(measured.ttft),
        "ttft_seconds": ttft,
        "ttft_added_seconds": {of: ttft[of] - ttft_direct[of] for of in ttft},
        "tokens_per_second": measured.rates,
        "of_direct": {n: median_ratio(measured.rates[n], direct.rates[n]) for n in direct.rates},
        "n_events": measured.n_events,
        "cpu_seconds": measured.cpu_seconds,
        "cpu_seconds_per_1000_events": 1000
        * sum(measured.cpu_seconds.values())
        / sum(measured.n_events.values()),
        "rss_bytes": measured.rss_bytes,
    }


def median_and_p99(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "p99": statistics.quantiles(values, n=100, method="inclusive")[98],
    }


def show(name: str, ways: Mapping[str, dict[str, Any]]) -> None:
    direct = ways[DIRECT]
    ttft = _joined(direct["ttft_seconds"].values(), 1000, 1)
    rates = _joined(map(statistics.median, direct["tokens_per_second"].values()), 1, 0)
    print(f"\n{name}, straight at llama-server: {direct['n_ttft']} first events after {ttft} ms")
    print(
        f"(median / P99); {rates} tokens/s of {' / '.join(map(str, direct['of_direct']))} streams"
    )
    print(f"{'':<18}{'ms added':>14}{'of direct':>22}{'CPU ms/1000 events':>22}{'memory':>12}")
    for stack in STACKS:
        figures = ways[stack]
        print(
            f"{stack:<18}"
            f"{_joined(figures['ttft_added_seconds'].values(), 1000, 1):>14}"
            f"{_joined(figures['of_direct'].values(), 1, 3):>22}"
            f"{figures['cpu_seconds_per_1000_events'] * 1000:>22.0f}"
            f"{figures['rss_bytes'] / (1 << 20):>8.0f} MiB"
        )


def show_leaving(noticed: Mapping[str, Mapping[str, float | None]]) -> None:
    print("a client leaves; the upstream's connection is closed")
    for stack, moments in noticed.items():
        told = [
            f"{when}: " + ("never" if seconds is None else f"after {seconds * 1000:.1f} ms")
            for when, seconds in moments.items()
        ]
        print(f"{stack:<18}{'   '.join(told)}")


def _joined(values: Iterable[float], scale: float, digits: int) -> str:
    return " / ".join(f"{value * scale:.{digits}f}" for value in values)


if __name__ == "__main__":
    main()
