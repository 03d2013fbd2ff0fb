"""How people write: what they put before and after a question, and where their fingers slip.

Also the words that fill a gap in a question about something else, some of which do not exist.
Knows nothing of intents, answers or conversations.
"""
# ruff: noqa: E501, SIM905 - lists of words are read as words

from __future__ import annotations

import random
import re
from functools import cache

from localllm.demo import elsewhere

__all__ = ["PREFIXES", "SUFFIXES", "as_typed", "fill", "odd_word", "pick"]

_PREFIXES_EN = """
hey, |hi, |hello, |please |please, |ok, |ok |so |so, |and |well, |can you tell me |could you tell me |
tell me, |tell me |I'd like to know |I would like to know |I want to know |quick question: |I wonder |
excuse me, |sorry, |one more thing: |do you know |just curious, |another question: |now |but |also, |
please tell me |good morning, |I have a question: |question: |a question: |hmm, |yo, |by the way, |
I was wondering, |next question: |um, |could you please say |and now, |thanks. |great, |ok thanks, |
do you happen to know |may I ask |let me ask: |I'm curious: |honestly, |then |
"""
_SUFFIXES_EN = """
 please|, please| thanks|, thanks| for me| in localllm| with localllm| here| exactly| in short|
 right now| then| by the way| now| again| in simple words| for a beginner| briefly| today| anyway|
 in a few words| my friend| really| please tell me|, I wonder| if you know|
"""
_PREFIXES_ZH = """
请问|请问，|你好，|我想知道|能告诉我|告诉我|麻烦问一下，|那|那么|想问一下，|请告诉我|你知道|嗨，|问一下，|
请|再问一个，|还有，|另外，|顺便问一下，|不好意思，|打扰一下，|那么，|好的，|谢谢，|对了，|我有个问题：|
问题：|现在|帮我看看|请教一下，|能不能告诉我|可以告诉我|你能告诉我|你能说说|老师，|朋友，|想了解一下|到底|
"""
_SUFFIXES_ZH = """
呢|啊|呀|谢谢|，谢谢|，请告诉我|，简单说说|，能说说吗|哦|吧|，你知道吗|，我不太懂|，急|，麻烦了|啦|来着|
"""


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.replace("|\n", "|").strip("\n").split("|") if part)


PREFIXES = {"en": _phrases(_PREFIXES_EN), "zh": _phrases(_PREFIXES_ZH)}
SUFFIXES = {"en": _phrases(_SUFFIXES_EN), "zh": _phrases(_SUFFIXES_ZH)}
_ASIDES_EN = (
    " for my {}",
    " on my {}",
    ", my {} wants to know",
    " with a {}",
    " like a {}",
    ", {}",
)
_ASIDES_ZH = ("我在看{}，", "我的{}想知道，", "{}问，", "除了{}，", "我是学{}的，", "说完了{}，")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbour(letter: str, rng: random.Random) -> str:
    for row in _ROWS:
        at = row.find(letter.lower())
        if at >= 0:
            return row[max(0, min(len(row) - 1, at + rng.choice((-1, 1))))]
    return letter


def _slip(text: str, rng: random.Random) -> str:
    """Return `text` with one slip of the finger."""
    if len(text) < 6:
        return text
    at = rng.randrange(1, len(text) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    return text[:at] + _neighbour(text[at], rng) + text[at + 1 :]


_NOT = re.compile(r"\b(not|no|without|cannot|never|less|only)\b|n't", re.IGNORECASE)


def _stumble(text: str, rng: random.Random) -> str:
    """Return `text` with a word left out or two words swapped: what matters is the other words."""
    words = text.split(" ")
    # Without its "not" a question is another question.
    if len(words) < 4 or _NOT.search(text):
        return text
    at = rng.randrange(len(words) - 1)
    if rng.random() < 0.6:
        del words[at]
    else:
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def pick(rng: random.Random, **chances: float) -> str:
    """Return one of the names, each as likely as its number says."""
    return rng.choices(list(chances), list(chances.values()))[0]


def _as_typed_en(text: str, rng: random.Random) -> str:
    if rng.random() < 0.12:
        text = _stumble(text, rng)
    if rng.random() < 0.33:
        text = rng.choice(PREFIXES["en"]) + text
    if rng.random() < 0.14:
        text = text + rng.choice(SUFFIXES["en"])
    elif rng.random() < 0.04:
        # Words that are not its own do not turn a question about localllm into another one.
        text = text + rng.choice(_ASIDES_EN).format(fill("{thing}", "en", rng))
    case = pick(rng, sentence=0.5, same=0.3, lower=0.15, upper=0.02, title=0.03)
    if case == "sentence":
        text = text[:1].upper() + text[1:]
    elif case == "lower":
        text = text.lower()
    elif case == "upper":
        text = text.upper()
    elif case == "title":
        text = text.title()
    for _ in range(rng.choices((0, 1, 2), (0.84, 0.12, 0.04))[0]):
        text = _slip(text, rng)
    return text + rng.choices(("?", "", ".", "!", " ?", "??", "..."), (48, 38, 6, 3, 2, 2, 1))[0]


_BESIDE_CHINESE = re.compile(r"(?<=[\u4e00-\u9fff]) +| +(?=[\u4e00-\u9fff])")


def _as_typed_zh(text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        text = rng.choice(PREFIXES["zh"]) + text
    if rng.random() < 0.16:
        text = text + rng.choice(SUFFIXES["zh"])
    if rng.random() < 0.03:
        text = rng.choice(_ASIDES_ZH).format(fill("{thing}", "zh", rng)) + text
    if rng.random() < 0.5:
        text = _BESIDE_CHINESE.sub("", text)
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.07:
        text = _slip(text, rng)
    return (
        text + rng.choices(("？", "", "?", "。", "！", "??", "？？"), (42, 38, 10, 5, 3, 1, 1))[0]
    )


def as_typed(text: str, language: str, rng: random.Random) -> str:
    """Return `text` as a person may type it: with a prefix, a slip, or no question mark."""
    return _as_typed_en(text, rng) if language == "en" else _as_typed_zh(text, rng)


_ONSETS = (
    "b c d f g h j k l m n p qu r s t v w x z br ch cl cr dr fl gr pl pr sh st str th tr".split()
)
_VOWELS = "a e i o u ai ea ee ia io oa ou y".split()
_CODAS = "n r s t l m x ck nd ng st rt sh tion sis ism ology ium er or al ine ity".split()


def _odd_en(rng: random.Random) -> str:
    syllables = rng.choices((1, 2, 3), (2, 5, 3))[0]
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    word += rng.choice(_CODAS) if rng.random() < 0.6 else ""
    return word.capitalize() if rng.random() < 0.25 else word


@cache
def _characters() -> str:
    text = " ".join(elsewhere.FILL_ZH.values()) + elsewhere.ASKING_ZH
    return "".join(sorted(set(re.findall(r"[\u4e00-\u9fff]", text))))


def _odd_zh(rng: random.Random) -> str:
    return "".join(rng.choices(_characters(), k=rng.choices((2, 3, 4), (5, 3, 2))[0]))


def odd_word(language: str, rng: random.Random) -> str:
    """Return a word that does not exist, for all the words that the lists leave out."""
    return _odd_en(rng) if language == "en" else _odd_zh(rng)


def fill(template: str, language: str, rng: random.Random) -> str:
    """Return `template` with each `{thing}` and the like replaced by a word of that kind."""
    lists = elsewhere.FILL_EN if language == "en" else elsewhere.FILL_ZH

    def choose(match: re.Match[str]) -> str:
        name = match[1]
        if name == "odd" or (name in ("thing", "person") and rng.random() < 0.12):
            return odd_word(language, rng)
        if name == "number" and rng.random() < 0.4:
            return str(rng.randrange(1, 10 ** rng.randrange(1, 5)))
        return rng.choice(lists[name].split()).replace("_", " ")

    return re.sub(r"\{(\w+)\}", choose, template)
