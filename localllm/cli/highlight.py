"""Code coloured line by line as it streams, with the terminal's own sixteen colours.

Knows Pygments' lexers and a few escape sequences. Knows nothing of Markdown or of windows.
"""

from __future__ import annotations

from typing import Any

_RESET = "\x1b[0m"
#: The first kind that a token belongs to decides. The terminal's palette fits its background.
_COLOURS = (
    ("Comment", "\x1b[2;3m"),
    ("Literal.String", "\x1b[32m"),
    ("Literal.Number", "\x1b[36m"),
    ("Keyword", "\x1b[35m"),
    ("Operator.Word", "\x1b[35m"),
    ("Name.Function", "\x1b[34m"),
    ("Name.Class", "\x1b[1;34m"),
    ("Name.Tag", "\x1b[34m"),
    ("Name.Decorator", "\x1b[33m"),
    ("Name.Attribute", "\x1b[33m"),
    ("Name.Builtin", "\x1b[36m"),
    ("Name.Variable", "\x1b[33m"),
    ("Generic.Deleted", "\x1b[31m"),
    ("Generic.Inserted", "\x1b[32m"),
    ("Generic.Heading", "\x1b[1m"),
)


class Highlighter:
    """Colours the lines of one code block, each in the state that the lines before it left."""

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language)
        self._stack = ["root"]
        self._colours: dict[Any, str] = {}

    def colour(self, line: str) -> str:
        """The line with escape sequences; the plain line for an unknown language."""
        if self._lexer is None or not line.strip():
            return line
        try:
            pieces = [(kind, text) for kind, text in self._lex(line + "\n") if text]
        except Exception:
            # Lexers with callbacks of their own may not know our context. No colour is worth
            # the end of an answer, so this block goes on without.
            self._lexer = None
            return line
        coloured = "".join(self._paint(kind, text.rstrip("\n")) for kind, text in pieces)
        return coloured

    def _lex(self, text: str) -> list[tuple[Any, str]]:
        from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer  # type: ignore[import-untyped, unused-ignore]

        assert self._lexer is not None
        if not isinstance(self._lexer, RegexLexer):
            return [(kind, piece) for _, kind, piece in self._lexer.get_tokens_unprocessed(text)]
        # RegexLexer keeps its state to itself; this loop over the same tables takes it along, so
        # a string or comment of several lines stays one.
        context = LexerContext(text, 0, list(self._stack))
        run = ExtendedRegexLexer.get_tokens_unprocessed
        pieces = [(kind, piece) for _, kind, piece in run(self._lexer, context=context)]
        self._stack = list(context.stack)
        return pieces

    def _paint(self, kind: Any, text: str) -> str:
        colour = self._colours.get(kind)
        if colour is None:
            name = ".".join(kind)
            colour = next((c for prefix, c in _COLOURS if name.startswith(prefix)), "")
            self._colours[kind] = colour
        return f"{colour}{text}{_RESET}" if colour and text else text


def _find_lexer(language: str) -> Any:
    if not language or language in {"text", "plain", "txt"}:
        return None
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped, unused-ignore]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped, unused-ignore]

    try:
        return get_lexer_by_name(language)
    except ClassNotFound:
        return None
