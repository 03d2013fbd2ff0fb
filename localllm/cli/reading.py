"""What a person types: lines, messages of several lines, standard input, Ctrl-C.

Knows the keyboard and prompt_toolkit. Knows nothing of models and of what an answer looks like.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeVar

from localllm import paths
from localllm.cli.commands import COMMANDS, SETTINGS
from localllm.errors import LocalllmError, UsageError

_PROMPT, _MORE = "> ", "… "
_QUOTES = '"""'

T = TypeVar("T")


class Reader(Protocol):
    """Gives the next message."""

    def read(self) -> str:
        """The message, without the quotes of one of several lines.

        Raises:
            EOFError: the person leaves (Ctrl-D, or Ctrl-C where nothing is typed).
        """
        ...


def read_prompt(prompt: str | None) -> str | None:
    """The one prompt of a chat that is not interactive: `-p` and standard input together.

    1. `prompt`, an empty line and standard input, where that is not a terminal;
    2. whichever of the two there is;
    3. None where standard input is a terminal and no prompt was given: a conversation is wanted.

    Raises:
        UsageError: a prompt was meant but is empty.
    """
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        piped = _read_all().strip("\n")
    elif prompt is None and sys.stdin is not None:
        return None
    parts = [part for part in (_clean(prompt or ""), piped) if part.strip()]
    if not parts:
        raise UsageError(
            "there is no prompt: -p and standard input are both empty",
            'for example: localllm chat demo -p "What can you do?"',
        )
    return "\n\n".join(parts)


#: A pipe that nobody writes to and nobody closes (a service, a script's script) looks like a hang.
_SILENCE_SECONDS = 2.0


def _read_all() -> str:
    said = threading.Timer(_SILENCE_SECONDS, _tell_that_it_waits)
    said.daemon = True
    said.start()
    try:
        # Bytes of another encoding become U+FFFD rather than an error, whatever the locale says.
        has_bytes = hasattr(sys.stdin, "buffer")
        data = sys.stdin.buffer.read() if has_bytes else sys.stdin.read().encode()
    finally:
        said.cancel()
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n")


def _tell_that_it_waits() -> None:
    sys.stderr.write("localllm: reading standard input to its end (< /dev/null gives it none)\n")
    sys.stderr.flush()


def _clean(text: str) -> str:
    """The text without lone surrogates, which no request and no file could carry."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_open(text: str) -> bool:
    '''Whether a message began with """ and still waits for the closing ones.'''
    text = text.strip()
    return text.startswith(_QUOTES) and not (len(text) >= 6 and text.endswith(_QUOTES))


def unquote(text: str) -> str:
    '''The message between its """, or as it is; what was quoted is never a command.'''
    bare = text.strip()
    if not bare.startswith(_QUOTES):
        return bare
    bare = bare.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return "/" + bare if bare.startswith("/") else bare


def make_reader() -> Reader:
    """The best reader that this terminal can bear."""
    if os.environ.get("TERM", "") in {"dumb", "unknown"}:
        return DumbReader()
    return PromptReader()


class DumbReader:
    """Lines as the terminal's own line editing gives them."""

    def read(self) -> str:
        """The next message."""
        try:
            text = self._line(_PROMPT)
            while is_open(text):
                text += "\n" + self._line(_MORE)
        except KeyboardInterrupt:
            raise EOFError from None
        return unquote(_clean(text))

    def _line(self, prompt: str) -> str:
        # input() writes its prompt to standard output when that is piped; this one never does.
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return input()


class PromptReader:
    """Line editing with history and completion, by prompt_toolkit."""

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output import create_output

        words = [command.name for command in COMMANDS]
        words += [f"/set {setting.name} " for setting in SETTINGS]
        self._session: Any = PromptSession(
            history=_open_history(),
            multiline=True,  # Enter still sends, see below; pasted lines stay lines
            prompt_continuation=lambda width, number, wrapped: "" if wrapped else _MORE,
            key_bindings=_bind_keys(),
            completer=WordCompleter(
                words, sentence=True, meta_dict={c.name: c.help for c in COMMANDS}
            ),
            # Room for a menu is kept only while a command is typed.
            complete_while_typing=Condition(
                lambda: get_app().current_buffer.document.text.startswith("/")
            ),
            # Where standard output is piped the prompt goes to the terminal that errors go to.
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str:
        """The next message."""
        try:
            text = self._session.prompt(_PROMPT)
        except KeyboardInterrupt:
            raise EOFError from None
        return unquote(_clean(text))


def _bind_keys() -> Any:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    def send(event: Any) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state and state.current_completion:
            buffer.complete_state = None
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    def break_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    def leave_or_empty(event: Any) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError())

    keys.add("enter")(send)
    keys.add("escape", "enter")(break_line)
    keys.add("c-c")(leave_or_empty)
    return keys


def _open_history() -> Any:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    path = paths.state_dir() / "history"
    try:
        paths.private_folder(path.parent)
        # Made before prompt_toolkit would make it readable to others.
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)
    except (OSError, LocalllmError):
        return InMemoryHistory()
    return FileHistory(str(path))


@contextmanager
def silent_keyboard() -> Iterator[None]:
    """Typed keys are not shown for a while, so that they cannot stand in the midst of an answer.

    They are not lost: the next prompt reads them.
    """
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, OSError, ValueError, termios.error):
        yield  # no terminal, or no POSIX
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, silent)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


class Interrupts:
    """Ctrl-C, let through only while waiting for the model.

    While rows are drawn it is put off to the next wait, so that it never finds an escape
    sequence half written.
    """

    def __init__(self) -> None:
        self._is_waiting = False
        self._was_hit = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def next(self, items: Iterator[T]) -> T | None:
        """The next item, None at the end.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        self._is_waiting = True
        try:
            if self._was_hit:
                raise KeyboardInterrupt
            return next(items, None)
        finally:
            self._is_waiting = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._was_hit = True
        if self._is_waiting:
            raise KeyboardInterrupt
