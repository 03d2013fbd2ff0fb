"""`localllm logs`: the last lines of a server's logs, and those that come.

Knows the files, their rotation, and what of each line a person wants to see
(gateway/logs.py writes them).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from localllm import running
from localllm.cli import render
from localllm.cli.screen import harmless
from localllm.errors import AccessError, NotFoundError, UsageError
from localllm.running import Running
from localllm.units import format_bytes, format_seconds

_POLL_SECONDS = 0.2
_BLOCK_BYTES = 1 << 16


def run(name: str | None, chosen: Sequence[str], *, n_lines: int, follow: bool, raw: bool) -> None:
    """Prints the last lines of a log, and with `follow` those that come, until Ctrl-C.

    Args:
        name: of a server that runs or ran; None is the only one that runs.
        chosen: "access", "error", "performance" or "engine"; none is "access".
        n_lines: how many of the last.
        follow: go on.
        raw: the lines as they are, on a terminal as well.

    Raises:
        UsageError: several logs. NotFoundError: no such server. AccessError: not for this user.
    """
    if len(chosen) > 1:
        raise UsageError(
            f"--{chosen[0]} and --{chosen[1]} contradict one another",
            "one log at a time; another terminal shows another one",
        )
    kind = chosen[0] if chosen else "access"
    record, folder = _find(name)
    if kind == "engine":
        if record is None:
            raise NotFoundError(
                f"{folder.name} does not run, and what its engine printed went with it",
                f"what it said last is with its errors: localllm logs {folder.name} --error --json",
            )
        living = record

        def find_files() -> Sequence[Path]:
            return running.engine_logs(living)
    else:

        def find_files() -> Sequence[Path]:
            return (folder / f"{kind}.log",)

    write = _writer(kind, raw=raw or not sys.stdout.isatty())
    tails: dict[Path, Tail] = {}
    for path in find_files():
        tails[path] = Tail(path)
        write(tails[path].last(n_lines))
    while follow:
        time.sleep(_POLL_SECONDS)
        for path in find_files():
            write(tails.setdefault(path, Tail(path)).new())


class Tail:
    """A log that others write and rotate: its last lines, then each new one, once and whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._offset = 0

    def last(self, n_lines: int) -> list[bytes]:
        """The last lines; older files (NAME.log.1 ...) are read where this one has too few."""
        self._open()
        lines: list[bytes] = []
        if self._file is not None:
            lines, self._offset = _last_lines(self._file, n_lines)
        number = 1
        while len(lines) < n_lines:
            try:
                with open(f"{self._path}.{number}", "rb") as older:
                    lines = _last_lines(older, n_lines - len(lines))[0] + lines
            except FileNotFoundError:
                break
            number += 1
        return lines

    def new(self) -> list[bytes]:
        """The lines that were finished since the last call."""
        lines = self._read()
        if self._is_replaced():
            lines += self._read()  # what was written between the look and the rotation
            self._close()
            self._open()
            lines += self._read()
        return lines

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        if os.fstat(self._file.fileno()).st_size < self._offset:
            self._offset = 0  # emptied in its place
        self._file.seek(self._offset)
        # A line that is still being written is read again when it is whole.
        *whole, _ = self._file.read().split(b"\n")
        self._offset += sum(len(line) + 1 for line in whole)
        return whole

    def _is_replaced(self) -> bool:
        try:
            now = self._path.stat()
        except OSError:
            return False  # between two names
        return self._file is None or not os.path.samestat(now, os.fstat(self._file.fileno()))

    def _open(self) -> None:
        self._offset = 0
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            self._file = None
        except PermissionError as exc:
            raise AccessError(f"cannot read {self._path}: {exc.strerror}") from exc

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _last_lines(file: IO[bytes], n_lines: int) -> tuple[list[bytes], int]:
    """The last whole lines, and where the last of them ends; read from the end."""
    start = file.seek(0, os.SEEK_END)
    data = b""
    while start > 0 and data.count(b"\n") <= n_lines:
        size = min(_BLOCK_BYTES, start)
        start -= size
        file.seek(start)
        data = file.read(size) + data
    *lines, _ = data.split(b"\n")
    end = start + sum(len(line) + 1 for line in lines)
    return (lines[-n_lines:] if n_lines else []), end


def _find(name: str | None) -> tuple[Running | None, Path]:
    """The server, where it runs, and the folder of its logs."""
    try:
        record = running.find(name)
    except NotFoundError as error:
        kept = running.logs_of("x").parent
        names = sorted(path.name for path in kept.glob("*") if path.is_dir())
        if name in names:
            return None, kept / name
        if not names:
            raise
        more = f"the logs of {', '.join(names)} are here"
        raise NotFoundError(error.message, more) from None
    return record, record.log_dir


def _writer(kind: str, *, raw: bool) -> Callable[[Sequence[bytes]], None]:
    if raw:

        def write_raw(lines: Sequence[bytes]) -> None:
            sys.stdout.buffer.writelines(line + b"\n" for line in lines)
            sys.stdout.buffer.flush()

        return write_raw
    pretty = Pretty(kind)

    def write(lines: Sequence[bytes]) -> None:
        for line in lines:
            pretty.write(line)

    return write


class Pretty:
    """Lines of one log on a terminal, one row each.

    Args:
        kind: of the log.
    """

    def __init__(self, kind: str) -> None:
        self._out = render.console(sys.stdout)
        self._told = {"access": _ACCESS, "performance": _PERFORMANCE}.get(kind)
        self._day = ""

    def write(self, line: bytes) -> None:
        """Shows a line; one that is no JSON as it is."""
        from rich.text import Text

        try:
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).astimezone()
        except (ValueError, KeyError, TypeError, AttributeError):
            self._out.print(Text(harmless(line.decode("utf-8", "replace"))), soft_wrap=True)
            return
        day = f"{at:%Y-%m-%d}"
        if day != self._day:
            self._day = day
            heading = f"{at:%m-%d}".ljust(len("00:00:00")) + f" {self._heading()}"
            self._out.print(Text(heading.rstrip(), "dim"), no_wrap=True, crop=True)
        if entry.get("lost"):
            self._out.print(Text(f"{entry['lost']} lines could not be written here", "dim"))
        row = f"{at:%H:%M:%S} {self._row(entry)}"
        # A row of its own for each, and no more: a JSON text may hold line breaks.
        text = Text(" ".join(harmless(row).split("\n")).rstrip(), _style(entry))
        self._out.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    def _heading(self) -> str:
        if self._told is None:
            return ""
        return " ".join(
            heading.rjust(width) if width > 0 else heading.ljust(-width)
            for heading, width, _ in self._told
        )

    def _row(self, entry: Mapping[str, Any]) -> str:
        if self._told is None:
            replica = f"replica {entry['replica']}: " if entry.get("replica") else ""
            return f"{entry.get('level', ''):7} {replica}{entry.get('what', '')}"
        cells = []
        for _, width, read in self._told:
            told = ""
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a newer localllm's line
                told = read(entry)
            cells.append(told.rjust(width) if width > 0 else f"{told[:-width]:{-width}}")
        return f"{' '.join(cells)} {entry.get('error', '')}"


def _style(entry: Mapping[str, Any]) -> str:
    status = entry.get("status")
    bad = isinstance(status, int) and status >= 500
    if bad or entry.get("level") == "error" or entry.get("outcome") == "failed":
        return "red"
    return "yellow" if entry.get("error") or entry.get("level") == "warning" else ""


def _ms(value: float | None) -> str:
    return "" if value is None else format_seconds(value / 1000)


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _route(entry: Mapping[str, Any]) -> str:
    route = entry["path"] if entry["route"] == "other" else entry["route"]
    return str(route).removeprefix("/v1/")


#: Heading, width (negative: to the left), and what of an entry it shows; 79 columns in all.
_ACCESS: tuple[tuple[str, int, Callable[[Mapping[str, Any]], str]], ...] = (
    ("key", -8, lambda entry: entry["key"]),
    ("route", -17, _route),
    ("code", 4, lambda entry: _number(entry["status"])),
    ("queue", 7, lambda entry: _ms(entry["queue_ms"])),
    ("ttft", 7, lambda entry: _ms(entry["ttft_ms"])),
    ("tokens", 6, lambda entry: _number(entry["n_tokens"])),
    ("tok/s", 6, lambda entry: _number(entry["tokens_per_second"], 1)),
    ("total", 8, lambda entry: _ms(entry["total_ms"])),
)
_PERFORMANCE: tuple[tuple[str, int, Callable[[Mapping[str, Any]], str]], ...] = (
    ("done", 6, lambda entry: _number(entry["requests"])),
    ("refused", 7, lambda entry: _number(entry["refused"])),
    ("failed", 6, lambda entry: _number(entry["failed"])),
    ("waiting", 7, lambda entry: _number(entry["waiting"])),
    ("slots", 7, lambda entry: f"{entry['slots_busy']}/{entry['slots']}"),
    ("tok/s", 7, lambda entry: _number(entry["tokens_per_second"], 1)),
    ("ttft p50", 8, lambda entry: _ms(entry["ttft_ms"]["p50"])),
    ("ttft p99", 8, lambda entry: _ms(entry["ttft_ms"]["p99"])),
    ("memory", 8, lambda entry: _memory(entry)),
)


def _memory(entry: Mapping[str, Any]) -> str:
    replicas = sum(replica["rss_bytes"] or 0 for replica in entry["replicas"])
    return format_bytes((entry["rss_bytes"] or 0) + replicas)
