"""As much of a terminal as the chat's output needs: rows, wrapping, scrolling, erasing, reflow.

What it does not know is an error, so that no other sequence slips into the output unnoticed.
"""

from __future__ import annotations

import io
import re

from rich.cells import cell_len

_TOKEN = re.compile(
    r"\x1b\[(\d*)([AJKm])|\x1b\[[\d;]*m|(\n)|(\r)|([^\x00-\x1f\x7f-\x9f])|(.)", re.S
)


class Emulator(io.StringIO):
    """A file that keeps what would be seen; `rows` are all rows, scrolled away or not."""

    def __init__(self, columns: int = 40, lines: int = 10) -> None:
        super().__init__()
        self.columns = columns
        self.lines = lines
        self.cells: list[list[str]] = [[]]
        self.joined: list[bool] = [False]  # whether the row goes on from the one before
        self.y = self.x = 0
        self.n_written = 0

    def size(self, _: object = None) -> tuple[int, int]:
        return self.columns, self.lines

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.n_written += len(text)
        for match in _TOKEN.finditer(text):
            number, final, newline, back, char, unknown = match.groups()
            assert not unknown, f"unexpected {unknown!r} in {text!r}"
            if newline:
                self._down(joined=False)
                self.x = 0
            elif back:
                self.x = 0
            elif char:
                self._put(char)
            elif final == "A":
                self.y = max(self.y - int(number or 1), self._top())
            elif final in ("J", "K"):
                assert not number
                del self.cells[self.y][self.x :]
                if final == "J":
                    del self.cells[self.y + 1 :], self.joined[self.y + 1 :]
        return len(text)

    def _top(self) -> int:
        return max(0, len(self.cells) - self.lines)

    def _down(self, *, joined: bool) -> None:
        self.y += 1
        if self.y == len(self.cells):
            self.cells.append([])
            self.joined.append(joined)

    def _put(self, char: str) -> None:
        width = cell_len(char)
        if self.x + width > self.columns:
            self._down(joined=True)
            self.x = 0
        row = self.cells[self.y]
        row += [" "] * (self.x - len(row))
        row[self.x : self.x + width] = [char, *[""] * (width - 1)]
        self.x += width

    def resize(self, columns: int) -> None:
        """Reflows, as most terminals do; the cursor stays behind the same character."""
        whole: list[list[str]] = []
        cursor = (0, 0)
        for index, row in enumerate(self.cells):
            if self.joined[index]:
                whole[-1] += row
            else:
                whole.append(list(row))
            if index == self.y:
                cursor = len(whole) - 1, len(whole[-1]) - len(row) + self.x
        self.columns, self.cells, self.joined, self.y = columns, [[]], [False], 0
        for index, row in enumerate(whole):
            if index:
                self.cells.append([])
                self.joined.append(False)
            self.y, self.x = len(self.cells) - 1, 0
            for column, char in enumerate(row):
                if char:
                    self._put(char)
                if index == cursor[0] and column == cursor[1] - 1:
                    mark = self.y, self.x
            if index == cursor[0] and cursor[1] == 0:
                mark = self.y, 0
        self.y, self.x = mark

    @property
    def rows(self) -> list[str]:
        """All rows without trailing spaces."""
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self) -> str:
        """All rows as one text without empty ends."""
        return "\n".join(self.rows).strip("\n")
