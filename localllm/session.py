"""Conversations kept on disk: a transcript as JSON, by name or by path, and as Markdown to read.

Knows names, files and their safety. Knows nothing of models and terminals.
"""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from localllm import paths
from localllm.completion import Message, Role
from localllm.errors import (
    AccessError,
    DiskError,
    IntegrityError,
    LocalllmError,
    NotFoundError,
    UsageError,
)

SCHEMA_VERSION = 1
#: A name becomes a file name; ext4, APFS and NTFS hold 255 bytes or UTF-16 units, suffix included.
_NAME_LIMIT_BYTES = 200
#: Far above any conversation; bounds what a wrong path can make us read.
_FILE_LIMIT_BYTES = 64 << 20
#: Learn.microsoft.com, "Naming Files, Paths, and Namespaces": reserved with any suffix too.
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"]
)


@dataclass(frozen=True)
class Transcript:
    """What was said, as it is kept.

    Attributes:
        messages: the turns in order, without the system prompt.
        system: the system prompt, empty when there is none.
        model: the name of the model that answered last, for the reader's information.
    """

    messages: tuple[Message, ...] = ()
    system: str = ""
    model: str = ""


def check_session_name(name: str) -> str:
    """The name in its normal form (NFC), if every file system can hold it as a file's name.

    Raises:
        UsageError: it is empty, too long, hidden, a device's name, or has a forbidden character.
    """
    name = unicodedata.normalize("NFC", name)
    why = None
    if not name.strip():
        why = "is empty"
    elif len(name.encode("utf-8", "replace")) > _NAME_LIMIT_BYTES:
        why = f"is longer than {_NAME_LIMIT_BYTES} bytes"
    elif name.startswith((".", "-", "~")):
        why = f"begins with {name[0]!r}"
    elif name != name.strip() or name.endswith("."):
        why = "begins or ends with a space or ends with a full stop"
    elif bad := next((c for c in name if not _may_be_in_a_name(c)), None):
        why = f"contains {bad!r}"
    elif name.split(".")[0].strip().lower() in _DEVICE_NAMES:
        why = "is the name of a device on Windows"
    if why is not None:
        raise UsageError(
            f"{name!r} cannot be a session's name: it {why}",
            "use letters, digits, spaces and dashes, for example: travel-plans",
        )
    return name


def _may_be_in_a_name(char: str) -> bool:
    # C: control, format (bidi overrides), surrogate, unassigned; Zl and Zp are line breaks.
    category = unicodedata.category(char)
    return not (category.startswith("C") or category in {"Zl", "Zp"} or char in '/\\:<>"|?*')


def sessions_dir() -> Path:
    """Where named sessions are."""
    return paths.data_dir() / "sessions"


def session_path(name: str) -> Path:
    """The file of the session of that name, which need not exist.

    Raises:
        UsageError: the name cannot be a session's.
    """
    return sessions_dir() / f"{check_session_name(name)}.json"


class SessionFile:
    """One file that a conversation is kept in, turn after turn.

    It remembers what it last read or wrote, so that a file that somebody else changed in the
    meantime (a second chat in the same session) is noticed and not overwritten.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._stamp: tuple[int, int, int] | None = None

    @classmethod
    def named(cls, name: str) -> SessionFile:
        """The session of that name; its folder is made, its file need not exist.

        Raises:
            UsageError: the name cannot be a session's.
            DiskError: the folder cannot be made.
        """
        path = session_path(name)
        paths.private_folder(path.parent)
        return cls(path, path.stem)

    def exists(self) -> bool:
        """Whether anything was kept under this name."""
        return self.path.exists()

    def load(self) -> Transcript:
        """What is kept; an empty transcript when nothing is.

        Raises:
            IntegrityError: the file is damaged. It is left as it is.
            AccessError, DiskError: it cannot be read.
        """
        if not self.exists():
            self._stamp = None
            return Transcript()
        transcript = load_transcript(self.path)
        self._stamp = self._stat()
        return transcript

    def save(self, transcript: Transcript) -> None:
        """Replaces what is kept, atomically.

        Raises:
            IntegrityError: somebody else changed the file since it was last read or written.
            DiskError, AccessError: it cannot be written.
        """
        if self._stat() != self._stamp:
            raise IntegrityError(
                f"the session {self.name!r} was changed by somebody else, so it was not saved",
                "keep this conversation under another name: /save NAME",
            )
        save_transcript(self.path, transcript)
        self._stamp = self._stat()

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def load_transcript(path: Path) -> Transcript:
    """Reads a transcript that `save_transcript` wrote as JSON.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: it is not a transcript, or a damaged one.
        AccessError, DiskError: it cannot be read.
    """
    try:
        if path.stat().st_size > _FILE_LIMIT_BYTES:
            raise _damaged(path, "it is too large to be a conversation")
        raw = path.read_bytes()
    except FileNotFoundError as exc:
        raise NotFoundError(f"there is no conversation at {path}") from exc
    except OSError as exc:
        raise _refused(path, "read", exc) from exc
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise _damaged(path, "it is not a complete JSON document") from exc
    return _parse(document, path)


def _parse(document: Any, path: Path) -> Transcript:
    if not isinstance(document, dict) or not isinstance(document.get("schema_version"), int):
        raise _damaged(path, "it has no schema_version")
    if document["schema_version"] != SCHEMA_VERSION:
        raise IntegrityError(
            f"{path} is a conversation of version {document['schema_version']},"
            f" and this localllm knows version {SCHEMA_VERSION}",
            "use the localllm that wrote it, or a newer one",
        )
    turns = document.get("messages")
    if not isinstance(turns, list):
        raise _damaged(path, "it has no list of messages")
    messages = []
    for index, turn in enumerate(turns):
        fields = turn if isinstance(turn, dict) else {}
        role, content = fields.get("role"), fields.get("content")
        reasoning = fields.get("reasoning", "")
        if (
            role not in ("user", "assistant")
            or not isinstance(content, str)
            or not isinstance(reasoning, str)
        ):
            raise _damaged(path, f"its message {index + 1} is not one")
        messages.append(Message(cast(Role, role), content, reasoning))
    system, model = document.get("system", ""), document.get("model", "")
    if not isinstance(system, str) or not isinstance(model, str):
        raise _damaged(path, "its system prompt or model is not text")
    return Transcript(tuple(messages), system, model)


def save_transcript(path: Path, transcript: Transcript) -> None:
    """Writes the transcript: JSON, or Markdown to read where the suffix is .md or .txt.

    The file is its owner's alone (0600) and is complete or absent: it is written beside its
    place, flushed to the disk and renamed.

    Raises:
        DiskError, AccessError: it cannot be written.
    """
    if path.suffix.lower() in {".md", ".markdown", ".txt"}:
        text = format_markdown(transcript)
    else:
        text = json.dumps(_to_json(transcript), ensure_ascii=False, indent=1) + "\n"
    try:
        _write_atomically(path, text.encode("utf-8", "replace"))
    except OSError as exc:
        raise _refused(path, "write", exc) from exc


def _to_json(transcript: Transcript) -> dict[str, Any]:
    messages = []
    for message in transcript.messages:
        turn = {"role": message.role, "content": message.content}
        if message.reasoning:
            turn["reasoning"] = message.reasoning
        messages.append(turn)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": transcript.model,
        "system": transcript.system,
        "messages": messages,
    }


def format_markdown(transcript: Transcript) -> str:
    """The transcript as a document for a person; reasoning is left out."""
    parts = [f"# A conversation with {transcript.model or 'a model'}\n"]
    if transcript.system:
        parts.append(f"## System\n\n{transcript.system.strip()}\n")
    for message in transcript.messages:
        heading = "You" if message.role == "user" else "Model"
        parts.append(f"## {heading}\n\n{message.content.strip()}\n")
    return "\n".join(parts)


def _write_atomically(path: Path, data: bytes) -> None:
    # mkstemp makes it 0600, and in the same folder, since rename does not cross file systems.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # without this the rename itself may not survive a power cut
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _damaged(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not a conversation that localllm can read: {why}",
        "it was left as it is; move it away, or use another name",
    )


def _refused(path: Path, verb: str, exc: OSError) -> LocalllmError:
    message = f"cannot {verb} {path}: {exc.strerror or exc}"
    if isinstance(exc, PermissionError):
        return AccessError(message, "choose a file of your own")
    return DiskError(message, "choose another place, or free some room on this disk")
