"""A conversation over a ChatModel: its turns, what of them still fits, and what it all cost.

Knows messages and models that answer them. Knows nothing of terminals, and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from localllm.completion import ChatModel, Delta, Message, Sampling, Usage
from localllm.errors import ContextFullError, UsageError
from localllm.session import SessionFile, Transcript

#: A byte of UTF-8 is about a third of a token, in English (4 letters each) and Chinese (3 bytes,
#: 0.7-1 token) alike; only used to guess whether the next question leaves room for an answer.
_TOKENS_PER_BYTE = 1 / 3


@dataclass(frozen=True)
class Forgotten:
    """A notice in a reply: the oldest messages are not sent to the model any more.

    Attributes:
        n_messages: how many were left out just now. The transcript still has them.
    """

    n_messages: int


@dataclass(frozen=True)
class Totals:
    """What the replies of a conversation cost together; unknown parts count as nothing.

    `decode_seconds` are those of the `n_decoded` tokens whose rate is known.
    """

    n_replies: int = 0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_tokens: int = 0
    n_decoded: int = 0
    decode_seconds: float = 0.0
    total_seconds: float = 0.0

    def add(self, usage: Usage) -> Totals:
        """The totals with one more reply."""
        n_tokens, rate = usage.n_tokens or 0, usage.decode_tokens_per_second
        return replace(
            self,
            n_replies=self.n_replies + 1,
            n_prompt_tokens=self.n_prompt_tokens + (usage.n_prompt_tokens or 0),
            n_cached_tokens=self.n_cached_tokens + (usage.n_cached_tokens or 0),
            n_tokens=self.n_tokens + n_tokens,
            n_decoded=self.n_decoded + (n_tokens if rate else 0),
            decode_seconds=self.decode_seconds + (n_tokens / rate if rate else 0.0),
            total_seconds=self.total_seconds + (usage.total_seconds or 0.0),
        )


Reply = Generator[Delta | Usage | Forgotten, None, None]


class Conversation:
    """Turns taken with one model.

    `reply` and `retry` return a generator that yields what the model says as it says it. Whatever
    was said is recorded when the generator ends, by itself, by an error or by `close()`. A
    question that got no answer stays the last message: `retry` asks it again, a new question
    takes its place.

    Attributes:
        model: who answers.
        sampling: how; replace it to change it from the next reply on.
        session: the file that every turn is kept in, or None.
        totals: what the replies cost so far.
        last_usage: what the latest reply cost; of a stopped one only the clock's part is known.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        system: str | None = None,
        sampling: Sampling | None = None,
        session: SessionFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins, or takes up again what the session has kept.

        Raises:
            IntegrityError, AccessError, DiskError: the session cannot be read.
        """
        self.model = model
        self.sampling = sampling or Sampling()
        self.session = session
        self.totals = Totals()
        self.last_usage: Usage | None = None
        self._clock = clock
        kept = session.load() if session else Transcript()
        self._system = kept.system if system is None else system
        self._messages = list(kept.messages)
        self._n_forgotten = 0
        self._context_tokens: int | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All turns, oldest first, also those that are not sent any more; no system prompt."""
        return tuple(self._messages)

    @property
    def system(self) -> str:
        """The system prompt; empty when there is none."""
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        self._system = text
        self._context_tokens = None

    @property
    def context_tokens(self) -> int | None:
        """Tokens that the conversation took in the context after the latest reply, if known."""
        usage = self.last_usage
        if usage is None or usage.n_prompt_tokens is None:
            return None
        return usage.n_prompt_tokens + (usage.n_tokens or 0)

    def transcript(self) -> Transcript:
        """The conversation as it is kept."""
        return Transcript(self.messages, self._system, self.model.name)

    def reply(self, text: str) -> Reply:
        """Takes the user's turn and returns the model's, as it comes."""
        self._drop_unanswered()
        self._messages.append(Message("user", text))
        return self._answer()

    def retry(self) -> Reply:
        """Drops the last answer, if there is one, and asks again.

        Raises:
            UsageError: nothing was asked yet.
        """
        if not self._messages:
            raise UsageError("there is nothing to ask again", "say something first")
        if self._messages[-1].role == "assistant":
            self._messages.pop()
            self._context_tokens = None
        return self._answer()

    def clear(self) -> None:
        """Forgets all turns, also in the session; the system prompt stays.

        Raises:
            IntegrityError, AccessError, DiskError: the session cannot be written.
        """
        self._begin_with([])
        self._keep()

    def load(self, transcript: Transcript, session: SessionFile | None = None) -> None:
        """Goes on from that transcript, kept in that session from now on."""
        self.session = session
        self._system = transcript.system
        self._begin_with(list(transcript.messages))

    def keep_in(self, session: SessionFile) -> None:
        """Keeps every turn in that session from now on, beginning with all so far.

        Raises:
            IntegrityError, AccessError, DiskError: it cannot be written.
        """
        session.save(self.transcript())
        self.session = session

    def _begin_with(self, messages: list[Message]) -> None:
        self._messages = messages
        self._n_forgotten = 0
        self._context_tokens = None
        self.last_usage = None

    def _drop_unanswered(self) -> None:
        # Two user messages in a row make the templates of several families raise.
        if self._messages and self._messages[-1].role == "user":
            self._messages.pop()
        self._n_forgotten = min(self._n_forgotten, len(self._messages))

    def _answer(self) -> Reply:
        before = self._n_forgotten
        self.last_usage = None
        if self._leaves_no_room() and (n_messages := self._forget_oldest()):
            yield Forgotten(n_messages)
        while True:
            try:
                yield from self._listen(self.model.stream(self._prompt(), self.sampling))
                return
            except ContextFullError:
                n_messages = 0
                if self._messages[-1].role == "user":  # nothing was said yet
                    n_messages = self._forget_oldest()
                if not n_messages:
                    # This message alone is too long: a shorter one may still have its history.
                    self._n_forgotten = before
                    raise
            yield Forgotten(n_messages)

    def _prompt(self) -> list[Message]:
        system = [Message("system", self._system)] if self._system else []
        return system + self._messages[self._n_forgotten :]

    def _listen(self, stream: Iterator[Delta | Usage]) -> Reply:
        content: list[str] = []
        reasoning: list[str] = []
        usage: Usage | None = None
        started = self._clock()
        first: float | None = None
        try:
            for item in stream:
                if isinstance(item, Usage):
                    usage = item
                else:
                    first = self._clock() if first is None else first
                    content.append(item.content)
                    reasoning.append(item.reasoning)
                yield item
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
            if usage is None and first is not None:
                usage = Usage(ttft_seconds=first - started, total_seconds=self._clock() - started)
            if usage is not None:
                self._record("".join(content), "".join(reasoning), usage)

    def _record(self, content: str, reasoning: str, usage: Usage) -> None:
        self.last_usage = usage
        self.totals = self.totals.add(usage)
        self._context_tokens = None
        if not content:  # an empty turn teaches a model to say nothing
            return
        self._messages.append(Message("assistant", content, reasoning))
        if usage.n_prompt_tokens is not None:
            # Reasoning is not sent back, so its share of the tokens is free again.
            share = len(content) / (len(content) + len(reasoning))
            self._context_tokens = usage.n_prompt_tokens + int((usage.n_tokens or 0) * share)
        self._keep()

    def _keep(self) -> None:
        if self.session is not None:
            self.session.save(self.transcript())

    def _leaves_no_room(self) -> bool:
        """Whether the question would fit but its answer be cut off at the end of the context."""
        n_ctx = self.model.n_ctx
        if n_ctx is None or self._context_tokens is None:
            return False
        question = len(self._messages[-1].content.encode("utf-8", "replace")) * _TOKENS_PER_BYTE
        return self._context_tokens + question > n_ctx - min(512, n_ctx // 8)

    def _forget_oldest(self) -> int:
        """Leaves out the oldest pairs, half of the history, and says how many messages.

        Half, since the engine's prompt cache is good for a prompt that only grows: leaving out
        one pair at a time would read the whole context again before every single answer.
        """
        first = start = self._n_forgotten
        question = len(self._messages) - 1
        sizes = [len(message.content) + 1 for message in self._messages[first:question]]
        left, goal = sum(sizes), sum(sizes) / 2
        while start < question and (start == first or left > goal):
            left -= sizes[start - first]
            start += 1
            while start < question and self._messages[start].role != "user":
                left -= sizes[start - first]
                start += 1
        self._n_forgotten = start
        self._context_tokens = None
        return start - first
