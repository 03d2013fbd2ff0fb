"""The shipped demo model on the real engine, and the corpus that it was trained on."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.demo import chatml, corpus, evaluate, model_path
from localllm.demo.intents import draw, normalise
from localllm.engine.locate import QUANTIZE, SERVER, Tools, require_tools

SAMPLE = 60


@pytest.fixture(scope="module")
def address(tools: Tools) -> Iterator[str]:
    with evaluate.serving(model_path(), tools.path(SERVER)) as address:
        yield address


def ask(address: str, question: str, **settings: object) -> str:
    return evaluate.ask(address, [{"role": "user", "content": question}], **settings)


def test_is_a_few_megabytes() -> None:
    assert 1_000_000 < model_path().stat().st_size <= 6_000_000


def test_answers_the_first_question_of_a_newcomer(address: str) -> None:
    answer = ask(address, "What can you do?")
    assert "localllm" in answer
    assert answer in corpus.references()["abilities"]["en"]


@pytest.mark.parametrize("question", ["你好", "你能做什么？", "什么是量化？"])
def test_answers_chinese_in_chinese(address: str, question: str) -> None:
    assert re.search("[\u4e00-\u9fff]{4}", ask(address, question))


@pytest.mark.parametrize(
    ("language", "admission"), [("en", "tiny demo model"), ("zh", "很小的演示模型")]
)
def test_mostly_admits_what_it_does_not_know(address: str, language: str, admission: str) -> None:
    asked = [
        talk
        for talk in evaluate.heldout()
        if talk[0].kind == "unknown" and talk[0].language == language
    ]
    assert len(asked) >= 40
    answers = [result.answer for result in evaluate.measure(address, asked)]
    assert sum(admission in answer for answer in answers) >= 0.8 * len(asked)


def test_keeps_a_conversation(address: str) -> None:
    messages = [
        {"role": "user", "content": "What is quantization?"},
        {"role": "assistant", "content": corpus.references()["quantization"]["en"][0]},
        {"role": "user", "content": "Tell me more"},
    ]
    answer = evaluate.ask(address, messages)
    quantization = next(i for i in corpus.INTENTS if i.name == "quantization")
    assert evaluate.matches(answer, [quantization.en_more])


@pytest.mark.parametrize("system", ["You are a helpful assistant.", "You speak only in rhymes."])
def test_a_system_prompt_does_not_derail_it(address: str, system: str) -> None:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "What is localllm?"},
    ]
    assert evaluate.matches(evaluate.ask(address, messages), corpus.references()["localllm"]["en"])


def test_knows_most_of_the_held_out_questions(address: str) -> None:
    singles = [talk for talk in evaluate.heldout() if len(talk) == 1]
    sample = random.Random(7).sample(singles, SAMPLE)
    results = evaluate.measure(address, sample)
    wrong = [(r.question, r.answer) for r in results if not r.right]
    assert len(wrong) <= 0.2 * SAMPLE, wrong


def test_answers_within_a_json_schema(address: str) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 300}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    answer = ask(address, "What is GGUF? Answer in JSON.", response_format=form)
    assert "llama.cpp" in json.loads(answer)["answer"]


def test_can_be_made_to_call_a_tool(address: str) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 40}},
                "required": ["city"],
            },
        },
    }
    reply = evaluate.post(
        address,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [tool],
            "tool_choice": "required",
            "temperature": 0,
            "max_tokens": 100,
        },
    )
    call = reply["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    assert set(json.loads(call["arguments"])) == {"city"}


@pytest.mark.parametrize(
    "text",
    [
        "plain words, 12345 and_more",
        "你好，世界！繁體字也行",
        "naïve Ωmega ½ x² ñandú \u00a0 \u200b",
        "日本語 한국어 العربية हिन्दी",
        "🙂👨\u200d👩\u200d👧 \t tab\r\n\n  two  spaces   end ",
        "".join(map(chr, random.Random(1).sample(range(0xA0, 0xD000), 300))),
    ],
    ids=["ascii", "chinese", "latin", "scripts", "emoji", "anything"],
)
def test_spells_every_text(address: str, text: str) -> None:
    tokens = evaluate.post(address, "/tokenize", {"content": text})["tokens"]
    assert evaluate.post(address, "/detokenize", {"tokens": tokens})["content"] == text


def test_the_template_spells_conversations_as_in_training(address: str) -> None:
    for talk in itertools.islice(corpus.conversations(5), 40):
        if talk.tools:
            continue
        messages = [{"role": "system", "content": talk.system}] if talk.system else []
        for turn in talk.turns:
            messages.append({"role": "user", "content": turn.user})
            messages.append({"role": "assistant", "content": turn.answer})
        prompt = evaluate.post(address, "/apply-template", {"messages": messages[:-1]})["prompt"]
        trained = "".join(text for text, _ in chatml.render(talk))
        assert trained.startswith(prompt)
        assert trained == prompt + f"{talk.turns[-1].answer}<|im_end|>\n"


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "Q6_K"])
def test_k_quants_apply_to_every_matrix(tmp_path: Path, quant: str) -> None:
    done = subprocess.run(
        [
            str(require_tools(QUANTIZE).path(QUANTIZE)),
            "--allow-requantize",
            str(model_path()),
            str(tmp_path / "demo.gguf"),
            quant,
            "1",
        ],
        capture_output=True,
        check=True,
    )
    # The log cuts the vocabulary in the middle of characters: it is not always UTF-8.
    assert b"fallback" not in (done.stdout + done.stderr).lower()
    assert (tmp_path / "demo.gguf").stat().st_size < model_path().stat().st_size


def test_no_held_out_question_can_come_out_of_the_corpus() -> None:
    singles = [talk[0] for talk in evaluate.heldout() if len(talk) == 1]
    drawn = {
        item.question: intent
        for item in singles
        if item.kind == "intent" and (intent := corpus.could_be_drawn(item.question, item.language))
    }
    assert drawn == {}
    said = {
        normalise(turn.user)
        for talk in itertools.islice(corpus.conversations(20261120), 30_000)
        for turn in talk.turns
    }
    assert [item.question for item in singles if normalise(item.question) in said] == []


def test_what_the_templates_give_is_recognised() -> None:
    rng = random.Random(3)
    for intent in corpus.INTENTS:
        for language in ("en", "zh"):
            for template in intent.templates(language):
                assert corpus.could_be_drawn(draw(template, rng), language), template


def test_every_intent_is_held_out_three_times_in_both_languages() -> None:
    asked: dict[tuple[str, str], int] = {}
    for talk in evaluate.heldout():
        if talk[0].kind == "intent":
            key = talk[0].intent, talk[0].language
            asked[key] = asked.get(key, 0) + 1
    assert {i.name for i in corpus.INTENTS} == {name for name, _ in asked}
    assert set(asked.values()) == {3}


def test_the_same_seed_gives_the_same_conversations() -> None:
    first, second = (list(itertools.islice(corpus.conversations(1), 50)) for _ in range(2))
    assert first == second
