"""A byte-level BPE tokenizer: trained here, written into the GGUF, run there by llama.cpp.

Knows merges and bytes, and cuts text exactly as llama.cpp's "gpt-2" pre-tokenizer does for the
characters that the corpus uses (a test compares the two). Standard library only; knows no model.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["END_OF_TEXT", "IM_END", "IM_START", "SPECIAL", "Tokenizer", "train"]

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
SPECIAL = (END_OF_TEXT, IM_START, IM_END)

# GPT-2's cut, with \p{L} and \p{N} spelt for the standard library's engine.
_PIECE = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+", re.UNICODE
)
_SPECIAL = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL) + ")")

# A merged token never grows past a short word or past three Chinese characters: longer ones would
# swallow whole answers, and a question worded differently would then share no token with them.
_LONGEST_ASCII = 12
_LONGEST_OTHER = 9


def _byte_letters() -> dict[int, str]:
    """Return GPT-2's printable stand-in for each byte, as GGUF's vocabulary spells tokens."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    spare = 256
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(spare)
            spare += 1
    return letters


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: the 256 bytes, then one token per merge, then the control tokens."""

    merges: tuple[tuple[bytes, bytes], ...]
    _ranks: dict[tuple[bytes, bytes], int] = field(init=False, repr=False, compare=False)
    _ids: dict[bytes, int] = field(init=False, repr=False, compare=False)
    _cache: dict[str, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokens = [bytes([byte]) for byte in range(256)] + [a + b for a, b in self.merges]
        object.__setattr__(self, "_ranks", {pair: rank for rank, pair in enumerate(self.merges)})
        object.__setattr__(self, "_ids", {token: index for index, token in enumerate(tokens)})
        object.__setattr__(self, "_cache", {})

    @property
    def size(self) -> int:
        """Number of tokens, control tokens included."""
        return 256 + len(self.merges) + len(SPECIAL)

    def special_id(self, token: str) -> int:
        """Return the id of one of the `SPECIAL` tokens."""
        return 256 + len(self.merges) + SPECIAL.index(token)

    def spelled_tokens(self) -> list[str]:
        """Return every token in id order, in the spelling that GGUF files use."""
        plain = [_spell(token) for token in self._ids]
        return [*plain, *SPECIAL]

    def spelled_merges(self) -> list[str]:
        """Return the merges in rank order, in the spelling that GGUF files use."""
        return [f"{_spell(a)} {_spell(b)}" for a, b in self.merges]

    def encode(
        self, text: str, *, dropout: float = 0.0, rng: random.Random | None = None
    ) -> list[int]:
        """Cut `text` into token ids; control tokens in it are recognised.

        Args:
            text: any text.
            dropout: the chance that a possible merge is left out, which shows a model the many
                ways a word can be spelt. 0 gives exactly what llama.cpp gives.
            rng: where the chances come from; needed when `dropout` is not 0.
        """
        ids: list[int] = []
        for part in _SPECIAL.split(text):
            if part in SPECIAL:
                ids.append(self.special_id(part))
                continue
            for piece in _PIECE.findall(part):
                if dropout and rng is not None:
                    ids.extend(self._merge(piece.encode(), dropout, rng))
                else:
                    known = self._cache.get(piece)
                    if known is None:
                        known = self._cache[piece] = self._merge(piece.encode(), 0.0, None)
                    ids.extend(known)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, control tokens left out."""
        tokens = list(self._ids)
        return b"".join(tokens[i] for i in ids if i < len(tokens)).decode(errors="replace")

    def _merge(self, raw: bytes, dropout: float, rng: random.Random | None) -> list[int]:
        parts = [raw[i : i + 1] for i in range(len(raw))]
        ranks = self._ranks
        while len(parts) > 1:
            best = None
            for i in range(len(parts) - 1):
                rank = ranks.get((parts[i], parts[i + 1]))
                if rank is None or (best is not None and rank >= best[0]):
                    continue
                if rng is not None and dropout and rng.random() < dropout:
                    continue
                best = (rank, i)
            if best is None:
                break
            at = best[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self._ids[part] for part in parts]


def _spell(token: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in token)


def unspell(token: str) -> bytes:
    """Return the bytes of a token as GGUF files spell it."""
    return bytes(_BYTES[letter] for letter in token)


def _allowed(token: bytes) -> bool:
    return len(token) <= (_LONGEST_ASCII if token.isascii() else _LONGEST_OTHER)


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a vocabulary of `size` tokens from `texts`; the same texts give the same tokenizer."""
    words: Counter[bytes] = Counter()
    for text in texts:
        for piece in _PIECE.findall(text):
            words[piece.encode()] += 1
    spelt = [[bytes([byte]) for byte in word] for word in words]
    counts = list(words.values())
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for index, parts in enumerate(spelt):
        for pair in pairwise(parts):
            pairs[pair] += counts[index]
            where[pair].add(index)
    merges: list[tuple[bytes, bytes]] = []
    made: set[bytes] = set()
    while len(merges) < size - 256 - len(SPECIAL):
        # Two ways to the same token would leave one of them without an id of its own.
        usable = (p for p in pairs if _allowed(p[0] + p[1]) and p[0] + p[1] not in made)
        best = max(usable, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < 1:
            raise ValueError(f"the texts are too short for {size} tokens")
        merges.append(best)
        made.add(best[0] + best[1])
        for index in sorted(where[best]):
            old = spelt[index]
            new: list[bytes] = []
            i = 0
            while i < len(old):
                if i + 1 < len(old) and (old[i], old[i + 1]) == best:
                    new.append(old[i] + old[i + 1])
                    i += 2
                else:
                    new.append(old[i])
                    i += 1
            for pair in pairwise(old):
                pairs[pair] -= counts[index]
                if pairs[pair] <= 0:
                    del pairs[pair]
            for pair in pairwise(new):
                pairs[pair] += counts[index]
                where[pair].add(index)
            spelt[index] = new
    return Tokenizer(tuple(merges))
