"""The slash commands of a chat: what they are called, what they take, what they do.

Knows a conversation and its settings. Knows nothing of terminals: what there is to say goes
through a function that it is handed.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localllm.chat import Conversation, Totals
from localllm.completion import Sampling
from localllm.errors import LocalllmError, NotFoundError, UsageError
from localllm.session import (
    SessionFile,
    check_session_name,
    load_transcript,
    save_transcript,
)

#: What the chat does after a command.
Next = Literal["prompt", "retry", "leave"]

_FILE_SUFFIXES = (".json", ".md", ".markdown", ".txt")


@dataclass(frozen=True)
class Command:
    """One slash command: its name, what it takes and what it is for."""

    name: str
    takes: str
    help: str


COMMANDS = (
    Command("/help", "", "this list"),
    Command("/clear", "", "begin a new conversation"),
    Command("/system", "[TEXT]", 'show or set the system prompt; "" removes it'),
    Command("/set", "[NAME [VALUE]]", "show or set how answers are sampled"),
    Command("/save", "NAME|FILE", "keep this as a session, or write a .json or .md file"),
    Command("/load", "NAME|FILE", "go on with a session, or with a .json file"),
    Command("/retry", "", "drop the last answer and ask again"),
    Command("/stats", "", "switch the line after each answer on or off; show totals"),
    Command("/bye", "", "leave (also /exit, /quit, Ctrl-D)"),
)
_ALIASES = {"/exit": "/bye", "/quit": "/bye", "/?": "/help"}


@dataclass(frozen=True)
class Setting:
    """One field of Sampling: its type, its bounds (both included) and what it does."""

    name: str
    type: type[int] | type[float]
    low: float
    high: float
    help: str


SETTINGS = (
    Setting("temperature", float, 0, 100, "0 always takes the likeliest token"),
    Setting("top_k", int, 0, 1_000_000, "draw from the k likeliest; 0 is all"),
    Setting("top_p", float, 0, 1, "draw from the likeliest that make up p; 1 is all"),
    Setting("min_p", float, 0, 1, "drop what is p times less likely than the best"),
    Setting("repeat_penalty", float, 0.01, 100, "1 is none"),
    Setting("seed", int, -1, 2**32 - 1, "the same seed gives the same answer; -1 is a new one"),
    Setting("max_tokens", int, 1, 2**31 - 1, "the longest answer"),
)


def parse_setting(name: str, value: str) -> tuple[str, int | float | None]:
    """The field of Sampling and its value; None for "default".

    Raises:
        UsageError: there is no such setting, or the value is out of its bounds.
    """
    key = name.lower().replace("-", "_")
    key = {"temp": "temperature", "n_predict": "max_tokens"}.get(key, key)
    setting = next((s for s in SETTINGS if s.name == key), None)
    if setting is None:
        names = [s.name for s in SETTINGS]
        near = difflib.get_close_matches(key, names, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"there is no setting {name!r}", hint)
    if value.lower() in {"default", "none"}:
        return key, None
    try:
        number = setting.type(value)
    except ValueError:
        number = math.nan
    if not setting.low <= number <= setting.high:
        kind = "a whole number" if setting.type is int else "a number"
        raise UsageError(
            f"{setting.name} cannot be {value!r}",
            f"give {kind} from {setting.low:g} to {setting.high:g}, or default",
        )
    return key, number


def is_command(text: str) -> bool:
    """Whether a message is a command: "/word", but neither "//" nor a path such as /etc/hosts."""
    words = text.split(maxsplit=1)
    return text.startswith("/") and "/" not in words[0][1:]


class Commands:
    """Runs slash commands on one conversation.

    Attributes:
        stats: whether a line of statistics follows each answer.
    """

    def __init__(
        self, conversation: Conversation, say: Callable[[str], None], *, stats: bool = False
    ) -> None:
        self._chat = conversation
        self._say = say
        self.stats = stats

    def run(self, line: str) -> Next:
        """Runs the command and says what comes next.

        Raises:
            UsageError: there is no such command, or not with these words.
            LocalllmError: it failed.
        """
        word, _, rest = line.strip().partition(" ")
        if "\n" in word:
            word, _, rest = line.strip().partition("\n")
        name = _ALIASES.get(word.lower(), word.lower())
        rest = rest.strip()
        if name == "/bye":
            return "leave"
        if name == "/retry":
            return "retry"
        runners: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/clear": self._clear,
            "/system": self._system,
            "/set": self._set,
            "/save": self._save,
            "/load": self._load,
            "/stats": self._show_stats,
        }
        if name not in runners:
            raise _unknown(word)
        runners[name](rest)
        return "prompt"

    def _help(self, _: str) -> None:
        rows = [(f"{c.name} {c.takes}".strip(), c.help) for c in COMMANDS]
        rows += [
            ('"""', "begins and ends a message of several lines (or Alt-Enter)"),
            ("//...", "sends a message that begins with a slash"),
            ("Ctrl-C", "stops an answer; at an empty prompt it leaves"),
        ]
        self._say("\n".join(f"{left:<21} {right}" for left, right in rows))

    def _clear(self, _: str) -> None:
        self._chat.clear()
        self._say("a new conversation")

    def _system(self, text: str) -> None:
        if not text:
            self._say(self._chat.system or "there is no system prompt")
            return
        if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
            text = text.strip(text[0])
        self._chat.system = text
        self._say("the system prompt is set" if text else "there is no system prompt now")

    def _set(self, text: str) -> None:
        words = text.replace("=", " ").split()
        if not words:
            self._say("\n".join(_describe(s, self._chat.sampling) for s in SETTINGS))
            return
        if len(words) > 2:
            raise UsageError("/set takes a name and a value", "for example: /set temperature 0.7")
        name, value = parse_setting(words[0], words[1] if len(words) == 2 else "default")
        setting = next(s for s in SETTINGS if s.name == name)
        if len(words) == 2:
            self._chat.sampling = _with(self._chat.sampling, name, value)
        self._say(_describe(setting, self._chat.sampling))

    def _save(self, text: str) -> None:
        words = _words(text)
        force = words[:1] == ["-f"]
        target = " ".join(words[1:] if force else words)
        if not target:
            session = self._chat.session
            if session is None:
                raise UsageError("/save needs a name or a file", "for example: /save plans")
            self._say(f"every turn is kept in the session {session.name}")
        elif path := _as_path(target):
            if path.exists() and not force:
                raise UsageError(f"{path} is there already", f"to replace it: /save -f {target}")
            save_transcript(path, self._chat.transcript())
            self._say(f"written to {path}")
        else:
            session = SessionFile.named(check_session_name(target))
            own = self._chat.session
            if session.exists() and not (own and own.path == session.path):
                if not force:
                    raise UsageError(
                        f"there is a session {session.name!r} already",
                        f"to go on with it: /load {target}; to replace it: /save -f {target}",
                    )
                session.load()  # a damaged one is not replaced
            elif own and own.path == session.path:
                session = own
            self._chat.keep_in(session)
            self._say(f"kept in the session {session.name}, with every turn from now on")

    def _load(self, text: str) -> None:
        target = " ".join(_words(text))
        if not target:
            raise UsageError("/load needs a name or a file", "for example: /load plans")
        if path := _as_path(target):
            if path.suffix.lower() in {".md", ".markdown", ".txt"}:
                raise UsageError(f"{path.name} is for reading only", "load the .json of it")
            self._chat.load(load_transcript(path))
        else:
            session = SessionFile.named(target)
            if not session.exists():
                raise NotFoundError(f"there is no session {target!r}", _known_sessions(session))
            self._chat.load(session.load(), session)
        n = len(self._chat.messages)
        self._say(f"going on after {n} message{'' if n == 1 else 's'}")

    def _show_stats(self, _: str) -> None:
        self.stats = not self.stats
        state = "on" if self.stats else "off"
        self._say(f"statistics are {state} · {format_totals(self._chat.totals)}")


def format_totals(totals: Totals) -> str:
    """What a conversation cost, in one line."""
    n = totals.n_replies
    parts = [
        f"{n} {'answer' if n == 1 else 'answers'}",
        f"{totals.n_tokens} tokens",
        f"prompts {totals.n_prompt_tokens} tokens, {totals.n_cached_tokens} cached",
    ]
    if totals.decode_seconds:
        parts.insert(2, f"{totals.n_decoded / totals.decode_seconds:.1f} tok/s")
    return " · ".join(parts)


def _with(sampling: Sampling, name: str, value: int | float | None) -> Sampling:
    changes: dict[str, int | float | None] = {name: value}
    return replace(sampling, **changes)  # type: ignore[arg-type]


def _describe(setting: Setting, sampling: Sampling) -> str:
    value = getattr(sampling, setting.name)
    return f"{setting.name:<15} {'default' if value is None else value:<9} {setting.help}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an apostrophe, most likely
        return text.split()


def _as_path(target: str) -> Path | None:
    looks_like_one = target.startswith(("~", ".")) or "/" in target or "\\" in target
    if looks_like_one or target.lower().endswith(_FILE_SUFFIXES):
        try:
            return Path(target).expanduser()
        except RuntimeError as exc:
            raise UsageError(f"{target} names no folder of anybody here") from exc
    return None


def _known_sessions(session: SessionFile) -> str | None:
    try:
        names = sorted(path.stem for path in session.path.parent.glob("*.json"))
    except OSError:
        names = []
    if not names:
        return "none was saved yet: /save NAME"
    near = difflib.get_close_matches(session.name, names, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names[:8])}"


def _unknown(word: str) -> LocalllmError:
    names = [command.name for command in COMMANDS] + list(_ALIASES)
    near = difflib.get_close_matches(word.lower(), names, 1, 0.5)
    return UsageError(
        f"there is no command {word}" + (f"; did you mean {near[0]}?" if near else ""),
        "/help lists the commands; begin with // to send a message that begins with a slash",
    )
