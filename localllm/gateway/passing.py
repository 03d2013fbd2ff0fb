"""What the bytes that pass by tell: when the first token came, and how many there were.

They are looked at, never parsed as a whole and never changed.
"""

from __future__ import annotations

import re

_KEPT_BYTES = 4096
#: A stream's ping, sent while nothing else is.
PING = b":\n\n"
_EVENT = b"data: "
#: By what they count: names of llama-server's timings first, then those of the APIs' usage.
_COUNTS = {
    "n_cached": re.compile(rb'"(?:cache_n|cached_tokens|cache_read_input_tokens)": ?(\d+)'),
    # /v1/responses counts cached tokens among its input_tokens and tells a total; /v1/messages,
    # below, does neither.
    "n_prompt": re.compile(
        rb'"(?:prompt_tokens|tokens_evaluated|input_tokens(?="[^}]*"total_tokens"))": ?(\d+)'
    ),
    "n_computed": re.compile(rb'"(?:prompt_n|input_tokens)": ?(\d+)'),
    "n_tokens": re.compile(
        rb'"(?:predicted_n|completion_tokens|output_tokens|tokens_predicted)": ?(\d+)'
    ),
}
_PROMPT_MS = re.compile(rb'"prompt_ms": ?([\d.]+)')


class Passing:
    """One answer on its way: its first and last bytes, and how many events went by.

    Attributes:
        is_stream: it is made of events; in other answers they are not looked for.
    """

    def __init__(self) -> None:
        self.is_stream = True
        self.n_bytes = 0
        self.n_events = 0
        self._head = b""
        self._tail = b""

    def take(self, chunk: bytes) -> int:
        """Notes a chunk; the number of events in it."""
        if not self.n_bytes:
            self._head = chunk[:_KEPT_BYTES]
        self.n_bytes += len(chunk)
        self._tail = (self._tail + chunk)[-_KEPT_BYTES:]
        n_events = chunk.count(_EVENT) if self.is_stream else 0
        self.n_events += n_events
        return n_events

    @property
    def is_between_events(self) -> bool:
        """Whether what went by ends where another event may begin."""
        return not self._tail or self._tail.endswith(b"\n\n")

    def counts(self) -> dict[str, int]:
        """n_prompt, n_cached, n_tokens as the answer's end tells them; absent where it does not."""
        found = {}
        text = self._head + self._tail
        for name, pattern in _COUNTS.items():
            numbers = pattern.findall(text)
            if numbers:
                found[name] = int(numbers[-1])
        computed = found.pop("n_computed", None)
        if "n_prompt" not in found and computed is not None:
            found["n_prompt"] = computed + found.get("n_cached", 0)
        return found

    def prompt_seconds(self) -> float | None:
        """How long llama-server took for the prompt, where the answer tells."""
        numbers = _PROMPT_MS.findall(self._tail)
        return float(numbers[-1]) / 1000 if numbers else None
