"""A llama-server of ours and all of its lives: started, loaded, watched, ended, started again.

What a person should hear of it goes to a Reporter. Requests reach it through `open`.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import ClientResponse

from localllm.engine.locate import Tools
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError, IntegrityError, LocalllmError, OutOfMemoryError
from localllm.gateway.backends import BrokenError
from localllm.gateway.child import Child
from localllm.gateway.motion import Motion
from localllm.gateway.settings import Settings
from localllm.gateway.status import ReplicaStatus, State
from localllm.gateway.threads import aside, in_thread
from localllm.plan import Plan
from localllm.probe.outofmemory import read_kills
from localllm.recovery import Concession, next_concession

#: While it loads, /health is asked after this long, and then ever later, up to once a second.
_FIRST_LOOK_SECONDS = 0.02
_LOADING_LOOK_SECONDS = 1.0
_TICK_SECONDS = 1.0
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
        self._child: Child | None = None
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
    ) -> ClientResponse:
        """See Backend."""
        if self._child is None:
            raise BrokenError("it is not there")
        return await self._child.open(method, target, headers, body)

    async def metrics(self) -> bytes:
        """See Backend."""
        return b"" if self._child is None else await self._child.metrics()

    def moved(self) -> None:
        """See Backend."""
        self._motion.moved()

    def doubt(self) -> None:
        """See Backend. Until it was looked at, nobody is sent there."""
        if self._state == "ready":
            self._set("loading")
        if self._child is not None:
            self._child.alarm.set()

    def status(self) -> ReplicaStatus:
        """See Backend; memory is for others to fill in."""
        return ReplicaStatus(
            name=self.name,
            state=self._state,
            n_slots=self.n_slots,
            n_busy=self.n_busy,
            pid=None if self._child is None else self._child.pid,
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
        n_kills = await in_thread(read_kills)
        self._n_lives += 1
        self._set("starting")
        self._load_seconds = None
        began = time.monotonic()
        ready_at: float | None = None
        child = self._child = Child(
            LlamaServer(
                self._tools,
                self.plan,
                extra_argv=self._extra_argv,
                environment=self._environment,
                ui=True,
            )
        )
        try:
            await child.start()
            self._set("loading")
            status = await self._loaded(child)
            if status is None:
                ready_at = time.monotonic()
                self._was_ready = True
                self._ready_since, self._load_seconds = time.time(), ready_at - began
                self._motion = Motion()
                self._set("ready")
                await self._remember()
                status = await self._ended(child)
            kills = await in_thread(read_kills)
            killed_for_memory = n_kills is not None and kills is not None and kills > n_kills
            self.error = await child.explain(
                status, loading=ready_at is None, killed_for_memory=killed_for_memory
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
            await child.stop()
            self._child = None
        self._tell_death(ready_at is None)
        return 0.0 if ready_at is None else time.monotonic() - ready_at

    async def _loaded(self, child: Child) -> int | None:
        """Waits until the model is loaded; the exit status where it ended before."""
        look = _FIRST_LOOK_SECONDS
        while True:
            status = child.poll()
            if status is not None or await child.is_healthy():
                return status
            await child.pause(look)
            look = min(look * 1.5, _LOADING_LOOK_SECONDS)

    async def _ended(self, child: Child) -> int:
        """Watches it; its exit status.

        Raises:
            EngineError: it did not move any more and was killed.
        """
        looked_at = time.monotonic()
        while True:
            await child.pause(_TICK_SECONDS)
            status = child.poll()
            if status is None and self._state != "ready":  # doubted
                status = await child.wait(_DYING_SECONDS)
                if status is None and await child.is_healthy():
                    self._set("ready")
            if status is not None:
                return status
            is_due = 0 < self.settings.health_seconds < time.monotonic() - looked_at
            # Asked in any case: of one without work it notes that it need not move.
            is_suspect = self._motion.is_suspect(self.n_busy)
            if not (is_due or is_suspect or self._state != "ready"):
                continue
            before = child.cpu_seconds()
            slots = await child.slots()
            after = child.cpu_seconds()
            computed = None if before is None or after is None else after - before
            why = self._motion.judge(slots, computed, self.settings.wedged_seconds)
            if slots is not None:  # one that did not answer is asked again at once
                looked_at = time.monotonic()
            if why is not None:
                await child.kill()
                error = EngineError(f"llama-server {why}")
                error.detail = child.log()
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
            return await aside(lambda: mend(error))
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
            await in_thread(lambda: conceded(new))

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


def first_error(replicas: Sequence[Replica]) -> LocalllmError:
    """Why none of them could be started."""
    for replica in replicas:
        if replica.error is not None:
            return replica.error
    return EngineError("no llama-server could be started")
