"""Conversations for training the demo model, drawn from the templates in this folder.

Knows how a conversation goes on from question to question. Knows nothing of training. Standard
library only; the same seed gives the same conversations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from localllm.demo import elsewhere, followups
from localllm.demo.chatml import Conversation, Turn
from localllm.demo.intents import Intent, draw, normalise, pattern
from localllm.demo.manner import PREFIXES, SUFFIXES, as_typed, fill, odd_word, pick
from localllm.demo.talk import TALK
from localllm.demo.terms import TERMS
from localllm.demo.usage import USAGE

__all__ = ["INTENTS", "conversations", "could_be_drawn", "references", "vocabulary_texts"]

INTENTS: tuple[Intent, ...] = (*TALK, *USAGE, *TERMS)


@cache
def _asking(language: str) -> tuple[str, ...]:
    text = elsewhere.ASKING_EN if language == "en" else elsewhere.ASKING_ZH
    # The placeholders must not be mistaken for the phrases that intents share.
    return tuple(
        line.strip().replace("{", "<").replace("}", ">") for line in text.strip().splitlines()
    )


def _unknown(language: str, rng: random.Random) -> Turn:
    line = draw(rng.choice(_asking(language)), rng).replace("<", "{").replace(">", "}")
    text = draw(fill(line, language, rng), rng)
    refusals = elsewhere.REFUSALS_EN if language == "en" else elsewhere.REFUSALS_ZH
    return Turn(as_typed(text, language, rng), rng.choice(refusals), "unknown")


@cache
def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def _say(ways: dict[str, str], language: str, rng: random.Random) -> str:
    return draw(rng.choice(_lines(ways[language])), rng)


def _person(language: str, rng: random.Random) -> str:
    if language == "en":
        return (
            rng.choice(elsewhere.NAMES_EN)
            if rng.random() < 0.6
            else odd_word("en", rng).capitalize()
        )
    return rng.choice(elsewhere.NAMES_ZH) if rng.random() < 0.45 else odd_word("zh", rng)[:3]


def _other(language: str) -> str:
    return "zh" if language == "en" else "en"


@dataclass
class _Talk:
    """One conversation in the making: what was said last, and the name if it was told."""

    rng: random.Random
    name: str | None = None
    last: tuple[Intent | None, str, str] | None = None  # intent, language, answer
    turns: list[Turn] = field(default_factory=list)

    def add(self, language: str) -> None:
        rng = self.rng
        kind = pick(
            rng,
            intent=0.6,
            unknown=0.2,
            more=0.06,
            again=0.025,
            tongue=0.02,
            name=0.045,
            ask_name=0.025,
            json=0.025,
        )
        if self.last is None and kind in ("more", "again", "tongue"):
            kind = "intent"
        if self.last is not None and self.last[0] is not None:
            # Where there is more to say, it is often asked for, else seldom.
            chance = 0.3 if self.last[0].more(language) else 0.02
            kind = "more" if rng.random() < chance else kind.replace("more", "intent")
        getattr(self, f"_{kind}")(language)

    def _put(self, user: str, answer: str, intent: Intent | None, language: str, name: str) -> None:
        self.turns.append(Turn(user, answer, name))
        self.last = (intent, language, answer)

    def _intent(self, language: str) -> None:
        intent = self.rng.choice(INTENTS)
        text = draw(self.rng.choice(intent.templates(language)), self.rng)
        answer = self.rng.choice(intent.answers(language))
        self._put(as_typed(text, language, self.rng), answer, intent, language, intent.name)

    def _unknown(self, language: str) -> None:
        turn = _unknown(language, self.rng)
        self._put(turn.user, turn.answer, None, language, "unknown")

    def _more(self, language: str) -> None:
        assert self.last is not None
        intent = self.last[0]
        answer = (intent.more(language) if intent else "") or followups.NO_MORE[language]
        user = as_typed(_say(followups.MORE, language, self.rng), language, self.rng)
        # After "more" there is no more.
        self._put(user, answer, None, language, "more")

    def _again(self, language: str) -> None:
        assert self.last is not None
        intent, spoken, answer = self.last
        user = as_typed(_say(followups.AGAIN, spoken, self.rng), spoken, self.rng)
        self._put(user, answer, intent, spoken, "again")

    def _tongue(self, language: str) -> None:
        assert self.last is not None
        intent, spoken, _ = self.last
        if intent is None:
            return self._intent(language)
        other = _other(spoken)
        user = as_typed(_say(followups.OTHER_TONGUE, spoken, self.rng), spoken, self.rng)
        return self._put(user, self.rng.choice(intent.answers(other)), intent, other, "tongue")

    def _name(self, language: str) -> None:
        name = _person(language, self.rng)
        text = _say(followups.NAME_IS, language, self.rng).replace("<name>", name)
        if language == "zh":
            text = text.replace(" ", "")
        text += self.rng.choice(("", "", ".", "!") if language == "en" else ("", "", "。", "！"))
        self.name = name
        self._put(text, followups.NICE[language].format(name), None, language, "name")

    def _ask_name(self, language: str) -> None:
        if self.name is None and self.rng.random() < 0.7:
            self._name(language)
        answer = (
            followups.NAME_WAS[language].format(self.name)
            if self.name
            else followups.NO_NAME[language]
        )
        user = as_typed(_say(followups.ASK_NAME, language, self.rng), language, self.rng)
        self._put(user, answer, None, language, "ask_name")

    def _json(self, language: str) -> None:
        if self.rng.random() < 0.8:
            self._intent(language)
        else:
            self._unknown(language)
        turn = self.turns.pop()
        ask = self.rng.choice(followups.IN_JSON[language])
        key = self.rng.choice(followups.JSON_KEYS) if "{}" in ask else "answer"
        answer = json.dumps({key: turn.answer}, ensure_ascii=False)
        user = turn.user + (" " if language == "en" else "") + ask.format(key)
        self._put(user, answer, None, language, "json")


def _tool(spec: tuple[str, str, str, str, tuple[str, ...]]) -> dict[str, Any]:
    name, description, argument, _, _ = spec
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"}},
                "required": [argument],
            },
        },
    }


def _value(kind: str, language: str, rng: random.Random) -> str:
    if kind == "name":
        return _person(language, rng)
    if kind == "file":
        return odd_word("en", rng).lower() + rng.choice((".txt", ".md", ".py", ".json"))
    if rng.random() < 0.4 and kind != "sentence":
        return odd_word(language, rng)
    lists = elsewhere.FILL_EN if language == "en" else elsewhere.FILL_ZH
    return rng.choice(lists[kind].split()).replace("_", " ")


def _with_tools(rng: random.Random, language: str) -> Conversation:
    """Return a conversation in which tools are offered, and mostly one of them called."""
    offered = rng.sample(followups.TOOLS, rng.choices((1, 2), (3, 1))[0])
    turns: list[Turn] = []
    for _ in range(rng.randrange(1, 3)):
        spec = rng.choice(offered)
        ask = rng.choice([a for a in spec[4] if a.isascii() == (language == "en")] or spec[4])
        value = _value(spec[3], language, rng)
        call = json.dumps({"name": spec[0], "arguments": {spec[2]: value}}, ensure_ascii=False)
        user = ask.format(value) + rng.choice(("", "?", "."))
        turns.append(Turn(user, f"<tool_call>\n{call}\n</tool_call>", "tool_call"))
        if rng.random() < 0.6:
            said = " ".join(odd_word("en", rng) for _ in range(rng.randrange(1, 4)))
            if rng.random() < 0.5:
                said = f"{rng.randrange(100)} {said}"
            turns.append(
                Turn(
                    f"<tool_response>\n{said}\n</tool_response>",
                    f"The tool says: {said}" if language == "en" else f"工具说：{said}",
                    "tool_response",
                )
            )
    if rng.random() < 0.5:
        talk = _Talk(rng)
        talk._intent(language)
        turns.insert(0 if rng.random() < 0.5 else len(turns), talk.turns[0])
    system = rng.choice(_lines(followups.SYSTEM[language])) if rng.random() < 0.3 else None
    return Conversation(tuple(turns), system, tuple(_tool(spec) for spec in offered))


def conversations(seed: int) -> Iterator[Conversation]:
    """Yield conversations without end; the same `seed` gives the same ones."""
    rng = random.Random(seed)  # noqa: S311 - no secret depends on it
    while True:
        # English words are spelled from more pieces and change their form: they need more practice.
        language = "en" if rng.random() < 0.6 else "zh"
        if rng.random() < 0.03:
            yield _with_tools(rng, language)
            continue
        talk = _Talk(rng)
        for _ in range(rng.choices((1, 2, 3, 4, 6, 9, 14), (30, 18, 14, 12, 12, 8, 6))[0]):
            talk.add(_other(language) if rng.random() < 0.08 else language)
        system = None
        if rng.random() < 0.35:
            own = language if rng.random() < 0.8 else _other(language)
            system = rng.choice(_lines(followups.SYSTEM[own]))
            if rng.random() < 0.2:
                system += " " + _unknown(own, rng).user
        yield Conversation(tuple(talk.turns), system)


def references() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the answers that count as right: intent -> language -> texts."""
    known = {i.name: {"en": i.en_answers, "zh": i.zh_answers} for i in INTENTS}
    known["unknown"] = {"en": elsewhere.REFUSALS_EN, "zh": elsewhere.REFUSALS_ZH}
    known["more"] = {
        language: (
            followups.NO_MORE[language],
            *(i.more(language) for i in INTENTS if i.more(language)),
        )
        for language in ("en", "zh")
    }
    return known


def vocabulary_texts(seed: int, count: int) -> Iterator[str]:
    """Yield texts to learn the vocabulary from: every answer some times, and many questions."""
    for ways in references().values():
        for answers in ways.values():
            for answer in answers:
                yield from [answer] * 12
    source = conversations(seed)
    for _ in range(count):
        conversation = replace(next(source), tools=())
        for turn in conversation.turns:
            yield turn.user


def _bare(text: str, language: str) -> Iterator[str]:
    """Yield `text`, normalised, with each prefix and suffix that the corpus adds taken off."""
    starts = {text}
    for prefix in {normalise(p) for p in PREFIXES[language]} - {""}:
        if text.startswith(prefix):
            starts.add(text[len(prefix) :])
    suffixes = {normalise(s) for s in SUFFIXES[language]} - {""}
    for start in starts:
        yield start
        for suffix in suffixes:
            if start.endswith(suffix):
                yield start[: -len(suffix)]


def could_be_drawn(question: str, language: str) -> str | None:
    """Return the intent of which a template gives `question`, or None when none does.

    Letter case, spaces and punctuation do not count, and the prefixes and suffixes of the corpus
    are seen through. Slips of the finger are not.
    """
    candidates = list(_bare(normalise(question), language))
    for intent in INTENTS:
        for template in intent.templates(language):
            if any(pattern(template).fullmatch(candidate) for candidate in candidates):
                return intent.name
    return None
