"""A table as rows of text that fit a width: the least important columns go first.

rich's own tables shorten every column when the window is narrow; half a number is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from localllm.cli.screen import harmless

_GAP = 2


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: above it.
        cells: one for each row; texts from elsewhere are plain strings, and made harmless here.
        rank: the column of the highest rank goes first; 0 always stays.
        left: aligned to the left.
    """

    heading: str
    cells: Sequence[str | Text]
    rank: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """In columns of the terminal."""
        return max((text(cell).cell_len for cell in (self.heading, *self.cells)), default=0)


def fit_columns(columns: Sequence[Column], width: int) -> list[Text]:
    """The heading and the rows, each at most `width` wide."""
    kept = [column for column in columns if any(text(cell).plain for cell in column.cells)]
    while sum(column.width + _GAP for column in kept) - _GAP > width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    headings = [Text(column.heading, "dim") for column in kept]
    rows = zip(*(column.cells for column in kept), strict=True)
    return [_row(kept, cells, width) for cells in (headings, *rows)]


def text(content: str | Text) -> Text:
    """One line that a terminal can only show."""
    return content if isinstance(content, Text) else Text(" ".join(harmless(content).split()))


def cut(line: Text, width: int) -> Text:
    """The line, with … at its end where it is longer than the width."""
    line = line.copy()
    line.truncate(max(1, width), overflow="ellipsis")
    return line


def _row(columns: Sequence[Column], cells: Sequence[str | Text], width: int) -> Text:
    row = Text()
    for column, cell in zip(columns, cells, strict=True):
        content = text(cell)
        padding = " " * (column.width - content.cell_len)
        gap = " " * _GAP if row.cell_len else ""
        row.append(gap if column.left else gap + padding).append_text(content)
        row.append(padding if column.left else "")
    row.rstrip()
    return cut(row, width)
