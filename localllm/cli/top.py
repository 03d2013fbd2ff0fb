"""`localllm top`: one server, live.

What is shown is a function of a Status and a window's size (`draw`); around it a loop asks the
server once a second and looks for a key.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.text import Text

from localllm import running
from localllm.cli import render
from localllm.cli.columns import Column, cut, fit_columns, text
from localllm.cli.processes import STYLES, format_age, memory_bytes, state_of
from localllm.errors import LocalllmError
from localllm.gateway import control
from localllm.gateway.status import Percentiles, ReplicaStatus, Status
from localllm.units import format_bytes, format_seconds

_REFRESH_SECONDS = 1.0
#: Between two looks at the keyboard and at the window's size.
_KEY_SECONDS = 0.1
#: Of tokens per second, one a refresh: as much as the widest window shows.
_N_HISTORY = 180
_N_ERRORS = 8
_BAR_CELLS = 10
#: Replicas with more slots than this have a bar of that length.
_SLOT_CELLS = 8
_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class View:
    """What there is to show.

    Attributes:
        status: the last that was heard.
        history: tokens per second, the oldest first.
        lost: why nothing newer was heard, a sentence; empty while the server answers.
    """

    status: Status
    history: Sequence[float] = ()
    lost: str = ""


@dataclass(frozen=True)
class Section:
    """Some rows that belong together.

    Attributes:
        rows: to show.
        least: how many of them stay when the window is low.
    """

    rows: Sequence[Text]
    least: int = 0


def run(name: str | None, *, once: bool, as_json: bool) -> None:
    """Shows a server until q or Ctrl-C; once, where there is no terminal to show it on.

    Raises:
        NotFoundError, UsageError: see running.find. NetworkError: it does not answer.
    """
    record = running.find(name)
    status = control.fetch_status(record)
    if as_json:
        render.print_json(status.to_json())
        return
    out = render.console(sys.stdout)
    if once or not out.is_terminal or out.is_dumb_terminal:
        for row in draw(View(status), out.width):
            out.print(row, soft_wrap=True)
        return
    with contextlib.suppress(KeyboardInterrupt):
        _watch(Watch(record.name, status), out)


@dataclass
class Watch:
    """What was heard of one server, by its name: it may go, and come back as another process."""

    name: str
    status: Status
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_N_HISTORY))
    lost: str = ""

    def look(self) -> View:
        """Asks once more."""
        try:
            self.status = control.fetch_status(running.find(self.name))
            self.lost = ""
            self.history.append(self.status.traffic.tokens_per_second)
        except LocalllmError as error:
            ago = format_age(time.time() - self.status.now)
            self.lost = f"{error.message}; this is {ago} old"
        return View(self.status, tuple(self.history), self.lost)


def _watch(watch: Watch, out: Any) -> None:
    from rich.live import Live

    with _keyboard() as read_key, Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            view = watch.look()
            due = time.monotonic() + _REFRESH_SECONDS
            size = None
            while time.monotonic() < due:
                if out.size != size:
                    size = out.size
                    live.update(Group(*draw(view, size.width, size.height)), refresh=True)
                if read_key(_KEY_SECONDS) in ("q", "Q"):
                    return


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """Gives a function that waits so many seconds for a key; "" where none came."""
    if sys.platform == "win32":
        import msvcrt

        def read_windows(seconds: float) -> str:
            time.sleep(seconds)
            return msvcrt.getwch() if msvcrt.kbhit() else ""

        yield read_windows
        return
    import os
    import select
    import termios
    import tty

    if not sys.stdin.isatty():

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    keyboard = sys.stdin.fileno()

    def read(seconds: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        return os.read(keyboard, 1).decode("ascii", "ignore") if ready else ""

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)  # keys come at once and unseen; Ctrl-C stays what it is
    try:
        yield read
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def draw(view: View, width: int, height: int = sys.maxsize) -> list[Text]:
    """The rows, each at most `width` columns, at most `height` of them."""
    status = view.status
    sections = [
        Section(_head(view, width), least=2),
        Section(_load(view, width), least=2),
        Section(_replicas(status, width), least=2),
        Section(_percentiles(status, width), least=5),
        Section(_gpus(status, width), least=0),
        Section(_errors(status, width), least=2),
    ]
    return [cut(row, width) for row in _fit([each for each in sections if each.rows], height)]


def _fit(sections: Sequence[Section], height: int) -> list[Text]:
    """The sections one below the other, with an empty row between them where there is room."""
    n_rows = sum(len(section.rows) for section in sections)
    if n_rows + len(sections) - 1 <= height:
        return [row for section in sections for row in (Text(), *section.rows)][1:]
    shown = [list(section.rows) for section in sections]
    for rows, section in zip(reversed(shown), reversed(sections), strict=True):
        surplus = sum(map(len, shown)) - height
        if surplus > 0:
            del rows[max(section.least, len(rows) - surplus) :]
    return [row for rows in shown for row in rows][:height]


def _head(view: View, width: int) -> list[Text]:
    status = view.status
    state = state_of(status)
    n_ready = sum(replica.state == "ready" for replica in status.replicas)
    # The most important first: what finds no room is left out.
    parts = [
        Text(f"{n_ready} of {len(status.replicas)} replicas ready"),
        text(status.url),
        Text(f"up {format_age(status.now - status.started_at)}"),
        Text(format_bytes(memory_bytes(status) or None)),
        text(f"localllm {status.version}"),
        Text(f"pid {status.pid}"),
    ]
    first = Text.assemble(
        (text(status.name).plain, "bold"), "  ", (state, STYLES[state] if not view.lost else "dim")
    )
    for part in parts:
        if first.cell_len + 2 + part.cell_len <= width:
            first.append("  ").append_text(part)
    rows = [first, text(status.model)]
    if view.lost:
        rows.insert(1, Text(text(view.lost).plain, "bold red"))
    return rows


def _load(view: View, width: int) -> list[Text]:
    """What waits, what runs and how fast."""
    status, traffic = view.status, view.status.traffic
    n_slots = sum(replica.n_slots for replica in status.replicas)
    n_busy = sum(replica.n_busy for replica in status.replicas)
    queue = Text.assemble(
        "queue   ",
        _bar(status.n_waiting, status.queue_limit, _BAR_CELLS, "yellow"),
        f" {status.n_waiting} of {status.queue_limit}   slots ",
        _bar(n_busy, n_slots, _BAR_CELLS, "green"),
        f" {n_busy} of {n_slots} busy",
    )
    speed = Text(f"tokens  {traffic.tokens_per_second:.1f}/s")
    prompts = f"   prompts {traffic.prompt_tokens_per_second:.0f}/s"
    room = width - speed.cell_len - len(prompts) - 1
    if view.history and room > 0:
        speed.append(" ").append(sparkline(view.history[-room:]), "green")
    speed.append(prompts)
    counts = Text.assemble(
        f"last {format_age(traffic.seconds)}   {traffic.n_requests} requests",
        *(
            (f"   {n} {what}", style if n else "dim")
            for n, what, style in (
                (traffic.n_failed, "failed", "red"),
                (traffic.n_refused, "refused", "yellow"),
                (traffic.n_left, "left", ""),
            )
        ),
    )
    return [queue, speed, counts]


def _bar(n: int, of: int, cells: int, style: str) -> Text:
    """Anything at all is at least one cell, and only what is full looks full."""
    cells = max(1, cells)
    full = 0 if of <= 0 else min(cells, n * cells // of)
    if n > 0:
        full = max(1, full)
    return Text.assemble(("█" * full, style), ("░" * (cells - full), "dim"))


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, its height the share of the greatest."""
    most = max(values, default=0.0)
    if most <= 0:
        return _SPARKS[0] * len(values)
    top = len(_SPARKS) - 1
    return "".join(_SPARKS[round(max(0.0, value) / most * top)] for value in values)


def _replicas(status: Status, width: int) -> list[Text]:
    """A row for each, then what is to be told of any."""
    # Those that want looking at first: a low window may not show all.
    replicas = sorted(status.replicas, key=lambda replica: replica.state == "ready")
    table = (
        Column("replica", [replica.name for replica in replicas], left=True),
        Column("state", [Text(each.state, STYLES[each.state]) for each in replicas], left=True),
        Column("slots", [_slots(replica) for replica in replicas], left=True),
        Column("restarts", [str(replica.restarts) for replica in replicas], rank=1),
        Column("memory", [_bytes(replica.rss_bytes) for replica in replicas], rank=2),
        Column("peak", [_bytes(replica.rss_peak_bytes) for replica in replicas], rank=6),
        Column("GPU", [_gpu_bytes(replica) for replica in replicas], rank=3),
        Column("load", [_seconds(replica.load_seconds) for replica in replicas], rank=4),
        Column("up", [_ready_for(replica, status.now) for replica in replicas], rank=7),
        Column("pid", [str(replica.pid or "") for replica in replicas], rank=5),
    )
    rows = fit_columns(table, width)
    for replica in replicas:
        if replica.last_error:
            told = text(f"replica {replica.name}: {replica.last_error}").plain
            rows.append(Text(told, "red"))
        if replica.concessions:
            gave_up = ", ".join(replica.concessions)
            rows.append(Text(text(f"replica {replica.name} gave up: {gave_up}").plain, "yellow"))
    return rows


def _slots(replica: ReplicaStatus) -> Text:
    bar = _bar(replica.n_busy, replica.n_slots, min(_SLOT_CELLS, replica.n_slots), "green")
    return bar.append(f" {replica.n_busy}/{replica.n_slots}")


def _gpu_bytes(replica: ReplicaStatus) -> str:
    return _bytes(sum(replica.gpu_bytes.values())) if replica.gpu_bytes else ""


def _ready_for(replica: ReplicaStatus, now: float) -> str:
    return "" if replica.ready_since is None else format_age(now - replica.ready_since)


def _bytes(n_bytes: int | None) -> str:
    return "" if n_bytes is None else format_bytes(n_bytes)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else format_seconds(seconds)


def _percentiles(status: Status, width: int) -> list[Text]:
    traffic = status.traffic
    measures: dict[str, Percentiles] = {
        "in the queue": traffic.queue_seconds,
        "first token": traffic.ttft_seconds,
        "each token": traffic.seconds_per_token,
        "whole answer": traffic.total_seconds,
    }
    of = measures.values()
    table = (
        Column("", list(measures), left=True),
        Column("P50", [_seconds(each.p50) or "-" for each in of]),
        Column("P90", [_seconds(each.p90) or "-" for each in of]),
        Column("P99", [_seconds(each.p99) or "-" for each in of]),
        Column("of", [str(each.n) for each in of], rank=1),
    )
    return fit_columns(table, width)


def _gpus(status: Status, width: int) -> list[Text]:
    if not status.gpus:
        return []
    table = (
        Column("GPU", [gpu.name for gpu in status.gpus], left=True),
        Column(
            "computes",
            ["" if gpu.utilization is None else f"{gpu.utilization:.0%}" for gpu in status.gpus],
        ),
        Column("memory", [_bytes(gpu.used_bytes) for gpu in status.gpus]),
        Column("of", [_bytes(gpu.total_bytes) for gpu in status.gpus]),
    )
    return fit_columns(table, width)


def _errors(status: Status, width: int) -> list[Text]:
    """The newest first."""
    if not status.errors:
        return []
    rows = [Text("last errors", "dim")]
    for at, what in reversed(status.errors[-_N_ERRORS:]):
        rows.append(Text(f"{datetime.fromtimestamp(at):%H:%M:%S} {text(what).plain}"))
    return rows
