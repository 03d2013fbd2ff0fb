"""A reply as it appears: plain text, or Markdown on a terminal, with the reasoning set apart.

Knows streams and when to draw. Knows nothing of models: it is fed pieces of text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from localllm.cli.blocks import BlockSplitter, CodeEnd, CodeLine, CodeStart, Event, Gap
from localllm.cli.screen import LiveRows, harmless
from localllm.cli.wrapping import fold

if TYPE_CHECKING:
    from localllm.cli.highlight import Highlighter

_DIM, _RESET = "\x1b[2m", "\x1b[0m"
#: The open block is drawn again at most this often, and less often where drawing is so slow that
#: it would take more than this share of a core: what it takes, a model on the CPU loses.
_DRAW_SECONDS = 0.1
_DRAW_SHARE = 0.005
_MAX_DRAW_SECONDS = 1.0
#: Text that Markdown and every terminal leave as it is, so that it can be appended undrawn.
_PLAIN = re.compile(
    r"[A-Za-z0-9 ,.;:?'\"/()%=\-\u2013\u2014\u2018\u2019\u201c\u201d\u2026"
    r"\u3001-\u3002\u4e00-\u9fff\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]*"
)
_FENCE_BEGINS = re.compile(r" *(`{1,}[^`]*|~+.*)$")


class Sink(Protocol):
    """Something that text is written to piece by piece."""

    def feed(self, text: str) -> None:
        """Takes some more."""
        ...

    def end(self) -> None:
        """Shows what was held back, and ends the line."""
        ...


class PlainSink:
    """Writes the text as it is; on a terminal only what a terminal can do no harm with.

    `style` and the reset after it surround each piece, so that nothing else is ever dimmed.
    """

    def __init__(self, file: TextIO, *, is_terminal: bool, style: str = "") -> None:
        self._file = file
        self._is_terminal = is_terminal
        self._style = style
        self._last = "\n"

    def feed(self, text: str) -> None:
        """Takes some more."""
        text = harmless(text) if self._is_terminal else text
        if not text:
            return
        self._last = text[-1]
        self._file.write(f"{self._style}{text}{_RESET}" if self._style else text)
        self._file.flush()

    def end(self) -> None:
        """Ends the line."""
        if self._last != "\n":
            self._last = "\n"
            self._file.write("\n")
            self._file.flush()


class MarkdownSink:
    """Renders Markdown on a terminal as it streams.

    Finished blocks are printed once and scroll away like any output. The open one is drawn again
    as it grows, at most ten times a second; between two drawings plain words are appended as they
    come, so that text flows without being rendered. Code is printed line by line.
    """

    def __init__(self, file: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        from localllm.cli.markdown import MarkdownRenderer

        self._renderer = MarkdownRenderer(file)
        self._live = LiveRows(file)
        self._splitter = BlockSplitter()
        self._clock = clock
        self._highlighter: Highlighter | None = None
        self._drawn_at = float("-inf")
        self._draw_seconds = _DRAW_SECONDS
        self._gap = False  # an empty line is due before the next block
        self._begun = False
        self._undrawn = False  # something was fed that is not on the screen
        self._appendable = False
        self._spaces = ""  # trailing spaces, which no row shows

    def feed(self, text: str) -> None:
        """Takes some more."""
        text = harmless(text)
        if not text:
            return
        events = self._splitter.feed(text)
        if events:
            self._settle(events)
        elif self._append(text):
            return
        self._undrawn = True
        if self._clock() - self._drawn_at >= self._draw_seconds:
            self._draw()

    def end(self) -> None:
        """Shows the rest, for good."""
        self._live.measure()
        self._settle(self._splitter.end())
        self._gap = self._begun = False

    def _settle(self, events: list[Event]) -> None:
        self._live.measure()
        rows: list[str] = []
        for event in events:
            if isinstance(event, Gap):
                self._gap = self._begun
                continue
            if self._gap:
                rows.append("")
                self._gap = False
            self._begun = True
            rows += self._final_rows(event)
        self._live.settle(rows)
        self._appendable = False

    def _final_rows(self, event: Event) -> list[str]:
        if isinstance(event, CodeStart):
            self._highlighter = self._make_highlighter(event.language)
            return [self._dim(event.fence)]
        if isinstance(event, CodeLine):
            # Not folded: a long line that the terminal wraps is copied as one.
            return [self._highlighter.colour(event.text) if self._highlighter else event.text]
        if isinstance(event, CodeEnd):
            return [self._dim(event.fence)]
        assert not isinstance(event, Gap)
        return self._renderer.rows(event.source, self._live.width)

    def _make_highlighter(self, language: str) -> Highlighter | None:
        if not self._renderer.has_colours:
            return None
        from localllm.cli.highlight import Highlighter

        return Highlighter(language)

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_RESET}" if self._renderer.has_colours else text

    def _append(self, text: str) -> bool:
        """Writes words behind those on the screen, if that is all that drawing would do."""
        if not self._appendable or self._undrawn or not _PLAIN.fullmatch(text):
            return False
        words = (self._spaces + text).rstrip(" ")
        if not words:
            self._spaces += text
            return True
        if not self._live.append(words):
            self._appendable = False
            return False
        self._spaces = text[len(text.rstrip(" ")) :]
        return True

    def _draw(self) -> None:
        began = time.process_time()
        self._live.measure()
        text = self._splitter.open_text
        if self._splitter.in_code:
            rows = [row for row in fold(text.expandtabs(4), self._live.width) if row]
            self._appendable = bool(rows)
        else:
            rows = self._renderer.rows(_preview(text), self._live.width) if text.strip() else []
            self._appendable = bool(rows) and _is_plain_at_its_end(text)
        if rows and self._gap:
            rows = ["", *rows]
        self._spaces = text[len(text.rstrip(" ")) :]
        self._live.show(rows)
        self._undrawn = False
        self._drawn_at = self._clock()
        cost = time.process_time() - began
        self._draw_seconds = min(max(_DRAW_SECONDS, cost / _DRAW_SHARE), _MAX_DRAW_SECONDS)


def _preview(text: str) -> str:
    """The open block as it will look: emphasis closed, a fence that begins left out."""
    head, newline, last = text.rpartition("\n")
    if _FENCE_BEGINS.match(last):
        last = ""
    if last.count("`") % 2:
        last = last.rstrip("`") if last.endswith("`") else last + "`"
    elif last.count("**") % 2:
        last = last.rstrip(" *") if last.rstrip(" ").endswith("*") else last.rstrip(" ") + "**"
    return head + newline + last


def _is_plain_at_its_end(text: str) -> bool:
    """Whether more words would follow in the text's own style, and change nothing before them."""
    last = text.rpartition("\n")[2]
    return (
        len(last) >= 8  # shorter, it may still become a list, a heading or a rule
        and last.lstrip()[0] not in "#>|=~"
        and not last.startswith("    ")
        and last.count("`") % 2 == 0
        and last.count("*") % 2 == 0
        and "[" not in last.rsplit("]", 1)[-1]
        and "<" not in last
        and "&" not in last[-40:]
        and not last.rstrip().endswith(("_", "\\", "~", "*"))
    )


@dataclass(frozen=True)
class Look:
    """How replies are shown.

    Attributes:
        markdown: rendered, rather than as written.
        reasoning: shown, before the answer.
        is_terminal: standard output is one, so control characters are taken out.
        colours: escape sequences may be used at all.
    """

    markdown: bool
    reasoning: bool
    is_terminal: bool
    colours: bool


class ReplyView:
    """One reply: its reasoning dimmed under a heading, then its answer."""

    def __init__(self, look: Look, out: TextIO, err: TextIO) -> None:
        self._look = look
        self._out = out
        self._err = err
        self._answer: Sink | None = None
        self._thoughts: Sink | None = None
        self._waiting = False

    def wait(self) -> None:
        """Shows that a reply is due."""
        if self._look.is_terminal and self._look.colours:
            self._waiting = True
            self._write(f"{_DIM}…{_RESET}")

    def feed(self, content: str, reasoning: str) -> None:
        """Takes a piece of the reply."""
        if reasoning and self._look.reasoning:
            self._think(reasoning)
        if content:
            if self._answer is None:
                content = content.lstrip("\n")
                if not content:
                    return
                self._end_thoughts()
                self._answer = self._make_sink()
            self._answer.feed(content)

    def end(self) -> None:
        """Shows all that was fed; the next thing begins on a line of its own."""
        self._arrived()
        for sink in (self._thoughts, self._answer):
            if sink is not None:
                sink.end()
        self._thoughts = self._answer = None

    def _think(self, text: str) -> None:
        if self._thoughts is None:
            text = text.lstrip("\n")
            if not text:
                return
            self._arrived()
            style = _DIM if self._look.colours else ""
            file = self._out if self._look.is_terminal else self._err
            # Reasoning on standard error may still end on a terminal.
            self._thoughts = PlainSink(file, is_terminal=True, style=style)
            self._thoughts.feed("── thinking ──\n")
        self._thoughts.feed(text)

    def _end_thoughts(self) -> None:
        self._arrived()
        if self._thoughts is not None:
            self._thoughts.end()
            self._thoughts.feed("──\n")
            self._thoughts = None

    def _make_sink(self) -> Sink:
        if self._look.markdown:
            return MarkdownSink(self._out)
        return PlainSink(self._out, is_terminal=self._look.is_terminal)

    def _arrived(self) -> None:
        if self._waiting:
            self._waiting = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
