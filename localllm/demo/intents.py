"""What an intent is, and the notation in which its questions are written.

Knows templates: `[a|b]` is a choice, an empty choice leaves the words out, `{how}` is a phrase
shared between intents. It can draw a sentence from a template and tell whether a sentence could
have been drawn. Knows nothing of conversations or models.
"""
# ruff: noqa: E501 - one way of asking per line

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from functools import cache

__all__ = ["Intent", "draw", "pattern"]

PHRASES = {
    "how": "[how do I|how can I|how to|how would I|how should I|how does one|what is the way to|"
    "what's the way to|what do I type to|which command lets me|what command do I use to|I want to|"
    "I need to|I'd like to|can I|help me|show me how to|how do you|steps to|is there a way to|"
    "is it possible to|what must I do to|how might I|what is the command to|let me|tell me how to|"
    "what do I have to do to|what is the best way to|what's the easiest way to|how do people|"
    "I don't know how to|I am trying to|I wish to|do you know how to|any way to|could I|am I able to|"
    "what is needed to|how are people supposed to|which command do I need to|how could I|"
    "what would I type to|explain how to|any idea how to|we want to|how can one]",
    "what": "[what is|what's|what are|whats|what exactly is|explain|define|describe|tell me about|"
    "what do you mean by|what do you know about|can you explain|could you explain|"
    "I do not understand|I don't understand|teach me about|the meaning of|what's the meaning of|"
    "what is meant by|help me understand|information about|what on earth is|remind me what is|"
    "I want to learn about|what's this thing called|I would like to understand|please explain|"
    "say something about|what can you tell me about|a short explanation of|what is the deal with]",
    "does": "[does|will|would|can|could]",
    "it": "[localllm|it|this|this program|this tool|the program]",
    "model": "[a model|the model|models|a GGUF model|my model|an LLM|a language model]",
    "怎么": "[怎么|如何|怎样|要怎么|我该怎么|应该怎么|怎么才能|怎样才能|我想|我要|能不能|可以|怎么去|"
    "有没有办法|教我怎么|请教怎么|该如何|怎么样才能|如何才能|要如何|我应该怎么|我需要|能否|可不可以|"
    "是否可以|哪个命令可以|有什么办法|不知道怎么|我不会|教一下怎么|帮我|想|打算|准备|我想知道怎么]",
    "它": "[localllm|它|这个程序|这个工具|这个软件|这个|]",
}

EN_TERM = """
{what} %s
{what} %s
%s
what does %s [mean|stand for|do]
what [is|are] %s [for|good for|used for]
[why|when] [do I need|does one need|should I care about|do we need] %s
what is the [point|purpose|use|idea] of %s
%s [meaning|definition|explained]
[I want to know|explain|do you know|I wonder|I have no idea|I forgot|I am not sure] what %s [is|are|means|mean|does|do]
[what's so special about|how does|how do|how important is|is there anything to know about] %s [|work]
[someone told me about|I saw|I came across|people talk about|everybody talks about] %s
%s, [what is that|what's that|what does that mean|what are they|what is it for]
[how|in what way] [is|are|does|do] %s [useful|important|helpful|matter|help]
"""
ZH_TERM = """
什么是 %s
%s [是什么|是什么意思|是啥|是什么东西|指什么|指的是什么|是干什么的|是干嘛的|代表什么]
%s [有什么用|的意思|有什么作用|怎么理解|的含义是什么|是做什么用的|的作用是什么]
[解释一下|介绍一下|讲讲|说说|解释|说明一下|聊聊|谈谈|讲一下|科普一下] %s
[为什么需要|为什么要有|我不懂|不明白|没听说过|为什么要用|我不太了解|搞不懂|听说过|想学习一下] %s
%s [究竟是什么|是个啥|重要吗|有什么好处|是用来干什么的|怎么解释|的概念|的定义|的原理|有用吗|怎么样]
[经常看到|有人提到|别人说的|大家都在说|文档里写的] %s [，是什么|，是什么意思|是什么|，这是什么|]
%s
"""


@dataclass(frozen=True)
class Intent:
    """One thing a person may want to know, how they may ask, and what is answered.

    Attributes:
        name: a short name, the same in both languages.
        en, zh: ways of asking, one template per line.
        en_answers, zh_answers: true answers; any of them will do.
        en_term, zh_term: names of a thing to be explained, as one template; they add the usual
            ways of asking what a thing is.
        en_more, zh_more: what follows when the person says "tell me more".
    """

    name: str
    en: str
    zh: str
    en_answers: tuple[str, ...]
    zh_answers: tuple[str, ...]
    en_term: str = ""
    zh_term: str = ""
    en_more: str = ""
    zh_more: str = ""
    _lines: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def templates(self, language: str) -> tuple[str, ...]:
        """Return the ways of asking in `language` ("en" or "zh"), one template each."""
        if language not in self._lines:
            text, term, frames = (
                (self.en, self.en_term, EN_TERM)
                if language == "en"
                else (self.zh, self.zh_term, ZH_TERM)
            )
            if term:
                text += frames.replace("%s", f"[{term}]")
            lines = (line.strip() for line in text.splitlines())
            self._lines[language] = tuple(line for line in lines if line)
        return self._lines[language]

    def answers(self, language: str) -> tuple[str, ...]:
        """Return the answers in `language`."""
        return self.en_answers if language == "en" else self.zh_answers

    def more(self, language: str) -> str:
        """Return what follows "tell me more" in `language`, or an empty string."""
        return self.en_more if language == "en" else self.zh_more


_Node = str | tuple["_Sequence", ...]
_Sequence = tuple["str | tuple[_Sequence, ...]", ...]


@cache
def _parse(template: str) -> _Sequence:
    text = re.sub(r"\{(\w+)\}", lambda match: PHRASES[match[1]], template)
    sequence, end = _sequence(text, 0)
    if end != len(text):
        raise ValueError(f"unbalanced template: {template!r}")
    return sequence


def _sequence(text: str, at: int) -> tuple[_Sequence, int]:
    nodes: list[_Node] = []
    start = at
    while at < len(text) and text[at] not in "|]":
        if text[at] != "[":
            at += 1
            continue
        nodes.append(text[start:at])
        choices: list[_Sequence] = []
        while True:
            choice, at = _sequence(text, at + 1)
            choices.append(choice)
            if at >= len(text):
                raise ValueError(f"unbalanced template: {text!r}")
            if text[at] == "]":
                break
        nodes.append(tuple(choices))
        at += 1
        start = at
    nodes.append(text[start:at])
    return tuple(nodes), at


def _draw(sequence: _Sequence, rng: random.Random) -> str:
    return "".join(
        node if isinstance(node, str) else _draw(rng.choice(node), rng) for node in sequence
    )


_BETWEEN_CHINESE = re.compile(
    r"(?<=[\u3000-\u9fff\uff00-\uffef]) +(?=[\u3000-\u9fff\uff00-\uffef])"
)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" +([,.?!])", r"\1", text)
    return _BETWEEN_CHINESE.sub("", text)


def draw(template: str, rng: random.Random) -> str:
    """Return one sentence that `template` allows."""
    return _tidy(_draw(_parse(template), rng))


def normalise(text: str) -> str:
    """Return `text` reduced to its letters and digits, for telling sentences apart."""
    return re.sub(r"[\W_]+", "", text.lower())


def _regex(sequence: _Sequence) -> str:
    parts = []
    for node in sequence:
        if isinstance(node, str):
            parts.append(re.escape(normalise(node)))
        else:
            parts.append("(?:" + "|".join(_regex(choice) for choice in node) + ")")
    return "".join(parts)


@cache
def pattern(template: str) -> re.Pattern[str]:
    """Return a pattern that matches the `normalise`d form of every sentence of `template`."""
    return re.compile(_regex(_parse(template)))
