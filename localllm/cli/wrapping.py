"""Text broken into the rows of a window, Chinese and Japanese between any two characters.

Knows widths and where a row may end. Knows nothing of styles and escape sequences.
"""

from __future__ import annotations

import re

_OPEN = "（「『《〈【〔〖“‘"
_IDEOGRAPH = (
    "\u2e80-\u2fff\u3005-\u3007\u3021-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U00020000-\U0003fffd"
)
#: What must not begin a row stays with what comes before it (GB/T 15834, JIS X 4051).
_CLOSE = "，。、！？；：）」』》〉】〕〗”’…—～·,.!?;:)%"
_UNIT = re.compile(rf"\s+|[{_OPEN}]*[{_IDEOGRAPH}][{_CLOSE}]*|[^\s{_IDEOGRAPH}{_OPEN}]+|[{_OPEN}]+")


def cell_width(text: str) -> int:
    """How many columns the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def find_breaks(text: str, width: int) -> list[int]:
    """Where to break one line of text so that each row fits the width; indices into the text."""
    if cell_width(text) <= width:
        return []
    breaks: list[int] = []
    column = 0
    for unit in _UNIT.finditer(text):
        word = unit.group()
        cells = cell_width(word)
        if column and column + cells > width and not word.isspace():
            breaks.append(unit.start())
            column = 0
        if cells <= width or word.isspace():
            column += cells
            continue
        for offset, char in enumerate(word):  # longer than a whole row
            cells = cell_width(char)
            if column and column + cells > width:
                breaks.append(unit.start() + offset)
                column = 0
            column += cells
    return breaks


def fold(text: str, width: int) -> list[str]:
    """The line cut into rows wherever it is full, as a terminal does by itself."""
    if cell_width(text) <= width:
        return [text]
    rows, start, column = [], 0, 0
    for index, char in enumerate(text):
        cells = cell_width(char)
        if column + cells > width and column:
            rows.append(text[start:index])
            start, column = index, 0
        column += cells
    return [*rows, text[start:]]
