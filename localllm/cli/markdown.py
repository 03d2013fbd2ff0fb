"""Markdown as styled rows of text: one block of it, rendered by rich.

Knows how blocks look. Knows nothing of streams and of what is on the screen.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Any, ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.containers import Lines
from rich.markdown import (
    CodeBlock,
    Heading,
    HorizontalRule,
    ListItem,
    Markdown,
    MarkdownContext,
    MarkdownElement,
    Paragraph,
)
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from localllm.cli.wrapping import find_breaks, fold

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.console import JustifyMethod, OverflowMethod

#: rich's own theme puts code on a black ground, which no light terminal can bear.
_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "italic",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "bold",
        "markdown.h6": "bold",
        "markdown.hr": "dim",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.link": "underline",
        "markdown.link_url": "dim",
    },
)
_TRAILING = re.compile(r"(?: |\x1b\[[0-9;]*m)+$")


class MarkdownRenderer:
    """Renders blocks with one rich console, whose colours are those that `file` can show."""

    def __init__(self, file: IO[str]) -> None:
        # Only asked to render: what reaches the terminal goes through `screen.LiveRows`.
        self._console = Console(
            file=file, force_terminal=True, theme=_THEME, highlight=False, soft_wrap=False, width=80
        )
        self.has_colours = self._console.color_system is not None and not self._console.no_color

    def rows(self, source: str, width: int) -> list[str]:
        """The block in rows of at most `width` columns, with escape sequences; never fails."""
        try:
            self._console.width = width
            with self._console.capture() as capture:
                self._console.print(_Block(source))
        except Exception:
            # A model writes whatever it likes; what the renderer cannot bear is shown as it is.
            return [row for line in source.split("\n") for row in fold(line, width)]
        rows = [_TRAILING.sub(_reset, row) for row in capture.get().split("\n")]
        rows = ["" if row == "\x1b[0m" else row for row in rows]
        while rows and not rows[-1]:
            rows.pop()
        while rows and not rows[0]:
            rows.pop(0)
        return rows


def _reset(trailing: re.Match[str]) -> str:
    return "\x1b[0m" if "\x1b" in trailing.group() else ""


class _FlowText(Text):
    """Text that wraps where its language allows it."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """Breaks it into rows; always to the left, always folded."""
        lines = Lines()
        for line in self.split(allow_blank=True):
            for row in line.divide(find_breaks(line.plain, width)):
                row.rstrip()
                lines.append(row)
        return lines


class _Paragraph(Paragraph):
    def on_enter(self, context: MarkdownContext) -> None:
        super().on_enter(context)
        self.text = _FlowText(justify="left")


class _Heading(Heading):
    def on_enter(self, context: MarkdownContext) -> None:
        self.style = context.enter_style(self.style_name)
        self.text = _FlowText()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Item(ListItem):
    """An item whose number looks like one, also when its list comes item by item."""

    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        numeral = f" {number}. "
        style = console.get_style("markdown.item.number")
        inner = options.update(width=max(1, options.max_width - len(numeral)))
        for index, line in enumerate(console.render_lines(self.elements, inner, style=self.style)):
            yield Segment(" " * len(numeral) if index else numeral, style)
            yield from line
            yield Segment("\n")


class _Rule(HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(options.max_width, 40), style="markdown.hr")


class _Code(CodeBlock):
    """Indented code, and fences within quotes; other fences never get here."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in str(self.text).rstrip("\n").split("\n"):
            for row in fold(line, max(1, options.max_width - 4)):
                yield Text(f"    {row}", style="markdown.code_block", no_wrap=True)


class _Block(Markdown):
    """One block; HTML is text, links show where they lead, a line break is one."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _Heading,
        "list_item_open": _Item,
        "hr": _Rule,
        "fence": _Code,
        "code_block": _Code,
    }
    _parser: ClassVar[MarkdownIt | None] = None

    def __init__(self, source: str) -> None:
        super().__init__("", hyperlinks=False)  # a link's text must not hide where it leads
        self.markup = source
        self.parsed = self._parse(source)

    @classmethod
    def _parse(cls, source: str) -> list[Any]:
        if cls._parser is None:
            from markdown_it import MarkdownIt

            cls._parser = (
                MarkdownIt("commonmark", {"html": False})
                .enable(["table", "strikethrough"])
                .disable("reference")  # "[1]: address" would vanish
            )
        tokens = cls._parser.parse(source)
        for token in tokens:
            for child in token.children or ():
                if child.type == "softbreak":  # models mean the lines that they write
                    child.type = "hardbreak"
        return tokens
