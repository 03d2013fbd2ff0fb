"""Runs llama-server as a child for one plan: private socket, private key, no orphan, ever.

What keeps it from outliving us is guarded.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.engine.argv import child_environment, server_argv
from localllm.engine.client import http_client
from localllm.engine.endpoint import Endpoint, free_port
from localllm.engine.failure import explain_load_failure
from localllm.engine.guarded import GRACE_SECONDS, Guarded, make_run_dir, sweep
from localllm.engine.locate import SERVER, Tools
from localllm.errors import EngineError, LocalllmError
from localllm.plan import Plan

if TYPE_CHECKING:
    import httpx

_POLL_SECONDS = 0.02
_HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX") and sys.platform != "win32"


class LlamaServer:
    """One llama-server and one model; a context manager that is ready inside and gone outside.

    Args:
        tools: where llama-server is.
        plan: what to run.
        extra_argv: more of llama-server's own arguments.
        environment: variables beside the plan's own, such as which GPUs it may see.
        ui: with its web page.
        load_timeout_seconds: how long loading may take; a big model on a slow disk takes minutes.

    Raises (on entering):
        EngineError, IntegrityError: it did not come up; the sentence says why.
    """

    def __init__(
        self,
        tools: Tools,
        plan: Plan,
        *,
        extra_argv: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        ui: bool = False,
        load_timeout_seconds: float = 1800.0,
    ) -> None:
        self._program = str(tools.path(SERVER))
        self._plan = plan
        self._extra_argv = (*(() if ui else ("--no-ui",)), *extra_argv)
        self._environment = dict(environment or {})
        self._load_timeout = load_timeout_seconds
        self._run_dir: Path | None = None
        self._child: Guarded | None = None
        self.endpoint: Endpoint | None = None

    def __enter__(self) -> LlamaServer:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Spawns the child; returns at once. The address is known, the model is not loaded."""
        sweep()
        self._run_dir = make_run_dir()
        key = secrets.token_urlsafe(24)
        if _HAS_UNIX_SOCKETS:
            address = ["--host", str(self._run_dir / "llama.sock"), "--port", "1"]
            self.endpoint = Endpoint("http://engine", str(self._run_dir / "llama.sock"), key)
        else:
            port = free_port()
            address = ["--host", "127.0.0.1", "--port", str(port)]
            self.endpoint = Endpoint(f"http://127.0.0.1:{port}", None, key)
        argv = [*server_argv(self._plan, self._program), *address, *self._extra_argv]
        # The key travels in the environment: a command line is there for everybody to read.
        secret = {"LLAMA_API_KEY": key}
        environment = child_environment(self._plan, os.environ) | self._environment | secret
        self._child = Guarded(argv, self._run_dir, environment)

    def wait_ready(self) -> None:
        """Blocks until the model is loaded and the server answers."""
        deadline = time.monotonic() + self._load_timeout
        with http_client(self.require_endpoint(), read_timeout_seconds=5.0) as client:
            while True:
                if _is_ready(client):
                    return
                status = self.poll()
                if status is not None:
                    raise explain_load_failure(self.log(), self._plan.model.path, status)
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"{self._plan.model.path} was not loaded after {self._load_timeout:.0f} s",
                        "is the disk a slow network share? see the engine's log with --debug",
                    )
                time.sleep(_POLL_SECONDS)

    def poll(self) -> int | None:
        """The child's exit status, 128 + N after signal N; None while it runs."""
        return None if self._child is None else self._child.poll()

    def log(self) -> str:
        """The last of what the child printed, at most 2 MiB."""
        return "" if self._child is None else self._child.log()

    def explain(
        self, status: int, *, loading: bool, killed_for_memory: bool = False
    ) -> LocalllmError:
        """Why the child ended with that status.

        Args:
            status: of poll() or wait().
            loading: it was not ready yet.
            killed_for_memory: see explain_load_failure.
        """
        error = explain_load_failure(
            self.log(), self._plan.model.path, status, killed_for_memory=killed_for_memory
        )
        if not loading:
            error.message = error.message.replace(" while loading ", " while running ")
            error.args = (error.message,)
        return error

    def explain_death(self) -> LocalllmError | None:
        """Why the child is gone, as an error to raise; None while it runs.

        For when the connection broke: the connection ends before the process is reaped, so this
        waits a moment for it.
        """
        status = self.wait(GRACE_SECONDS)
        return None if status is None else self.explain(status, loading=False)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit status, waited for; None where it still runs then, or never did."""
        return None if self._child is None else self._child.wait(timeout_seconds)

    def kill(self) -> None:
        """Ends the child at once: for one that does not listen any more."""
        if self._child is not None:
            self._child.kill()

    def cpu_seconds(self) -> float | None:
        """Processor time that the child has used; None where that cannot be told."""
        return None if self._child is None else self._child.cpu_seconds()

    def stop(self) -> None:
        """Ends the child (SIGTERM, after GRACE_SECONDS SIGKILL) and clears the run folder."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    @property
    def pid(self) -> int | None:
        """llama-server's own process id, once it is known."""
        return None if self._child is None else self._child.pid

    def require_endpoint(self) -> Endpoint:
        """Where the child answers.

        Raises:
            EngineError: it was not started.
        """
        if self.endpoint is None:
            raise EngineError("the engine was not started")
        return self.endpoint


def _is_ready(client: httpx.Client) -> bool:
    import httpx

    try:
        return bool(client.get("/health").status_code == 200)
    except httpx.TransportError:
        return False
