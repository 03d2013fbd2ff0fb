"""Keys: who may use the server, and under which name it is logged, limited and counted.

Only SHA-256 digests are kept, so that no log, error or core dump of ours holds a key that works.
How many requests a key may make is told in limits.py.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from localllm.errors import AccessError, NotFoundError, UsageError

#: A file beyond it is not a list of keys but was named by mistake: a model, say.
_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[!-~]{8,512}")
_NAME_RULE = "a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -"
_KEY_RULE = "a key is 8 to 512 printable ASCII characters without blanks"
_MAKE_ONE = "openssl rand -hex 24 > {}"


class KeyRing:
    """The keys that open the server, each with a name; never empty.

    Args:
        keys: (place, name, key) of each. The place is for errors: "line 3". Without a name it is
            "key-N", N being its position among all of them.
        source: what to call the whole in errors.

    Raises:
        UsageError: no key at all, one that breaks the rules, or one that is there twice. The
            error says where and never quotes: what stands in a name's place may be a key.
    """

    def __init__(self, keys: Iterable[tuple[str, str | None, str]], source: str) -> None:
        self._digests: dict[str, bytes] = {}
        places: dict[str | bytes, str] = {}
        for number, (place, given, key) in enumerate(keys, start=1):
            name = f"key-{number}" if given is None else given
            if not _NAME.fullmatch(name):
                raise UsageError(f"{source}, {place}: the name is not one", _NAME_RULE)
            if not _KEY.fullmatch(key):
                raise UsageError(f"{source}, {place}: the key is not one", _KEY_RULE)
            digest = _digest(key)
            for what, value in (("name", name), ("key", digest)):
                if value in places:
                    raise UsageError(
                        f"{source}, {place}: the same {what} as {places[value]}",
                        "remove one of the two, or give each a name and a key of its own",
                    )
                places[value] = place
            self._digests[name] = digest
        if not self._digests:
            raise UsageError(f"{source} holds no key", _MAKE_ONE.format("FILE"))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all keys, in their order."""
        return tuple(self._digests)

    def find(self, presented: str) -> str | None:
        """The name of the key, or None where it is none of them.

        It takes as long for a wrong key as for a right one, wherever that stands: every digest is
        compared, and each comparison is constant in time.
        """
        digest = _digest(presented)
        found = None
        for name, of_key in self._digests.items():
            if hmac.compare_digest(digest, of_key):
                found = name
        return found

    def __repr__(self) -> str:
        return f"KeyRing({len(self._digests)} keys)"


def presented(headers: Mapping[str, str]) -> str | None:
    """The key that a request brings; None where it brings none.

    1. Authorization, with or without "Bearer " before the key, as llama-server takes it.
    2. X-Api-Key, which Anthropic's clients send.

    Args:
        headers: of the request, by names of any case (aiohttp's) or in this spelling.
    """
    for header in ("Authorization", "X-Api-Key"):
        value = headers.get(header, "").strip()
        if value[:7].lower() == "bearer " or value.lower() == "bearer":
            value = value[7:].strip()
        if value:
            return value
    return None


def parse_keys(text: str, name: str) -> KeyRing:
    """The keys of a key file: a line each, "KEY" or "NAME KEY".

    Empty lines count for nothing, nor does what follows a word's first character "#".

        # the team
        alice  2f0d5c1e9a7b4c38
        71c2ab09d1e84f56

    Raises:
        UsageError: a line that is neither, or see KeyRing.
    """
    return KeyRing(_lines(text, name), name)


def literal_keys(keys: Iterable[str], name: str) -> KeyRing:
    """Keys that were given one by one, named arg-1, arg-2 and so on, apart from those of a file.

    Raises:
        UsageError: see KeyRing.
    """
    return KeyRing(((f"key {n}", f"arg-{n}", key) for n, key in enumerate(keys, start=1)), name)


def read_keys(path: Path) -> tuple[KeyRing, tuple[str, ...]]:
    """The keys of a file, and warnings about it, a sentence each.

    Raises:
        NotFoundError: no such file.
        AccessError: it may not be read.
        UsageError: it cannot be read, is no text, or see parse_keys.
    """
    text, status = _read(path)
    return parse_keys(text, str(path)), _warnings(path, status)


def read_plain_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file themselves, without names, for a llama-server that asks for them itself.

    Raises:
        LocalllmError: see read_keys.
    """
    text, _ = _read(path)
    parse_keys(text, str(path))
    return tuple(key for *_, key in _lines(text, str(path)))


def _read(path: Path) -> tuple[str, os.stat_result]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_FILE_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no key file {path}", _MAKE_ONE.format(path)) from None
    except PermissionError:
        raise AccessError(
            f"the key file {path} may not be read", "make it readable for who runs the server"
        ) from None
    except OSError as exc:
        raise UsageError(f"cannot read the key file {path}: {exc.strerror}") from exc
    if len(content) > _FILE_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB: not a key file", "name a list of keys")
    try:
        # Windows editors put a mark before the first line.
        return content.decode("utf-8-sig"), status
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", "name a list of keys") from None


def _lines(text: str, name: str) -> Iterable[tuple[str, str | None, str]]:
    # Not splitlines() and split(): those break at more than a line's end and a blank, and half of
    # a broken key would be taken for a name, which is logged.
    for number, line in enumerate(text.split("\n"), start=1):
        words = re.split(r"[ \t]+", re.sub(r"(^|[ \t])#.*", "", line).strip(" \t\r"))
        if words == [""]:
            continue
        if len(words) > 2:
            raise UsageError(
                f"{name}, line {number}: {len(words)} words", "a line is KEY, or NAME KEY"
            )
        given = words[0] if len(words) == 2 else None
        yield f"line {number}", given, words[-1]


def _warnings(path: Path, status: os.stat_result) -> tuple[str, ...]:
    # A pipe (a shell's <(…)) has no modes worth a word, nor has a file on Windows.
    mode = stat.S_IMODE(status.st_mode)
    if os.name != "posix" or not stat.S_ISREG(status.st_mode) or not mode & 0o066:
        return ()
    return (f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}",)


def _digest(key: str) -> bytes:
    # aiohttp hands over bytes that are no UTF-8 as surrogates: a wrong key, and not an error.
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
