"""Through the gateway comes what llama-server itself answers: status, headers and every byte.

Each request goes to one and the same llama-server twice: to its own socket, and through the
gateway. What differs by nature (random ids, clocks) is blanked in both.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import PATIENCE_SECONDS
from tests.gateway.serving import Served, served
from tests.ggufs import Llama, TensorSpec, write_gguf

#: Random ids; clocks; which of several free slots it was.
_BLANKS = (
    (re.compile(rb"\b(chatcmpl-|resp_|msg_|rs_|fc_|call_|cmpl-)?[A-Za-z0-9]{32}\b"), rb"\1ID"),
    (re.compile(rb'"(created|created_at|completed_at)":\d+'), rb'"\1":0'),
    (re.compile(rb'"(\w+_ms|\w+_per_second)":(?:null|[\d.eE+-]+)'), rb'"\1":0'),
    (re.compile(rb'"id_slot":\d+'), rb'"id_slot":0'),
)
#: Of one connection; the gateway's own; and CORS, which is the gateway's to decide.
_OWN_HEADERS = frozenset(
    ("connection", "keep-alive", "content-length", "date", "x-request-id", "vary")
)

#: Greedy and without a cache: no answer depends on the one before.
SETTLED = (
    "--", "-np", "2", "--temp", "0", "--seed", "1", "--no-cache-prompt", "--cache-ram", "0",
)  # fmt: skip
USER = [{"role": "user", "content": "What is a GGUF file?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "set_level",
        "description": "Sets the level.",
        "parameters": {
            "type": "object",
            "properties": {"level": {"enum": [1, 2, 3]}, "loud": {"type": "boolean"}},
            "required": ["level", "loud"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["llama", "gguf"]}, "size": {"enum": [1, 22]}},
    "required": ["name", "size"],
}
#: Two, three and four bytes a letter, and none of them in one token.
LETTERS = 'root ::= "käse 日本語 🦙🦙 naïve Ωmega 漢字"'
LONG = "The weights of a model are many numbers. " * 40


@dataclass(frozen=True)
class Ask:
    """One request, and the status that llama-server has for it."""

    method: str
    target: str
    body: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back, blanked."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def post(target: str, status: int = 200, /, **body: Any) -> Ask:
    return raw(target, status, json.dumps(body).encode())


def raw(target: str, status: int, body: bytes, content_type: str = "application/json") -> Ask:
    return Ask("POST", target, body, status, {"Content-Type": content_type})


def get(target: str, status: int = 200, **headers: str) -> Ask:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Ask("GET", target, None, status, named)


def chat(status: int = 200, /, **body: Any) -> Ask:
    return post("/v1/chat/completions", status, **{"messages": USER, "max_tokens": 12, **body})


def complete(status: int = 200, /, **body: Any) -> Ask:
    return post("/completion", status, **{"prompt": "A model is", "n_predict": 8, **body})


def each(asks: Mapping[str, Ask]) -> Any:
    return pytest.mark.parametrize("ask", asks.values(), ids=list(asks))


class _Socket(http.client.HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(self._path)


class Pair:
    """A llama-server and the gateway before it."""

    def __init__(self, gateway: Served) -> None:
        child = gateway.children[0]
        argv = child.cmdline()
        self._socket_path = argv[argv.index("--host") + 1]
        self._key = child.environ()["LLAMA_API_KEY"]
        self._address = urlsplit(gateway.url).netloc

    def bare(self, ask: Ask) -> Answer:
        key = {"Authorization": f"Bearer {self._key}"}
        return self.bare_without_key(replace(ask, headers={**ask.headers, **key}))

    def bare_without_key(self, ask: Ask) -> Answer:
        return _send(_Socket(self._socket_path), ask, ask.headers)

    def passed(self, ask: Ask) -> Answer:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_SECONDS)
        return _send(connection, ask, ask.headers)

    def check(self, ask: Ask) -> Answer:
        """That both are the same, and as expected; the answer."""
        bare = self.bare(ask)
        assert bare.status == ask.status, bare.body[:500]
        passed = self.passed(ask)
        assert passed == bare
        return passed


def _send(connection: http.client.HTTPConnection, ask: Ask, headers: Mapping[str, str]) -> Answer:
    with closing(connection):
        connection.request(ask.method, ask.target, ask.body, dict(headers))
        response = connection.getresponse()
        return Answer(
            response.status, response.reason, _kept(response.headers), _blanked(response.read())
        )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        low: value
        for name, value in headers.items()
        if (low := name.lower()) not in _OWN_HEADERS and not low.startswith("access-control-")
    }


def _blanked(body: bytes) -> bytes:
    for pattern, blank in _BLANKS:
        body = pattern.sub(blank, body)
    return body


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The demo model, with tokens for filling in."""
    fim = ",".join(
        f"tokenizer.ggml.fim_{part}_token_id=int:{n}"
        for n, part in enumerate(("pre", "suf", "mid"))
    )
    with served("demo", *SETTLED, "-c", "2048", "--override-kv", fim) as gateway:
        yield Pair(gateway)


WRITING = {
    "completion": complete(),
    "completion with probabilities": complete(n_probs=3),
    "completion of a list of prompts": complete(prompt=["A model", "A file"]),
    "completion of tokens": complete(prompt=[300, 301, 302]),
    "completion of text and tokens": complete(prompt=["A ", 300, " b"]),
    "completion of many lists": complete(prompt=[[300, 301], [302], "text"]),
    "completion of nothing": complete(prompt=""),
    "completion of no tokens": complete(n_predict=0),
    "completion of letters of many bytes": complete(grammar=LETTERS, n_predict=64),
    "completion with a schema": complete(json_schema=SCHEMA, n_predict=64),
    "completion with stop words": complete(stop=["of", "."], n_predict=40),
    "completion with tokens told": complete(return_tokens=True),
    "completion with fields chosen": complete(response_fields=["content", "stop_type"]),
    "completion with a bias": complete(logit_bias=[[300, 5.0], [301, False]]),
    "completion in a slot": complete(id_slot=1),
    "completion that samples": complete(temperature=1.5, seed=7, top_k=50),
    "completions": post("/completions", prompt="A model is", n_predict=8),
    "OpenAI completions": post("/v1/completions", prompt="A model is", max_tokens=8),
    "OpenAI completions with logprobs": post(
        "/v1/completions", prompt="A model is", max_tokens=4, logprobs=2
    ),
    "OpenAI completions of a list": post("/v1/completions", prompt=["A", "B"], max_tokens=4),
    "OpenAI completions, echoed": post("/v1/completions", prompt="A", max_tokens=2, echo=True),
    "chat": chat(),
    "chat without v1": post("/chat/completions", messages=USER, max_tokens=8),
    "chat of a conversation": chat(messages=[
        {"role": "system", "content": "Be short."}, *USER,
        {"role": "assistant", "content": "A file."},
        {"role": "user", "content": [{"type": "text", "text": "日本語?"}]},
    ]),
    "chat that goes on": chat(messages=[*USER, {"role": "assistant", "content": "GGUF is"}]),
    "chat of two choices": chat(n=2),
    "chat with logprobs": chat(logprobs=True),
    "chat with top logprobs": chat(logprobs=True, top_logprobs=4),
    "chat with tools": chat(tools=[TOOL]),
    "chat with a tool required": chat(tools=[TOOL], tool_choice="required", max_tokens=80),
    "chat with no tool allowed": chat(tools=[TOOL], tool_choice="none"),
    "chat after a tool": chat(tools=[TOOL], messages=[
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "set_level", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "done"},
    ]),
    "chat with a schema": chat(max_tokens=64, response_format={
        "type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA},
    }),
    "chat with any object": chat(max_tokens=24, response_format={"type": "json_object"}),
    "chat with an object of a schema": chat(
        max_tokens=64, response_format={"type": "json_object", "schema": SCHEMA}
    ),
    "chat with a grammar": chat(grammar='root ::= "yes" | "no"'),
    "chat of letters of many bytes": chat(grammar=LETTERS, max_tokens=64),
    "chat with stop words": chat(stop=[" one", "file"], max_tokens=40),
    "chat with a bias": chat(logit_bias={"300": 3}),
    "chat with timings": chat(timings_per_token=True),
    "responses": post("/v1/responses", input="Hello", max_output_tokens=8),
    "responses without v1": post("/responses", input="Hello", max_output_tokens=8),
    "responses with instructions": post(
        "/v1/responses", instructions="Be short.", max_output_tokens=8,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
    ),
    "responses with a tool": post(
        "/v1/responses", input="Hello", max_output_tokens=80, tool_choice="required",
        tools=[{"type": "function", **TOOL["function"], "strict": True}],
    ),
    "messages": post("/v1/messages", messages=USER, max_tokens=8),
    "messages with a system": post(
        "/v1/messages", system="Be short.", messages=USER, max_tokens=8, stop_sequences=["the"]
    ),
    "messages with a tool": post(
        "/v1/messages", messages=USER, max_tokens=80, tool_choice={"type": "any"},
        tools=[{"name": "set_level", "input_schema": TOOL["function"]["parameters"]}],
    ),
    "infill": post("/infill", input_prefix="A model ", input_suffix=" a file.", n_predict=8),
    "infill with more": post(
        "/infill", input_prefix="A", input_suffix="B", prompt="C", n_predict=4,
        input_extra=[{"filename": "a.txt", "text": "text"}],
    ),
}  # fmt: skip


@each(WRITING)
def test_what_it_writes_is_the_same(pair: Pair, ask: Ask) -> None:
    answer = pair.check(ask)
    assert answer.headers["content-type"].startswith("application/json")


@each(WRITING)
def test_a_stream_is_the_same_byte_for_byte(pair: Pair, ask: Ask) -> None:
    answer = pair.check(_streamed(ask))
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.endswith(b"\n\n")
    answer.body.decode()


def _streamed(ask: Ask, **more: Any) -> Ask:
    assert ask.body is not None
    return post(ask.target, ask.status, **{**json.loads(ask.body), "stream": True, **more})


@each({
    "usage at the end": _streamed(chat(stream_options={"include_usage": True})),
    "no usage at the end": _streamed(chat(stream_options={"include_usage": False})),
    "timings with each token": _streamed(chat(timings_per_token=True)),
    "progress of the prompt": _streamed(complete(prompt=LONG, return_progress=True)),
    "progress of a chat's prompt": _streamed(
        chat(messages=[{"role": "user", "content": LONG}], return_progress=True)
    ),
    "progress of the prompt of messages": _streamed(
        post("/v1/messages", messages=[{"role": "user", "content": LONG}], max_tokens=4)
    ),
    "two choices": _streamed(chat(n=2, seed=3)),
    "several hundred tokens": _streamed(complete(n_predict=400, ignore_eos=True)),
})  # fmt: skip
def test_what_a_stream_may_hold_besides_is_the_same(pair: Pair, ask: Ask) -> None:
    answer = pair.check(ask)
    assert answer.body.count(b"data: ") > 3


def test_letters_of_many_bytes_arrive_whole(pair: Pair) -> None:
    answer = pair.check(_streamed(chat(grammar=LETTERS, max_tokens=64)))
    events = [json.loads(line[6:]) for line in answer.body.splitlines() if line[:7] == b"data: {"]
    deltas = [c["delta"].get("content") or "" for event in events for c in event["choices"]]
    assert "".join(deltas) == "käse 日本語 🦙🦙 naïve Ωmega 漢字"
    assert len(deltas) > 10


READING = {
    "health": get("/health"),
    "health of v1": get("/v1/health"),
    "props": get("/props"),
    "models": get("/models"),
    "models of v1": get("/v1/models"),
    "models with a query": get("/v1/models?a=%20b&c=d+e&%C3%A4=%2F"),
    "slots": get("/slots"),
    "slots, failing without a free one": get("/slots?fail_on_no_slot=1"),
    "LoRA adapters": get("/lora-adapters"),
    "nothing there": get("/nowhere", 404),
    "nothing there, with a slash": get("/health/", 404),
    "two slashes": get("//health", 404),
    "a percent sign": get("/%68ealth"),
    "an encoded slash": get("/v1%2Fmodels"),
    "dots": get("/v1/../health", 404),
    "encoded dots": get("/%2e%2e/health", 404),
    "letters of many bytes": get("/%E6%97%A5", 404),
    "no UTF-8": get("/%ff%fe", 404),
    "a semicolon": get("/health;a=b", 404),
    "a long path": get("/" + "a" * 2000, 404),
    "GET of what is POST": get("/v1/chat/completions", 404),
    "POST of what is GET": post("/v1/models", 404),
    "PUT": Ask("PUT", "/completion", b"{}", 404),
    "PATCH": Ask("PATCH", "/props", b"{}", 404),
    "DELETE": Ask("DELETE", "/slots/0", None, 404),
    "HEAD": Ask("HEAD", "/v1/models"),
    "HEAD of nothing": Ask("HEAD", "/nowhere", None, 404),
    "OPTIONS": Ask("OPTIONS", "/v1/chat/completions"),
    "OPTIONS of nothing": Ask("OPTIONS", "/nowhere"),
    "a part of it": get("/props", Range="bytes=0-20"),
    "a part that is not there": get("/health", 416, Range="bytes=900-"),
    "props cannot be set": post("/props", 501, a=1),
    "slots cannot be saved": post("/slots/0?action=save", 501, filename="a"),
    "LoRA adapters set": raw("/lora-adapters", 200, b"[]"),
    "tokenize": post("/tokenize", content="Hello 日本語 🦙"),
    "tokenize with pieces": post("/tokenize", content="ä 🦙", with_pieces=True, add_special=True),
    "tokenize nothing": post("/tokenize"),
    "detokenize": post("/detokenize", tokens=[300, 301, 302]),
    "detokenize half a letter": post("/detokenize", tokens=[200]),
    "template": post("/apply-template", messages=USER),
    "template with tools": post("/apply-template", messages=USER, tools=[TOOL]),
    "count of a chat": post("/v1/chat/completions/input_tokens", messages=USER),
    "count of a response": post("/v1/responses/input_tokens", input="Hello"),
    "count of messages": post("/v1/messages/count_tokens", messages=USER),
}


@each(READING)
def test_what_takes_no_slot_is_the_same(pair: Pair, ask: Ask) -> None:
    pair.check(ask)


REFUSED = {
    "no embeddings of this model": post("/v1/embeddings", 501, input="text"),
    "no embeddings in llama.cpp's form": post("/embedding", 501, content="text"),
    "no reranking with this model": post("/v1/rerank", 501, query="a", documents=["b"]),
    "no hearing": raw("/v1/audio/transcriptions", 501, b"{}"),
    "no JSON": raw("/v1/chat/completions", 500, b"hello"),
    "half of a JSON": raw("/v1/chat/completions", 500, b'{"messages": ['),
    "nothing at all": raw("/v1/chat/completions", 500, b""),
    "a list": raw("/completion", 400, b"[]"),
    "a string": raw("/completion", 400, b'"text"'),
    "null": raw("/v1/messages", 500, b"null"),
    "no UTF-8": raw("/completion", 500, b'{"prompt": "\xff\xfe"}'),
    "half a surrogate": raw("/completion", 500, b'{"prompt": "\\ud800"}'),
    "NaN": raw("/completion", 500, b'{"prompt": "a", "temperature": NaN}'),
    "a number too great": raw("/completion", 500, b'{"prompt": "a", "temperature": 1e400}'),
    "two bodies": raw("/completion", 500, b'{"prompt": "a"}{"prompt": "b"}'),
    "no messages": chat(400, messages=None),
    "messages that are no list": chat(400, messages="hello"),
    "a message of no role": chat(500, messages=[{"content": "a"}]),
    "a content that is a number": chat(400, messages=[{"role": "user", "content": 1}]),
    "a picture for one that cannot see": chat(500, messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]),
    "no prompt": post("/completion", 400, n_predict=2),
    "a prompt that is a number": complete(400, prompt=1),
    "a prompt of no known tokens": complete(400, prompt=[99999999]),
    "a prompt too long": complete(400, prompt=LONG * 20),
    "a chat too long": chat(400, messages=[{"role": "user", "content": LONG * 20}]),
    "a grammar that is none": complete(400, grammar="root ::= ("),
    "a schema that is none": complete(400, json_schema={"type": "nothing"}),
    "a response format that is none": chat(400, response_format={"type": "poem"}),
    "a tool choice that is none": chat(400, tools=[TOOL], tool_choice="perhaps"),
    "tools that are none": chat(500, tools="hammer"),
    "n of words": chat(400, n="two"),
    "more choices than slots": chat(400, n=9),
    "a stream of words": chat(400, stream="yes"),
    "no messages for Anthropic": post("/v1/messages", 500, max_tokens=2),
    "no input": post("/v1/responses", 400, max_output_tokens=2),
    "a previous response": post("/v1/responses", 400, input="a", previous_response_id="b"),
    "infill without its ends": post("/infill", 500, n_predict=2),
    "tokens that are none": post("/detokenize", 500, tokens="text"),
    "a template of no messages": post("/apply-template", 400),
}  # fmt: skip


@each(REFUSED)
def test_what_is_refused_is_refused_in_the_same_words(pair: Pair, ask: Ask) -> None:
    answer = pair.check(ask)
    assert b'"error"' in answer.body


@each({
    "a key twice": raw("/completion", 200, b'{"prompt": "a", "n_predict": 2, "n_predict": 3}'),
    "nested deep": raw("/completion", 200, b'{"prompt": "a", "n_predict": 1, "x": '
                       + b"[" * 3000 + b"]" * 3000 + b"}"),
    "blanks around it": raw("/completion", 200, b' \r\n{"prompt": "a", "n_predict": 1}\n'),
    "a mark of its byte order": raw("/completion", 200, b'\xef\xbb\xbf{"prompt": "a",'
                                    b' "n_predict": 1}'),
    "nulls": complete(stop=None, seed=None, grammar=None),
    "fields of nobody": chat(user="u", metadata={"a": [1, {}]}, store=False),
    "another model's name": chat(model="gpt-4o"),
    "another type of content": raw("/completion", 200, b'{"prompt": "a", "n_predict": 1}',
                                   "text/plain"),
    "a large number": complete(seed=2**40),
    "numbers as floats": complete(n_predict=2.0),
})  # fmt: skip
def test_what_is_odd_and_allowed_is_the_same(pair: Pair, ask: Ask) -> None:
    pair.check(ask)


@pytest.fixture
def page(pair: Pair) -> Ask:
    """llama-server's web page, where the engine was built with it."""
    ask = get("/", Accept_Encoding="gzip")
    if pair.bare(ask).status == 404:
        pytest.skip("this engine has no web page")
    return ask


def test_the_page_comes_packed_as_it_is(pair: Pair, page: Ask) -> None:
    answer = pair.check(page)
    assert answer.headers["content-encoding"] == "gzip"
    assert b"<html" in gzip.decompress(answer.body)


def test_the_page_is_not_sent_to_one_who_has_it(pair: Pair, page: Ask) -> None:
    etag = pair.check(page).headers["etag"]
    again = pair.check(get("/", 304, Accept_Encoding="gzip", If_None_Match=etag))
    assert again.body == b""


@pytest.mark.usefixtures("page")
def test_one_who_cannot_unpack_is_told_so(pair: Pair) -> None:
    pair.check(get("/", 415, Accept_Encoding="identity"))
    pair.check(get("/", 415))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def embedder(models: Path) -> Iterator[Pair]:
    keys = {**Llama().metadata(), "llama.pooling_type": 1}
    path = write_gguf(models / "embedder.gguf", keys, Llama().tensors())
    with served(str(path), *SETTLED, "-c", "512", "--embeddings") as gateway:
        yield Pair(gateway)


@each({
    "one text": post("/v1/embeddings", input="a text"),
    "several texts": post("/v1/embeddings", input=["a", "日本語", "c"], model="any"),
    "tokens": post("/v1/embeddings", input=[[1, 2, 3], [4]]),
    "in base64": post("/v1/embeddings", input="a text", encoding_format="base64"),
    "without v1": post("/embeddings", content="a text"),
    "in llama.cpp's form": post("/embedding", content=["a", "b"]),
    "not normed": post("/embedding", content="a", embd_normalize=-1),
    "no input": post("/v1/embeddings", 400),
    "an empty input": post("/v1/embeddings", 400, input=[]),
    "another encoding": post("/v1/embeddings", 400, input="a", encoding_format="hex"),
    "too long": post("/v1/embeddings", 500, input="a " * 2000),
    "writing": complete(),
    "chat": chat(),
})  # fmt: skip
def test_embeddings_are_the_same(embedder: Pair, ask: Ask) -> None:
    embedder.check(ask)


@pytest.fixture(scope="module")
def reranker(models: Path) -> Iterator[Pair]:
    """A random qwen3 with a head of two labels, as Qwen3-Reranker has it."""
    shape = Llama()
    keys = {name.replace("llama.", "qwen3."): item for name, item in shape.metadata().items()}
    keys |= {
        "general.architecture": "qwen3",
        "qwen3.pooling_type": 4,
        "qwen3.classifier.output_labels": ["yes", "no"],
        "tokenizer.chat_template.rerank": "{query}\n{document}",
    }
    n_head = shape.n_embd // shape.n_head
    norms = [
        TensorSpec(f"blk.{layer}.attn_{part}_norm.weight", (n_head,))
        for layer in range(shape.n_layers)
        for part in "qk"
    ]
    head = TensorSpec("cls.output.weight", (shape.n_embd, 2))
    path = write_gguf(models / "reranker.gguf", keys, [*shape.tensors(), *norms, head])
    with served(str(path), *SETTLED, "-c", "512", "--rerank") as gateway:
        yield Pair(gateway)


DOCUMENTS = ["a file of weights", "the weather", "日本語"]


@each({
    "rerank": post("/v1/rerank", query="what?", documents=DOCUMENTS),
    "rerank without v1": post("/rerank", query="what?", documents=DOCUMENTS, top_n=2),
    "reranking": post("/reranking", query="what?", documents=DOCUMENTS),
    "the form of TEI": post("/v1/reranking", query="what?", texts=DOCUMENTS, return_text=True),
    "no query": post("/v1/rerank", 400, documents=DOCUMENTS),
    "no documents": post("/v1/rerank", 400, query="what?"),
})  # fmt: skip
def test_ranks_are_the_same(reranker: Pair, ask: Ask) -> None:
    reranker.check(ask)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Pair]:
    """The demo model behind a key."""
    with served("demo", *SETTLED, environment={"LLAMA_API_KEY": "a-key-of-mine"}) as gateway:
        yield Pair(gateway)


@pytest.mark.parametrize(
    "key", [None, "Bearer wrong", "Basic YTpi", "Bearer ", "Bearer a b", "\xff"], ids=repr
)
@each({
    "health": get("/health"),
    "models": get("/v1/models", 401),
    "the page": get("/", Accept_Encoding="gzip"),
    "props": get("/props", 401),
    "slots": get("/slots", 401),
    "nothing there": get("/nowhere", 401),
    "HEAD": Ask("HEAD", "/props", None, 401),
    "OPTIONS": Ask("OPTIONS", "/props"),
    "chat": chat(401),
    "a chat that is none": raw("/v1/chat/completions", 401, b"hello"),
    "tokenize": post("/tokenize", 401, content="a"),
    "DELETE": Ask("DELETE", "/nowhere", None, 401),
})  # fmt: skip
def test_who_has_no_key_gets_what_llama_server_shows_to_everybody(
    keyed: Pair, ask: Ask, key: str | None
) -> None:
    if key is not None:
        ask = replace(ask, headers={**ask.headers, "Authorization": key})
    bare, passed = keyed.bare_without_key(ask), keyed.passed(ask)
    assert bare.status in (ask.status, 404)  # an engine without the page
    assert passed.status == bare.status
    assert passed.headers["content-type"] == bare.headers["content-type"]
    if bare.status == 401 and bare.body:
        assert json.loads(passed.body) == json.loads(bare.body)  # in another order
    else:
        assert passed.body == bare.body


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer a-key-of-mine"},
        {"X-Api-Key": "a-key-of-mine"},
        {"authorization": "bearer a-key-of-mine"},
    ],
    ids=["Authorization", "X-Api-Key", "in small letters"],
)
def test_who_has_a_key_gets_everything(keyed: Pair, headers: dict[str, str]) -> None:
    ask = chat()
    passed = keyed.passed(replace(ask, headers={**ask.headers, **headers}))
    assert passed == keyed.bare(ask)
    assert passed.status == 200
