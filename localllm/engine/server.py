"""Runs llama-server as a child for one plan: private socket, private key, no orphan, ever.

The child hangs on a guardian process (guardian.py), and the guardian on a pipe to us. Run
folders of processes that are gone (a power cut, a guardian killed together with its parent) are
swept at every start.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localllm import paths
from localllm.engine.argv import child_environment, server_argv
from localllm.engine.client import http_client
from localllm.engine.endpoint import Endpoint
from localllm.engine.failure import explain_load_failure
from localllm.engine.locate import SERVER, Tools
from localllm.errors import EngineError
from localllm.plan import Plan
from localllm.units import MIB

if TYPE_CHECKING:
    import httpx

#: From SIGTERM to SIGKILL. A slot in a long llama_decode answers only between micro-batches.
GRACE_SECONDS = 5.0
_LOG_BYTES = 1 * MIB
_POLL_SECONDS = 0.02
_HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX") and sys.platform != "win32"


class LlamaServer:
    """One llama-server and one model; a context manager that is ready inside and gone outside.

    Args:
        tools: where llama-server is.
        plan: what to run.
        extra_argv: more of llama-server's own arguments.
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
        load_timeout_seconds: float = 1800.0,
    ) -> None:
        self._program = str(tools.path(SERVER))
        self._plan = plan
        self._extra_argv = tuple(extra_argv)
        self._load_timeout = load_timeout_seconds
        self._run_dir: Path | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
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
        runtime = paths.private_folder(paths.runtime_dir())
        self._run_dir = runtime / f"engine-{os.getpid()}-{secrets.token_hex(4)}"
        self._run_dir.mkdir(mode=0o700)
        key = secrets.token_urlsafe(24)
        if _HAS_UNIX_SOCKETS:
            address = ["--host", str(self._run_dir / "llama.sock"), "--port", "1"]
            self.endpoint = Endpoint("http://engine", str(self._run_dir / "llama.sock"), key)
        else:
            port = _free_port()
            address = ["--host", "127.0.0.1", "--port", str(port)]
            self.endpoint = Endpoint(f"http://127.0.0.1:{port}", None, key)
        argv = [*server_argv(self._plan, self._program), *address, "--no-ui", *self._extra_argv]
        guardian = Path(__file__).with_name("guardian.py")
        # The key travels in the environment: a command line is there for everybody to read.
        environment = child_environment(self._plan, os.environ) | {"LLAMA_API_KEY": key}
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guardian), str(self._run_dir),
             str(GRACE_SECONDS), str(_LOG_BYTES), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for the engine
        )  # fmt: skip

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
        return None if self._guardian is None else self._guardian.poll()

    def log(self) -> str:
        """The last of what the child printed, at most 2 MiB."""
        if self._run_dir is None:
            return ""
        text = ""
        for name in ("engine.log.1", "engine.log"):
            try:
                text += (self._run_dir / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
        return text

    def explain_death(self) -> EngineError | None:
        """Why the child is gone, as an error to raise; None while it runs.

        For when the connection broke: the connection ends before the process is reaped, so this
        waits a moment for it.
        """
        if self._guardian is None:
            return None
        try:
            status = self._guardian.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        error = explain_load_failure(self.log(), self._plan.model.path, status)
        return EngineError(error.message.replace(" while loading ", " while running "), error.hint)

    def stop(self) -> None:
        """Ends the child (SIGTERM, after GRACE_SECONDS SIGKILL) and clears the run folder."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            if guardian.stdin is not None:
                guardian.stdin.close()  # the lifeline: the guardian does the rest
            try:
                guardian.wait(GRACE_SECONDS + 5)
            except subprocess.TimeoutExpired:
                guardian.kill()  # the child follows by its parent-death signal
                guardian.wait()
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    @property
    def pid(self) -> int | None:
        """llama-server's own process id, once it is known."""
        if self._run_dir is None:
            return None
        pids = _read_pids(self._run_dir)
        return pids[1] if pids else None

    def require_endpoint(self) -> Endpoint:
        """Where the child answers.

        Raises:
            EngineError: it was not started.
        """
        if self.endpoint is None:
            raise EngineError("the engine was not started")
        return self.endpoint


def sweep() -> None:
    """Ends engines and clears run folders whose owners are gone.

    A folder is named after the process that made it; it goes when that process is no more. A
    recorded child is ended only if it still is a llama-server that was started from this folder,
    because process ids are used again.
    """
    try:
        folders = list(paths.runtime_dir().glob("engine-*-*"))
    except OSError:
        return
    for folder in folders:
        owner = folder.name.split("-")[1]
        if not owner.isdigit() or _alive(int(owner)):
            continue
        for pid in _read_pids(folder):
            _end_if_from(pid, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_if_from(pid: int, folder: Path) -> None:
    import psutil

    try:
        process = psutil.Process(pid)
        if any(str(folder) in argument for argument in process.cmdline()):
            process.kill()
    except psutil.Error:
        return


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _read_pids(folder: Path) -> list[int]:
    try:
        pids = json.loads((folder / "pids.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [pid for pid in pids if isinstance(pid, int)] if isinstance(pids, list) else []


def _free_port() -> int:
    """A port that was free a moment ago; only for systems without unix sockets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(client: httpx.Client) -> bool:
    import httpx

    try:
        return bool(client.get("/health").status_code == 200)
    except httpx.TransportError:
        return False
