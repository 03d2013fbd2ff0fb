"""access.log, error.log and performance.log: JSON lines in one folder, bounded on the disk.

Knows files. One thread writes, so that neither a slow disk nor a full one stops the event loop;
whoever logs only puts a line into a bounded queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from localllm.errors import DiskError
from localllm.gateway.exchange import Exchange
from localllm.gateway.settings import Settings
from localllm.gateway.status import Percentiles, Status
from localllm.paths import private_folder
from localllm.units import KIB, MIB

#: Lines that wait for the disk: some 20,000 of access.log.
_QUEUED_BYTES = 8 * MIB
#: Of a text that a client may make as long as it likes.
_TEXT_LENGTH = 1000
#: Of a body, in characters: as JSON they take 0.5 ms of the event loop, and 2 ms in Chinese.
_BODY_LENGTH = 256 * KIB
#: Of an error's detail, such as the end of the engine's log.
_DETAIL_LENGTH = 8 * KIB
_CLOSE_SECONDS = 2.0


class Logs:
    """The three logs; an Observer. Nothing here raises or waits but the making and `close`.

    A line that finds no room in the queue or on the disk is lost. It is counted, and the next
    line of the same log that is written begins with `"lost": n`.

    Args:
        folder: where the logs go; it is made, for its owner alone.
        settings: log_bytes and log_files count; see `changed`.

    Raises:
        DiskError: the folder cannot be made.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        private_folder(folder)
        self._files = {
            name: _LogFile(folder / f"{name}.log", settings.log_bytes, settings.log_files)
            for name in ("access", "error", "performance")
        }
        self._recent: deque[tuple[float, str]] = deque(maxlen=20)
        self._lines: deque[tuple[_LogFile, bytes]] = deque()
        self._queued_bytes = 0
        self._reopen = self._closed = False
        self._peak_bytes = 0
        self._due = threading.Condition()
        # A daemon: a disk that hangs must not keep the process from leaving.
        self._writer = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._writer.start()

    def changed(self, settings: Settings) -> None:
        """Takes over how large the files become and how many are kept."""
        for file in self._files.values():
            file.most_bytes, file.most_files = settings.log_bytes, settings.log_files

    def reopen(self) -> None:
        """Opens the files anew; one that was moved or deleted is noticed without this, too."""
        with self._due:
            self._reopen = True
            self._due.notify()

    def close(self) -> None:
        """Writes what is left, for two seconds at most. Later lines are lost."""
        with self._due:
            self._closed = True
            self._due.notify()
        self._writer.join(_CLOSE_SECONDS)

    @property
    def lost_lines(self) -> int:
        """Lines that could not be written since the beginning, of all logs."""
        return sum(file.lost_lines for file in self._files.values())

    @property
    def recent_errors(self) -> tuple[tuple[float, str], ...]:
        """The last 20 lines of error.log, newest last, as (Unix time, sentence)."""
        with self._due:
            return tuple(self._recent)

    def ended(self, exchange: Exchange) -> None:
        """Writes a line of access.log; see Observer.

        `time` is the request's arrival; a line is written when the answer has ended. `body` is
        there where the exchange has one, its first 256 Ki characters: received_bytes tells of more.
        """
        rate = exchange.tokens_per_second
        line: dict[str, Any] = {
            "time": _iso(exchange.arrived_at),
            "id": exchange.id,
            "client": exchange.client,
            "key": exchange.key,
            "method": exchange.method[:_TEXT_LENGTH],
            "path": exchange.path.partition("?")[0][:_TEXT_LENGTH],
            "route": exchange.route,
            "model": exchange.model[:_TEXT_LENGTH],
            "replica": exchange.replica,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "error": exchange.error[:_TEXT_LENGTH],
            "attempts": exchange.attempts,
            "stream": exchange.streams,
            "received_bytes": exchange.received_bytes,
            "sent_bytes": exchange.sent_bytes,
            "queue_ms": _ms(exchange.queue_seconds),
            "ttft_ms": _ms(exchange.ttft_seconds),
            "total_ms": _ms(exchange.total_seconds),
            "n_prompt": exchange.n_prompt,
            "n_cached": exchange.n_cached,
            "n_tokens": exchange.n_tokens,
            "tokens_per_second": None if rate is None else round(rate, 2),
        }
        if exchange.body is not None:
            line["body"] = exchange.body[:_BODY_LENGTH]
        self._put("access", line)

    def error(
        self, what: str, *, replica: str = "", detail: str = "", level: str = "error"
    ) -> None:
        """Writes a line of error.log.

        Args:
            what: a sentence.
            replica: the name of the one that it is about.
            detail: more lines, such as the end of the engine's log; the last 8 KiB are kept.
            level: "error", "warning" or "info".
        """
        now, what = time.time(), what[:_TEXT_LENGTH]
        with self._due:
            self._recent.append((now, what))
        line = {
            "time": _iso(now),
            "level": level,
            "what": what,
            "replica": replica,
            "detail": detail[-_DETAIL_LENGTH:],
        }
        self._put("error", line)

    def performance(self, status: Status) -> None:
        """Writes a line of performance.log: what the gateway does now and did lately."""
        traffic = status.traffic
        self._peak_bytes = max(self._peak_bytes, status.rss_bytes or 0)
        line = {
            "time": _iso(status.now),
            "seconds": round(traffic.seconds, 1),
            "requests": traffic.n_requests,
            "refused": traffic.n_refused,
            "failed": traffic.n_failed,
            "left": traffic.n_left,
            "tokens_per_second": round(traffic.tokens_per_second, 2),
            "prompt_tokens_per_second": round(traffic.prompt_tokens_per_second, 2),
            "queue_ms": _percentiles(traffic.queue_seconds),
            "ttft_ms": _percentiles(traffic.ttft_seconds),
            "token_ms": _percentiles(traffic.seconds_per_token),
            "total_ms": _percentiles(traffic.total_seconds),
            "waiting": status.n_waiting,
            "running": status.n_running,
            "slots_busy": sum(replica.n_busy for replica in status.replicas),
            "slots": sum(replica.n_slots for replica in status.replicas),
            "rss_bytes": status.rss_bytes,
            "rss_peak_bytes": self._peak_bytes or None,
            "replicas": [
                {
                    "name": replica.name,
                    "state": replica.state,
                    "slots_busy": replica.n_busy,
                    "slots": replica.n_slots,
                    "restarts": replica.restarts,
                    "load_seconds": replica.load_seconds,
                    "rss_bytes": replica.rss_bytes,
                    "rss_peak_bytes": replica.rss_peak_bytes,
                    "gpu_bytes": dict(replica.gpu_bytes),
                }
                for replica in status.replicas
            ],
            "gpus": [asdict(gpu) for gpu in status.gpus],
        }
        self._put("performance", line)

    def _put(self, name: str, line: Mapping[str, Any]) -> None:
        # JSON in ASCII: no control character, separator of Unicode or half a surrogate gets out.
        raw = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        file = self._files[name]
        with self._due:
            if self._closed or self._queued_bytes + len(raw) > _QUEUED_BYTES:
                file.lose()
                return
            self._lines.append((file, raw))
            self._queued_bytes += len(raw)
            self._due.notify()

    def _write_all(self) -> None:
        """The writer thread: until `close`, and then what is left."""
        while True:
            with self._due:
                self._due.wait_for(lambda: self._lines or self._reopen or self._closed)
                lines, self._lines = self._lines, deque()
                self._queued_bytes = 0
                reopen, self._reopen = self._reopen, False
                closed = self._closed
            if reopen:
                self._close_files()
            for file, raw in lines:
                trouble = file.write(raw)
                if trouble:
                    self.error(f"{file.path} cannot be written: {trouble}")
            if closed:
                self._close_files()
                return

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()


class _LogFile:
    """A file that grows by lines, is rotated by size, and comes back when it was taken away.

    Attributes:
        path: NAME.log; NAME.log.1 is the one before it, and so on.
        most_bytes: of each file. most_files: of all, NAME.log with them.
        lost_lines: since the beginning.
    """

    def __init__(self, path: Path, most_bytes: int, most_files: int) -> None:
        self.path, self.most_bytes, self.most_files = path, most_bytes, most_files
        self.lost_lines = 0
        self._told = 0
        self._fails = False
        self._file: Any = None
        self._lock = threading.Lock()

    def lose(self) -> None:
        """Counts a line that was not written."""
        with self._lock:
            self.lost_lines += 1

    def write(self, raw: bytes) -> str:
        """Appends a line. What is wrong, where that is new; else nothing."""
        lost = self.lost_lines
        if lost > self._told:
            raw = b'{"lost":%d,' % (lost - self._told) + raw[1:]
        try:
            self._append(raw)
        except (OSError, DiskError) as exc:
            self.lose()
            self.close()
            is_new, self._fails = not self._fails, True
            return (getattr(exc, "strerror", None) or str(exc)) if is_new else ""
        self._fails = False
        self._told = lost
        return ""

    def close(self) -> None:
        """Until the next line."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _append(self, raw: bytes) -> None:
        if self._file is not None and self._is_gone():
            self.close()
        if self._file is None:
            self._open()
        size = os.fstat(self._file.fileno()).st_size
        if size and size + len(raw) > self.most_bytes:
            self.close()
            self._rotate()
            self._open()
            size = 0
        try:
            # A disk that is full takes a part, and refuses the rest at the next call.
            written = 0
            while written < len(raw):
                written += self._file.write(raw[written:])
        except OSError:
            with contextlib.suppress(OSError):  # half a line must not spoil the next one
                self._file.truncate(size)
            raise

    def _is_gone(self) -> bool:
        """Somebody else moved or deleted it."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(now, os.fstat(self._file.fileno()))

    def _open(self) -> None:
        private_folder(self.path.parent)
        self._file = open(self.path, "ab", buffering=0, opener=_private)  # noqa: SIM115

    def _rotate(self) -> None:
        """NAME.log becomes NAME.log.1, and so on; the oldest go, also after most_files fell."""
        for old in self.path.parent.glob(self.path.name + ".*"):
            suffix = old.suffix[1:]
            if suffix.isdecimal() and int(suffix) >= self.most_files - 1:
                old.unlink()
        for number in range(self.most_files - 2, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._old(number), self._old(number + 1))
        if self.most_files > 1:
            os.replace(self.path, self._old(1))
        else:
            self.path.unlink()

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _iso(unix_seconds: float) -> str:
    """2026-11-20T19:07:02.123Z."""
    at = datetime.fromtimestamp(unix_seconds, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _percentiles(of: Percentiles) -> dict[str, float | None]:
    return {"n": of.n, "p50": _ms(of.p50), "p90": _ms(of.p90), "p99": _ms(of.p99)}
