"""`localllm serve` under load and among bad clients: bounded, fair, and nothing kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from localllm.units import MIB
from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.gateway.serving import Served, served
from tests.load import Answer, Leave, Slow, ask, run_load

T = TypeVar("T")

N_SLOTS = 4
KEYS = ("requests", "tokens", "concurrency", "free")
#: What the tests' settings leave alone.
USUAL: dict[str, Any] = {"performance_seconds": 3600}
#: Some 4 KiB for each token, so that what is not read fills every buffer on the way.
WIDE = {"n_predict": 3000, "n_probs": 20, "stream": True}
LONG = {"n_predict": 4000}


class Gateway:
    """One that is told other settings while it runs."""

    def __init__(self, server: Served, config: Path) -> None:
        self.server, self.config = server, config
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    @contextlib.contextmanager
    def with_settings(self, **settings: Any) -> Iterator[None]:
        self._tell({**USUAL, **settings})
        try:
            yield
        finally:
            self._tell(USUAL)

    def _tell(self, settings: Mapping[str, Any]) -> None:
        n_told = self.server.output.count("settings read again")
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self.server.signal(signal.SIGHUP)
        wait_until(
            lambda: self.server.output.count("settings read again") > n_told, "the new settings"
        )

    def ask(self, path: str = "/completion", **options: Any) -> Awaitable[Answer]:
        """A request; `document` is its body."""
        document = options.pop("document", None)
        body = None if document is None else json.dumps(document).encode()
        options = {"timeout_seconds": PATIENCE_SECONDS, "keep_body": True, **options}
        return ask(self.address, path, body, options.pop("headers", None), **options)

    def generate(self, n_predict: int = 2, *, key: str = "", **options: Any) -> Awaitable[Answer]:
        """A completion with exactly so many tokens, if nothing comes between."""
        document = {"prompt": "Hello", "n_predict": n_predict, "ignore_eos": True}
        document |= options.pop("more", {})
        if key:
            options["headers"] = {"Authorization": f"Bearer {key}"}
        return self.ask(document=document, **options)

    @contextlib.asynccontextmanager
    async def full(self, n: int = N_SLOTS) -> Any:
        """So many slots are held by clients that read nothing; they leave at the end."""
        holders = [asyncio.ensure_future(self.stalled()) for _ in range(n)]
        try:
            await until(lambda: self.server.n_busy >= n, "the slots to be held")
            yield
        finally:
            for holder in holders:
                holder.cancel()
            await asyncio.gather(*holders, return_exceptions=True)

    async def stalled(self, key: str = "") -> Answer:
        """A stream whose client takes next to nothing."""
        return await self.generate(key=key, more=WIDE, slow=Slow(1), timeout_seconds=3600)

    def access(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.server.log("access").splitlines()]

    def is_idle(self) -> bool:
        """As the gateway sees it, and as llama-server does."""
        if self.server.n_busy or self.server.status.n_waiting:
            return False
        with self.server.client() as client:
            slots = client.get("/slots", headers={"Authorization": "Bearer key-of-free"}).json()
        return not any(slot["is_processing"] for slot in slots)

    @property
    def resident_bytes(self) -> int:
        return int(psutil.Process(self.server.process.pid).memory_info().rss)


async def until(condition: Callable[[], bool], what: str) -> None:
    """wait_until, while this loop's own clients go on."""
    await asyncio.to_thread(wait_until, condition, what)


@contextlib.contextmanager
def gateway_with(folder: Path, *argv: str, **settings: Any) -> Iterator[Gateway]:
    config = folder / "serve.yaml"
    config.write_text(json.dumps({**USUAL, **settings}))
    with served("demo", "--config", str(config), *argv) as server:
        yield Gateway(server, config)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_with(tmp_path_factory.mktemp("load"), "--parallel", str(N_SLOTS)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two replicas, keys, and few connections with little time to begin."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text("".join(f"{name} key-of-{name}\n" for name in KEYS))
    keys.chmod(0o600)
    limits = {
        "requests": {"requests_per_minute": 2},
        "tokens": {"tokens_per_minute": 20},
        "concurrency": {"concurrency": 1},
    }
    argv = ("--parallel", "4", "--replicas", "2", "--api-key-file", str(keys))
    settings = {"key_limits": limits, "max_connections": 12, "head_seconds": 1}
    with gateway_with(folder, *argv, **settings) as gateway:
        wait_until(
            lambda: all(each.state == "ready" for each in gateway.server.status.replicas),
            "both replicas",
        )
        yield gateway


@pytest.fixture(autouse=True)
def idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did: no slot stays taken, in the gateway and in llama-server."""
    yield
    for name in ("gateway", "guarded"):
        if name in request.fixturenames:
            wait_until(request.getfixturevalue(name).is_idle, "all slots to be free")


# A crowd.


def test_of_500_clients_exactly_those_beyond_slots_and_queue_are_refused_at_once(
    gateway: Gateway, record_property: Callable[[str, object], None]
) -> None:
    async def check() -> list[Answer]:
        answers: list[Answer] = []

        async def client() -> None:
            answers.append(await gateway.generate())

        async with gateway.full():
            clients = [asyncio.ensure_future(client()) for _ in range(500)]
            await until(lambda: len(answers) >= 436, "436 refusals")
            assert gateway.server.status.n_waiting == 64
            assert {answer.status for answer in answers} == {429}
        await asyncio.gather(*clients)
        return answers

    answers = asyncio.run(check())
    assert Counter(answer.status for answer in answers) == {429: 436, 200: 64}
    refused = [answer for answer in answers if answer.status == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert json.loads(refused[0].body)["error"]["type"] == "rate_limit_error"
    record_property("resident_bytes", gateway.resident_bytes)
    assert gateway.resident_bytes < 150 * MIB


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
def test_clients_that_leave_free_their_slots_while_others_stream(
    gateway: Gateway, streams: bool, abruptly: bool
) -> None:
    n_clients = 50
    n_before = len(gateway.access())

    async def check() -> list[Answer]:
        others = asyncio.ensure_future(
            run_load(1, lambda _: gateway.generate(800, more={"stream": True}), n_requests=2)
        )

        def leaving(number: int) -> Awaitable[Answer]:
            after_events = number % 4 * 5 if streams else 0
            leave = Leave(after_events, wait_seconds=number % 3 * 0.02, abruptly=abruptly)
            return gateway.generate(more={**LONG, "stream": streams}, leave=leave)

        left = await run_load(3, leaving, n_requests=n_clients)
        assert all(answer.status == 200 and not answer.error for answer in await others)
        return left

    left = asyncio.run(check())
    assert all(answer.left for answer in left)
    # 10 s where 2 are meant: benchmarks/crowd.py measures it.
    wait_until(gateway.is_idle, "all slots to be free")
    wait_until(lambda: len(gateway.access()) >= n_before + n_clients + 2, "the log")
    gone = [line for line in gateway.access()[n_before:] if line["outcome"] == "client left"]
    longest_seconds = max(answer.total_seconds for answer in left)
    assert max(line["total_ms"] for line in gone) / 1000 < longest_seconds + 10
    # Each would have taken seconds; one may leave before the gateway has read its request.
    assert len(gone) > n_clients * 0.8


def test_clients_that_leave_the_queue_make_room_in_it(gateway: Gateway) -> None:
    async def check() -> None:
        async with gateway.full():
            for _ in range(3):
                clients = [asyncio.ensure_future(gateway.generate()) for _ in range(64)]
                await until(lambda: gateway.server.status.n_waiting == 64, "a full queue")
                assert (await gateway.generate()).status == 429
                for client in clients:
                    client.cancel()
                await until(lambda: gateway.server.status.n_waiting == 0, "an empty queue")

    asyncio.run(check())


def test_slow_readers_hold_no_memory_and_are_dropped(gateway: Gateway) -> None:
    n_before = n_dropped(gateway)

    async def check() -> int:
        before, most = gateway.resident_bytes, 0
        with gateway.with_settings(slow_client_seconds=1):
            clients = [asyncio.ensure_future(gateway.stalled()) for _ in range(8)]
            while n_dropped(gateway) < n_before + 8:
                most = max(most, gateway.resident_bytes - before)
                await asyncio.sleep(0.1)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return most

    # 8 answers of 5 MiB each; what is held of one is a socket's worth.
    assert asyncio.run(asyncio.wait_for(check(), PATIENCE_SECONDS)) < 16 * MIB


def n_dropped(gateway: Gateway) -> int:
    return gateway.server.log("access").count("the client took nothing for")


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_one_who_reads_slowly_but_reads_is_not_dropped(gateway: Gateway, streams: bool) -> None:
    n_before = n_dropped(gateway)
    with gateway.with_settings(slow_client_seconds=1):
        asked = gateway.generate(more={**WIDE, "stream": streams}, slow=Slow(200_000))
        # It would take half a minute; seconds are enough.
        answer = asyncio.run(read_for(asked, 4))
    assert answer is None
    assert n_dropped(gateway) == n_before


async def read_for(asked: Awaitable[Answer], seconds: float) -> Answer | None:
    """The answer, or None where it still comes after so long."""
    done, pending = await asyncio.wait([asyncio.ensure_future(asked)], timeout=seconds)
    for task in pending:
        task.cancel()
    return done.pop().result() if done else None


# Time.


def last_event(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.body.strip().rpartition(b"data: ")[2])
    return document


def test_a_stream_beyond_its_deadline_ends_with_an_error_event(gateway: Gateway) -> None:
    with gateway.with_settings(deadline_seconds=0.5):
        answer = asyncio.run(gateway.generate(more=WIDE))
    assert (answer.status, answer.error) == (200, "")
    assert last_event(answer)["error"]["code"] == 504
    assert "0.5 s" in last_event(answer)["error"]["message"]


def test_an_answer_in_one_piece_beyond_its_deadline_is_a_504(gateway: Gateway) -> None:
    with gateway.with_settings(deadline_seconds=0.5):
        answer = asyncio.run(gateway.generate(more=LONG))
    assert answer.status == 504
    assert json.loads(answer.body)["error"]["type"] == "timeout_error"


def test_a_silent_llama_server_ends_streams_and_others(gateway: Gateway) -> None:
    async def check() -> list[Answer]:
        [child] = gateway.server.children
        with gateway.with_settings(idle_seconds=1):
            slow = Slow(bytes_per_second=50_000)  # it has begun, and is not done
            stream = asyncio.ensure_future(
                gateway.generate(more={**WIDE, "n_predict": 2000, "n_probs": 0}, slow=slow)
            )
            whole = asyncio.ensure_future(gateway.generate(more=LONG))
            await until(lambda: gateway.server.n_busy == 2, "both to have begun")
            child.suspend()
            try:
                return [await whole, await stream]
            finally:
                child.resume()

    whole, stream = asyncio.run(check())
    assert whole.status == 504
    assert "was silent for 1 s" in json.loads(whole.body)["error"]["message"]
    # It may have been silent before the first token as well.
    told = json.loads(stream.body) if stream.status == 504 else last_event(stream)
    assert told["error"]["code"] == 504


def test_one_that_waited_too_long_is_told_to_come_again(gateway: Gateway) -> None:
    async def check() -> Answer:
        with gateway.with_settings(queue_seconds=0.5):
            async with gateway.full():
                return await gateway.generate()

    answer = asyncio.run(check())
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "no slot became free within 0.5 s" in json.loads(answer.body)["error"]["message"]


def test_a_body_that_does_not_come_is_not_waited_for(gateway: Gateway) -> None:
    request = head("/completion", "Content-Length: 100") + b'{"prompt":'
    with (
        gateway.with_settings(body_seconds=0.5),
        socket.create_connection(gateway.address, PATIENCE_SECONDS) as sock,
    ):
        sock.sendall(request)
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.5 s" in answer


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "byte by byte"])
def test_a_head_that_does_not_come_is_not_waited_for(guarded: Gateway, drips: bool) -> None:
    with socket.create_connection(guarded.address, PATIENCE_SECONDS) as sock:
        sock.sendall(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nX: ")
        if drips:
            deadline = time.monotonic() + PATIENCE_SECONDS
            sock.settimeout(0.1)
            while time.monotonic() < deadline:
                try:
                    sock.sendall(b"x")
                    if sock.recv(1) == b"":
                        return
                except TimeoutError:
                    continue
                except ConnectionError:
                    return
            pytest.fail("the connection was never closed")
        assert sock.recv(4096) == b""


# Sizes.


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


def talked(gateway: Gateway, *pieces: bytes) -> bytes:
    """All that comes back until the gateway closes."""
    with socket.create_connection(gateway.address, PATIENCE_SECONDS) as sock:
        for piece in pieces:
            sock.sendall(piece)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := sock.recv(65536):
                answer += received
        return answer


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        pytest.param(("Content-Length: 5000",), b"x" * 5000, id="sized"),
        pytest.param(("Content-Length: 50000000000",), b"", id="announced"),
        pytest.param(
            ("Transfer-Encoding: chunked",),
            b"".join(b"3e8\r\n" + b"x" * 1000 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(
            ("Content-Length: 5000", "Expect: 100-continue"), b"", id="expects to be told to"
        ),
    ],
)
def test_a_body_that_is_too_large_is_refused(
    gateway: Gateway, lines: tuple[str, ...], body: bytes
) -> None:
    with (
        gateway.with_settings(body_bytes=4000),
        socket.create_connection(gateway.address, PATIENCE_SECONDS) as sock,
    ):
        sock.sendall(head("/completion", *lines) + body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_one_who_expects_to_be_told_to_go_on_is_told_so_once(gateway: Gateway) -> None:
    body = json.dumps({"prompt": "Hello", "n_predict": 1}).encode()
    lines = (f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
    with socket.create_connection(gateway.address, PATIENCE_SECONDS) as sock:
        sock.sendall(head("/completion", *lines))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_all_bodies_together_are_bounded(gateway: Gateway) -> None:
    lines = ("Content-Length: 60000", "Connection: close")
    with gateway.with_settings(bodies_bytes=100_000):
        with socket.create_connection(gateway.address, PATIENCE_SECONDS) as first:
            first.sendall(head("/completion", *lines) + b" " * 59_000)
            # The first one's bytes may not have been read yet.
            wait_until(
                lambda: (
                    talked(gateway, head("/completion", *lines) + b" " * 60_000)[9:12] == b"503"
                ),
                "one body too many",
            )
            first.sendall(b" " * 1000)
            assert b"llama.cpp" in first.recv(65536)  # who says that it is no JSON
        answer = talked(gateway, head("/completion", *lines) + b" " * 60_000)
        assert answer[9:12] not in (b"503", b"")


def test_one_connection_too_many_is_told_to_come_again(guarded: Gateway) -> None:
    async def check() -> bytes:
        # Each holds its connection: it is answered and does not read, or waits for that.
        slow = [asyncio.ensure_future(guarded.stalled("key-of-free")) for _ in range(12)]
        await until(lambda: n_generating(guarded.server) == 12, "all of them")
        reader, writer = await asyncio.open_connection(*guarded.address)
        answer = await reader.read()
        writer.close()
        for one in slow:
            one.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return answer

    answer = asyncio.run(check())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer
    wait_until(lambda: asyncio.run(guarded.ask("/healthz")).status == 200, "room for another")


def n_generating(server: Served) -> int:
    status = server.status
    return status.n_waiting + status.n_running


# Keys.


def test_a_key_may_send_so_many_requests_in_a_minute(guarded: Gateway) -> None:
    key = "key-of-requests"
    answers = [asyncio.run(guarded.generate(key=key)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert "2 requests per minute" in json.loads(answers[-1].body)["error"]["message"]
    assert asyncio.run(guarded.generate(key="key-of-free")).status == 200


def test_a_key_may_use_so_many_tokens_in_a_minute_even_if_it_leaves(guarded: Gateway) -> None:
    key = "key-of-tokens"
    left = asyncio.run(
        guarded.generate(1000, key=key, more={"stream": True}, leave=Leave(after_events=100))
    )
    assert left.left
    wait_until(lambda: asyncio.run(guarded.generate(key=key)).status == 429, "the tokens to count")
    answer = asyncio.run(guarded.generate(key=key))
    assert "20 tokens per minute" in json.loads(answer.body)["error"]["message"]
    assert int(answer.headers["retry-after"]) > 60  # 100 and more of 20 were used


def test_a_key_may_have_so_many_requests_at_the_same_time(guarded: Gateway) -> None:
    key = "key-of-concurrency"

    async def check() -> None:
        first = asyncio.ensure_future(guarded.stalled(key))
        await until(lambda: guarded.server.n_busy == 1, "the first one")
        assert (await guarded.generate(key=key)).status == 429
        assert (await guarded.generate(key="key-of-free")).status == 200
        first.cancel()
        await until(lambda: guarded.server.n_busy == 0, "the slot to be free")
        assert (await guarded.generate(key=key)).status == 200

    asyncio.run(check())


# Replicas and conversations.


def test_two_replicas_share_conversations_and_keep_their_caches(guarded: Gateway) -> None:
    n_before = len(guarded.access())
    questions = [f"{number}: Tell me about number {number}. " * 8 for number in range(8)]
    talks: list[list[dict[str, str]]] = [[{"role": "user", "content": q}] for q in questions]

    async def turn(number: int) -> dict[str, Any]:
        document = {"messages": talks[number], "max_tokens": 60, "ignore_eos": True}
        answer = await guarded.ask(
            "/v1/chat/completions",
            document=document,
            headers={"Authorization": "Bearer key-of-free"},
        )
        found: dict[str, Any] = json.loads(answer.body)
        talks[number].append(found["choices"][0]["message"])
        talks[number].append({"role": "user", "content": "And then?"})
        return found

    async def check() -> list[tuple[dict[str, Any], dict[str, Any]]]:
        first = await asyncio.gather(*(turn(number) for number in range(8)))
        # In another order, one after another and all at once.
        second = {number: await turn(number) for number in (5, 2, 7, 0)}
        rest = [1, 3, 4, 6]
        second |= dict(zip(rest, await asyncio.gather(*map(turn, rest)), strict=True))
        return [(first[number], second[number]) for number in range(8)]

    turns = asyncio.run(check())
    wait_until(lambda: len(guarded.access()) >= n_before + 16, "the log")
    lines = guarded.access()[n_before : n_before + 16]
    used = Counter(line["replica"] for line in lines)
    assert min(used["0"], used["1"]) >= 4, used
    for first, second in turns:
        n_first = first["usage"]["prompt_tokens"]
        n_cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert n_cached > n_first * 0.9, (n_first, n_cached)


@pytest.mark.parametrize("of", ["gateway", "guarded"], ids=["one replica", "two replicas"])
def test_a_conversation_outlives_its_client_and_can_be_read_again(
    of: str, request: pytest.FixtureRequest
) -> None:
    one: Gateway = request.getfixturevalue(of)
    key = {"Authorization": "Bearer key-of-free"}
    document = {"max_tokens": 600, "ignore_eos": True, "stream": True}

    async def leave_and_come_back(name: str) -> Answer:
        path = "/v1/chat/completions"
        headers = {**key, "X-Conversation-Id": name}
        # Each of its own, so that two replicas share them.
        asked = {**document, "messages": [{"role": "user", "content": f"Hello, {name}"}]}
        await one.ask(path, document=asked, headers=headers, leave=Leave(3))
        return await one.ask(f"/v1/stream?conv_id={name}&from=0", headers=key)

    async def check() -> list[Answer]:
        return await asyncio.gather(*(leave_and_come_back(f"talk-{n}") for n in range(4)))

    for answer in asyncio.run(check()):
        assert (answer.status, answer.error) == (200, "")
        assert answer.n_events > 500
        assert answer.body.rstrip().endswith(b"data: [DONE]")


def test_a_conversation_keeps_its_slot_until_it_is_ended(gateway: Gateway) -> None:
    document = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": True,
    }

    async def check() -> None:
        began = time.monotonic()
        headers = {"X-Conversation-Id": "long"}
        path = "/v1/chat/completions"
        left = await gateway.ask(path, document=document, headers=headers, leave=Leave(2))
        assert left.left
        busy = gateway.server.n_busy
        # So many tokens take longer than this on any machine of today.
        assert busy == 1 or time.monotonic() - began > 1
        await gateway.ask("/v1/stream?conv_id=long", method="DELETE")
        await until(gateway.is_idle, "the slot to be free")

    asyncio.run(check())


# Connections.


def test_many_requests_come_over_one_connection(gateway: Gateway) -> None:
    with gateway.server.client() as client:
        for number in range(30):
            answer = client.post("/completion", json={"prompt": str(number), "n_predict": 1})
            assert answer.status_code == 200
            assert client.post("/completion", json={"prompt": 5.5}).status_code == 400
            assert client.get("/no/such/path").status_code == 404
        [connection] = client._transport._pool.connections  # type: ignore[attr-defined]
        assert "Request Count: 90" in repr(connection)


def test_requests_that_come_at_once_are_answered_in_order(gateway: Gateway) -> None:
    bodies = [
        json.dumps({"content": f"number {number}", "add_special": False}).encode()
        for number in range(5)
    ]
    requests = [
        head("/tokenize", f"Content-Length: {len(body)}", *(("Connection: close",) * (at == 4)))
        + body
        for at, body in enumerate(bodies)
    ]
    with gateway.server.client() as client:
        expected = [client.post("/tokenize", content=body).content for body in bodies]
    answer = talked(gateway, b"".join(requests))
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    places = [answer.find(tokens) for tokens in expected]
    assert -1 not in places
    assert places == sorted(places)


def test_one_who_sends_the_next_request_and_leaves_takes_its_work_along(gateway: Gateway) -> None:
    body = json.dumps({"prompt": "Hello", "ignore_eos": True, **LONG}).encode()
    request = head("/completion", f"Content-Length: {len(body)}") + body
    with socket.create_connection(gateway.address, PATIENCE_SECONDS) as sock:
        sock.sendall(request + request)
        wait_until(lambda: gateway.server.n_busy == 1, "the first one")
    wait_until(gateway.is_idle, "both to be gone")


def test_no_descriptor_is_left_of_all_that(gateway: Gateway) -> None:
    process = psutil.Process(gateway.server.process.pid)
    n_before = process.num_fds()

    async def check() -> None:
        await run_load(
            8,
            lambda number: gateway.generate(
                more={"stream": number % 2 == 0}, leave=Leave(1) if number % 4 == 0 else None
            ),
            n_requests=60,
        )

    asyncio.run(check())
    wait_until(lambda: process.num_fds() <= n_before, "descriptors to be closed")
