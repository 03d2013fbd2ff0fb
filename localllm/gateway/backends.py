"""What answers requests: a Backend, and the Pool of those that serve one model.

The rest of the gateway knows only these. A Replica (replica.py) is a llama-server of ours; a server
elsewhere would be another Backend.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from localllm.gateway.affinity import Affinity
from localllm.gateway.status import ReplicaStatus, State

if TYPE_CHECKING:
    from aiohttp import ClientResponse


class BrokenError(Exception):
    """The connection to a backend could not be made, or broke."""


class Backend(Protocol):
    """Something that answers OpenAI-style requests for one model."""

    @property
    def name(self) -> str:
        """Unique in its pool."""
        ...

    @property
    def state(self) -> State:
        """Requests go to it only while it is ready."""
        ...

    @property
    def n_slots(self) -> int:
        """Requests that it answers at the same time."""
        ...

    n_busy: int

    async def open(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> ClientResponse:
        """Sends a request; its answer's head is there. To close() it early ends the work for it.

        Raises:
            BrokenError: on the way there; while it is read, aiohttp.ClientError tells the same.
        """
        ...

    def moved(self) -> None:
        """Bytes of an answer came from it."""
        ...

    def doubt(self) -> None:
        """Somebody saw it break: have a look at once."""
        ...

    def status(self) -> ReplicaStatus:
        """What it is doing now."""
        ...

    async def metrics(self) -> bytes:
        """What it counts itself, for Prometheus; nothing where it does not answer."""
        ...

    async def run(self) -> None:
        """Keeps it alive until it is cancelled."""
        ...


class Pool:
    """The backends of one model.

    Args:
        backends: at least one.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = tuple(backends)
        self.affinity = Affinity()
        #: Called whenever a backend's state or a slot has changed.
        self.on_change: Callable[[], None] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}

    def start(self) -> None:
        """Begins to keep them alive."""
        self._tasks = [asyncio.ensure_future(backend.run()) for backend in self.backends]

    async def stop(self) -> None:
        """Ends them all, at the same time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ready(self) -> Iterator[Backend]:
        """Those that requests may go to."""
        return (backend for backend in self.backends if backend.state == "ready")

    @property
    def is_ready(self) -> bool:
        """Whether any of them can answer."""
        return any(True for _ in self.ready)

    @property
    def n_slots(self) -> int:
        """Of all of them, ready or not."""
        return sum(backend.n_slots for backend in self.backends)

    @property
    def n_busy(self) -> int:
        """Slots that are taken."""
        return sum(backend.n_busy for backend in self.backends)

    def choose(self, n_slots: int, prefix: Sequence[bytes]) -> Backend | None:
        """The backend for a request, or None while none has room.

        1. The one that has seen most of its prompt, if it has room; 2. the one with the most room;
        3. of those, the one whose turn is the longest ago.
        """
        free = {
            backend.name: backend
            for backend in self.ready
            if backend.n_busy + min(n_slots, backend.n_slots) <= backend.n_slots
        }
        if not free:
            return None
        known = self.affinity.find(prefix, free)
        if known is not None:
            return free[known]
        chosen = max(
            free.values(),
            key=lambda of: (of.n_slots - of.n_busy, -self._last_turn.get(of.name, 0)),
        )
        self._last_turn[chosen.name] = next(self._turns)
        return chosen

    def remember(self, prefix: Sequence[bytes], backend: Backend) -> None:
        """The backend was given this prompt; of a single one there is nothing to remember."""
        if len(self.backends) > 1:
            self.affinity.remember(prefix, backend.name)

    def any_ready(self, prefix: Sequence[bytes] = ()) -> Backend | None:
        """A backend for a request that takes no slot."""
        ready = {backend.name: backend for backend in self.ready}
        known = self.affinity.find(prefix, ready)
        return ready[known] if known is not None else next(iter(ready.values()), None)
