"""`llama_cpp.Llama` in this process, for where only the Python library is installed.

Slower to start, one conversation, no tensor overrides, and a crash takes localllm along: the
second choice, and it says so. (`pip install localllm` alone brings no llama-server.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from localllm.completion import Delta, Message, Sampling, Usage
from localllm.engine.argv import llama_keywords
from localllm.errors import ContextFullError, EngineError
from localllm.plan import Plan


class InProcessModel:
    """A chat model inside this process.

    Raises (on construction):
        EngineError: the library cannot be loaded, or cannot load the model.
    """

    def __init__(self, plan: Plan, chat_format: str | None = None) -> None:
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as exc:
            raise EngineError(
                f"the Python library llama_cpp does not load: {exc}", "localllm doctor"
            ) from exc
        self._plan = plan
        try:
            self._llama: Any = llama_cpp.Llama(chat_format=chat_format, **llama_keywords(plan))
        except (ValueError, OSError) as exc:
            raise EngineError(f"llama.cpp cannot load {plan.model.path}: {exc}") from exc

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._plan.model.name or self._plan.model.ref

    @property
    def n_ctx(self) -> int | None:
        """Tokens of context."""
        return self._plan.n_ctx

    def close(self) -> None:
        """Frees the model."""
        self._llama.close()

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Delta | Usage]:
        """One chat completion, streamed; see ChatModel."""
        started = time.perf_counter()
        first: float | None = None
        finish_reason: str | None = None
        n_tokens = 0
        try:
            chunks = self._llama.create_chat_completion(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                stream=True,
                **sampling.chosen(),
            )
            for chunk in chunks:
                choice = chunk["choices"][0]
                finish_reason = choice.get("finish_reason") or finish_reason
                content = choice["delta"].get("content") or ""
                if content:
                    first = first or time.perf_counter()
                    n_tokens += 1
                    yield Delta(content)
        except ValueError as exc:
            # llama_cpp raises a bare ValueError: "Requested tokens (N) exceed context window of M"
            if "exceed context window" in str(exc):
                raise ContextFullError(
                    str(exc), "/clear forgets the conversation; --ctx gives it room"
                ) from exc
            raise EngineError(f"llama.cpp gave up: {exc}") from exc
        ended = time.perf_counter()
        took = ended - first if first is not None else 0.0
        yield Usage(
            finish_reason=finish_reason,
            n_tokens=n_tokens,
            n_prompt_tokens=max(0, self._llama.n_tokens - n_tokens),
            ttft_seconds=None if first is None else first - started,
            decode_tokens_per_second=(n_tokens - 1) / took if took and n_tokens > 1 else None,
            total_seconds=ended - started,
        )
