"""Bars for downloads: how far, how fast, how long still, and what is being verified.

Knows terminals. On none, a line now and then says the same.
"""

from __future__ import annotations

import math
import time
from typing import IO, TYPE_CHECKING

from localllm.cli import render
from localllm.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from localllm.pull import Step

#: Off a terminal: seconds between two lines.
_LINE_SECONDS = 10.0
#: The rate is of so many seconds past: long enough to stand still, short enough to be true.
_RATE_SECONDS = 5.0


class Bars:
    """A bar for each file that is worked on; use as a context manager.

    Args:
        stream: where to.
        quiet: nothing at all is shown.
    """

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stream = stream
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._meters: dict[str, _Meter] = {}
        self._said_at = float("-inf")
        self._said: tuple[str, str] | None = None

    def __enter__(self) -> Bars:
        console = render.console(self._stream)
        if not self._quiet and console.is_terminal and not console.is_dumb_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[told]}", markup=False),
            )
            self._progress = Progress(*columns, console=console, refresh_per_second=5)
            self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)

    def step(self, step: Step) -> None:
        """Shows where things stand."""
        if self._quiet:
            return
        meter = self._meters.setdefault(f"{step.doing} {step.file}", _Meter())
        meter.take(step.done_bytes, time.monotonic())
        told = _told(step, meter)
        if self._progress is None:
            self._say(step, told)
            return
        name = step.file.rpartition("/")[2]
        if len(name) > 40:
            name = f"{name[:18]}…{name[-21:]}"
        if step.file not in self._tasks:
            self._tasks[step.file] = self._progress.add_task(name, total=None, told="")
        self._progress.update(
            self._tasks[step.file],
            total=step.size_bytes or None,
            completed=step.done_bytes,
            told=told,
        )

    def _say(self, step: Step, told: str) -> None:
        is_done = step.done_bytes == step.size_bytes and step.hashed_bytes in (0, step.size_bytes)
        is_new = (step.file, step.doing) != self._said
        now = time.monotonic()
        if is_new or is_done or now - self._said_at >= _LINE_SECONDS:
            if is_done and not is_new and self._said_at == float("inf"):
                return
            self._said, self._said_at = (step.file, step.doing), now
            if is_done:
                self._said_at = float("inf")
            render.say(f"{step.file}: {told}")


class _Meter:
    """A rate over the last seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def take(self, done_bytes: int, now: float) -> None:
        """Notes where it stands."""
        self._marks.append((now, done_bytes))
        while len(self._marks) > 2 and now - self._marks[1][0] > _RATE_SECONDS:
            del self._marks[0]

    @property
    def bytes_per_second(self) -> float | None:
        """None until there is anything to tell."""
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - then) if now - then >= 0.5 else None


def _told(step: Step, meter: _Meter) -> str:
    """As in "45 %  2.4 of 5.3 GiB  85 MB/s  32 s left  4 connections"."""
    if step.doing == "waiting":
        return "another process is downloading it"
    share = step.done_bytes / step.size_bytes if step.size_bytes else 1.0
    parts = [f"{share:4.0%}", f"{format_bytes(step.done_bytes)} of {format_bytes(step.size_bytes)}"]
    rate = meter.bytes_per_second
    if step.doing == "downloading" and step.done_bytes == step.size_bytes:
        if step.hashed_bytes < step.size_bytes:
            return f"verifying the last {format_bytes(step.size_bytes - step.hashed_bytes)}"
        return f"{format_bytes(step.size_bytes)}, verified"
    if rate:
        parts.append(f"{rate / 1e6:.1f} MB/s")
        seconds = math.ceil((step.size_bytes - step.done_bytes) / rate)
        parts.append(f"{seconds} s left" if seconds < 60 else f"{format_seconds(seconds)} left")
    if step.doing != "downloading":
        parts.append(step.doing)
    elif step.n_connections > 1:
        parts.append(f"{step.n_connections} connections")
    if step.note:
        parts.append(f"({step.note})")
    return "  ".join(parts)
