"""`localllm serve`: prints the plan and becomes llama-server with it."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from localllm.cli import finding, prepare, pull, render
from localllm.engine.argv import child_environment, printable, server_argv
from localllm.engine.locate import SERVER, require_tools
from localllm.errors import AccessError, LocalllmError, NotFoundError, UsageError
from localllm.planner import Wishes


def run(
    ref: str,
    *,
    direct: bool,
    host: str,
    port: int,
    api_key_file: Path | None,
    insecure: bool,
    wishes: Wishes,
    goal: str,
    extra_argv: Sequence[str],
) -> None:
    """Does not return: the process becomes llama-server (on Windows, waits for it).

    Raises:
        UsageError: an address off loopback without keys, or arguments that contradict.
        LocalllmError: the port is taken.
    """
    if not direct:
        render.say("there is no gateway in this version: llama-server answers itself (--direct)")
    if not is_loopback(host) and api_key_file is None and not insecure:
        raise UsageError(
            f"listening on {host} lets the network in without a key",
            "--api-key-file FILE with a key a line, or --insecure if that is meant",
        )
    if api_key_file is not None:
        _check_key_file(api_key_file)
    tools = require_tools(SERVER)
    _check_port(host, port)
    try:
        found = finding.find_here(ref, wishes.quant)
    except NotFoundError as error:
        found = pull.offer(ref, error, wishes, goal)
    if found.note:
        render.say(f"warning: {found.note}")
    if wishes.mmproj is None:
        wishes = replace(wishes, mmproj=found.mmproj)
    prepared = prepare.prepare(found, wishes, goal)
    plan = prepared.plan
    render.print_plan(plan, sys.stderr)
    program = str(tools.path(SERVER))
    argv = [
        *server_argv(plan, program),
        "--host",
        host,
        "--port",
        str(port),
        # llama-server lets every web page in by default; a page of another origin has no
        # business with the model on this machine.
        "--cors-origins",
        "localhost",
        "--metrics",
    ]
    if api_key_file is not None:
        argv += ["--api-key-file", str(api_key_file)]
    argv += extra_argv
    render.say(f"llama-server on http://{host}:{port} (Ctrl-C ends it)")
    if os.environ.get("LOCALLLM_DEBUG"):
        render.say(printable(argv))
    environment = child_environment(plan, os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":  # exec there starts a second process and ends the first
        import subprocess

        sys.exit(subprocess.run(argv, env=environment, check=False).returncode)
    os.execve(program, argv, environment)


def is_loopback(host: str) -> bool:
    """The address is reached from this machine alone (a unix socket is, too)."""
    if host == "localhost" or host.endswith(".sock"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_key_file(path: Path) -> None:
    try:
        keys = [
            line
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip() and not line.startswith("#")
        ]
    except FileNotFoundError:
        raise NotFoundError(f"there is no key file {path}", f"openssl rand -hex 24 > {path}") \
            from None  # fmt: skip
    except (OSError, UnicodeDecodeError) as exc:
        raise AccessError(f"cannot read the key file {path}: {exc}") from exc
    if not keys:
        raise UsageError(f"the key file {path} holds no key", f"openssl rand -hex 24 > {path}")


def _check_port(host: str, port: int) -> None:
    """Finds out before the model is loaded, and says it in a sentence."""
    if port == 0 or host.endswith(".sock"):
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise UsageError(f"{host!r} is not an address of this machine: {exc.strerror}") from exc
    with socket.socket(family, kind, protocol) as probe:
        # As llama-server binds: a socket in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as exc:
            raise AccessError(
                f"port {port} may not be used by this user", "ports above 1023 may: --port 8080"
            ) from exc
        except OSError as exc:
            raise LocalllmError(
                f"cannot listen on {host}:{port}: {exc.strerror}",
                "is another server running there? --port takes another one",
            ) from exc
