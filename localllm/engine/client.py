"""Talks to an OpenAI-compatible server: our own llama-server's socket, or any URL.

One ChatModel over HTTP. Every dependency error is translated here, once.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from localllm.completion import Delta, Message, Sampling, Usage
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

if TYPE_CHECKING:
    import httpx

#: A long prompt on a slow processor sends nothing for minutes but llama-server's ping every 30 s;
#: other servers send no ping at all.
_IDLE_TIMEOUT_SECONDS = 600.0
_CONNECT_TIMEOUT_SECONDS = 10.0


def http_client(endpoint: Endpoint, read_timeout_seconds: float) -> httpx.Client:
    """A client for the endpoint; the caller closes it.

    Connections are not kept: llama-server closes an idle one after 5 s, and a request that meets
    the closing fails. On a socket of this machine a new one costs well under a millisecond. The
    header says it to httpx as well, whose limit alone lets a request take an idle one now and then.
    """
    import httpx

    headers = {"Connection": "close"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    transport = (
        httpx.HTTPTransport(uds=endpoint.socket_path) if endpoint.socket_path is not None else None
    )
    return httpx.Client(
        base_url=endpoint.base_url,
        headers=headers,
        transport=transport,
        timeout=httpx.Timeout(read_timeout_seconds, connect=_CONNECT_TIMEOUT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),
        # A proxy is never right for a socket or this machine; httpx honours NO_PROXY for URLs.
        trust_env=transport is None,
    )


class HttpChatModel:
    """A chat model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: where it answers.
        name: what a person calls it, and the `model` of each request.
        n_ctx: tokens of context per conversation, where known.
        explain_death: asked when the connection breaks; an error to raise instead, or None.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        n_ctx: int | None = None,
        explain_death: Callable[[], LocalllmError | None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._name = name
        self._n_ctx = n_ctx
        self._explain_death = explain_death
        self._client = http_client(endpoint, _IDLE_TIMEOUT_SECONDS)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._name

    @property
    def n_ctx(self) -> int | None:
        """Tokens of context per conversation, where known."""
        return self._n_ctx

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Delta | Usage]:
        """One chat completion, streamed; see ChatModel.

        Raises:
            ContextFullError: the conversation is longer than the context.
            NetworkError, AccessError, NotFoundError, UsageError, EngineError: as the names say.
        """
        body = {
            "model": self._name,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling.chosen(),
        }
        started = time.perf_counter()
        with (
            self._translated(),
            self._client.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise self._refused(response.status_code, response.text)
            yield from _read_stream(_lines(response.iter_bytes()), started)

    def only_model(self) -> str:
        """The name of the first model that the server offers."""
        with self._translated():
            response = self._client.get("/v1/models")
        if response.status_code != 200:
            raise self._refused(response.status_code, response.text)
        try:
            offered = [model["id"] for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise NetworkError(
                f"{self._endpoint.base_url} is not an OpenAI-compatible server",
                "name the address that ends before /v1, such as http://127.0.0.1:8080",
            ) from None
        if not offered:
            raise NotFoundError(f"{self._endpoint.base_url} offers no model")
        return str(offered[0])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where httpx's errors become ours."""
        import httpx

        url = self._endpoint.base_url
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise UsageError(
                f"{url!r} is not an address", "write it like http://127.0.0.1:8080"
            ) from exc
        except httpx.TransportError as exc:
            death = self._explain_death() if self._explain_death else None
            if death is not None:
                raise death from exc
            if isinstance(exc, httpx.ConnectError):
                raise NetworkError(f"nothing answers at {url}: {exc}", "is it running?") from exc
            if isinstance(exc, httpx.TimeoutException):
                raise NetworkError(f"{url} did not answer in time") from exc
            raise NetworkError(f"the connection to {url} broke: {exc}") from exc

    def _refused(self, status: int, text: str) -> LocalllmError:
        message, kind = _error_of(text)
        if kind == "exceed_context_size_error":
            return ContextFullError(message, "/clear forgets the conversation; --ctx gives it room")
        if status in (401, 403):
            return AccessError(
                f"{self._endpoint.base_url} refused the key: {message}",
                "set LOCALLLM_API_KEY to the server's key",
            )
        if status == 404:
            return NotFoundError(f"{self._endpoint.base_url} has no such model or route: {message}")
        if status in (400, 422):
            return UsageError(f"the server did not accept the request: {message}")
        if status == 429 or status >= 500:
            return NetworkError(f"the server answered {status}: {message}")
        return EngineError(f"the server answered {status}: {message}")


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their ends, from pieces cut anywhere; a last one without an end, too.

    httpx's own iter_lines decodes every piece through three layers, twice the cost of this: on a
    machine whose cores all compute, what we take is taken from the model.
    """
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")
    if rest:
        yield rest


def _read_stream(lines: Iterator[bytes], started: float) -> Iterator[Delta | Usage]:
    """Server-sent events -> Delta …, Usage.

    data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"+"}}],…}
    data: {"choices":[],…,"usage":{…},"timings":{"cache_n":0,"prompt_n":21,…}}
    data: [DONE]
    """
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    finish_reason: str | None = None
    first: float | None = None
    n_deltas = 0
    for line in lines:
        if not line.startswith(b"data:"):
            if line.startswith(b"error:"):
                raise EngineError(f"the server stopped: {_error_of(_text(line[6:]))[0]}")
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            break
        chunk = _json_object(data)
        if "error" in chunk:
            message, kind = _error_of(_text(data))
            if kind == "exceed_context_size_error":
                raise ContextFullError(message)
            raise EngineError(f"the server stopped: {message}")
        usage = chunk.get("usage") or usage
        timings = chunk.get("timings") or timings
        for choice in chunk.get("choices") or ():
            finish_reason = choice.get("finish_reason") or finish_reason
            delta = choice.get("delta") or {}
            content = delta.get("content") or ""
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            if content or reasoning:
                first = first or time.perf_counter()
                n_deltas += 1
                yield Delta(content, reasoning)
    ended = time.perf_counter()
    yield _usage(usage, timings, finish_reason, started, first, ended, n_deltas)


def _usage(
    usage: dict[str, Any],
    timings: dict[str, Any],
    finish_reason: str | None,
    started: float,
    first: float | None,
    ended: float,
    n_deltas: int,
) -> Usage:
    n_tokens = usage.get("completion_tokens", timings.get("predicted_n", n_deltas))
    decode = timings.get("predicted_per_second")
    if decode is None and first is not None and ended > first and n_tokens > 1:
        decode = (n_tokens - 1) / (ended - first)  # the first token's time is the prompt's
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", timings.get("cache_n"))
    return Usage(
        finish_reason=finish_reason,
        n_prompt_tokens=usage.get("prompt_tokens"),
        n_cached_tokens=cached,
        n_tokens=n_tokens,
        ttft_seconds=None if first is None else first - started,
        prompt_tokens_per_second=timings.get("prompt_per_second"),
        decode_tokens_per_second=decode,
        total_seconds=ended - started,
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise NetworkError("the server sent something that is not JSON") from None
    return value if isinstance(value, dict) else {}


def _error_of(text: str) -> tuple[str, str | None]:
    """Message and type of an OpenAI-style error body; the text itself when it is none."""
    try:
        error = json.loads(text)["error"]
        if isinstance(error, str):
            return error, None
        return str(error.get("message", error)), error.get("type")
    except (ValueError, KeyError, TypeError, AttributeError):
        return text.strip()[:200] or "no reason given", None
