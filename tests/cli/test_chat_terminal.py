"""The chat at a real terminal (a pty) and in real pipes, over a model that follows a script."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect")

ROOT = Path(__file__).parents[2]
SCRIPT = ["-m", "tests.cli.scripted_chat"]
#: Far beyond what a loaded machine needs; nothing waits for it unless it fails.
PATIENCE_SECONDS = 60
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[=>]|\r")
#: prompt_toolkit moves over the space instead of writing it.
PROMPT = ">(?: |\x08?\x1b\\[2?C)"


class Terminal:
    """A person at a terminal: types, and reads what is new on it."""

    def __init__(
        self,
        *argv: str,
        program: Sequence[str] = SCRIPT,
        columns: int = 80,
        **environment: str,
    ) -> None:
        env = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        env.pop("NO_COLOR", None)
        self.child = pexpect.spawn(
            sys.executable,
            [*program, *argv],
            cwd=str(ROOT),
            env={**env, **environment},
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
        )
        self.child.delaybeforesend = None

    def type(self, text: str) -> None:
        self.child.send(text)

    def enter(self, line: str) -> None:
        self.child.send(line + "\r")

    def until(self, pattern: str) -> str:
        """What was shown up to the pattern, without escape sequences."""
        self.child.expect(pattern)
        return _SEQUENCE.sub("", self.child.before + self.child.after)

    def ready(self) -> None:
        """Waits until a prompt takes keys."""
        self.child.expect(PROMPT)

    def left(self) -> int:
        """Waits for the end, and gives the exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*argv: str, **kwargs: str) -> Terminal:
        opened.append(Terminal(*argv, **kwargs))  # type: ignore[arg-type]
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.child.close(force=True)


def piped(*argv: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *SCRIPT, *argv],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class TestPipe:
    def test_one_prompt_gives_one_plain_answer(self) -> None:
        done = piped("-p", "hi")
        assert (done.stdout, done.stderr, done.returncode) == ("<hi> **1** END\n", "", 0)

    def test_standard_input_is_joined_to_the_prompt(self) -> None:
        assert (
            piped("-p", "sum up:", stdin=b"one\ntwo\n").stdout
            == "<sum up:\n|\n|one\n|two> **1** END\n"
        )

    def test_standard_input_alone_is_the_prompt(self) -> None:
        assert piped(stdin="你好\r\n".encode()).stdout == "<你好> **1** END\n"

    def test_bytes_that_are_no_text_do_not_end_it(self) -> None:
        assert piped(stdin=b"\xff\xfehi").stdout == "<\ufffd\ufffdhi> **1** END\n"

    def test_a_locale_without_unicode_shows_question_marks(self) -> None:
        done = piped("-p", "你好", PYTHONIOENCODING="ascii")
        assert (done.stdout, done.returncode) == ("<??> **1** END\n", 0)

    @pytest.mark.parametrize("argv", [(), ("-p", " ")], ids=["nothing", "an empty prompt"])
    def test_no_prompt_at_all_is_a_usage_error(self, argv: tuple[str, ...]) -> None:
        done = piped(*argv)
        assert done.returncode == 2
        assert "hint:" in done.stderr

    def test_reasoning_is_hidden_unless_asked_for_and_never_mixed_into_the_answer(self) -> None:
        assert "wonder" not in str(piped("-p", "think"))
        shown = piped("-p", "think", "--reasoning", "show")
        assert shown.stdout == "<think> **1** END\n"
        assert "I wonder." in shown.stderr

    def test_statistics_go_to_standard_error(self) -> None:
        done = piped("-p", "hi", "--stats")
        assert done.stdout == "<hi> **1** END\n"
        assert done.stderr == (
            "TTFT 84 ms · 132 tokens · 51.3 tok/s (prompt 214 tokens, 180 cached, 410 tok/s)"
            " · context 346/8192\n"
        )

    def test_an_engine_that_fails_gives_its_exit_code(self) -> None:
        done = piped("-p", "boom")
        assert (done.stdout, done.returncode) == ("", 9)
        assert "signal 9" in done.stderr

    def test_a_reader_that_leaves_ends_it_quietly(self) -> None:
        done = subprocess.run(
            f"{sys.executable} {' '.join(SCRIPT)} -p forever | head -c 20",
            shell=True,
            cwd=ROOT,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.stdout == b"word0 word1 word2 wo"
        assert done.stderr == b""

    def test_an_interrupt_leaves_with_130_and_keeps_what_was_printed(self) -> None:
        child = subprocess.Popen(
            [sys.executable, *SCRIPT, "-p", "forever"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        assert child.stdout.read(12) == b"word0 word1 "
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE_SECONDS)
        assert child.returncode == 130
        assert out.endswith(b"\n")
        assert b"Traceback" not in err


class TestTerminal:
    def test_a_prompt_on_a_terminal_is_rendered_and_leaves(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal("-p", "hi")
        assert "<hi> 1 END" in here.until("END")
        assert here.left() == 0

    def test_a_conversation(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal()
        assert "scripted · context 8192 · /help for help" in here.until("help for help")
        here.ready()
        here.enter("one")
        assert "<one> 1 END" in here.until("END")
        here.ready()
        here.enter("two")
        assert "<two> 3 END" in here.until("END")
        here.ready()
        here.enter("/bye")
        assert here.left() == 0

    def test_ctrl_c_stops_the_answer_and_the_next_one_leaves(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal("--session", "stopped")
        here.ready()
        here.enter("forever")
        here.until("word5")
        here.type("\x03")
        assert "^C" not in here.until(r"\(stopped\)")
        here.ready()
        here.enter("/save")
        here.until("stopped")
        here.ready()
        here.enter("again")
        assert "3 END" in here.until("END"), "what was said is part of the conversation"
        here.ready()
        here.type("\x03")
        assert here.left() == 0

    def test_ctrl_c_empties_a_line_that_is_not_empty(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal()
        here.ready()
        here.type("not this")
        here.until("this")
        here.type("\x03")
        here.enter("but this")
        assert "<but this>" in here.until("END")

    def test_ctrl_d_leaves(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal()
        here.ready()
        here.type("\x04")
        assert here.left() == 0

    def test_quotes_hold_a_message_of_several_lines(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal()
        here.ready()
        for line in ['"""one', "/two", 'three"""']:
            here.enter(line)
        assert "<one\n|/two\n|three> 1 END" in here.until("END")

    def test_pasted_lines_are_one_message(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal()
        here.ready()
        here.type("\x1b[200~one\ntwo\nthree\x1b[201~")
        here.until("three")
        here.enter("")
        assert "<one\n|two\n|three> 1 END" in here.until("END")

    def test_chinese_is_edited_by_characters(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal(columns=30)
        here.ready()
        here.type("你好，世")
        here.until("世")
        here.type("\x7f\x1b[D")  # backspace, left
        here.enter("大")
        assert "<你好大，> 1 END" in here.until("END")

    def test_keys_typed_during_an_answer_wait_for_the_prompt(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal()
        here.ready()
        here.enter("code")
        here.type("typed ahead")
        answer = here.until("END")
        assert "typed ahead" not in answer
        here.until("typed ahead")

    def test_an_error_gives_the_prompt_back_and_the_question_can_be_retried(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal()
        here.ready()
        here.enter("boom")
        assert "the engine died with signal 9" in here.until("hint: look at its log")
        here.ready()
        here.enter("/retry")
        here.until("signal 9")
        here.ready()
        here.enter("fine")
        assert "<fine> 1 END" in here.until("END")

    def test_reasoning_comes_first_and_dimmed(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal()
        here.ready()
        here.enter("think")
        here.child.expect_exact("\x1b[2mI wonder.\x1b[0m")
        here.until("END")

    def test_a_model_cannot_control_the_terminal(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal("-p", "evil")
        here.child.expect(pexpect.EOF)
        shown = here.child.before
        assert "a]52;c;aGk=b[2Jc5Ad" in shown
        assert "\x1b]" not in shown
        assert "\x1b[2J" not in shown
        assert "\x9b" not in shown

    def test_a_long_code_block_is_complete(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal("-p", "code", columns=30)
        shown = here.until("END")
        assert re.findall(r"print\((\d+)\)", shown)[-1] == "199"
        assert {int(n) for n in re.findall(r"print\((\d+)\)", shown)} == set(range(200))

    def test_a_table_is_drawn(self, terminal: Callable[..., Terminal]) -> None:
        assert "────" in terminal("-p", "table").until("END")

    def test_a_window_that_shrinks_during_an_answer_does_no_harm(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal()
        here.ready()
        here.enter("forever")
        here.until("word20")
        here.child.setwinsize(10, 20)
        here.until(r"word\d\d\d")  # any: not every word is drawn in a small window
        here.type("\x03")
        here.until(r"\(stopped\)")

    @pytest.mark.parametrize(
        "environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"]
    )
    def test_a_plain_terminal_gets_plain_text(
        self, terminal: Callable[..., Terminal], environment: dict[str, str]
    ) -> None:
        here = terminal("-p", "hi", **environment)
        here.child.expect(pexpect.EOF)
        assert here.child.before.strip() == "<hi> **1** END"

    def test_a_dumb_terminal_converses(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal(TERM="dumb")
        here.ready()
        here.enter('"""one')
        here.enter('two"""')
        assert "<one\n|two> **1** END" in here.until("END")
        here.ready()
        here.enter("/bye")
        assert here.left() == 0


class TestCommands:
    def test_they_do_what_they_say(self, terminal: Callable[..., Terminal], tmp_path: Path) -> None:
        here = terminal(columns=100)
        for line, expected in [
            ("/help", "leaves"),
            ("/retyr", "did you mean /retry"),
            ("/retry", "nothing to ask again"),
            ("/system Be kind.", "is set"),
            ("/system", "Be kind."),
            ("hello", "<hello>.*END"),
            ("//hello", "</hello>.*END"),
            ("/usr/bin/env is a path", "</usr/bin/env is a path>.*END"),
            ("/set temperature 0.7", "temperature     0.7"),
            ("/set top-p 3", "from 0 to 1"),
            ("/set colour red", "there is no setting"),
            ("/set", "max_tokens"),
            ("/stats", "396 tokens.*51.3 tok/s"),
            ("/retry", "context 346/8192"),
            ("/save ../x/y", "cannot write"),
            (f"/save {tmp_path}/talk.md", "written"),
            (f"/save {tmp_path}/talk.md", "is there already"),
            ("/save 计划", "kept in the session"),
            ("/clear", "a new conversation"),
            ("/load nothing", "there is no session"),
            ("again", "<again>.*END"),
            ("/quit", ""),
        ]:
            here.ready()
            here.enter(line)
            if expected:
                here.until(expected)
        assert here.left() == 0
        assert "</hello>" in (tmp_path / "talk.md").read_text()


class TestKeeping:
    def test_history_and_session_are_private(
        self, terminal: Callable[..., Terminal], home: Path
    ) -> None:
        here = terminal("--session", "mine")
        here.ready()
        here.enter("remember me")
        here.until("END")
        here.ready()
        here.enter("/bye")
        assert here.left() == 0
        for file in (home / "state" / "history", home / "data" / "sessions" / "mine.json"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert "remember me" in file.read_text()

    def test_a_kill_loses_no_more_than_the_turn_under_way(
        self, terminal: Callable[..., Terminal]
    ) -> None:
        here = terminal("--session", "killed")
        here.ready()
        here.enter("first")
        here.until("END")
        here.ready()
        here.enter("forever")
        here.until("word3")
        here.child.kill(signal.SIGKILL)
        again = terminal("--session", "killed")
        again.until("2 messages")
        again.ready()
        again.enter("second")
        assert "<second> 3 END" in again.until("END")

    def test_history_comes_back_with_the_arrow(self, terminal: Callable[..., Terminal]) -> None:
        for line in ("first words", "\x1b[A"):
            here = terminal()
            here.ready()
            here.enter(line)
            assert "<first words> 1 END" in here.until("END")
            here.ready()
            here.type("\x04")
            assert here.left() == 0


class TestRealEngine:
    """The same terminal over llama.cpp and the demo model."""

    def test_a_conversation_with_the_demo(self, terminal: Callable[..., Terminal]) -> None:
        here = terminal("chat", "demo", "--stats", program=["-m", "localllm"])
        here.until("/help for help")
        here.ready()
        here.enter("/set max_tokens 64")
        here.until("longest")
        here.ready()
        for question in ("What can you do?", "你好"):
            here.enter(question)
            here.until(r"tok/s.*context \d+/\d+")
            here.ready()
        here.enter("/retry")
        here.until(r"tok/s.*context \d+/\d+")
        here.ready()
        here.type("\x04")
        assert here.left() == 0
