"""Devices that are not here: they come up, answer a dry run, and leave nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localllm.engine import loopback
from localllm.engine.dryrun import DryRun
from localllm.engine.endpoint import free_port
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.errors import EngineError, EngineMissingError
from tests.conftest import wait_until


def servers_at(endpoints: tuple[str, ...]) -> list[psutil.Process]:
    """The ggml-rpc-servers with these ports on their command lines."""
    ports = {endpoint.rpartition(":")[2] for endpoint in endpoints}
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"].startswith("ggml-rpc-server"[:15])
        and ports & set(process.info["cmdline"] or ())
    ]


def test_each_is_a_device_of_its_own_and_all_are_gone_afterwards(tools: Tools, home: Path) -> None:
    with loopback_devices(tools, 3) as endpoints, DryRun() as oracle:
        names = [device.name for device in oracle.devices(endpoints)]
        assert names == ["RPC0", "RPC1", "RPC2"]
        assert len(servers_at(endpoints)) == 3
    assert servers_at(endpoints) == []
    assert list((home / "run").glob("engine-*")) == []


def test_they_are_gone_after_an_error_too(tools: Tools, home: Path) -> None:
    with pytest.raises(ZeroDivisionError), loopback_devices(tools, 2) as endpoints:
        1 / 0  # noqa: B018
    assert servers_at(endpoints) == []
    assert list((home / "run").glob("engine-*")) == []


def test_none_is_none(tools: Tools) -> None:
    with loopback_devices(tools, 0) as endpoints:
        assert endpoints == ()


@pytest.mark.parametrize("victim", ["us", "the guardian"])
def test_none_outlives_a_kill(tools: Tools, home: Path, victim: str) -> None:
    script = f"""
import sys, time
from pathlib import Path
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
with loopback_devices(Tools(Path({str(tools.folder)!r}), {tools.names!r}), 2) as endpoints:
    print(*endpoints, flush=True)
    time.sleep(600)
"""
    us = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert us.stdout is not None
    try:
        endpoints = tuple(us.stdout.readline().split())
        servers = servers_at(endpoints)
        assert len(servers) == 2
        if victim == "us":
            us.send_signal(signal.SIGKILL)
        else:
            for server in servers:
                guardian = server.parent()
                assert guardian is not None
                guardian.kill()
        wait_until(lambda: servers_at(endpoints) == [], "the servers to end")
        if victim == "us":
            wait_until(lambda: not list((home / "run").glob("engine-*")), "the folders to go")
    finally:
        us.kill()
        us.wait()
        us.stdout.close()


def test_a_port_that_was_taken_meanwhile_is_left_to_who_has_it(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        ports = iter([taken, free_port()])
        monkeypatch.setattr(loopback, "free_port", lambda: next(ports))
        with loopback_devices(tools, 1) as (endpoint,), DryRun() as oracle:
            assert endpoint != f"127.0.0.1:{taken}"
            assert len(oracle.devices((endpoint,))) == 1


def test_where_no_port_is_to_be_had_that_is_said(
    tools: Tools, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        monkeypatch.setattr(loopback, "free_port", lambda: taken)
        with (
            pytest.raises(EngineError, match="ggml-rpc-server ended at once: Failed to create"),
            loopback_devices(tools, 1),
        ):
            pass
    assert list((home / "run").glob("engine-*")) == []


def test_a_server_that_never_listens_is_an_error(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback, "_TIMEOUT_SECONDS", 0.3)
    idle = tmp_path / "ggml-rpc-server"
    idle.write_text("#!/bin/sh\nexec sleep 600\n")
    idle.chmod(0o755)
    with (
        pytest.raises(EngineError, match="ggml-rpc-server did not listen"),
        loopback_devices(Tools(tmp_path, ("ggml-rpc-server",)), 1),
    ):
        pass
    assert list((home / "run").glob("engine-*")) == []


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineMissingError, match="ggml-rpc-server is missing"),
        loopback_devices(Tools(tmp_path, ("llama-server",)), 1),
    ):
        pass
