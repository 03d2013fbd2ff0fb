"""Devices that are not here, to plan for: ggml-rpc-servers on loopback.

Each is a place of its own to llama.cpp, as a GPU would be, and holds no data: for dry runs only,
which do not mind how much memory there really is. It knows nothing of plans.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from localllm.engine.argv import merged_environment
from localllm.engine.bounds import bound_memory
from localllm.engine.endpoint import free_port
from localllm.engine.guarded import Guarded, make_run_dir, sweep
from localllm.engine.locate import RPC_SERVER, Tools
from localllm.errors import EngineError

#: Two of them listen after 0.04 s on a quiet machine with two cores; a busy one takes its time.
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.005
#: Between finding a free port and taking it, another may take it: once is bad luck, not thrice.
_N_PORTS = 3


@contextlib.contextmanager
def loopback_devices(tools: Tools, n: int) -> Iterator[tuple[str, ...]]:
    """The endpoints ("127.0.0.1:port") of n devices, for `Plan.rpc`; gone when the block is left.

    They go, too, when this process is killed: see guarded.py. Each takes one client at a time.

    Raises:
        EngineMissingError: there is no ggml-rpc-server in `tools`.
        EngineError: one of them does not listen.
    """
    program = str(tools.path(RPC_SERVER))
    sweep()
    servers: list[_Server] = []
    try:
        for _ in range(n):
            servers.append(_Server(program))  # all of them first: they start side by side
        yield tuple(server.wait_listening() for server in servers)
    finally:
        for server in servers:
            server.child.let_go()
        for server in servers:
            server.child.stop()


class _Server:
    """One ggml-rpc-server, started, on one port after the other until it has one."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._n_ports = 0
        self._start()

    def _start(self) -> None:
        self._n_ports += 1
        self._port = free_port()
        # The processor, whatever GPUs there are: one device an endpoint, and no GPU is woken.
        command = [self._program, "-H", "127.0.0.1", "-p", str(self._port), "-d", "CPU"]
        self.child = Guarded(command, make_run_dir(), merged_environment({}, os.environ))

    def wait_listening(self) -> str:
        """Its endpoint, once it listens there."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not self._listens():
            if self.child.poll() is not None:
                if self._n_ports == _N_PORTS:
                    raise EngineError(f"{RPC_SERVER} ended at once: {self._last_words()}")
                self.child.stop()
                self._start()
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{RPC_SERVER} did not listen after {_TIMEOUT_SECONDS:.0f} s",
                    "localllm doctor --report, and attach it to a bug report",
                )
            time.sleep(_POLL_SECONDS)
        if self.child.pid is not None:
            bound_memory(self.child.pid)
        return f"127.0.0.1:{self._port}"

    def _listens(self) -> bool:
        """Whether it is this server, and not another program, that has the port.

        Connecting would not tell them apart.
        """
        import psutil

        pid = self.child.pid
        if pid is None:
            return False
        try:
            connections = psutil.Process(pid).net_connections("tcp4")
        except psutil.Error:
            return False
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port
            for connection in connections
        )

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.child.log().splitlines() if line.strip()]
        # What it prints to standard output comes after its errors.
        errors = [line for line in lines if line.startswith(("Failed", "error"))]
        return next(iter(errors or lines[-1:]), f"status {self.child.poll()}")
