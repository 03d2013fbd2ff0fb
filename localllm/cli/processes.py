"""`localllm ps` and `localllm stop`: the servers that run here."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from localllm import running
from localllm.cli import render
from localllm.errors import LocalllmError, NetworkError, UsageError
from localllm.gateway import control
from localllm.gateway.status import Status
from localllm.running import Running
from localllm.units import format_bytes

State = Literal["ready", "loading", "draining", "failed", "not answering"]
#: For all that comes after the last request: its llama-servers end (SIGKILL after 5 s,
#: engine/guarded.py), its logs are written.
GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.2
#: A gateway that runs takes a signal at once; one that hangs never does.
_HEED_SECONDS = 2.0
STYLES = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "failed": "bold red",
    "not answering": "bold red",
}


@dataclass(frozen=True)
class Server:
    """A server that runs, and what it says.

    Attributes:
        record: its file.
        status: None where it does not answer; `why` is then a sentence.
    """

    record: Running
    status: Status | None
    why: str = ""

    @classmethod
    def ask(cls, record: Running) -> Server:
        """Asks it."""
        try:
            return cls(record, control.fetch_status(record))
        except NetworkError as exc:
            return cls(record, None, exc.message)

    @property
    def state(self) -> State:
        """As a whole: ready as soon as one replica is."""
        return "not answering" if self.status is None else state_of(self.status)


def state_of(status: Status) -> State:
    """The state of all replicas together."""
    states = {replica.state for replica in status.replicas}
    if status.draining:
        return "draining"
    if "ready" in states:
        return "ready"
    return "failed" if states == {"failed"} else "loading"


def memory_bytes(status: Status) -> int:
    """Main memory of the gateway and its replicas, as far as it is known."""
    return (status.rss_bytes or 0) + sum(replica.rss_bytes or 0 for replica in status.replicas)


def format_age(seconds: float) -> str:
    """As in "3 d 4 h", "2 h 5 min", "12 min", "40 s"."""
    minutes = int(seconds) // 60
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{max(0, int(seconds))} s"


def run_ps(*, as_json: bool) -> None:
    """Prints every server that runs, by name."""
    servers = [Server.ask(record) for record in running.find_all()]
    if as_json:
        documents = [_document(server) for server in servers]
        render.print_json({"schema_version": 1, "servers": documents})
    elif servers:
        _print(servers)
    else:
        render.say("no server runs; to start one: localllm serve MODEL --background")


def _document(server: Server) -> dict[str, Any]:
    record = server.record.to_json()
    # How to talk to it is a secret of the file.
    for name in ("schema_version", "control_socket", "control_url", "control_token"):
        del record[name]
    return {
        **record,
        "state": server.state,
        "error": server.why or None,
        "status": server.status.to_json() if server.status else None,
    }


def _print(servers: list[Server]) -> None:
    from rich.text import Text

    from localllm.cli.columns import Column, fit_columns

    out = render.console(sys.stdout)
    rows = [_cells(server) for server in servers]
    names, models, urls, replicas, busy, waiting, speed, ages, memory = zip(*rows, strict=True)
    states = [Text(server.state, STYLES[server.state]) for server in servers]
    table = (
        Column("name", names, left=True),
        Column("model", models, rank=5, left=True),
        Column("url", urls, rank=1, left=True),
        Column("state", states, left=True),
        Column("replicas", replicas, rank=8),
        Column("busy", busy, rank=2),
        Column("waiting", waiting, rank=4),
        Column("tok/s", speed, rank=3),
        Column("up", ages, rank=7),
        Column("memory", memory, rank=6),
    )
    # In a pipe nobody sees columns.
    width = out.width if out.is_terminal else sys.maxsize
    for line in fit_columns(table, width):
        out.print(line, no_wrap=True, soft_wrap=not out.is_terminal)
    for server in servers:
        if server.why:
            render.say(server.why)


def _cells(server: Server) -> tuple[str, ...]:
    record, status = server.record, server.status
    first = (record.name, record.model, record.url)
    if status is None:
        age = format_age(time.time() - record.started_at)
        return (*first, "", "", "", "", age, "")
    replicas = status.replicas
    n_ready = sum(replica.state == "ready" for replica in replicas)
    n_busy = sum(replica.n_busy for replica in replicas)
    return (
        *first,
        f"{n_ready}/{len(replicas)}",
        f"{n_busy}/{sum(replica.n_slots for replica in replicas)}",
        str(status.n_waiting),
        f"{status.traffic.tokens_per_second:.1f}",
        format_age(status.now - status.started_at),
        format_bytes(memory_bytes(status) or None),
    )


def run_stop(name: str | None, *, every: bool, now: bool) -> None:
    """Stops the servers that are meant.

    Raises:
        UsageError: a name and --all.
        NotFoundError, UsageError: see running.find.
        LocalllmError: one has not ended in the time that it gives its requests.
    """
    if every and name is not None:
        raise UsageError("--all and a name contradict one another")
    records = running.find_all() if every else (running.find(name),)
    if not records:
        render.say("no server runs")
    for record in records:  # all drain at the same time
        _tell_to_stop(record, now=now)
    late = [record for record in records if not _ends(record, now=now)]
    if late:
        names = ", ".join(record.name for record in late)
        pids = " ".join(str(record.pid) for record in late)
        kill = f"kill -9 {pids} ends it at once, with its llama-servers"
        ask = "--now does not wait for its requests; "
        raise LocalllmError(f"not stopped in time: {names}", kill if now else ask + kill)


def _tell_to_stop(record: Running, *, now: bool) -> None:
    if record.control_socket is None:
        control.request_stop(record, now=now)
        return
    is_told = _is_draining(record)
    if now or not is_told:
        running.terminate(record)
    if now and not is_told:
        # Two signals of one kind that wait to be taken are one: the first must have been.
        deadline = time.monotonic() + _HEED_SECONDS
        while not _is_draining(record) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        running.terminate(record)


def _is_draining(record: Running) -> bool:
    status = Server.ask(record).status
    return status is not None and status.draining


def _ends(record: Running, *, now: bool) -> bool:
    """Waits until it is gone, or its time is over."""
    limit = GRACE_SECONDS
    if not now:
        limit = math.inf if record.drain_seconds == 0 else limit + record.drain_seconds
    began = time.monotonic()
    with progress(f"{record.name} is stopping") as show:
        while running.is_alive(record):
            seconds = time.monotonic() - began
            if seconds > limit:
                return False
            status = Server.ask(record).status
            n_left = status.n_running + status.n_waiting if status else 0
            rest = f", {n_left} request{'s' * (n_left != 1)} to finish" if n_left else ""
            show(f"{record.name} is stopping{rest} ({seconds:.0f} s)")
            time.sleep(_POLL_SECONDS)
    running.remove(record)  # one that was killed could not do it
    render.say(f"{record.name} has stopped")
    return True


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """A line that changes on a terminal, and a line off it; gives what changes it."""
    out = render.console(sys.stderr)
    if not out.is_terminal or out.is_dumb_terminal:
        render.say(text)
        yield lambda _: None
        return
    from rich.text import Text

    from localllm.cli.columns import cut

    def line(told: str) -> Text:
        return cut(Text(told), out.width - 3)  # beside the spinner

    with out.status(line(text)) as spinner:
        yield lambda told: spinner.update(line(told))
