"""One llama-server of ours and all of its lives: started, loaded, watched, ended, started again.

What a person should hear of it goes to a Reporter. Requests reach it through `open`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import aiohttp
from yarl import URL

from localllm.engine.locate import Tools
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError, IntegrityError, LocalllmError, OutOfMemoryError
from localllm.gateway.backends import BrokenError
from localllm.gateway.motion import Motion
from localllm.gateway.settings import Settings
from localllm.gateway.status import ReplicaStatus, State
from localllm.plan import Plan
from localllm.probe.outofmemory import read_kills
from localllm.recovery import Concession, next_concession

_T = TypeVar("_T")

#: While it loads, /health is asked after this long, and then ever later, up to once a second.
_FIRST_LOOK_SECONDS = 0.02
_LOADING_LOOK_SECONDS = 1.0
_TICK_SECONDS = 1.0
_PROBE_SECONDS = 3.0
#: A replica whose connection broke is dead, as a rule; its process is gone a moment later.
_DYING_SECONDS = 1.0
#: Pauses before it is started again double from the first to the last. One that was ready can be
#: so again; one that cannot even load may never.
_FIRST_PAUSE_SECONDS = 0.25
_LAST_PAUSE_SECONDS = 30.0
_LAST_PAUSE_AFTER_READY_SECONDS = 1.0
#: One that was ready as long was well; its next death is the first again.
_WELL_SECONDS = 2.0
#: In a row, without being ready: it is called failed, and tried at the longest pauses only.
_MANY_FAILURES = 5
_CONNECT_SECONDS = 5.0


class Reporter(Protocol):
    """Whoever tells people and files what happened."""

    def __call__(
        self, what: str, *, replica: str = "", detail: str = "", level: str = "error"
    ) -> None:
        """A sentence, whose it is, and more lines where there are any."""
        ...


class Replica:
    """A Backend that is a llama-server child.

    Args:
        name: unique in its pool.
        tools: where llama-server is.
        plan: what it runs; it may give something up when memory runs out (recovery.py).
        settings: for the watches.
        report: told of each death and each concession.
        extra_argv, environment: for llama-server.
        n_cores: threads for layers that have to leave their device.
        mend: given a damaged model's error, makes the file whole again; False where it cannot.
            Runs in a thread that nobody waits for at the end: a download goes on another time.
        conceded: told of concessions that helped, to remember them. Runs in a thread.
    """

    def __init__(
        self,
        name: str,
        tools: Tools,
        plan: Plan,
        settings: Settings,
        report: Reporter,
        *,
        extra_argv: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        n_cores: int | None = None,
        mend: Callable[[LocalllmError], bool] | None = None,
        conceded: Callable[[Sequence[Concession]], None] | None = None,
    ) -> None:
        self.name = name
        self.n_busy = 0
        self.plan = plan
        self.settings = settings
        self.on_change: Callable[[State], None] = lambda _: None
        #: Why its last life ended.
        self.error: LocalllmError | None = None
        self._tools = tools
        self._report = report
        self._extra_argv = tuple(extra_argv)
        self._environment = dict(environment or {})
        self._mend = mend
        self._conceded = conceded
        self._n_cores = n_cores
        self._concessions: tuple[Concession, ...] = ()
        self._n_remembered = 0
        #: The plan before the last concession, until that has proven itself, whose memory ran out,
        #: and fields that could not be changed.
        self._before: Plan | None = None
        self._device: str | None = None
        self._refused: frozenset[str] = frozenset()
        self._state: State = "starting"
        self._server: LlamaServer | None = None
        self._session: aiohttp.ClientSession | None = None
        self._base_url = ""
        self._answers: weakref.WeakSet[aiohttp.ClientResponse] = weakref.WeakSet()
        self._alarm = asyncio.Event()
        self._motion = Motion()
        self._ready_since: float | None = None
        self._load_seconds: float | None = None
        self._n_lives = 0
        self._was_ready = False

    # What requests need of it.

    @property
    def state(self) -> State:
        """See ReplicaStatus."""
        return self._state

    @property
    def n_slots(self) -> int:
        """Requests that it answers at the same time."""
        return self.plan.n_parallel

    async def open(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        """See Backend."""
        if self._session is None:
            raise BrokenError("it is not there")
        try:
            answer = await self._session.request(
                method,
                URL(self._base_url + target, encoded=True),  # or dots in it would be resolved
                headers=headers,
                data=body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as exc:
            raise BrokenError(str(exc) or type(exc).__name__) from exc
        self._answers.add(answer)
        return answer

    def moved(self) -> None:
        """See Backend."""
        self._motion.moved()

    def doubt(self) -> None:
        """See Backend. Until it was looked at, nobody is sent there."""
        if self._state == "ready":
            self._set("loading")
        self._alarm.set()

    def status(self) -> ReplicaStatus:
        """See Backend; memory is for others to fill in."""
        return ReplicaStatus(
            name=self.name,
            state=self._state,
            n_slots=self.n_slots,
            n_busy=self.n_busy,
            pid=self._server.pid if self._server is not None else None,
            restarts=max(0, self._n_lives - 1),
            last_error="" if self.error is None else self.error.message,
            ready_since=self._ready_since if self._state == "ready" else None,
            load_seconds=self._load_seconds,
            concessions=tuple(concession.sentence for concession in self._concessions),
        )

    # Its lives.

    async def run(self) -> None:
        """Keeps it alive until it is cancelled, or until its first start has failed for good."""
        n_failures = 0
        try:
            while True:
                ready_seconds = await self._live()
                n_failures = 0 if ready_seconds > _WELL_SECONDS else n_failures + 1
                if await self._recovered():
                    n_failures = 0
                    continue
                if not self._was_ready:
                    return
                if n_failures:
                    last = _LAST_PAUSE_AFTER_READY_SECONDS if ready_seconds else _LAST_PAUSE_SECONDS
                    pause = min(_FIRST_PAUSE_SECONDS * 2 ** (n_failures - 1), last)
                    self._set("failed" if n_failures >= _MANY_FAILURES else "starting")
                    await asyncio.sleep(pause)
        finally:
            # After its last life, so that whoever waits for a failure finds its reason.
            self._set("failed")

    async def _live(self) -> float:
        """One life, from the process's start to its end; for how many seconds it was ready.

        `error` tells why it ended.
        """
        n_kills = await _in_thread(read_kills)
        self._n_lives += 1
        self._set("starting")
        self._load_seconds = None
        began = time.monotonic()
        ready_at: float | None = None
        server = self._server = LlamaServer(
            self._tools,
            self.plan,
            extra_argv=self._extra_argv,
            environment=self._environment,
            ui=True,
        )
        self._alarm.clear()
        try:
            await _in_thread(server.start)
            self._connect(server)
            self._call_when_ended(server)
            self._set("loading")
            status = await self._loaded(server)
            if status is None:
                ready_at = time.monotonic()
                self._was_ready = True
                self._ready_since, self._load_seconds = time.time(), ready_at - began
                self._motion = Motion()
                self._set("ready")
                await self._remember()
                status = await self._ended(server)
            kills = await _in_thread(read_kills)
            killed_for_memory = n_kills is not None and kills is not None and kills > n_kills
            self.error = await _in_thread(
                lambda: server.explain(
                    status, loading=ready_at is None, killed_for_memory=killed_for_memory
                )
            )
        except LocalllmError as error:  # it could not even be started, or was ended by us
            self.error = error
        except Exception as exc:
            # No descriptor, process, thread or room is left, which may be there later; or a bug of
            # ours, which must not leave the server without a replica in silence.
            self.error = EngineError(f"llama-server cannot be run: {type(exc).__name__}: {exc}")
            self.error.detail = traceback.format_exc()
        finally:
            self._set("draining" if self._state == "ready" else "starting")
            await self._disconnect()
            await _in_thread(server.stop)
            self._server = None
        self._tell_death(ready_at is None)
        return 0.0 if ready_at is None else time.monotonic() - ready_at

    async def _loaded(self, server: LlamaServer) -> int | None:
        """Waits until the model is loaded; the exit status where it ended before."""
        look = _FIRST_LOOK_SECONDS
        while True:
            status = server.poll()
            if status is not None or await self._is_healthy():
                return status
            await self._pause(look)
            look = min(look * 1.5, _LOADING_LOOK_SECONDS)

    async def _ended(self, server: LlamaServer) -> int:
        """Watches it; its exit status.

        Raises:
            EngineError: it did not move any more and was killed.
        """
        looked_at = time.monotonic()
        while True:
            await self._pause(_TICK_SECONDS)
            status = server.poll()
            if status is None and self._state != "ready":  # doubted
                status = await _in_thread(lambda: server.wait(_DYING_SECONDS))
                if status is None and await self._is_healthy():
                    self._set("ready")
            if status is not None:
                return status
            is_due = 0 < self.settings.health_seconds < time.monotonic() - looked_at
            if not (is_due or self._state != "ready" or self._motion.is_suspect(self.n_busy)):
                continue
            before = server.cpu_seconds()
            slots = await self._slots()
            after = server.cpu_seconds()
            computed = None if before is None or after is None else after - before
            why = self._motion.judge(slots, computed, self.settings.wedged_seconds)
            if slots is not None:  # one that did not answer is asked again at once
                looked_at = time.monotonic()
            if why is not None:
                await _in_thread(server.kill)
                error = EngineError(f"llama-server {why}")
                error.detail = server.log()
                raise error

    async def _recovered(self) -> bool:
        """Whether what ended its life was mended, so that it can begin another at once."""
        error = self.error
        if isinstance(error, OutOfMemoryError):
            self._device = error.device
            return await self._gave_up_something()
        if self._before is not None and isinstance(error, EngineError):
            # Not every model can be run with every cache type, and only loading it tells.
            self.plan, self._before = self._before, None
            refused, self._concessions = self._concessions[-1], self._concessions[:-1]
            self._refused |= refused.changes.keys()
            return await self._gave_up_something()
        if isinstance(error, IntegrityError) and self._mend is not None:
            mend = self._mend
            return await _aside(lambda: mend(error))
        return False

    async def _gave_up_something(self) -> bool:
        """Whether the plan had anything left to give up for memory."""
        step = next_concession(self.plan, self._device, self._refused, self._n_cores)
        if step is None:
            self._report("there is nothing left to give up", replica=self.name)
            return False
        self._before = self.plan
        self.plan, concession = step
        self._concessions = (*self._concessions, concession)
        what = f"memory ran out; with {concession.sentence} it is tried again"
        self._report(what, replica=self.name, level="warning")
        return True

    async def _remember(self) -> None:
        """What was given up did help: the next start begins with it."""
        self._before = None
        new = self._concessions[self._n_remembered :]
        if new and self._conceded is not None:
            conceded, self._n_remembered = self._conceded, len(self._concessions)
            await _in_thread(lambda: conceded(new))

    def _tell_death(self, loading: bool) -> None:
        error = self.error
        if error is None:
            return
        what = error.message if loading else f"{error.message}; it is started again"
        hint = f"hint: {error.hint}\n" if error.hint else ""
        self._report(what, replica=self.name, detail=hint + error.detail)

    # Small things.

    def _set(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self.on_change(state)

    async def _pause(self, seconds: float) -> None:
        """So long, or until something happens to it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._alarm.wait(), seconds)
        self._alarm.clear()

    def _connect(self, server: LlamaServer) -> None:
        endpoint = server.require_endpoint()
        # llama-server closes an idle connection after 5 s: none is kept.
        connector = (
            aiohttp.UnixConnector(endpoint.socket_path, force_close=True, limit=0)
            if endpoint.socket_path is not None
            else aiohttp.TCPConnector(force_close=True, limit=0)
        )
        self._base_url = endpoint.base_url
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # A header of llama-server's is short, but what a model is called is for people.
            max_field_size=65536,
        )

    async def _disconnect(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            # Who reads an answer would wait for ever: closing the session does not tell it, where
            # the connection's end was not read yet (it stopped reading for a slow client).
            for answer in list(self._answers):
                if not answer.content.is_eof():
                    answer.content.set_exception(aiohttp.ClientConnectionError("it has ended"))
            await session.close()

    def _call_when_ended(self, server: LlamaServer) -> None:
        """Raises the alarm as soon as the process is gone."""
        loop, alarm = asyncio.get_running_loop(), self._alarm

        def wait() -> None:
            server.wait()
            with contextlib.suppress(RuntimeError):  # the loop is gone, too
                loop.call_soon_threadsafe(alarm.set)

        threading.Thread(target=wait, name=f"replica-{self.name}", daemon=True).start()

    async def _is_healthy(self) -> bool:
        try:
            return await asyncio.wait_for(self._get("/health"), _PROBE_SECONDS) is not None
        except (BrokenError, aiohttp.ClientError, asyncio.TimeoutError):
            return False

    async def _slots(self) -> object:
        """What its slots have done so far; None where it does not answer.

        It goes through the very loop that computes, which /health does not.
        """
        try:
            return await asyncio.wait_for(self._get("/slots"), _PROBE_SECONDS)
        except (BrokenError, aiohttp.ClientError, asyncio.TimeoutError):
            return None

    async def _get(self, path: str) -> object:
        """The JSON of a path; None while the model is loading."""
        with contextlib.closing(await self.open("GET", path, {}, None)) as response:
            if response.status == 503:
                return None
            return await response.json(content_type=None)

    async def metrics(self) -> bytes:
        """What llama-server itself counts; nothing where it does not answer."""
        try:
            with contextlib.closing(await self.open("GET", "/metrics", {}, None)) as response:
                return await response.read() if response.status == 200 else b""
        except (BrokenError, aiohttp.ClientError):
            return b""


async def _in_thread(work: Callable[[], _T]) -> _T:
    """The work's result.

    It is waited for even when the waiting task is cancelled: a process that is being started must
    be there before it can be ended.
    """
    future: Awaitable[_T] = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await future
        raise


async def _aside(work: Callable[[], _T]) -> _T:
    """The work's result; to be cancelled is not to wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def tell(result: _T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(_T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as exc:
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await done


def first_error(replicas: Sequence[Replica]) -> LocalllmError:
    """Why none of them could be started."""
    for replica in replicas:
        if replica.error is not None:
            return replica.error
    return EngineError("no llama-server could be started")
