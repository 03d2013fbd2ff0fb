"""What is read of requests and of answers on their way, and whose cache a prompt may be in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from localllm.gateway.affinity import Affinity
from localllm.gateway.ask import Ask, read_ask
from localllm.gateway.passing import PING, Passing

#: Answers of llama-server (0c1e570) with the demo model, as they came.
ANSWERS = Path(__file__).parent.parent / "data" / "gateway"


def asked(**document: Any) -> Ask:
    return read_ask(json.dumps(document).encode())


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="not JSON"),
        pytest.param(b"[1, 2]", id="not an object"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b"--x\r\nContent-Disposition: form-data\r\n", id="a form"),
    ],
)
def test_a_body_that_cannot_be_read_is_an_empty_ask(body: bytes) -> None:
    assert read_ask(body) == Ask()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"model": "m", "stream": True}, Ask("m", True), id="model and stream"),
        pytest.param({"model": 5, "stream": "yes"}, Ask(), id="of other types"),
        pytest.param({"n": 3}, Ask(n_slots=3), id="n choices"),
        pytest.param({"n_cmpl": 2}, Ask(n_slots=2), id="llama-server's name for n"),
        pytest.param({"n": 0}, Ask(), id="no choice"),
        pytest.param({"n": -4}, Ask(), id="fewer than none"),
        pytest.param({"n": True}, Ask(), id="n is a flag"),
        pytest.param({"n": 2.0}, Ask(), id="n is no whole number"),
    ],
)
def test_what_an_ask_tells(document: dict[str, Any], expected: Ask) -> None:
    assert asked(**document) == expected


@pytest.mark.parametrize(
    ("prompt", "n", "n_slots"),
    [
        pytest.param("one", 1, 1, id="a text"),
        pytest.param(["one", "two", "three"], 1, 3, id="three texts"),
        pytest.param(["one", "two"], 2, 4, id="two choices of each of two"),
        pytest.param([12, 34, 56], 1, 1, id="tokens"),
        pytest.param([12, "and", 34], 1, 1, id="tokens and texts are one prompt"),
        pytest.param([[12, 34], [56]], 1, 2, id="two lists of tokens"),
        pytest.param([], 1, 1, id="nothing"),
    ],
)
def test_each_prompt_takes_a_slot_for_each_choice(prompt: Any, n: int, n_slots: int) -> None:
    assert asked(prompt=prompt, n=n).n_slots == n_slots


def test_what_would_take_long_to_parse_is_not_parsed_and_takes_all_slots() -> None:
    lists = b'{"model": "m", "x": [' + b"[]," * 300_000 + b"[]]}"
    assert read_ask(lists) == Ask(n_slots=sys.maxsize)
    text = b'{"model": "m", "prompt": "' + b"x" * 3_000_000 + b'"}'
    assert read_ask(text).model == "m"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(
            {"messages": [user("a")]},
            {"messages": [user("a"), assistant("b"), user("c")]},
            id="chat",
        ),
        pytest.param(
            {"system": "s", "messages": [user("a")]},
            {"system": "s", "messages": [user("a"), assistant("b"), user("c")]},
            id="Anthropic messages",
        ),
        pytest.param(
            {"instructions": "s", "input": [user("a")]},
            {"instructions": "s", "input": [user("a"), assistant("b")]},
            id="responses",
        ),
        pytest.param({"prompt": "x" * 1024}, {"prompt": "x" * 1024 + "y"}, id="a prompt"),
        pytest.param({"prompt": [1, 2, 3]}, {"prompt": [1, 2, 3], "n_predict": 5}, id="tokens"),
        pytest.param({"input_prefix": "a"}, {"input_prefix": "a"}, id="infill"),
    ],
)
def test_what_continues_a_prompt_begins_with_its_prefix(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    short, long = asked(**first).prefix, asked(**second).prefix
    assert short
    assert long[: len(short)] == short


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"messages": [user("a")]}, {"messages": [user("b")]}, id="chat"),
        pytest.param(
            {"system": "s", "messages": [user("a")]},
            {"system": "t", "messages": [user("a")]},
            id="another system prompt",
        ),
        pytest.param({"prompt": "a" * 2000}, {"prompt": "b" + "a" * 1999}, id="prompt"),
        pytest.param({"prompt": ["ab", "c"]}, {"prompt": ["a", "bc"]}, id="cut elsewhere"),
        pytest.param({"prompt": [1, 2]}, {"prompt": [1, 3]}, id="tokens"),
    ],
)
def test_prompts_that_differ_at_once_share_nothing(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert not {*asked(**first).prefix} & {*asked(**second).prefix}


def test_a_prefix_is_bounded_whatever_the_prompt() -> None:
    many = asked(messages=[user(str(number)) for number in range(1000)])
    long = asked(prompt="x" * 1_000_000)
    assert len(many.prefix) == len(long.prefix) == 64


def test_half_a_surrogate_pair_is_no_obstacle() -> None:
    assert read_ask(b'{"prompt": "\\ud83d"}').prefix


def test_affinity_finds_who_has_seen_most_of_a_prompt() -> None:
    affinity = Affinity()
    affinity.remember([b"a"], "0")
    affinity.remember([b"a", b"b"], "1")
    affinity.remember([b"a"], "0")
    assert affinity.find([b"a", b"b", b"c"], {"0", "1"}) == "1"
    assert affinity.find([b"a", b"x"], {"0", "1"}) == "0"
    assert affinity.find([b"x"], {"0", "1"}) is None


def test_affinity_passes_over_a_replica_that_is_not_among_those_asked_for() -> None:
    affinity = Affinity()
    affinity.remember([b"a"], "0")
    affinity.remember([b"b"], "1")
    assert affinity.find([b"a", b"b"], {"0"}) == "0"


def test_affinity_forgets_a_replica_that_was_started_anew() -> None:
    affinity = Affinity()
    affinity.remember([b"a"], "0")
    affinity.remember([b"b"], "1")
    affinity.forget("0")
    assert affinity.find([b"a"], {"0", "1"}) is None
    assert affinity.find([b"b"], {"0", "1"}) == "1"


def test_affinity_keeps_the_newest_of_very_many() -> None:
    affinity = Affinity()
    for number in range(20_000):
        affinity.remember([str(number).encode()], "0")
    assert affinity.find([b"19999"], {"0"}) == "0"
    assert affinity.find([b"0"], {"0"}) is None


@pytest.mark.parametrize("n_bytes_at_once", [1 << 20, 1000, 7], ids=["whole", "cut", "crumbs"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("chat.json", (16, 15, 4), id="chat"),
        pytest.param("chat.sse", (16, 15, 4), id="chat stream"),
        pytest.param("chat-usage.sse", (16, 15, 4), id="chat stream with usage"),
        pytest.param("completions.json", (10, 9, 4), id="completions"),
        pytest.param("completions.sse", (10, 9, 4), id="completions stream"),
        pytest.param("completions-usage.sse", (10, 9, 4), id="completions stream with usage"),
        pytest.param("completion.json", (10, 9, 4), id="completion"),
        pytest.param("completion.sse", (10, 9, 4), id="completion stream"),
        pytest.param("responses.json", (16, 15, 4), id="responses"),
        pytest.param("responses.sse", (16, 15, 4), id="responses stream"),
        pytest.param("messages.json", (16, 15, 4), id="messages"),
        pytest.param("embeddings.json", (6, None, None), id="embeddings"),
        pytest.param("error.json", (None, None, None), id="an error"),
    ],
)
def test_an_answer_tells_its_tokens(
    name: str, expected: tuple[int | None, ...], n_bytes_at_once: int
) -> None:
    if name.endswith(".json"):  # an answer that is no stream is taken whole
        n_bytes_at_once = 1 << 20
    counts = passed((ANSWERS / name).read_bytes(), n_bytes_at_once).counts()
    assert tuple(counts.get(key) for key in ("n_prompt", "n_cached", "n_tokens")) == expected


def test_a_stream_of_messages_tells_its_tokens() -> None:
    # Its prompt is told in its first event, which llama-server writes in one piece.
    counts = passed((ANSWERS / "messages.sse").read_bytes(), 1 << 20).counts()
    assert counts == {"n_prompt": 16, "n_cached": 15, "n_tokens": 4}


def test_a_text_that_looks_like_counts_is_not_taken_for_them() -> None:
    answer = json.loads((ANSWERS / "chat.json").read_bytes())
    answer["choices"][0]["message"]["content"] = '{"completion_tokens": 99, "prompt_n": 77}'
    counts = passed(json.dumps(answer).encode(), 1 << 20).counts()
    assert counts == {"n_prompt": 16, "n_cached": 15, "n_tokens": 4}


def test_pings_are_no_events() -> None:
    passing = Passing()
    assert passing.take(PING) == 0
    assert passing.take(b'data: {"a": 1}\n\ndata: {"b": 2}\n\n') == 2
    assert passing.n_events == 2


def test_what_is_kept_of_an_endless_answer_is_bounded() -> None:
    passing = Passing()
    for _ in range(2000):
        passing.take(b"data: " + b"x" * 1000 + b"\n\n")
    assert passing.n_bytes == 2000 * 1008
    assert sum(len(part) for part in (passing._head, passing._tail)) < 16384


def test_how_long_the_prompt_took_is_told_by_timings() -> None:
    assert passed((ANSWERS / "chat.json").read_bytes(), 1 << 20).prompt_seconds() == 0.000402
    assert passed((ANSWERS / "messages.json").read_bytes(), 1 << 20).prompt_seconds() is None


def passed(answer: bytes, n_bytes_at_once: int) -> Passing:
    passing = Passing()
    for at in range(0, len(answer), n_bytes_at_once):
        passing.take(answer[at : at + n_bytes_at_once])
    return passing
