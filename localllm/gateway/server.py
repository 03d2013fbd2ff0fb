"""The gateway as a whole: started, told of signals, drained, ended.

It is given everything by whoever starts it (cli/serve.py) and tells people nothing by itself but
through `say`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from aiohttp import web

import localllm
from localllm import running
from localllm.engine.locate import Tools
from localllm.errors import LocalllmError
from localllm.gateway import credentials, heap
from localllm.gateway.app import App, Rules
from localllm.gateway.backends import Pool
from localllm.gateway.credentials import KeyRing
from localllm.gateway.door import Door
from localllm.gateway.flights import SWEEP_SECONDS, Flights
from localllm.gateway.limits import Limiter
from localllm.gateway.listening import Server, close, listen
from localllm.gateway.logs import Logs
from localllm.gateway.metrics import Metrics
from localllm.gateway.notify import notify
from localllm.gateway.queue import Queue
from localllm.gateway.refusal import Refused
from localllm.gateway.replica import Replica, first_error
from localllm.gateway.settings import FIXED, Settings
from localllm.gateway.status import GpuUse, ReplicaStatus, Status
from localllm.gateway.window import Window
from localllm.plan import Plan
from localllm.probe import nvidia, process
from localllm.recovery import Concession

#: How often memory and GPUs are looked at.
_SAMPLE_SECONDS = 2.0
_TRIM_SECONDS = 30.0
#: One of our own descriptors for a client, one for its llama-server, and some.
_DESCRIPTORS_PER_CONNECTION = 2
#: What the last bytes of drained answers get to leave.
_LAST_SECONDS = 1.0


@dataclass(frozen=True)
class Planned:
    """One llama-server to be: its plan, and what goes with it (see Replica)."""

    plan: Plan
    extra_argv: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    n_cores: int | None = None
    conceded: Callable[[Sequence[Concession]], None] | None = None


@dataclass(frozen=True)
class Serving:
    """Everything that a gateway is given.

    Attributes:
        name: what to call it; a number is put behind it where another has the name.
        model: what it serves, as llama-server's answers name it.
        tools: where llama-server is.
        children: at least one.
        settings: see Settings.
        keys: given one by one, beside those of settings.api_key_file.
        reload: settings as they are written down now; None where there is nothing to read.
        mend: see Replica.
        ready: called when the first replica is ready, with the server's record.
        say: tells a person a sentence.
        argv: what it was started with.
    """

    name: str
    model: str
    tools: Tools
    children: tuple[Planned, ...]
    settings: Settings
    say: Callable[[str], None]
    ready: Callable[[running.Running], None]
    keys: tuple[str, ...] = ()
    reload: Callable[[], Settings] | None = None
    mend: Callable[[LocalllmError], bool] | None = None
    argv: tuple[str, ...] = ()


def run(serving: Serving) -> None:
    """Serves until it is told to stop (SIGTERM, Ctrl-C; twice means at once).

    Raises:
        LocalllmError: it could not begin: the address, the keys, the model.
    """
    heap.keep_one()
    _allow_descriptors(serving.settings.max_connections)
    asyncio.run(_Gateway(serving).run())


class _Gateway:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        settings = serving.settings
        self._rules = _rules(settings, serving.keys, serving.say)
        self._record = running.claim(
            serving.name,
            model=serving.model,
            drain_seconds=settings.drain_seconds,
            log_dir=settings.log_dir,
            argv=serving.argv,
        )
        self._logs = Logs(self._record.log_dir, settings)
        self._window = Window()
        self._limiter = Limiter(settings.limits, settings.key_limits)
        self._flights = Flights()
        self._memory: dict[int, tuple[int, int]] = {}
        self._gpu_memory: dict[int, dict[str, int]] = {}
        self._gpus: tuple[GpuUse, ...] = ()
        self._n_stops = 0

    async def run(self) -> None:
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._changed = asyncio.Event()
        replicas = self._replicas()
        self._pool = Pool(replicas)
        self._queue = Queue(self._pool, self._serving.settings.queue_limit)
        # Triton's paths are typed into configurations, where a name without a space is welcome.
        model = self._serving.model
        # llama-server takes commas in --alias for several names, and sorts them.
        aliases = sorted({name.strip() for name in model.split(",")} - {""})
        names = [*aliases, model, self._record.name]
        self._metrics = Metrics([*aliases, model])
        self._app = App(
            self._pool,
            self._queue,
            self._flights,
            self._rules,
            self._limiter,
            model_names=names,
            observers=(self._window, self._metrics, self._logs),
            moved=self._window.moved,
            metrics=self._render_metrics,
            bug=self._tell_bug,
        )
        try:
            await self._serve(replicas)
        finally:
            notify("STOPPING=1")
            await self._pool.stop()
            running.remove(self._record)
            await asyncio.to_thread(self._logs.close)

    async def _serve(self, replicas: Sequence[Replica]) -> None:
        settings = self._serving.settings
        self._catch_signals()
        server = Server(self._app.handle, settings)
        listener, url = await listen(server, settings)
        control = Server(self._control, settings)
        control_listener = await self._listen_for_control(control)
        self._record = running.update(self._record, url=url)
        tickers = [
            asyncio.ensure_future(self._kept_going(ticker))
            for ticker in (self._sweep, self._sample, self._perform)
        ]
        try:
            self._pool.start()
            if await self._first_ready(replicas):
                notify("READY=1")
                self._serving.ready(self._record)
                await self._stop.wait()
                await self._drain(listener)
        finally:
            close(listener)
            close(control_listener)
            for ticker in tickers:
                ticker.cancel()
            self._flights.end_all(Refused(503, "the server is shutting down"))
            await server.shutdown(_LAST_SECONDS)
            await control.shutdown(_LAST_SECONDS)

    def _replicas(self) -> list[Replica]:
        replicas = []
        for index, planned in enumerate(self._serving.children):
            replica = Replica(
                str(index),
                self._serving.tools,
                planned.plan,
                self._serving.settings,
                self._report,
                extra_argv=planned.extra_argv,
                environment=planned.environment,
                n_cores=planned.n_cores,
                mend=self._serving.mend,
                conceded=planned.conceded,
            )
            replica.on_change = self._notice(replica)
            replicas.append(replica)
        return replicas

    def _notice(self, replica: Replica) -> Callable[[str], None]:
        def changed(state: str) -> None:
            if state == "loading":
                self._pool.affinity.forget(replica.name)
            self._pool.on_change()
            self._changed.set()

        return changed

    async def _first_ready(self, replicas: Sequence[Replica]) -> bool:
        """Waits for the first replica; False where a person has had enough before.

        Raises:
            LocalllmError: none of them can be started.
        """
        while not self._pool.is_ready:
            if self._stop.is_set():
                return False
            if all(replica.state == "failed" for replica in replicas):
                raise first_error(replicas)
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _drain(self, listener: asyncio.AbstractServer) -> None:
        """Lets the requests that are here be answered, for a while; new ones are refused."""
        notify("STOPPING=1")
        self._app.is_draining = True
        close(listener)
        drain_seconds = self._serving.settings.drain_seconds
        if self._flights.n_generating:
            self._serving.say(
                f"{self._flights.n_generating} requests are still being answered"
                " (Ctrl-C again ends them)"
            )
        began = time.monotonic()
        while self._flights.n_generating and not self._at_once.is_set():
            if 0 < drain_seconds < time.monotonic() - began:
                self._report(
                    f"{self._flights.n_generating} requests were not answered"
                    f" within {drain_seconds:g} s"
                )
                return
            await asyncio.sleep(0.05)

    # What happens again and again.

    async def _kept_going(self, ticker: Callable[[], Awaitable[None]]) -> None:
        """Without the sweep no time limit would hold: no error ends it."""
        while True:
            try:
                await ticker()
            except Exception as bug:
                self._tell_bug(bug)
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._flights.sweep(self._app.rules.settings, wait_seconds=self._queue.wait_seconds())

    async def _sample(self) -> None:
        has_gpus = True
        trimmed_at = time.monotonic()
        while True:
            pids = [os.getpid(), *(pid for of in self._pool.backends if (pid := of.status().pid))]
            self._memory = await asyncio.to_thread(_resident, pids)
            if has_gpus:
                self._gpus = await asyncio.to_thread(_gpus)
                self._gpu_memory = await asyncio.to_thread(nvidia.memory_by_process)
                has_gpus = bool(self._gpus)
            if time.monotonic() - trimmed_at > _TRIM_SECONDS:
                await asyncio.to_thread(heap.trim)
                trimmed_at = time.monotonic()
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _perform(self) -> None:
        while True:
            await asyncio.sleep(self._app.rules.settings.performance_seconds or 10.0)
            self._logs.performance(self.status())

    # What is asked.

    def status(self) -> Status:
        """What it is doing now."""
        own = self._memory.get(os.getpid())
        return Status(
            name=self._record.name,
            url=self._record.url,
            model=self._serving.model,
            version=localllm.__version__,
            pid=os.getpid(),
            started_at=self._record.started_at,
            now=time.time(),
            draining=self._app.is_draining,
            n_waiting=len(self._queue),
            queue_limit=self._queue.limit,
            n_running=self._flights.n_generating - len(self._queue),
            rss_bytes=None if own is None else own[0],
            replicas=tuple(self._with_memory(of.status()) for of in self._pool.backends),
            traffic=self._window.traffic(),
            gpus=self._gpus,
            errors=self._logs.recent_errors,
        )

    def _with_memory(self, status: ReplicaStatus) -> ReplicaStatus:
        pid = status.pid or -1
        rss_bytes, peak_bytes = self._memory.get(pid, (None, None))
        return replace(
            status,
            rss_bytes=rss_bytes,
            rss_peak_bytes=peak_bytes,
            gpu_bytes=self._gpu_memory.get(pid, {}),
        )

    async def _render_metrics(self) -> tuple[bytes, Mapping[str, str]]:
        ready = list(self._pool.ready)
        texts = await asyncio.gather(*(backend.metrics() for backend in ready))
        children = {of.name: text for of, text in zip(ready, texts, strict=True)}
        # With many keys it takes a tenth of a second: not on the loop that passes streams on.
        page, content_type = await asyncio.to_thread(
            self._metrics.render, self.status(), self._logs.lost_lines, children
        )
        # The second is llama-server's own way to say since when it counts.
        started = str(int(self._record.started_at))
        return page, {"Content-Type": content_type, "Process-Start-Time-Unix": started}

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        """The private address: `top`, `ps`, and `stop` where there are no signals."""
        token = self._record.control_token
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401)
        if (request.method, request.path) == ("GET", "/status"):
            return web.json_response(self.status().to_json())
        if (request.method, request.path) == ("POST", "/stop"):
            wish = json.loads(await request.read() or b"{}")
            self._told_to_stop()
            if wish.get("now"):
                self._told_to_stop()
            return web.json_response({})
        return web.Response(status=404)

    async def _listen_for_control(self, control: Server) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        path = self._record.control_socket
        if path is not None:
            listener = await loop.create_unix_server(control, path)
            os.chmod(path, 0o600)
            return listener
        import secrets

        tcp = await loop.create_server(control, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        self._record = running.update(
            self._record,
            control_url=f"http://127.0.0.1:{port}",
            control_token=secrets.token_urlsafe(24),
        )
        return tcp

    # What it is told.

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                loop.add_signal_handler(number, self._told_to_stop)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._told_to_stop))
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_stop(self) -> None:
        self._n_stops += 1
        self._stop.set()
        self._changed.set()
        if self._n_stops > 1:
            self._at_once.set()

    def _told_to_reload(self) -> None:
        """New settings, where they can change and are sound; else all stays as it is."""
        self._logs.reopen()
        if self._serving.reload is None:
            self._report("there is no serve.yaml to read again", level="warning")
            return
        old = self._app.rules.settings
        try:
            new = self._serving.reload()
            waiting = sorted(name for name in FIXED if getattr(old, name) != getattr(new, name))
            # Before the rules are made of it: a key file that is gone from the settings must not
            # open the door.
            new = replace(new, **{name: getattr(old, name) for name in waiting})
            rules = _rules(new, self._serving.keys, self._serving.say)
        except LocalllmError as error:
            self._report(f"the settings stay as they are: {error.message}")
            return
        if waiting:
            self._report(
                f"{', '.join(waiting)}: changes only when the server is started again",
                level="warning",
            )
        self._app.rules = rules
        self._queue.limit = rules.settings.queue_limit
        self._limiter.changed(rules.settings.limits, rules.settings.key_limits)
        self._logs.changed(rules.settings)
        for backend in self._pool.backends:
            if isinstance(backend, Replica):
                backend.settings = rules.settings
        changed = [
            of.name
            for of in fields(Settings)
            if getattr(old, of.name) != getattr(rules.settings, of.name)
        ]
        self._serving.say(f"settings read again: {', '.join(changed) or 'nothing changed'}")

    def _report(
        self, what: str, *, replica: str = "", detail: str = "", level: str = "error"
    ) -> None:
        self._logs.error(what, replica=replica, detail=detail, level=level)
        which = f"replica {replica}: " if replica and len(self._serving.children) > 1 else ""
        self._serving.say(f"{which}{what}")

    def _tell_bug(self, bug: BaseException) -> None:
        import traceback

        detail = "".join(traceback.format_exception(type(bug), bug, bug.__traceback__))
        self._report(f"this is a bug in localllm: {type(bug).__name__}: {bug}", detail=detail)


def _rules(settings: Settings, keys: Sequence[str], say: Callable[[str], None]) -> Rules:
    """What holds from now on.

    Raises:
        LocalllmError: a key file or a host name that is not one.
    """
    rings: list[KeyRing] = []
    if settings.api_key_file is not None:
        ring, warnings = credentials.read_keys(settings.api_key_file)
        rings.append(ring)
        for warning in warnings:
            say(f"warning: {warning}")
    if keys:
        rings.append(credentials.literal_keys(keys, "--api-key"))
    host = socket.gethostname()
    door = Door(
        settings.allowed_hosts,
        settings.cors_origins,
        tls=settings.tls_cert is not None,
        own_names=(host, f"{host}.local", settings.host),
    )
    return Rules(settings, tuple(rings), door)


def _resident(pids: Sequence[int]) -> dict[int, tuple[int, int]]:
    found = {pid: process.resident_bytes(pid) for pid in pids}
    return {pid: memory for pid, memory in found.items() if memory is not None}


def _gpus() -> tuple[GpuUse, ...]:
    return tuple(
        GpuUse(gpu.name, gpu.utilization, gpu.used_bytes, gpu.total_bytes)
        for gpu in nvidia.utilization()
    )


def _allow_descriptors(n_connections: int) -> None:
    """As many open files as that many clients need, where the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    wanted = n_connections * _DESCRIPTORS_PER_CONNECTION + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
