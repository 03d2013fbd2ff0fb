"""A real `localllm serve` for a test: started as a person starts it, ended by its process."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from localllm import running
from localllm.gateway.control import fetch_status
from localllm.gateway.status import Status
from tests.conftest import PATIENCE_SECONDS, wait_until


class Served:
    """One running gateway.

    Attributes:
        process: its own; `children` are its llama-servers.
        home: its LOCALLLM_HOME.
        record: what it says of itself.
    """

    def __init__(
        self, *argv: str, home: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.printed = home / "serve.out"
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "localllm", "serve", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "LOCALLLM_HOME": str(home), **(environment or {})},
                start_new_session=True,
            )

    def wait_listening(self) -> None:
        """Until it answers at all."""
        wait_until(lambda: bool(self.gone or self.record_or_none), "the gateway to listen")
        assert not self.gone, self.output

    def wait_ready(self) -> Served:
        """Until a replica can answer."""
        self.wait_listening()
        wait_until(lambda: self.gone or self.is_ready, "a replica to be ready")
        assert not self.gone, self.output
        return self

    @property
    def gone(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self.printed.read_text(errors="replace")

    @property
    def record_or_none(self) -> running.Running | None:
        with _home(self.home):
            found = [r for r in running.find_all() if r.pid == self.process.pid and r.url]
        return found[0] if found else None

    @property
    def record(self) -> running.Running:
        record = self.record_or_none
        assert record is not None, self.output
        return record

    @property
    def record_path(self) -> Path:
        with _home(self.home):
            return self.record.path

    @property
    def url(self) -> str:
        return self.record.url

    @property
    def is_ready(self) -> bool:
        with contextlib.suppress(Exception):
            return any(replica.state == "ready" for replica in self.status.replicas)
        return False

    @property
    def status(self) -> Status:
        return fetch_status(self.record)

    @property
    def n_busy(self) -> int:
        return sum(replica.n_busy for replica in self.status.replicas)

    @property
    def children(self) -> list[psutil.Process]:
        """Its llama-servers (a guardian is between each and the gateway)."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if _name(child).startswith("llama-server")]

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client of it."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, **options)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a socket."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def talk(self, *pieces: bytes) -> bytes:
        """All that it answers to these bytes, sent one after another, until it hangs up."""
        with socket.create_connection(self.address, timeout=PATIENCE_SECONDS) as connection:
            received = b""
            with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
                for piece in pieces:
                    connection.sendall(piece)
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(1 << 16):
                    received += piece
            return received

    def log(self, name: str) -> str:
        """The text of a log: "access", "error", "performance"."""
        path = self.record.log_dir / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """Ends it, and makes sure that nothing of it is left."""
        left = [] if self.gone else psutil.Process(self.process.pid).children(recursive=True)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if not self.gone:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
        self.process.wait()
        _, alive = psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
        assert not alive, f"left behind: {alive}"


@dataclass(frozen=True)
class Answer:
    """One answer of HTTP, read from bytes.

    Attributes:
        headers: names in lower case, in their order, repeated ones too.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the only one of that name; None where there is none."""
        values = [value for of, value in self.headers if of == name]
        assert len(values) < 2, values
        return values[0] if values else None


def read_answers(raw: bytes, *, to_head: bool = False) -> list[Answer]:
    """The answers that a connection brought, one after another.

    Args:
        raw: every byte.
        to_head: they answer HEAD, and have no bodies.
    """
    connection: Any = _Recorded(raw)
    answers = []
    while connection.tell() < len(raw):
        response = http.client.HTTPResponse(connection, method="HEAD" if to_head else "GET")
        response.begin()
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        answers.append(Answer(response.status, headers, response.read()))
    return answers


class _Recorded(io.BytesIO):
    """What http.client takes for a socket."""

    def makefile(self, _: str) -> _Recorded:
        return self

    def close(self) -> None:
        """It goes on with the next answer."""


@contextlib.contextmanager
def served(
    *argv: str, environment: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[Served]:
    """A gateway on a free port, in a home of its own; ready inside, gone outside."""
    with tempfile.TemporaryDirectory(prefix="ll-") as folder:
        port = () if "--port" in argv else ("--port", "0")
        one = Served(*_with_port(argv, port), home=Path(folder), environment=environment)
        try:
            yield one.wait_ready() if ready else one
        finally:
            one.stop()


def _with_port(argv: tuple[str, ...], port: tuple[str, ...]) -> tuple[str, ...]:
    at = argv.index("--") if "--" in argv else len(argv)
    return (*argv[:at], *port, *argv[at:])


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    before = os.environ.get("LOCALLLM_HOME")
    os.environ["LOCALLLM_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOCALLLM_HOME"]
        else:
            os.environ["LOCALLLM_HOME"] = before


def seconds_until(condition: Any) -> float:
    """How long it took for a condition to come."""
    began = time.monotonic()
    wait_until(condition, "it")
    return time.monotonic() - began
