"""A chat in the terminal: one answer to a prompt, or a conversation.

Knows what is shown where and when. How blocks, rows and keys are done is with its neighbours;
what is said and kept is with `localllm.chat`.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

from localllm.chat import Conversation, Forgotten, Reply
from localllm.cli.commands import Commands, is_command
from localllm.cli.reading import Interrupts, Reader, make_reader, read_prompt, silent_keyboard
from localllm.cli.screen import window_size
from localllm.cli.view import Look, ReplyView
from localllm.cli.wrapping import find_breaks
from localllm.completion import Usage
from localllm.errors import LocalllmError
from localllm.units import format_seconds

__all__ = ["choose_look", "read_prompt", "run_chat"]

Reasoning = Literal["show", "hide"]


def run_chat(
    conversation: Conversation,
    *,
    prompt: str | None = None,
    markdown: bool | None = None,
    reasoning: Reasoning | None = None,
    stats: bool = False,
    note: str = "",
) -> None:
    """Answers one prompt on standard output, or talks with the person at the terminal.

    Args:
        conversation: over an open model.
        prompt: what to answer, from `read_prompt`; None for a conversation.
        markdown: rendered (True), as written (False), or None: rendered on a terminal.
        reasoning: "show" or "hide"; None shows it on a terminal.
        stats: whether a line of statistics follows each answer.
        note: a sentence of the caller's for the banner.

    Raises:
        KeyboardInterrupt: the answer to `prompt` was interrupted; what was printed stays.
        LocalllmError: the answer to `prompt` failed.
    """
    _tolerate_encodings()
    terminal = _Terminal(conversation, choose_look(markdown, reasoning), stats=stats)
    try:
        if prompt is not None:
            terminal.answer_once(prompt)
        else:
            terminal.converse(note)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def choose_look(markdown: bool | None, reasoning: Reasoning | None) -> Look:
    """How replies are shown.

    1. What was asked for.
    2. Markdown and reasoning on a terminal, neither where standard output is piped.
    3. NO_COLOR (no-color.org) and TERM=dumb: the text as it is.
    """
    is_terminal = sys.stdout.isatty()
    capable = os.environ.get("TERM", "") not in {"dumb", "unknown"}
    colours = is_terminal and capable and not os.environ.get("NO_COLOR")
    return Look(
        markdown=colours if markdown is None else markdown and is_terminal and capable,
        reasoning=is_terminal if reasoning is None else reasoning == "show",
        is_terminal=is_terminal,
        colours=colours,
    )


class _Terminal:
    def __init__(self, conversation: Conversation, look: Look, *, stats: bool) -> None:
        self._conversation = conversation
        self._look = look
        self._commands = Commands(conversation, self._say, stats=stats)
        err_is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._dims = sys.stderr.isatty() and not err_is_plain

    def answer_once(self, prompt: str) -> None:
        if self._show(self._conversation.reply(prompt)) == "stopped":
            raise KeyboardInterrupt

    def converse(self, note: str) -> None:
        self._greet(note)
        reader = make_reader()
        while (text := _read(reader)) is not None:
            if not text.strip():
                continue
            try:
                if is_command(text):
                    after = self._commands.run(text)
                    if after == "leave":
                        return
                    if after == "prompt":
                        continue
                    reply = self._conversation.retry()
                else:
                    reply = self._conversation.reply(text[1:] if text.startswith("//") else text)
                self._show(reply)
            except LocalllmError as exc:
                self._say(exc.message + (f"\n\nhint: {exc.hint}" if exc.hint else ""), dim=False)
            self._say("")

    def _show(self, reply: Reply) -> Literal["done", "stopped"]:
        view = ReplyView(self._look, sys.stdout, sys.stderr)
        usage: Usage | None = None
        with silent_keyboard(), Interrupts() as interrupts:
            view.wait()
            try:
                while (item := interrupts.next(reply)) is not None:
                    if isinstance(item, Usage):
                        usage = item
                    elif isinstance(item, Forgotten):
                        view.end()
                        self._say(
                            f"(the context is full: the oldest {item.n_messages} messages"
                            " are not sent any more)"
                        )
                    else:
                        view.feed(item.content, item.reasoning)
            except KeyboardInterrupt:
                view.end()
                reply.close()
                self._say("(stopped)")
                self._after(self._conversation.last_usage)
                return "stopped"
            finally:
                view.end()
                reply.close()
        if usage is not None and usage.finish_reason == "length":
            self._say("(cut off: " + self._why_cut_off(usage) + ")")
        self._after(usage)
        return "done"

    def _why_cut_off(self, usage: Usage) -> str:
        limit = self._conversation.sampling.max_tokens
        if limit is not None and (usage.n_tokens is None or usage.n_tokens >= limit):
            return f"max_tokens is {limit}"
        return "the context is full"

    def _after(self, usage: Usage | None) -> None:
        if self._commands.stats and usage is not None:
            self._say(format_usage(usage, self._conversation.model.n_ctx))

    def _greet(self, note: str) -> None:
        model = self._conversation.model
        parts = [model.name]
        if model.n_ctx is not None:
            parts.append(f"context {model.n_ctx}")
        if self._conversation.session is not None:
            n = len(self._conversation.messages)
            parts.append(f"session {self._conversation.session.name}, {n} messages")
        parts.append("/help for help")
        self._say(" · ".join(parts) + (f"\n{note}" if note else ""))

    def _say(self, text: str, *, dim: bool = True) -> None:
        sys.stdout.flush()
        if sys.stderr.isatty():
            text = _wrap(text, window_size(sys.stderr)[0])
        if dim and text and self._dims:
            text = f"\x1b[2m{text}\x1b[0m"
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _wrap(text: str, columns: int) -> str:
    rows = []
    for line in text.split("\n"):
        breaks = find_breaks(line, columns)
        pairs = zip([0, *breaks], [*breaks, len(line)], strict=True)
        rows += [line[start:end].rstrip() for start, end in pairs]
    return "\n".join(rows)


def _read(reader: Reader) -> str | None:
    try:
        return reader.read()
    except EOFError:
        return None


def format_usage(usage: Usage, n_ctx: int | None) -> str:
    """What one reply cost, in one line; what is unknown is left out."""
    parts = []
    if usage.ttft_seconds is not None:
        parts.append(f"TTFT {format_seconds(usage.ttft_seconds)}")
    if usage.n_tokens is not None:
        parts.append(f"{usage.n_tokens} tokens")
    if usage.decode_tokens_per_second is not None:
        parts.append(f"{usage.decode_tokens_per_second:.1f} tok/s")
    if usage.n_prompt_tokens is not None:
        prompt = [f"prompt {usage.n_prompt_tokens} tokens"]
        if usage.n_cached_tokens is not None:
            prompt.append(f"{usage.n_cached_tokens} cached")
        if usage.prompt_tokens_per_second is not None:
            prompt.append(f"{usage.prompt_tokens_per_second:.0f} tok/s")
        head = " · ".join(parts)
        parts = [f"{head} ({', '.join(prompt)})".strip()]
        used = usage.n_prompt_tokens + (usage.n_tokens or 0)
        parts.append(f"context {used}/{n_ctx}" if n_ctx else f"context {used}")
    if not parts and usage.total_seconds is not None:
        parts.append(format_seconds(usage.total_seconds))
    return " · ".join(parts)


def _tolerate_encodings() -> None:
    # A terminal in the C locale shows "?" for what it cannot, instead of ending the answer.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
