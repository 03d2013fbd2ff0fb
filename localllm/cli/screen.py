"""The last rows of a terminal, which may still change, below those that are done.

Knows escape sequences, window sizes and reflow. Knows nothing of Markdown and of conversations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TextIO

from localllm.cli.wrapping import cell_width, fold

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
#: C0 and C1 without newline and tab, and DEL. Without its ESC or CSI a sequence is only text:
#: no model moves the cursor, sets a title or writes to the clipboard (OSC 52).
#: Lone surrogates cannot be encoded, and would end the stream.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text without control characters, so that a terminal can only show it."""
    return _UNSAFE.sub("", text)


def window_size(file: TextIO) -> tuple[int, int]:
    """Columns and lines of the window that the file writes to; 80 x 24 when it does not say."""
    try:
        size = os.get_terminal_size(file.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


class LiveRows:
    """Rows at the bottom of what was printed, which can be replaced until they are settled.

    Each row is at most `width` columns, one less than the window has, so that the terminal never
    wraps one by itself. Only rows that differ are written again, in one write: nothing flickers.
    When the window became narrower, terminals that reflow have broken long rows in two; that is
    reckoned with. What was settled is left to the terminal.
    """

    def __init__(
        self, file: TextIO, size: Callable[[TextIO], tuple[int, int]] = window_size
    ) -> None:
        self._file = file
        self._size = size
        self._rows: list[str] = []
        self._columns, self._lines = size(file)

    @property
    def width(self) -> int:
        """Columns that a row may take."""
        return max(1, self._columns - 1)

    @property
    def n_visible(self) -> int:
        """Rows that can be live at once; of more, show the last."""
        return max(1, self._lines - 1)

    def measure(self) -> bool:
        """Looks at the window's size, and says whether the width changed."""
        columns, self._lines = self._size(self._file)
        if columns == self._columns:
            return False
        if columns < self._columns and self._rows:
            self._erase_reflowed(columns)
        self._columns = columns
        return True

    def show(self, rows: list[str]) -> None:
        """Replaces the live rows, of which the last may be shown alone when they are too many."""
        if len(rows) > self.n_visible:
            rows = rows[-self.n_visible :]
        self._write(self._change(rows))
        self._rows = rows

    def settle(self, rows: list[str]) -> None:
        """Prints these rows for good in place of the live ones."""
        if rows:
            self._write(self._change(rows) + "\n")
        elif self._rows:
            self._write(self._change(rows))
        self._rows = []

    def append(self, text: str) -> bool:
        """Writes plain text at the end of the last row, if there is one with room for it."""
        if not self._rows:
            return False
        row = self._rows[-1] + text
        if cell_width(_ESCAPES.sub("", row)) > self.width:
            return False
        self._rows[-1] = row
        self._write(text)
        return True

    def _change(self, rows: list[str]) -> str:
        """What to write so that the rows stand in place of the live ones."""
        old = self._rows
        same = 0
        while same < min(len(old), len(rows)) and old[same] == rows[same]:
            same += 1
        if same == len(old) and old:
            return "".join("\n" + row for row in rows[same:])
        if same == len(rows) and rows:
            same -= 1  # the cursor has to end behind the last row that stays
        up = len(old) - 1 - same
        start = (f"\x1b[{up}A" if up > 0 else "") + ("\r\x1b[J" if old else "")
        return start + "\n".join(rows[same:])

    def _erase_reflowed(self, columns: int) -> None:
        # Folded as the terminal does: a wide character that is half over the edge moves down.
        n_rows = sum(len(fold(_ESCAPES.sub("", row), columns)) for row in self._rows)
        up = min(n_rows, self._lines) - 1
        self._write((f"\x1b[{up}A" if up > 0 else "") + "\r\x1b[J")
        self._rows = []

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()
