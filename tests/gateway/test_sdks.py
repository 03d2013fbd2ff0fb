"""What people talk to a server with works with this one: openai's, anthropic's and LangChain's.

Whatever a tiny model would have to be lucky for is forced by a grammar, a schema or tool_choice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, SecretStr

from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.gateway.serving import Served, served
from tests.ggufs import Llama, write_gguf

KEY, KEY_OF_ONE = "a-key-of-the-team", "a-key-for-one-at-a-time"
MODEL = "demo"
#: Far more than is read of it: it runs until its client leaves.
ENDLESS = 30000


class Level(BaseModel):
    """What is asked for with a schema."""

    level: Literal[1, 2, 3]
    name: Literal["low", "high"]


SCHEMA = {
    "type": "object",
    "properties": {"level": {"enum": [1, 2, 3]}, "name": {"enum": ["low", "high"]}},
    "required": ["level", "name"],
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "set_level", "description": "Sets it.", "parameters": SCHEMA},
}
ASKED: Any = [{"role": "user", "content": "What is a GGUF file?"}]
#: What the demo model answers to that, greedy.
ANSWER = "GGUF is llama.cpp's file format"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo model, with keys, one of them for one request at a time."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(f"team {KEY}\nalone {KEY_OF_ONE}\n")
    (folder / "keys").chmod(0o600)
    config = folder / "serve.yaml"
    config.write_text("api_key_file: keys\nkey_limits:\n  alone: {concurrency: 1}\n")
    settled = ("--temp", "0", "--seed", "1", "--no-cache-prompt")
    with served("demo", "--config", str(config), "-c", "65536", "--parallel", "2",
                "--", *settled) as gateway:  # fmt: skip
        yield gateway


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A random embedding model that pools as Qwen3-Embedding does (the last token); no keys."""
    keys = {**Llama().metadata(), "llama.pooling_type": 3}
    path = tmp_path_factory.mktemp("models") / "embedder.gguf"
    write_gguf(path, keys, Llama().tensors())
    with served(str(path), "--", "-c", "512", "-np", "2", "--embeddings") as gateway:
        yield gateway


def openai_of(server: Served, api_key: str = KEY, **options: Any) -> openai.OpenAI:
    options = {"max_retries": 0, "timeout": PATIENCE_SECONDS, **options}
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, **options)


def anthropic_of(server: Served, api_key: str = KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=server.url, api_key=api_key, max_retries=0, timeout=PATIENCE_SECONDS
    )


def langchain_of(server: Served, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{server.url}/v1", api_key=SecretStr(KEY), model=MODEL, max_retries=0, **options
    )


@pytest.fixture
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai_of(gateway) as client:
        yield client


@pytest.fixture
def claude(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic_of(gateway) as client:
        yield client


# openai


def test_openai_chats(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=16)
    assert (done.choices[0].message.content or "").startswith(ANSWER)
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None
    assert done.usage.completion_tokens == 16


async def _chat_later(url: str) -> ChatCompletion:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        return await client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=16)


def test_openai_chats_asynchronously(gateway: Served) -> None:
    done = asyncio.run(_chat_later(gateway.url))
    assert (done.choices[0].message.content or "").startswith(ANSWER)


def test_openai_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=16, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas).startswith(ANSWER)
    assert sum(map(bool, deltas)) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


def test_openai_gets_probabilities(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=4, logprobs=True, top_logprobs=3
    )
    logprobs = done.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(token.top_logprobs) for token in logprobs.content] == [3] * 4
    assert all(token.logprob <= 0 for token in logprobs.content)


def test_openai_calls_a_tool(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL, messages=ASKED, tools=[TOOL], tool_choice="required",
        parallel_tool_calls=False,
    )  # fmt: skip
    (call,) = done.choices[0].message.tool_calls or ()
    assert done.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert call.function.name == "set_level"
    Level.model_validate_json(call.function.arguments)


def test_openai_streams_a_tools_call(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, tools=[TOOL], tool_choice="required", stream=True,
        parallel_tool_calls=False,
    )  # fmt: skip
    calls = [
        call.function
        for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
        if call.function is not None
    ]
    assert "".join(call.name or "" for call in calls) == "set_level"
    Level.model_validate_json("".join(call.arguments or "" for call in calls))


def test_openai_gets_what_a_schema_says(client: openai.OpenAI) -> None:
    done = client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Level)
    assert isinstance(done.choices[0].message.parsed, Level)


def test_openai_gets_responses(client: openai.OpenAI) -> None:
    done = client.responses.create(model=MODEL, input=ASKED[0]["content"], max_output_tokens=16)
    assert done.output_text.startswith(ANSWER)
    assert done.usage is not None
    assert done.usage.output_tokens == 16


def test_openai_streams_responses(client: openai.OpenAI) -> None:
    events = list(
        client.responses.create(
            model=MODEL, input=ASKED[0]["content"], max_output_tokens=16, stream=True
        )
    )
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas).startswith(ANSWER)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


def test_openai_completes_a_text(client: openai.OpenAI) -> None:
    done = client.completions.create(
        model=MODEL, prompt="The answer:", extra_body={"grammar": 'root ::= " yes" | " no"'}
    )
    assert done.choices[0].text in (" yes", " no")


def test_openai_lists_the_model(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert "demo" in model.id


def test_openai_tells_that_a_prompt_is_too_long(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 100_000}]
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model=MODEL, messages=long)


def test_openai_embeds(embedder: Served) -> None:
    with openai_of(embedder, "not needed") as client:
        done = client.embeddings.create(model="any", input=["one text", "another"])
        floats = client.embeddings.create(model="any", input="one text", encoding_format="float")
    one, another = (item.embedding for item in done.data)
    assert len(one) == len(another) == Llama().n_embd
    assert sum(x * x for x in one) == pytest.approx(1.0, abs=1e-3)
    assert one == pytest.approx(floats.data[0].embedding, abs=1e-5)
    assert one != pytest.approx(another, abs=1e-3)


# anthropic


def test_anthropic_writes_messages(claude: anthropic.Anthropic) -> None:
    done = claude.messages.create(model=MODEL, messages=ASKED, max_tokens=16, system="Be short.")
    (block,) = done.content
    assert block.type == "text"
    assert len(block.text) > 10
    assert done.stop_reason == "max_tokens"
    assert done.usage.output_tokens == 16


def test_anthropic_streams(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model=MODEL, messages=ASKED, max_tokens=16) as stream:
        pieces = list(stream.text_stream)
        done = stream.get_final_message()
    assert "".join(pieces).startswith(ANSWER)
    assert len(pieces) > 5
    assert done.stop_reason == "max_tokens"
    assert done.usage.output_tokens == 16


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_anthropic_calls_a_tool(claude: anthropic.Anthropic, streams: bool) -> None:
    asked: Any = {
        "model": MODEL,
        "messages": ASKED,
        "max_tokens": 200,
        "tools": [{"name": "set_level", "description": "Sets it.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    if streams:
        with claude.messages.stream(**asked) as stream:
            done: Any = stream.get_final_message()
    else:
        done = claude.messages.create(**asked)
    (block,) = [block for block in done.content if block.type == "tool_use"]
    assert done.stop_reason == "tool_use"
    assert block.name == "set_level"
    Level.model_validate(block.input)


def test_anthropic_counts_tokens(claude: anthropic.Anthropic) -> None:
    short = claude.messages.count_tokens(model=MODEL, messages=ASKED).input_tokens
    done = claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert short == done.usage.input_tokens + (done.usage.cache_read_input_tokens or 0)


# LangChain


@tool
def set_level(level: Literal[1, 2, 3], name: Literal["low", "high"]) -> str:
    """Sets it."""
    return f"{name} {level}"


def test_langchain_asks_and_streams(gateway: Served) -> None:
    model = langchain_of(gateway, max_tokens=16)
    done = model.invoke(ASKED[0]["content"])
    assert isinstance(done, AIMessage)
    assert str(done.content).startswith(ANSWER)
    assert done.usage_metadata is not None
    assert done.usage_metadata["output_tokens"] == 16
    pieces = [str(chunk.content) for chunk in model.stream(ASKED[0]["content"])]
    assert "".join(pieces) == done.content
    assert sum(map(bool, pieces)) > 5


def test_langchain_binds_a_tool_and_tells_its_result(gateway: Served) -> None:
    model = langchain_of(gateway, max_tokens=200)
    question = HumanMessage("Turn it up.")
    bound = model.bind_tools([set_level], tool_choice="required", parallel_tool_calls=False)
    called = bound.invoke([question])
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls
    result = set_level.invoke(call)
    assert isinstance(result, ToolMessage)
    assert result.content == f"{call['args']['name']} {call['args']['level']}"
    done = model.invoke([question, called, result], max_tokens=4)
    assert isinstance(done, AIMessage)
    assert done.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_what_a_schema_says(gateway: Served, method: Any) -> None:
    model = langchain_of(gateway, max_tokens=200).with_structured_output(Level, method=method)
    assert isinstance(model.invoke("Which level?"), Level)


def test_langchain_embeds(embedder: Served) -> None:
    model = OpenAIEmbeddings(
        base_url=f"{embedder.url}/v1", api_key=SecretStr("not needed"), model="any",
        check_embedding_ctx_length=False,  # it would fetch a tokenizer of OpenAI's
    )  # fmt: skip
    one, another = model.embed_documents(["one text", "another"])
    assert len(one) == len(another) == Llama().n_embd
    assert model.embed_query("one text") == pytest.approx(one, abs=1e-5)


# Keys, limits, and leaving.


def test_without_keys_any_key_will_do_and_none(embedder: Served) -> None:
    with openai_of(embedder, "whatever") as client:
        assert client.models.list().data
    assert httpx.get(f"{embedder.url}/v1/models").status_code == 200


@pytest.mark.parametrize("key", ["wrong", KEY[:-1], KEY + "x", KEY.upper()])
def test_a_wrong_key_is_the_sdks_authentication_error(gateway: Served, key: str) -> None:
    with openai_of(gateway, key) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=1)
    with anthropic_of(gateway, key) as claude, pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1)


def _endless(client: openai.OpenAI) -> openai.Stream[Any]:
    """A stream that has begun, and would go on for long."""
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, max_tokens=ENDLESS, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    next(iter(stream))
    return stream


def test_too_many_requests_are_the_sdks_rate_limit_error(gateway: Served) -> None:
    with openai_of(gateway, KEY_OF_ONE) as client, _endless(client):
        with pytest.raises(openai.RateLimitError) as told:
            client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=1)
        with anthropic_of(gateway, KEY_OF_ONE) as claude, pytest.raises(anthropic.RateLimitError):
            claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert int(told.value.response.headers["retry-after"]) >= 1


def test_an_sdk_comes_again_when_it_was_told_to(gateway: Served) -> None:
    with openai_of(gateway, KEY_OF_ONE) as first:
        stream = _endless(first)
        came: list[tuple[float, int, float]] = []

        def answered(response: Any) -> None:
            wait = float(response.headers.get("retry-after", 0))
            came.append((time.monotonic(), response.status_code, wait))
            stream.close()

        http = openai.DefaultHttpxClient(event_hooks={"response": [answered]})
        # Tries enough for a stream that takes its time to end.
        with openai_of(gateway, KEY_OF_ONE, http_client=http, max_retries=20) as client:
            done = client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert done.choices
    assert [status for _, status, _ in came] == [429] * (len(came) - 1) + [200]
    assert len(came) > 1
    for (refused_at, _, wait), (again_at, _, _) in itertools.pairwise(came):
        assert wait >= 1
        # Of itself it would come again after half a second.
        assert again_at - refused_at >= wait


def test_a_stream_that_is_closed_frees_its_slot(gateway: Served, client: openai.OpenAI) -> None:
    wait_until(lambda: gateway.n_busy == 0, "what ran before to end")
    stream = _endless(client)
    assert gateway.n_busy == 1
    stream.close()
    wait_until(lambda: gateway.n_busy == 0, "its slot to be free")
    wait_until(lambda: not _is_processing(gateway), "llama-server to notice")
    wait_until(lambda: _last_chat(gateway).get("outcome") == "client left", "the log to say so")


def _is_processing(gateway: Served) -> bool:
    slots = httpx.get(f"{gateway.url}/slots", headers={"Authorization": f"Bearer {KEY}"}).json()
    return any(slot["is_processing"] for slot in slots)


def _last_chat(gateway: Served) -> dict[str, Any]:
    lines = gateway.log("access").splitlines(keepends=True)
    chats = [line for line in lines if "/chat/completions" in line and line.endswith("\n")]
    last: dict[str, Any] = json.loads(chats[-1]) if chats else {}
    return last


def test_no_key_is_in_a_log_or_in_an_argument(gateway: Served, client: openai.OpenAI) -> None:
    client.models.list()
    wait_until(lambda: "/v1/models" in gateway.log("access"), "the access log")
    written = [gateway.log(name) for name in ("access", "error", "performance")]
    argv = [" ".join(child.cmdline()) for child in gateway.children]
    for text in (*written, *argv, gateway.output):
        assert KEY not in text
        assert KEY_OF_ONE not in text
    assert '"team"' in written[0]
