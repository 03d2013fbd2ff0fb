"""The load client against scripted servers on real sockets: what it measures must be so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.load import Address, Answer, Leave, Slow, ask, run_load

EVENTS = b'data: {"n": 1}\n\n: ping\n\ndata: {"n": "\\ndata: 2"}\n\ndata: [DONE]\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED_HEAD = STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Address]:
    """A server that reads a request's head and then does what the script says."""
    server = await asyncio.start_server(following(script), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


def following(script: Script) -> Script:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        writer.close()

    return serve


def chunked(payload: bytes, size: int) -> bytes:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def saying(raw: bytes, n_bytes_at_once: int = 1 << 20, stays: bool = False) -> Script:
    """Sends the bytes, so many in a packet, and closes unless it stays until the client leaves."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(raw), n_bytes_at_once):
            writer.write(raw[at : at + n_bytes_at_once])
            await writer.drain()
            await asyncio.sleep(0)
        if stays:
            await reader.read()

    return script


def ask_once(script: Script, **how: object) -> Answer:
    async def main() -> Answer:
        async with serving(script) as address:
            return await ask(address, "/", **how)  # type: ignore[arg-type]

    return asyncio.run(main())


@pytest.mark.parametrize("n_bytes_at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunk_size", [1, 5, 1 << 20])
def test_events_are_counted_however_they_are_cut(n_bytes_at_once: int, chunk_size: int) -> None:
    raw = CHUNKED_HEAD + chunked(EVENTS, chunk_size)
    answer = ask_once(saying(raw, n_bytes_at_once, stays=True), keep_body=True)
    assert (answer.status, answer.error, answer.left) == (200, "", False)
    assert answer.body == EVENTS
    assert answer.n_bytes == len(EVENTS)
    assert answer.n_events == 3
    assert answer.ttft_seconds is not None
    assert 0 < answer.ttft_seconds <= answer.total_seconds


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        pytest.param(b"HTTP/1.1 429 Too Many\r\nContent-Length: 5\r\n\r\n", True, id="length"),
        pytest.param(b"HTTP/1.1 429 Too Many\r\n\r\n", False, id="until close"),
    ],
)
def test_an_answer_in_one_piece_ends_where_it_says(head: bytes, stays: bool) -> None:
    answer = ask_once(saying(head + b"later", stays=stays), keep_body=True)
    assert (answer.status, answer.error, answer.body) == (429, "", b"later")
    assert answer.ttft_seconds is not None


def test_a_ping_is_no_first_token() -> None:
    answer = ask_once(saying(CHUNKED_HEAD + chunked(b": ping\n\n", 99)))
    assert (answer.error, answer.n_events, answer.ttft_seconds) == ("", 0, None)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="no headers"),
        pytest.param(CHUNKED_HEAD + chunked(EVENTS, 9)[:-5], id="no last chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", id="too short"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="not HTTP"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(raw: bytes) -> None:
    assert ask_once(saying(raw)).error


def test_nobody_there_is_an_error_and_not_an_exception(tmp_path: Path) -> None:
    answer = asyncio.run(ask(str(tmp_path / "nobody.sock"), "/"))
    assert answer.status == 0
    assert "ENOENT" in answer.error


def test_silence_ends_with_the_timeout() -> None:
    answer = ask_once(saying(CHUNKED_HEAD, stays=True), timeout_seconds=0.2)
    assert (answer.status, answer.n_events) == (200, 0)
    assert "0.2 s" in answer.error


def test_a_body_is_sent_whole() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readexactly(1 << 20)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    body = b"ab" * (1 << 19)
    answer = ask_once(echo, body=body, keep_body=True)
    assert (answer.error, answer.body == body) == ("", True)


def test_a_full_queue_of_a_unix_socket_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    answer_raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def main() -> list[Answer]:
        asking = [asyncio.create_task(ask(path, "/")) for _ in range(5)]
        await asyncio.sleep(0.05)  # nobody accepts yet, and the queue holds one
        server = await asyncio.start_unix_server(following(saying(answer_raw)), sock=listener)
        try:
            return await asyncio.gather(*asking)
        finally:
            server.close()

    assert [(answer.status, answer.error) for answer in asyncio.run(main())] == [(200, "")] * 5


@pytest.mark.parametrize("n_events", [0, 2])
@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "close"])
def test_a_client_leaves_when_and_as_it_was_told(n_events: int, abruptly: bool) -> None:
    seen: list[str] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if n_events:
            writer.write(CHUNKED_HEAD)
            for _ in range(n_events):
                writer.write(b"9\r\ndata: x\n\n\r\n")
                await writer.drain()
        try:
            seen.append("end" if await reader.read() == b"" else "bytes")
        except ConnectionResetError:
            seen.append("reset")
        told.set()

    async def main() -> Answer:
        async with serving(script) as address:
            answer = await ask(address, "/", leave=Leave(n_events, abruptly=abruptly))
            await asyncio.wait_for(told.wait(), 60)
            return answer

    told = asyncio.Event()
    answer = asyncio.run(main())
    assert (answer.left, answer.error, answer.n_events) == (True, "", n_events)
    assert seen == ["reset" if abruptly else "end"]


def test_a_slow_reader_makes_the_server_wait() -> None:
    n_taken = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_taken
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while n_taken < 64 << 20:
            writer.write(bytes(1 << 20))
            await writer.drain()
            n_taken += 1 << 20

    answer = ask_once(script, slow=Slow(1000.0), timeout_seconds=1.0)
    assert 0 < answer.n_bytes < 4000
    assert n_taken < 32 << 20  # what the server's own send buffer holds, and no more


def test_load_is_so_many_requests_by_so_many_clients() -> None:
    n_now = most = 0

    async def one(number: int) -> Answer:
        nonlocal n_now, most
        n_now += 1
        most = max(most, n_now)
        await asyncio.sleep(0.001)
        n_now -= 1
        return Answer(status=number)

    answers = asyncio.run(run_load(4, one, n_requests=30))
    assert sorted(answer.status for answer in answers) == list(range(30))
    assert most == 4


def test_load_for_some_time_ends_with_its_last_answers() -> None:
    n_begun = 0

    async def one(_: int) -> Answer:
        nonlocal n_begun
        n_begun += 1
        await asyncio.sleep(0.01)
        return Answer()

    answers = asyncio.run(run_load(2, one, seconds=0.1, think_seconds=0.001))
    assert len(answers) == n_begun > 2
