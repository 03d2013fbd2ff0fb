"""What the gateway reads of a request's body: enough to find it a slot and a warm cache.

The body itself goes on untouched; what cannot be read here is for llama-server to refuse.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

#: A prompt in one piece is told apart from its like at every so many characters.
_BLOCK_CHARS = 1024
#: What a JSON value is made of, and how much of it is parsed: empty lists take a microsecond each.
_PARTS = (b"[", b"{", b",")
_MOST_PARTS = 200_000
#: As deep as a prefix is followed; beyond it, it is the same conversation.
_MOST_DIGESTS = 64


@dataclass(frozen=True)
class Ask:
    """A request's body, as far as it concerns the gateway.

    Attributes:
        model: as named; "" where it names none.
        streams: it asks for a stream.
        n_slots: how many it takes at once: one for each choice (n) of each prompt.
        n_prompts: how many prompts it has.
        prefix: digests of its prompt's beginning, ever longer ones; for affinity.py.
    """

    model: str = ""
    streams: bool = False
    n_slots: int = 1
    n_prompts: int = 1
    prefix: tuple[bytes, ...] = ()


def read_ask(body: bytes) -> Ask:
    """The body's Ask; an empty one where it is not a JSON object.

    Parsing holds up all streams: what has too many parts is not read, and takes all slots.
    """
    if sum(map(body.count, _PARTS)) > _MOST_PARTS:
        return Ask(n_slots=sys.maxsize)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Ask()
    if not isinstance(document, dict):
        return Ask()
    model = document.get("model")
    n_prompts = _n_prompts(document.get("prompt"))
    return Ask(
        model=model if isinstance(model, str) else "",
        streams=document.get("stream") is True,
        n_slots=_n_choices(document) * n_prompts,
        n_prompts=n_prompts,
        prefix=_digests(_pieces(document)),
    )


def conversation(name: str) -> bytes:
    """What stands for a conversation's id (X-Conversation-Id) among the digests of a prefix."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12, key=b"id").digest()


def _n_choices(document: dict[str, Any]) -> int:
    n = document.get("n", document.get("n_cmpl"))
    return n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else 1


def _n_prompts(prompt: object) -> int:
    """How many prompts it is: a list of texts or of lists of tokens is one for each of them.

    A list that has tokens among its texts is one prompt. Texts to embed or to rank are done in
    a moment, and wait for one another inside llama-server.
    """
    if not isinstance(prompt, list) or any(isinstance(piece, int) for piece in prompt):
        return 1
    return max(1, len(prompt))


def _pieces(document: dict[str, Any]) -> Iterator[object]:
    """The prompt, cut where conversations part."""
    for key in ("system", "instructions", "tools"):
        if key in document:
            yield document[key]
    for key in ("messages", "input", "prompt", "input_prefix", "content"):
        value = document.get(key)
        if isinstance(value, str):
            yield from (value[at : at + _BLOCK_CHARS] for at in range(0, len(value), _BLOCK_CHARS))
        elif isinstance(value, list) and value and not isinstance(value[0], int):
            yield from value
        elif value is not None:
            yield value


def _digests(pieces: Iterable[object]) -> tuple[bytes, ...]:
    digests: list[bytes] = []
    running = blake2b(digest_size=12)
    for piece in pieces:
        if len(digests) == _MOST_DIGESTS:
            break
        text = piece if isinstance(piece, str) else json.dumps(piece, sort_keys=True)
        running.update(text.encode("utf-8", "surrogatepass") + b"\0")
        digests.append(running.copy().digest())
    return tuple(digests)
