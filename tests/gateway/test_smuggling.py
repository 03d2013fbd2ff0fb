"""Bytes that are no honest HTTP: each ends in a refusal or a closed connection, and soon.

Whatever else is hidden in such a request is never answered, and the gateway goes on.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.gateway.serving import Served, read_answers, served

#: What a smuggled request asks for: its answer would hold this name.
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
OF_HIDDEN = b"localllm demo"
TOKENIZE = b'{"content":"a"}'
KIB = 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = tmp_path_factory.mktemp("config") / "serve.yaml"
    config.write_text("head_seconds: 3\nbody_seconds: 2\nbody_bytes: 1 MiB\n")
    with served("demo", "--config", str(config)) as one:
        yield one


@pytest.fixture(autouse=True)
def _goes_on(gateway: Served) -> Iterator[None]:
    """Whatever a test sent, an honest request is answered after it, by the same llama-server."""
    (child,) = gateway.children
    yield
    raw = gateway.talk(request(body=TOKENIZE, more="Connection: close\r\n"))
    (answer,) = read_answers(raw)
    assert answer.status == 200
    assert json.loads(answer.body) == {"tokens": [97]}
    assert gateway.children == [child]
    assert "bug" not in gateway.log("error")


def request(
    start: str = "POST /tokenize HTTP/1.1",
    more: str = "",
    *,
    body: bytes | None = None,
    length: str = "",
) -> bytes:
    """A request; `more` are whole lines, `length` stands in place of the body's own."""
    head = f"{start}\r\nHost: localhost\r\n{more}"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {length or len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + (body or b"")


def assert_refused(raw: bytes) -> None:
    """At most one answer, a refusal, and not what was hidden."""
    assert OF_HIDDEN not in raw
    # A refusal is told in the version that was asked for, which http.client does not know.
    answers = read_answers(raw.replace(b"HTTP/2.0 4", b"HTTP/1.1 4", 1))
    assert len(answers) <= 1, answers
    for answer in answers:
        assert 400 <= answer.status < 500, answer


CHUNKED = "Transfer-Encoding: chunked\r\n"
EMPTY = b"0\r\n\r\n"


def with_both(encoding: str, length: str = "5") -> bytes:
    """Content-Length and Transfer-Encoding, in front of a hidden request."""
    more = f"Content-Length: {length}\r\n{encoding}\r\n"
    return request(more=more) + EMPTY + HIDDEN


#: RFC 9112, 6.3: with both, by one of them a reader finds the hidden request, by the other not.
AMBIGUOUS = {
    "length and chunked": with_both("Transfer-Encoding: chunked"),
    "length 0 and chunked": with_both("Transfer-Encoding: chunked", "0"),
    "length of it all and chunked": with_both("Transfer-Encoding: chunked", str(5 + len(HIDDEN))),
    "chunked before a length": request(more=f"{CHUNKED}Content-Length: 5\r\n") + EMPTY + HIDDEN,
    "length and identity": with_both("Transfer-Encoding: identity"),
    "length and a blank before the colon": with_both("Transfer-Encoding : chunked"),
    "length and a tab before the colon": with_both("Transfer-Encoding\t: chunked"),
    "length and a line that goes on": with_both("Transfer-Encoding:\r\n chunked"),
    "length and xchunked": with_both("Transfer-Encoding: xchunked"),
    "length and chunked, identity": with_both("Transfer-Encoding: chunked, identity"),
    "length and chunked twice": with_both("Transfer-Encoding: chunked, chunked"),
    "length and quotes": with_both('Transfer-Encoding: "chunked"'),
    "length and a null byte": with_both("Transfer-Encoding: chunked\0"),
    "length and a form feed": with_both("Transfer-Encoding: \x0cchunked"),
    "length and a carriage return": with_both("X: a\rTransfer-Encoding: chunked"),
    "length and a bare line feed": with_both("X: a\nTransfer-Encoding: chunked"),
    "length and two encodings": with_both("Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
    "two lengths": request(more="Content-Length: 0\r\nContent-Length: 15\r\n") + TOKENIZE + HIDDEN,
    "two equal lengths": request(more="Content-Length: 15\r\nContent-Length: 15\r\n") + TOKENIZE,
    "a list of lengths": request(body=TOKENIZE, length="15, 15") + HIDDEN,
    "a length with a plus": request(body=TOKENIZE, length="+15") + HIDDEN,
    "a negative length": request(body=TOKENIZE, length="-1") + HIDDEN,
    "a length with blanks inside": request(body=TOKENIZE, length="1 5") + HIDDEN,
    "a length with underscores": request(body=TOKENIZE, length="1_5") + HIDDEN,
    "a length in hexadecimal": request(body=TOKENIZE, length="0xf") + HIDDEN,
    "a length in other digits": request(body=TOKENIZE, length="\xb9\xb5") + HIDDEN,
    "a length with a point": request(body=TOKENIZE, length="15.0") + HIDDEN,
    "a length with an exponent": request(body=TOKENIZE, length="1e1") + HIDDEN,
    "a length beyond 64 bits": request(body=TOKENIZE, length="18446744073709551631") + HIDDEN,
    "a length of no digits": request(body=TOKENIZE, length=" ") + HIDDEN,
    "a length of a thousand digits": request(body=TOKENIZE, length="9" * 1000) + HIDDEN,
    "an unknown encoding": request(more="Transfer-Encoding: gzip\r\n") + EMPTY + HIDDEN,
    "chunked before gzip": request(more="Transfer-Encoding: chunked, gzip\r\n") + EMPTY + HIDDEN,
    "chunked in HTTP/1.0": request("POST /tokenize HTTP/1.0", CHUNKED + "Content-Length: 5\r\n")
    + EMPTY
    + HIDDEN,
}  # fmt: skip


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_body_has_one_length(gateway: Served, raw: bytes) -> None:
    assert_refused(gateway.talk(raw))


def test_a_length_may_have_zeros_in_front(gateway: Served) -> None:
    raw = gateway.talk(request(more="Connection: close\r\n", body=TOKENIZE, length="015"))
    assert [answer.status for answer in read_answers(raw)] == [200]


def chunked(*pieces: bytes, more: str = "") -> bytes:
    return request(more=f"{CHUNKED}Content-Type: application/json\r\n{more}") + b"".join(pieces)


WHOLE = b"f\r\n" + TOKENIZE + b"\r\n"
CHUNKS = {
    "a size with 0x": chunked(b"0xf\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size with a plus": chunked(b"+f\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a negative size": chunked(b"-f\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size with a blank before": chunked(b" f\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size with an underscore": chunked(b"0_f\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size of no digits": chunked(b"\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size of letters": chunked(b"xyz\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size beyond 64 bits": chunked(b"f" * 17 + b"\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a size of a thousand digits": chunked(b"f" * 1000 + b"\r\n", TOKENIZE, HIDDEN),
    "a chunk that is too short": chunked(b"10\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a chunk that is too long": chunked(b"e\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a line feed after a size": chunked(b"f\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a carriage return after a size": chunked(b"f\r", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a null byte after a size": chunked(b"f\0\r\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "a line feed in an extension": chunked(b"f;\n", TOKENIZE, b"\r\n", EMPTY, HIDDEN),
    "two lines between chunks": chunked(WHOLE, b"\r\n", EMPTY, HIDDEN),
}  # fmt: skip


@pytest.mark.parametrize("raw", CHUNKS.values(), ids=CHUNKS)
def test_a_chunk_has_one_size(gateway: Served, raw: bytes) -> None:
    assert_refused(gateway.talk(raw))


def test_chunks_of_one_byte_are_one_body(gateway: Served) -> None:
    pieces = [b"1;x=y\r\n%c\r\n" % byte for byte in TOKENIZE]
    raw = gateway.talk(chunked(*pieces, EMPTY, more="Connection: close\r\n"))
    assert [answer.status for answer in read_answers(raw)] == [200]


def test_what_is_read_past_is_not_held(gateway: Served) -> None:
    extension = b"f;" + b"x" * 1024 * KIB + b"\r\n"
    flood = chunked(extension, TOKENIZE, b"\r\n", EMPTY, more="Connection: close\r\n")
    blanks = request(more=f"X:{' ' * 1024 * KIB}\r\nConnection: close\r\n", body=TOKENIZE)
    before = _memory_bytes(gateway)
    for _ in range(20):
        for raw in (flood, blanks):
            (answer,) = read_answers(gateway.talk(raw))
            assert answer.status in (200, 400)
    assert _memory_bytes(gateway) - before < 10 * KIB * KIB


def _memory_bytes(gateway: Served) -> int:
    return int(psutil.Process(gateway.process.pid).memory_info().rss)


def test_chunks_that_are_too_much_in_all_are_refused(gateway: Served) -> None:
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    raw = gateway.talk(chunked(*[piece] * 20, EMPTY))
    assert [answer.status for answer in read_answers(raw)] == [413]


HEADS = {
    "a header of 64 KiB": request(more=f"X-Long: {'x' * 64 * KIB}\r\n", body=TOKENIZE),
    "a name of 64 KiB": request(more=f"{'x' * 64 * KIB}: a\r\n", body=TOKENIZE),
    "a thousand headers": request(more="X-Many: a\r\n" * 1000, body=TOKENIZE),
    "a request line of 64 KiB": request(f"GET /{'x' * 64 * KIB} HTTP/1.1"),
    "a query of 64 KiB": request(f"GET /props?{'x' * 64 * KIB} HTTP/1.1"),
    "a method of 64 KiB": request(f"{'X' * 64 * KIB} / HTTP/1.1"),
    "a header without a colon": request(more="X-Header\r\n", body=TOKENIZE),
    "a header without a name": request(more=": a\r\n", body=TOKENIZE),
    "a blank before the first header": b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n" + HIDDEN,
    "a blank in a name": request(more="X A: a\r\n", body=TOKENIZE),
    "a line that goes on": request(more="X-A: a\r\n b\r\n", body=TOKENIZE),
    "a null byte in a value": request(more="X-A: a\0b\r\n", body=TOKENIZE),
    "a carriage return in a value": request(more="X-A: a\rX-B: b\r\n", body=TOKENIZE),
    "a bell in a value": request(more="X-A: \x07\r\n", body=TOKENIZE),
    "bytes in a name": request(more="X-\xff: a\r\n", body=TOKENIZE),
    "line feeds alone": b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
    "a line feed after the request line": b"GET /v1/models HTTP/1.1\nHost: localhost\r\n\r\n",
    "a null byte in the path": request("GET /health\0/v1/models HTTP/1.1"),
    "a carriage return in the path": request("GET /health\rGET /v1/models HTTP/1.1"),
    "a blank in the path": request("GET /health /v1/models HTTP/1.1"),
    "tabs in the request line": request("GET\t/v1/models\tHTTP/1.1"),
    "bytes in the path": request("GET /\xff\xfe HTTP/1.1"),
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/0.9 with a version": request("GET /v1/models HTTP/0.9"),
    "HTTP/2": request("GET /v1/models HTTP/2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "HTTP/9.9": request("GET /v1/models HTTP/9.9"),
    "HTTP/1.11": request("GET /v1/models HTTP/1.11"),
    "another protocol": request("GET /v1/models ICE/1.1"),
    "no version": request("GET /v1/models "),
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "an SSH greeting": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "a request of Redis": b"*1\r\n$4\r\nPING\r\n\r\n",
    "garbage": bytes(range(256)) * 64,
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("raw", HEADS.values(), ids=HEADS)
def test_a_head_is_one_of_http(gateway: Served, raw: bytes) -> None:
    assert_refused(gateway.talk(raw))


@pytest.mark.parametrize("blank", ["%0d%0a", "%0a", "%00", "%20", "%0d%0a%0d%0a", "%e5%98%8a"])
@pytest.mark.parametrize("where", ["path", "query"])
def test_escapes_make_no_second_line_behind_the_gateway(
    gateway: Served, blank: str, where: str
) -> None:
    injected = f"{blank}X-Api-Key:{blank}a{blank}GET{blank}/v1/models{blank}HTTP/1.1{blank}{blank}"
    target = f"/nowhere{injected}" if where == "path" else f"/health?a={injected}"
    raw = gateway.talk(request(f"GET {target} HTTP/1.1", "Connection: close\r\n"))
    (answer,) = read_answers(raw)
    assert answer.status == (404 if where == "path" else 200)
    assert OF_HIDDEN not in raw
    assert not answer.header("x-injected")


def test_bytes_of_a_header_that_are_no_text_do_no_harm(gateway: Served) -> None:
    for value in ("\xff\xfe", "\xe9", "\xf0\x9f"):
        raw = gateway.talk(request(more=f"X-A: {value}\r\nConnection: close\r\n", body=TOKENIZE))
        assert [answer.status for answer in read_answers(raw)] == [200]


@pytest.mark.parametrize(
    "more",
    [
        "Connection: content-length, close\r\n",
        "Connection: host, authorization, close\r\n",
        "Connection: transfer-encoding, content-type, close\r\n",
        "Connection: close\r\nTE: trailers, chunked\r\nTrailer: Content-Length\r\n",
        "Connection: close, upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: close\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=999\r\n",
        "Connection: close\r\nX-Forwarded-For: 127.0.0.1\r\nX-HTTP-Method-Override: DELETE\r\n",
    ],
    ids=["content-length", "host", "transfer-encoding", "te", "h2c", "proxy", "override"],
)
def test_headers_of_one_hop_end_here(gateway: Served, more: str) -> None:
    (answer,) = read_answers(gateway.talk(request(more=more, body=TOKENIZE)))
    assert answer.status == 200
    assert json.loads(answer.body) == {"tokens": [97]}


def test_requests_in_a_row_are_answered_in_their_order(gateway: Served) -> None:
    letters = b"abc"
    raw = gateway.talk(
        b"".join(request(body=b'{"content":"%c"}' % letter) for letter in letters),
        request("GET /health HTTP/1.1", "Connection: close\r\n"),
    )
    answers = read_answers(raw)
    assert [json.loads(answer.body) for answer in answers] == [
        *({"tokens": [letter]} for letter in letters),
        {"status": "ok"},
    ]


def test_the_body_of_a_refused_request_is_not_the_next_request(gateway: Served) -> None:
    for start, status in (("POST /nowhere HTTP/1.1", 404), ("GET /health HTTP/1.1", 200)):
        raw = gateway.talk(request(start, body=HIDDEN, more="Connection: close\r\n"))
        assert [answer.status for answer in read_answers(raw)] == [status]
        assert OF_HIDDEN not in raw


def test_a_refusal_at_the_door_does_not_answer_what_is_in_its_body(gateway: Served) -> None:
    head = b"POST /tokenize HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    assert_refused(gateway.talk(head % len(HIDDEN) + HIDDEN))


def test_http_1_0_is_answered_once(gateway: Served) -> None:
    raw = request("POST /tokenize HTTP/1.0", body=TOKENIZE)
    assert [answer.status for answer in read_answers(gateway.talk(raw))] == [200]
    assert_refused(gateway.talk(raw + HIDDEN))


def test_a_client_that_asks_before_its_body_is_told_to_go_on(gateway: Served) -> None:
    more = f"Expect: 100-continue\r\nConnection: close\r\nContent-Length: {len(TOKENIZE)}\r\n"
    with socket.create_connection(gateway.address, timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request(more=more))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(TOKENIZE)
        assert b"[97]" in b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(gateway: Served) -> None:
    raw = gateway.talk(request(body=b"", length=str(2 << 20)))
    assert [answer.status for answer in read_answers(raw)] == [413]


# Slowly, and not to the end.


def drip(gateway: Served, at_once: bytes, slowly: bytes) -> bytes:
    """Sends a byte twenty times a second, until nobody takes any more or answers."""
    with socket.create_connection(gateway.address) as connection:
        connection.settimeout(0.05)
        received = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(at_once)
            for byte in slowly:
                connection.sendall(bytes((byte,)))
                with contextlib.suppress(TimeoutError):
                    received += (piece := connection.recv(1 << 16))
                    if not piece:
                        return received
            pytest.fail("it was listened to for too long")
        return received


PATIENT = b"x" * int(PATIENCE_SECONDS * 20)
SLOW = {
    "a request line": (b"GET /", PATIENT),
    "a header": (b"GET / HTTP/1.1\r\nX-A: ", PATIENT),
    "a body": (request(body=b"", length="1000000"), PATIENT),
    "a chunk's size": (chunked(), b"0" * len(PATIENT)),
    "a chunk": (chunked(b"ffff\r\n"), PATIENT),
    "a body that waits for a slot": (
        request("POST /v1/chat/completions HTTP/1.1", body=b"", length="1000000"),
        PATIENT,
    ),
}


SILENT = {
    "nothing": b"",
    "half a head": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": request(body=TOKENIZE, length="100"),
    "half of a second request": request(body=TOKENIZE) + request()[:30],
}


def test_slow_and_silent_senders_are_sent_away(gateway: Served) -> None:
    with ThreadPoolExecutor(len(SLOW) + len(SILENT)) as at_once:
        slow = {name: at_once.submit(drip, gateway, *raws) for name, raws in SLOW.items()}
        silent = {name: at_once.submit(gateway.talk, raw) for name, raw in SILENT.items()}
    whole = silent.pop("half of a second request").result()
    assert read_answers(whole)[0].status == 200
    for raw in (*slow.values(), *silent.values()):
        assert_refused(raw.result())
    assert read_answers(slow["a body"].result())[0].status == 408


@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
def test_who_leaves_in_the_middle_leaves_nothing_behind(gateway: Served, abruptly: bool) -> None:
    chat = b'{"messages":[{"role":"user","content":"a"}],"stream":true,"max_tokens":2000}'
    whole = request("POST /v1/chat/completions HTTP/1.1", body=chat)
    for end in (0, 1, 20, 60, 100, len(whole) - 1, len(whole)):
        for _ in range(3):
            with socket.create_connection(gateway.address) as connection:
                connection.sendall(whole[:end])
                if abruptly:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_until(lambda: not gateway.n_busy, "all slots to be free")
    wait_until(lambda: not gateway.status.n_running, "all requests to end")


def test_nothing_of_it_is_taken_for_a_bug(gateway: Served, tmp_path: Path) -> None:
    assert gateway.log("error") == ""
    assert "Traceback" not in gateway.output
