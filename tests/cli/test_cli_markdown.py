"""Markdown as it streams: cut into blocks, rendered, and kept right on the screen."""

from __future__ import annotations

import itertools
import random
import re
import time

import pytest

from localllm.cli.blocks import Block, BlockSplitter, CodeEnd, CodeLine, CodeStart, Event, Gap
from localllm.cli.highlight import Highlighter
from localllm.cli.markdown import MarkdownRenderer
from localllm.cli.screen import LiveRows, harmless
from localllm.cli.view import Look, MarkdownSink, PlainSink, ReplyView
from localllm.cli.wrapping import cell_width, find_breaks, fold
from tests.cli.emulator import Emulator

DOCUMENT = """\
# A title

A paragraph with **bold words**, `code` and a [link](https://example.org) that is long enough.
A second line of it.

1. One
   - nested a
   - nested b
   ```sh
   ls -l
   ```
   more of one
2. Two

   with a second paragraph
3. 第三项：中文和 English 混排，标点不能在行首。

| a | b |
|---|--:|
| 1 | 22 |

```python
x = '''a
b'''
```
> a quote

---
The end
"""


def split(*pieces: str) -> list[Event]:
    splitter = BlockSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.end()


def chunks(text: str, seed: int) -> list[str]:
    """The text in pieces of random length, as tokens come."""
    rng = random.Random(seed)
    cuts = sorted({0, len(text), *(rng.randrange(len(text)) for _ in range(len(text) // 3))})
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


class TestBlocks:
    @pytest.mark.parametrize(
        ("text", "events"),
        [
            pytest.param("a\nb\n\nc", [Block("a\nb"), Gap(), Block("c")], id="paragraphs"),
            pytest.param("# T\ntext", [Block("# T"), Block("text")], id="heading"),
            pytest.param("T\n---\n", [Block("T\n---")], id="underlined heading"),
            pytest.param("a\n***\nb", [Block("a"), Block("***"), Block("b")], id="rule"),
            pytest.param("- a\n- b", [Block("- a"), Block("- b")], id="items"),
            pytest.param(
                "- a\n  - b\n\n  c\n\n- d",
                [Block("- a\n  - b\n\n  c"), Gap(), Block("- d")],
                id="nested items stay with theirs",
            ),
            pytest.param("- a\n\nb", [Block("- a"), Gap(), Block("b")], id="item, paragraph"),
            pytest.param(
                "x\n2015. A good year", [Block("x\n2015. A good year")], id="a year is no item"
            ),
            pytest.param(
                "```py\nx\n\ny\n```\nz",
                [
                    CodeStart("```py", "py"),
                    CodeLine("x"),
                    CodeLine(""),
                    CodeLine("y"),
                    CodeEnd("```"),
                    Block("z"),
                ],
                id="code",
            ),
            pytest.param(
                "1. a\n   ```\n   x\n     y\n   ```\n   b\n2. c",
                [
                    Block("1. a"),
                    CodeStart("```", ""),
                    CodeLine("x"),
                    CodeLine("  y"),
                    CodeEnd("```"),
                    Block("b"),
                    Block("2. c"),
                ],
                id="code in an item",
            ),
            pytest.param(
                "````\n```\n````",
                [CodeStart("````", ""), CodeLine("```"), CodeEnd("````")],
                id="a fence within a longer one",
            ),
            pytest.param("```\nx", [CodeStart("```", ""), CodeLine("x")], id="never closed"),
            pytest.param("`a` b\n", [Block("`a` b")], id="inline code is no fence"),
        ],
    )
    def test_text_is_cut_into(self, text: str, events: list[Event]) -> None:
        assert split(text) == events

    @pytest.mark.parametrize("seed", range(20))
    def test_the_cut_does_not_depend_on_how_it_came(self, seed: int) -> None:
        assert split(*chunks(DOCUMENT, seed)) == split(DOCUMENT)

    def test_no_word_is_lost(self) -> None:
        given = "".join(
            getattr(event, "source", "") + getattr(event, "text", "") + getattr(event, "fence", "")
            for event in split(DOCUMENT)
        )
        assert re.sub(r"\s", "", given) == re.sub(r"\s", "", DOCUMENT)

    def test_a_block_without_end_is_cut_so_that_drawing_stays_cheap(self) -> None:
        splitter = BlockSplitter()
        splitter.feed("a line\n" * 5000)
        assert splitter.open_text.count("\n") < 100


class TestWrapping:
    def test_english_breaks_between_words(self) -> None:
        assert find_breaks("aaa bbb ccc", 7) == [8]

    def test_chinese_breaks_between_characters_but_not_before_punctuation(self) -> None:
        assert find_breaks("你好世界，再见", 8) == [3]

    def test_chinese_after_an_english_word_stays_on_its_row(self) -> None:
        assert find_breaks("localllm 是一个工具", 15) == [12]

    def test_a_word_longer_than_the_row_is_cut(self) -> None:
        assert find_breaks("a" * 25, 10) == [10, 20]

    @pytest.mark.parametrize("width", [1, 2, 7, 30])
    def test_no_row_is_wider_than_it_may_be(self, width: int) -> None:
        for line in DOCUMENT.split("\n"):
            assert all(cell_width(row) <= max(width, 2) for row in fold(line, width))


class TestRendering:
    def rows(self, source: str, width: int = 40) -> list[str]:
        renderer = MarkdownRenderer(Emulator())
        return [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in renderer.rows(source, width)]

    @pytest.mark.parametrize(
        ("source", "rows"),
        [
            pytest.param("a **b** `c`", ["a b c"], id="inline"),
            pytest.param("a\nb", ["a", "b"], id="line breaks are kept"),
            pytest.param("<b>x</b> 1 < 2", ["<b>x</b> 1 < 2"], id="html is text"),
            pytest.param("<div>\nx\n</div>", ["<div>", "x", "</div>"], id="a block of html too"),
            pytest.param("[x](http://y)", ["x (http://y)"], id="links show where they lead"),
            pytest.param("[1]: http://y", ["[1]: http://y"], id="a reference does not vanish"),
            pytest.param("2. x", [" 2. x"], id="a list begins with its own number"),
        ],
    )
    def test_looks_like(self, source: str, rows: list[str]) -> None:
        assert self.rows(source) == rows

    def test_entities_bring_no_control_characters_in(self) -> None:
        rendered = MarkdownRenderer(Emulator()).rows("&#27;[2J &#x9b;2J &#7; &lt;", 40)
        assert not re.search(r"[\x00-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)", "".join(rendered))

    def test_a_renderer_that_fails_costs_no_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise ValueError

        monkeypatch.setattr("localllm.cli.markdown._Block._parse", fail)
        assert self.rows("some text") == ["some text"]


class TestHighlighting:
    def test_a_string_of_several_lines_stays_one(self) -> None:
        highlighter = Highlighter("python")
        green = "\x1b[32m"
        assert green in highlighter.colour('x = """one')
        assert highlighter.colour("import two").startswith(green)
        assert not highlighter.colour('"""; import three').endswith(green)

    @pytest.mark.parametrize(
        "language", ["python", "html", "json", "ruby", "perl", "c", "nope", ""]
    )
    def test_no_character_is_lost(self, language: str) -> None:
        highlighter = Highlighter(language)
        for line in ["<a b='c'>", '{"x": [1, 2]}', "/* a", "def f(x): # y", "  end", "\\", "'"]:
            assert re.sub(r"\x1b\[[0-9;]*m", "", highlighter.colour(line)) == line


class TestScreen:
    @pytest.mark.parametrize("seed", range(10))
    def test_only_the_last_rows_stand_after_any_changes(self, seed: int) -> None:
        rng = random.Random(seed)
        screen = Emulator(20, 8)
        live = LiveRows(screen, screen.size)
        settled: list[str] = []
        for _ in range(60):
            rows = [rng.choice(["a", "bb", "中文", ""]) for _ in range(rng.randrange(6))]
            if rng.random() < 0.3:
                live.settle(rows)
                settled += rows
                assert screen.rows == [*settled, ""]
            else:
                live.show(rows)
                assert screen.rows == settled + (rows or [""])

    def test_rows_that_stay_are_not_written_again(self) -> None:
        screen = Emulator(80, 24)
        live = LiveRows(screen, screen.size)
        live.show(["a long row that stays as it is", "b"])
        before = screen.n_written
        live.show(["a long row that stays as it is", "bc"])
        assert screen.n_written - before < 10

    @pytest.mark.parametrize("columns", [13, 20, 60])
    def test_nothing_is_left_over_when_the_window_changes(self, columns: int) -> None:
        screen = Emulator(40, 12)
        live = LiveRows(screen, screen.size)
        live.settle(["done"])
        live.show(["x" * 39, "y" * 30, "中" * 19])
        screen.resize(columns)
        live.measure()
        live.settle(["z"])
        assert screen.rows == ["done", "z", ""]

    def test_more_rows_than_the_window_has_show_the_last(self) -> None:
        screen = Emulator(20, 5)
        live = LiveRows(screen, screen.size)
        for n in range(30):
            live.show([f"row {i}" for i in range(n)])
        live.settle([f"row {i}" for i in range(30)])
        assert screen.rows == [*(f"row {i}" for i in range(30)), ""]


def sink_on(screen: Emulator, monkeypatch: pytest.MonkeyPatch) -> MarkdownSink:
    monkeypatch.setattr("localllm.cli.screen.window_size", screen.size)
    monkeypatch.setattr(LiveRows.__init__, "__defaults__", (screen.size,))
    return MarkdownSink(screen)


class TestMarkdownSink:
    @pytest.mark.parametrize("columns", [30, 80])
    @pytest.mark.parametrize("seed", range(6))
    def test_what_streamed_looks_like_what_came_at_once(
        self, seed: int, columns: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screens = []
        for pieces in ([DOCUMENT], chunks(DOCUMENT, seed)):
            screen = Emulator(columns, 12)
            sink = sink_on(screen, monkeypatch)
            sink._clock = iter(range(10**6)).__next__  # it is always time to draw
            for piece in pieces:
                sink.feed(piece)
            sink.end()
            screens.append(screen.text)
        assert screens[0] == screens[1]

    def test_the_open_block_is_seen_before_it_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Emulator(40, 12)
        sink = sink_on(screen, monkeypatch)
        sink.feed("Hello **bold wor")
        assert screen.text == "Hello bold wor"

    def test_plain_words_are_appended_without_drawing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screen = Emulator(80, 12)
        sink = sink_on(screen, monkeypatch)
        sink._clock = lambda: 0.0  # it is never time to draw again
        for word in ["Here we go", " and", " on ", "", " ", "and", " on, 你好"]:
            sink.feed(word)
        assert screen.text == "Here we go and on  and on, 你好"

    def test_a_code_block_longer_than_the_window_does_not_smear(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = "```python\n" + "".join(f"line({i})  # {'x' * 60}\n" for i in range(200)) + "```\n"
        screen = Emulator(40, 10)
        sink = sink_on(screen, monkeypatch)
        for piece in chunks(code, 1):
            sink.feed(piece)
        sink.end()
        seen = "".join(screen.rows)
        assert [int(n) for n in re.findall(r"line\((\d+)\)", seen)] == list(range(200))

    def test_five_thousand_tokens_a_second_can_be_kept_up_with(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Counter(Emulator):
            def write(self, text: str) -> int:
                return len(text)

        sink = sink_on(Counter(80, 24), monkeypatch)
        pieces = re.findall(r"\s?\w{1,6}|\W", DOCUMENT) * 10
        sink.feed("warm up: imports\n\n```python\nx\n```\n")
        began = time.process_time()
        for piece in pieces:
            sink.feed(piece)
        sink.end()
        # Measured 40 us; a loaded machine may be several times slower.
        assert (time.process_time() - began) / len(pieces) < 1 / 5000 * 3


class TestHarmless:
    def test_control_characters_are_taken_out(self) -> None:
        evil = "a\x1b]52;c;aGk=\x07b\x9b2Jc\x08\r\nd\te\x7f\ud800f"
        assert harmless(evil) == "a]52;c;aGk=b2Jc\nd\tef"

    def test_a_pipe_gets_the_bytes_as_they_are(self) -> None:
        out = Emulator()
        out.write = (pieces := []).append  # type: ignore[assignment, func-returns-value]
        PlainSink(out, is_terminal=False).feed("a\x1b[1m")
        assert pieces == ["a\x1b[1m"]


class TestReplyView:
    def test_reasoning_is_set_apart_from_the_answer(self) -> None:
        screen = Emulator(40, 10)
        view = ReplyView(Look(False, True, True, True), screen, screen)
        view.wait()
        assert screen.text == "…"
        for content, reasoning in [("", "\nhm"), ("", "m."), ("\n\n", ""), ("42", "")]:
            view.feed(content, reasoning)
        view.end()
        assert screen.text == "── thinking ──\nhmm.\n──\n42"

    def test_hidden_reasoning_goes_nowhere(self) -> None:
        out, err = Emulator(), Emulator()
        view = ReplyView(Look(False, False, False, False), out, err)
        view.feed("", "secret")
        view.feed("42", "")
        view.end()
        assert (out.text, err.text) == ("42", "")
