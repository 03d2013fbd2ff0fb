"""Markdown cut into blocks while it streams: what is finished, and what is still open.

Knows where blocks end. Knows nothing of how they look, nor of terminals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A block that is still open after so many lines is cut at the next line's end: the open block is
#: drawn again and again, and what is drawn again must stay small.
_MAX_OPEN_LINES = 60

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^`]*)$")
_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)])(\s|$)")


@dataclass(frozen=True)
class Block:
    """A finished block of Markdown: a paragraph, a heading, one list item, a table, a quote."""

    source: str


@dataclass(frozen=True)
class Gap:
    """An empty line between blocks; several in a row mean no more than one."""


@dataclass(frozen=True)
class CodeStart:
    """A fence that opens a code block; `language` may be empty."""

    fence: str
    language: str


@dataclass(frozen=True)
class CodeLine:
    """One line of code."""

    text: str


@dataclass(frozen=True)
class CodeEnd:
    """The fence that closes a code block."""

    fence: str


Event = Block | Gap | CodeStart | CodeLine | CodeEnd


class BlockSplitter:
    """Takes Markdown piece by piece, and gives its blocks as soon as nothing can change them.

    Code is given line by line. A list is given item by item, each with what is nested in it.
    Fences are found inside list items too, as deep as they may be indented.
    """

    def __init__(self) -> None:
        self._partial = ""
        self._lines: list[str] = []
        self._item_indent: int | None = None  # of the open list item's marker
        self._number = 0  # of the latest numbered item
        self._fence: tuple[str, int] | None = None  # the fence's characters and its indent
        self._dedent = 0  # text after a fence in a list item stays indented as the fence was

    @property
    def in_code(self) -> bool:
        """Whether a code block is open."""
        return self._fence is not None

    @property
    def open_text(self) -> str:
        """What was fed and not yet given: of the open block, or of the open line of code."""
        return "\n".join([*self._lines, self._partial]) if self._lines else self._partial

    def feed(self, text: str) -> list[Event]:
        """Takes some text and gives what it finished."""
        if "\n" not in text:
            self._partial += text
            return []
        *lines, rest = text.split("\n")
        lines[0] = self._partial + lines[0]
        self._partial = rest
        events: list[Event] = []
        for line in lines:
            self._take(line.expandtabs(4), events)
        return events

    def end(self) -> list[Event]:
        """Gives what was still open."""
        events: list[Event] = []
        if self._partial:
            self._take(self._partial.expandtabs(4), events)
            self._partial = ""
        self._flush(events)
        return events

    def _take(self, line: str, events: list[Event]) -> None:
        if self._fence is not None:
            self._take_code(line, events)
            return
        if not line.strip():
            if self._item_indent is None:
                self._flush(events)
                events.append(Gap())
            else:
                self._lines.append("")  # the item may go on after it
            return
        if self._dedent:
            if line.startswith(" " * self._dedent):
                line = line[self._dedent :]
            else:
                self._dedent = 0
        if fence := _FENCE.match(line):
            self._flush(events)
            events.append(CodeStart(line.strip(), _language(fence[3])))
            self._fence = fence[2], len(fence[1]) + self._dedent
            return
        if self._item_indent is not None and self._ends_item(line):
            self._flush(events)
        self._take_text(line, events)

    def _take_code(self, line: str, events: list[Event]) -> None:
        assert self._fence is not None
        fence, indent = self._fence
        bare = line.strip()
        if len(bare) >= len(fence) and bare == fence[0] * len(bare):
            events.append(CodeEnd(bare))
            self._fence, self._dedent = None, indent
            return
        n_spaces = len(line) - len(line.lstrip(" "))
        events.append(CodeLine(line[min(n_spaces, indent) :]))

    def _ends_item(self, line: str) -> bool:
        assert self._item_indent is not None
        indent = len(line) - len(line.lstrip(" "))
        if item := _ITEM.match(line):
            return len(item[1]) <= self._item_indent + 1
        if indent > self._item_indent:
            return False
        after_a_gap = bool(self._lines) and not self._lines[-1]
        return after_a_gap or bool(_HEADING.match(line) or _RULE.match(line))

    def _take_text(self, line: str, events: list[Event]) -> None:
        if self._item_indent is None:
            if _HEADING.match(line):
                self._flush(events)
                events.append(Block(line))
                return
            # "---" under a paragraph makes it a heading.
            if (rule := _RULE.match(line)) and not (self._lines and rule[1] == "-"):
                self._flush(events)
                events.append(Block(line))
                return
            item = _ITEM.match(line)
            if item and len(item[1]) < 4 and (not self._lines or self._may_interrupt(item[2])):
                self._flush(events)
                self._item_indent = len(item[1])
        if item := _ITEM.match(line):
            self._number = int(item[2][:-1]) if item[2][:-1] else self._number
        self._lines.append(line)
        if len(self._lines) >= _MAX_OPEN_LINES and not line.lstrip().startswith("|"):
            self._flush(events)

    def _may_interrupt(self, marker: str) -> bool:
        # As in CommonMark, "2015. A good year" does not begin a list in the midst of a paragraph;
        # but the next number after an item that a code block cut off does.
        return marker[:-1] in ("", "1", str(self._number + 1))

    def _flush(self, events: list[Event]) -> None:
        n_lines = len(self._lines)
        lines = self._lines
        while lines and not lines[-1]:
            lines.pop()
        if lines:
            events.append(Block("\n".join(lines)))
        if len(lines) < n_lines:
            events.append(Gap())
        self._lines = []
        self._item_indent = None


def _language(info: str) -> str:
    words = info.split()
    return words[0].strip("{}.").lower() if words else ""
