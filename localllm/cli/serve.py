"""`localllm serve`: a plan for each replica, the gateway's settings, and then the gateway.

With --direct it becomes llama-server itself instead.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm import paths
from localllm.cli import finding, passed_on, prepare, pull, references, render
from localllm.cli.found import FoundModels
from localllm.cli.passed_on import PassedOn
from localllm.cli.prepare import Prepared
from localllm.engine.argv import child_environment, printable, server_argv
from localllm.engine.locate import SERVER, Tools, require_tools
from localllm.errors import NotFoundError, UsageError
from localllm.gateway.binding import explain_bind_failure, url_of
from localllm.gateway.settings import Settings, read_settings
from localllm.hardware import Hardware
from localllm.naming import parse_ref
from localllm.planner import Wishes
from localllm.planner.settings import threads

if TYPE_CHECKING:
    from localllm.gateway.server import Planned
    from localllm.plan import Plan
    from localllm.running import Running

_CONFIG = "serve.yaml"
#: llama-server's threads for HTTP beyond its slots: health, metrics, pages and tokens are asked for
#: while all slots are at work.
_MORE_HTTP_THREADS = 16


@dataclass(frozen=True)
class Order:
    """What was typed.

    Attributes:
        ref: the model; None where -m follows the dashes.
        flags: of the gateway's settings, those that were given.
        config: a serve.yaml; None is the one in the config folder, if it is there.
        wishes: explicit values of the plan.
        goal: what the plan is for.
        extra_argv: what followed the dashes.
        direct: llama-server itself.
        argv: all of it, for whoever starts it again.
    """

    ref: str | None
    flags: Mapping[str, Any]
    config: Path | None
    wishes: Wishes
    goal: str
    extra_argv: tuple[str, ...]
    direct: bool
    argv: tuple[str, ...]

    def settings(self, passed: PassedOn) -> Settings:
        """1. Flags and what followed the dashes, 2. serve.yaml, 3. the defaults.

        Raises:
            UsageError: the file, or two flags that contradict one another.
        """
        own = paths.config_dir() / _CONFIG
        path = self.config or (own if own.is_file() else None)
        written = Settings() if path is None else read_settings(path)
        return replace(written, **passed.with_settings(self.flags))


def run(order: Order) -> None:
    """Serves until it is told to stop.

    Raises:
        UsageError: an address off loopback without keys, or arguments that contradict.
        LocalllmError: the address is taken, or the model cannot be run.
    """
    passed = passed_on.read(order.extra_argv)
    for warning in passed.warnings:
        render.say(f"warning: {warning}")
    ref = passed.with_model(order.ref)
    settings = order.settings(passed)
    _check_door(settings, passed.keys)
    if order.direct:
        settings = replace(settings, replicas=1)
    tools = require_tools(SERVER)
    _check_port(settings.host, settings.port)
    wishes = passed.with_wishes(order.wishes)
    found = _find(ref, wishes, order.goal)
    if wishes.mmproj is None and passed.looks_for_mmproj:
        wishes = replace(wishes, mmproj=found.mmproj)
    prepared = _prepare(found, wishes, order.goal, settings, passed)
    render.print_plan(prepared[0].plan, sys.stderr)
    if order.direct:
        _become(tools, prepared[0], settings, passed)
    else:
        _serve(order, tools, prepared, settings, passed)


def background(order: Order) -> None:
    """The same as a process of its own; returns when it can answer.

    Raises:
        UsageError: see run; or it cannot go on without this shell.
    """
    from localllm.cli.background import start_background

    passed = passed_on.read(order.extra_argv)
    ref = passed.with_model(order.ref)
    settings = order.settings(passed)
    _check_door(settings, passed.keys)
    _check_detached(order, settings)
    start_background(order.argv, _short(references.shown(parse_ref(ref))))


def print_systemd(order: Order) -> None:
    """A unit that runs the same, on standard output.

    Raises:
        UsageError: see run; or it cannot go on without this shell, or not without a secret.
    """
    from localllm.cli.background import systemd_unit

    passed = passed_on.read(order.extra_argv)
    ref = parse_ref(passed.with_model(order.ref))
    settings = order.settings(passed)
    _check_door(settings, passed.keys)
    _check_detached(order, settings)
    if passed.keys:
        raise UsageError(
            "a unit cannot hold keys: everybody may read it",
            "--api-key-file FILE in place of --api-key and LLAMA_API_KEY",
        )
    if ref.kind == "url" and references.shown(ref).lower() != ref.text.lower():
        raise UsageError(
            "a unit cannot hold the secrets of a URL: everybody may read it",
            "localllm pull it; it is then found without them",
        )
    # Root has no systemd of its own: what root prints is for the machine's.
    user = getattr(os, "geteuid", lambda: 1)() != 0
    sys.stdout.write(systemd_unit(order.argv, user=user, drain_seconds=settings.drain_seconds))


def _find(ref: str, wishes: Wishes, goal: str) -> FoundModels:
    try:
        found = finding.find_here(ref, wishes.quant)
    except NotFoundError as error:
        found = pull.offer(ref, error, wishes, goal)
    if found.note:
        render.say(f"warning: {found.note}")
    return found


def _prepare(
    found: FoundModels, wishes: Wishes, goal: str, settings: Settings, passed: PassedOn
) -> list[Prepared]:
    """A plan for each replica: alike ones share one, those on a GPU of their own do not."""
    n_replicas, per_gpu = settings.replicas, False
    if n_replicas != 1:
        from localllm.cli.simulation import Simulation

        n_gpus = len(prepare.machine(Simulation()).accelerators)
        n_replicas = n_replicas or max(1, n_gpus)
        per_gpu = n_replicas == n_gpus > 1
    indices = range(n_replicas) if per_gpu else (0,)

    def prepared(index: int) -> Prepared:
        def share(hardware: Hardware) -> Hardware:
            return hardware.shared(n_replicas, index, per_gpu=per_gpu)

        one = prepare.prepare(found, wishes, goal, share=share)
        name = passed.alias
        if name is None:
            return one
        return replace(one, plan=replace(one.plan, model=replace(one.plan.model, name=name)))

    each = [prepared(index) for index in indices]
    return each if per_gpu else each * n_replicas


def _serve(
    order: Order,
    tools: Tools,
    prepared: Sequence[Prepared],
    settings: Settings,
    passed: PassedOn,
) -> None:
    from localllm.cli.mending import mender
    from localllm.gateway import server

    plan = prepared[0].plan

    say = partial(render.say, who="localllm serve")

    def ready(record: Running) -> None:
        say(record.url)
        say(f"{record.name} is ready; logs in {render.home_shortened(str(record.log_dir))}")

    server.run(
        server.Serving(
            name=_short(plan.model.ref),
            model=plan.model.name or plan.model.ref,
            tools=tools,
            children=_children(prepared, passed),
            settings=settings,
            say=say,
            ready=ready,
            keys=passed.keys,
            reload=lambda: order.settings(passed),
            mend=mender(plan, say),
            argv=order.argv,
        )
    )


def _children(prepared: Sequence[Prepared], passed: PassedOn) -> tuple[Planned, ...]:
    from localllm.gateway.server import Planned

    children = []
    for one in prepared:
        plan, environment = one.plan, {}
        gpus = one.hardware.accelerators
        if len(prepared) > 1 and len(gpus) == 1 and gpus[0].vendor == "nvidia" and gpus[0].uuid:
            # It sees no other GPU, so that it takes no memory on one.
            environment["CUDA_VISIBLE_DEVICES"] = gpus[0].uuid
            plan = _seeing_one(plan)
        argv = (
            "--metrics",
            "--threads-http",
            str(plan.n_parallel + _MORE_HTTP_THREADS),
            *passed.extra_argv,
        )
        n_cores, *_ = threads(one.hardware.cpu, plan.model.size_bytes, one.policy)
        children.append(Planned(plan, argv, environment, n_cores, one.learner.conceded))
    return tuple(children)


def _seeing_one(plan: Plan) -> Plan:
    """The plan for a child to which CUDA shows the plan's GPU alone: it is then the first."""
    own = next((name for name in plan.devices or () if name.startswith("CUDA")), None)
    if own is None:
        return plan

    def seen(name: str) -> str:
        return "CUDA0" if name == own else name

    overrides = (override.rpartition("=") for override in plan.tensor_overrides)
    return replace(
        plan,
        devices=tuple(map(seen, plan.devices or ())),
        tensor_overrides=tuple(f"{pattern}={seen(place)}" for pattern, _, place in overrides),
        memory=tuple(replace(row, device=seen(row.device)) for row in plan.memory),
    )


def _become(tools: Tools, prepared: Prepared, settings: Settings, passed: PassedOn) -> None:
    """Does not return: the process becomes llama-server (on Windows, waits for it)."""
    plan = prepared.plan
    program = str(tools.path(SERVER))
    argv = [
        *server_argv(plan, program),
        "--host",
        settings.host,
        "--port",
        str(settings.port),
        # llama-server lets every web page in by default; a page of another origin has no
        # business with the model on this machine.
        "--cors-origins",
        ",".join(settings.cors_origins) or "localhost",
        "--metrics",
    ]
    for option, value in (
        ("--api-prefix", settings.api_prefix),
        ("--ssl-cert-file", settings.tls_cert),
        ("--ssl-key-file", settings.tls_key),
    ):
        argv += [option, str(value)] if value else []
    argv += passed.extra_argv
    render.say(f"llama-server on {_place(settings)} (Ctrl-C ends it)")
    if os.environ.get("LOCALLLM_DEBUG"):
        render.say(printable(argv))
    environment = child_environment(plan, os.environ)
    if keys := _plain_keys(settings, passed):
        environment["LLAMA_API_KEY"] = keys
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":  # exec there starts a second process and ends the first
        import subprocess

        sys.exit(subprocess.run(argv, env=environment, check=False).returncode)
    os.execve(program, argv, environment)


def _place(settings: Settings) -> str:
    """Where llama-server will be found, as far as it is known before it listens."""
    if settings.port == 0 and not settings.host.endswith(".sock"):
        return f"a free port of {settings.host}, which it tells"
    return url_of(settings.host, settings.port, tls=settings.tls_cert is not None)


def _plain_keys(settings: Settings, passed: PassedOn) -> str:
    """All keys as llama-server reads them from its variable: a line of CSV (arg.cpp).

    Its own key files know no names: it would take a whole line for the key.
    """
    keys = list(passed.keys)
    if settings.api_key_file is not None:
        from localllm.gateway.credentials import read_plain_keys

        keys += read_plain_keys(settings.api_key_file)
    return ",".join('"' + key.replace('"', '""') + '"' for key in keys)


def is_loopback(host: str) -> bool:
    """The address is reached from this machine alone (a unix socket is, too)."""
    if host == "localhost" or host.endswith(".sock"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _short(ref: str) -> str:
    """What to call a server of this model: "qwen3-8b" of a path, a repository or a short name."""
    name = ref.rstrip("/").rpartition("/")[2].partition("@")[0]
    return name.removesuffix(".gguf").removesuffix(".llamafile")


def _check_door(settings: Settings, keys: Sequence[str]) -> None:
    """Before anything is loaded: who may come, and whether TLS is whole."""
    open_to_all = settings.api_key_file is None and not keys
    if not is_loopback(settings.host) and open_to_all and not settings.insecure:
        raise UsageError(
            f"listening on {settings.host} lets the network in without a key",
            "--api-key-file FILE with a key a line, or --insecure if that is meant",
        )
    # A pipe can be read only once: by what goes by it.
    if settings.api_key_file is not None and not _is_pipe(settings.api_key_file):
        from localllm.gateway.credentials import read_keys

        read_keys(settings.api_key_file)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    if settings.tls_cert is not None and settings.host.endswith(".sock"):
        raise UsageError(
            f"TLS is for the network, and {settings.host} is a socket of this machine",
            "leave out --tls-cert and --tls-key",
        )


def _check_detached(order: Order, settings: Settings) -> None:
    """Before it is to go on without this shell."""
    if order.direct:
        raise UsageError("--direct is llama-server alone, in the foreground", "leave out --direct")
    if settings.api_key_file is not None and _is_pipe(settings.api_key_file):
        raise UsageError(
            f"{settings.api_key_file} is a pipe, and gone with this shell",
            "--api-key-file FILE with a key a line",
        )


def _is_pipe(path: Path) -> bool:
    """A shell's <(…), say."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _check_port(host: str, port: int) -> None:
    """Finds out before the model is looked at, and says it in a sentence."""
    if port == 0 or host.endswith(".sock"):
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As llama-server binds: a socket in TIME_WAIT is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as exc:
        raise explain_bind_failure(host, port, exc) from exc
