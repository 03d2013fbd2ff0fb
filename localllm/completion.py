"""The vocabulary of a chat completion: what is said, how it is sampled, what comes back.

Values and one Protocol. `localllm/engine` brings what implements it (llama-server over HTTP,
llama_cpp.Llama in process), `localllm/chat.py` holds a conversation over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: who speaks.
        content: what is said.
        reasoning: what a thinking model thought before it; never sent back to the model.
    """

    role: Role
    content: str
    reasoning: str = ""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; names and meanings are llama.cpp's, None leaves its default alone."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def chosen(self) -> dict[str, Any]:
        """Only what was set: the defaults are the model's maker's business."""
        values = asdict(self) | {"stop": list(self.stop) or None}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Delta:
    """A piece of a reply as it comes; either text is empty or both may be filled."""

    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class Usage:
    """What a finished reply cost; the last thing a stream yields.

    Attributes:
        finish_reason: "stop", "length", ...; None when the stream ended without one.
        n_prompt_tokens: tokens of the whole prompt; n_cached_tokens of them were reused.
        n_tokens: tokens generated.
        ttft_seconds: from sending the request to the first text, by our clock.
        prompt_tokens_per_second, decode_tokens_per_second: by the engine's clock where it gives
            one (llama-server's `timings`), else by ours; None when unknown.
        total_seconds: of the whole reply, by our clock.
    """

    finish_reason: str | None = None
    n_prompt_tokens: int | None = None
    n_cached_tokens: int | None = None
    n_tokens: int | None = None
    ttft_seconds: float | None = None
    prompt_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    total_seconds: float | None = None


class ChatModel(Protocol):
    """Something that answers.

    `stream` yields Delta after Delta and, if it ends by itself, one Usage last. Closing the
    iterator early (generator.close()) cancels the work behind it. Failures are LocalllmError.
    """

    @property
    def name(self) -> str:
        """What a person may call it."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """Context per conversation in tokens; None when the peer does not say."""
        ...

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Delta | Usage]:
        """Answers the messages."""
        ...
