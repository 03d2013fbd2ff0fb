"""Talking to an OpenAI-compatible server: what comes back, and what goes wrong.

The peer is a small HTTP server that answers what a test tells it to, as captured from real ones;
the real llama-server is talked to in test_server.py and through the command line.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from localllm.completion import Delta, Message, Sampling, Usage
from localllm.engine.client import HttpChatModel, _lines
from localllm.engine.endpoint import Endpoint
from localllm.errors import (
    AccessError,
    ContextFullError,
    EngineError,
    LocalllmError,
    NetworkError,
    NotFoundError,
    UsageError,
)

HELLO = [Message("user", "hello"), Message("assistant", "hi", reasoning="a greeting")]

# llama-server 0c1e570, two tokens.
LLAMA_SERVER = """\
data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"object":"chat.completion.chunk"}

: ping

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hel"}}],"object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"lo"}}],"object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"object":"chat.completion.chunk"}

data: {"choices":[],"object":"chat.completion.chunk","usage":{"completion_tokens":2,"prompt_tokens":21,"total_tokens":23,"prompt_tokens_details":{"cached_tokens":5}},"timings":{"cache_n":5,"prompt_n":16,"prompt_per_second":2659.9,"predicted_n":2,"predicted_per_second":116.9}}

data: [DONE]

"""  # noqa: E501

# A server that sends neither usage nor timings, and thinks aloud.
BARE = """\
data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}

data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"length"}]}

data: [DONE]

"""


class Peer(http.server.ThreadingHTTPServer):
    """Answers every request with the same status and body, and remembers what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PeerHandler)
        self.status = 200
        self.body = ""
        self.cut_after: int | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class PeerHandler(http.server.BaseHTTPRequestHandler):
    server: Peer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        self.do_GET()

    def do_GET(self) -> None:
        self.server.headers.append(dict(self.headers))
        raw = self.server.body.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: self.server.cut_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def ask(peer: Peer, sampling: Sampling = Sampling()) -> list[Delta | Usage]:  # noqa: B008
    return list(HttpChatModel(Endpoint(peer.url, api_key="k"), "m").stream(HELLO, sampling))


def test_text_comes_piece_by_piece_and_usage_last(peer: Peer) -> None:
    peer.body = LLAMA_SERVER
    *deltas, usage = ask(peer)
    assert deltas == [Delta("Hel"), Delta("lo")]
    assert isinstance(usage, Usage)
    assert usage.finish_reason == "stop"
    assert (usage.n_prompt_tokens, usage.n_cached_tokens, usage.n_tokens) == (21, 5, 2)
    assert usage.decode_tokens_per_second == 116.9
    assert usage.prompt_tokens_per_second == 2659.9


def test_a_server_without_usage_or_timings_is_measured_by_our_clock(peer: Peer) -> None:
    peer.body = BARE
    *deltas, usage = ask(peer)
    assert deltas == [Delta("", "hm"), Delta("yes")]
    assert isinstance(usage, Usage)
    assert (usage.n_tokens, usage.finish_reason) == (2, "length")
    assert usage.ttft_seconds is not None
    assert usage.n_prompt_tokens is None


def test_only_what_was_set_is_sent_and_reasoning_never_goes_back(peer: Peer) -> None:
    peer.body = BARE
    ask(peer, Sampling(temperature=0.0, max_tokens=7, stop=("END",)))
    (sent,) = peer.requests
    assert sent == {
        "model": "m",
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": 7,
        "stop": ["END"],
    }
    assert peer.headers[0]["Authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        pytest.param(
            400,
            '{"error":{"code":400,"message":"the request exceeds the available context size",'
            '"type":"exceed_context_size_error","n_prompt_tokens":900,"n_ctx":512}}',
            ContextFullError,
            "available context size",
            id="context",
        ),
        pytest.param(
            401, '{"error":{"message":"Invalid API Key"}}', AccessError, "Invalid API Key", id="key"
        ),
        pytest.param(404, "nope", NotFoundError, "nope", id="route"),
        pytest.param(422, '{"error":"bad top_k"}', UsageError, "bad top_k", id="argument"),
        pytest.param(503, "", NetworkError, "503", id="loading"),
        pytest.param(429, "slow down", NetworkError, "slow down", id="limit"),
        pytest.param(200, 'data: {"error":{"message":"boom"}}\n\n', EngineError, "boom", id="late"),
        pytest.param(200, "error: {}\n\n", EngineError, "stopped", id="late and bare"),
        pytest.param(200, "data: {nonsense\n\n", NetworkError, "not JSON", id="nonsense"),
    ],
)
def test_a_refusal_is_one_sentence_of_the_right_kind(
    peer: Peer, status: int, body: str, kind: type[LocalllmError], words: str
) -> None:
    peer.status, peer.body = status, body
    with pytest.raises(kind, match=words):
        ask(peer)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_lines_are_whole_however_the_bytes_are_cut(size: int) -> None:
    raw = "data: 你好\r\n\r\n: ping\ndata: [DONE]".encode()
    pieces = iter(raw[at : at + size] for at in range(0, len(raw), size))
    assert [line.decode() for line in _lines(pieces)] == [
        "data: 你好", "", ": ping", "data: [DONE]",
    ]  # fmt: skip


def test_a_stream_that_breaks_off_is_a_network_error(peer: Peer) -> None:
    peer.body, peer.cut_after = LLAMA_SERVER, 200
    with pytest.raises(NetworkError, match="broke"):
        ask(peer)


def test_nothing_listening_is_told_with_the_address(peer: Peer) -> None:
    url = peer.url
    peer.shutdown()
    peer.server_close()
    with pytest.raises(NetworkError, match=url):
        list(HttpChatModel(Endpoint(url), "m").stream(HELLO, Sampling()))


def test_the_first_model_on_offer_is_taken(peer: Peer) -> None:
    peer.body = '{"object":"list","data":[{"id":"first"},{"id":"second"}]}'
    assert HttpChatModel(Endpoint(peer.url), "").only_model() == "first"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("<html>", NetworkError, id="a web page"),
        pytest.param('{"data":[]}', NotFoundError, id="no model"),
        pytest.param('{"models":1}', NetworkError, id="another API"),
    ],
)
def test_what_offers_no_model_is_told(peer: Peer, body: str, kind: type[LocalllmError]) -> None:
    peer.body = body
    with pytest.raises(kind):
        HttpChatModel(Endpoint(peer.url), "").only_model()
