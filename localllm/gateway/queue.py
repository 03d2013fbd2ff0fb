"""Who waits for a slot: first come, first served, and no more than a limit.

It gives leases of slots. Who may come at all is for others; how long one waits is swept by
flights.py, which cancels the waiting task.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from localllm.gateway.backends import Backend, Pool
from localllm.gateway.refusal import Refused

#: Requests that may wait for each slot, where nobody said otherwise: at ten seconds for an answer,
#: who comes last waits some three minutes.
WAITING_PER_SLOT = 16
#: How much the newest request weighs in the mean time that a slot is held.
_NEWEST = 0.1


class Lease:
    """Slots of a backend, held for one request.

    Attributes:
        backend: whose they are.
    """

    def __init__(self, backend: Backend, n_slots: int, ended: Callable[[Lease], None]) -> None:
        self.backend = backend
        self.n_slots = n_slots
        self.began = time.monotonic()
        self._ended: Callable[[Lease], None] | None = ended
        backend.n_busy += n_slots

    def release(self) -> None:
        """Gives them back; a second time does nothing."""
        if self._ended is not None:
            ended, self._ended = self._ended, None
            self.backend.n_busy -= self.n_slots
            ended(self)


class _Waiter:
    def __init__(self, n_slots: int, prefix: Sequence[bytes]) -> None:
        self.n_slots = n_slots
        self.prefix = prefix
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


class Queue:
    """The queue before a pool.

    Args:
        pool: whose slots are given out.
        limit: requests that may wait; None is WAITING_PER_SLOT for each slot.
    """

    def __init__(self, pool: Pool, limit: int | None = None) -> None:
        self._pool = pool
        self._limit = limit
        self._waiters: deque[_Waiter] = deque()
        self._held_seconds = 0.0
        pool.on_change = self.pump

    @property
    def limit(self) -> int:
        """Requests that may wait."""
        return WAITING_PER_SLOT * self._pool.n_slots if self._limit is None else self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self._limit = limit

    def __len__(self) -> int:
        return len(self._waiters)

    def check(self) -> None:
        """Whether one more may come; asked before its body is read.

        Raises:
            Refused: 429, the queue is full.
        """
        if len(self._waiters) < self.limit or self._has_room():
            return
        raise Refused(
            429,
            f"the queue is full: {len(self._waiters)} requests wait for {self._pool.n_slots} slots",
            self.wait_seconds(),
        )

    def wait_seconds(self) -> float:
        """How long a request that came now would probably wait."""
        return self._held_seconds * (len(self._waiters) + 1) / max(1, self._pool.n_slots)

    async def enter(
        self, n_slots: int, prefix: Sequence[bytes], *, in_front: bool = False
    ) -> Lease:
        """Waits for slots.

        Args:
            n_slots: how many it takes; more than a backend has count as all of them.
            prefix: of its prompt (ask.py).
            in_front: it had its turn already, and its backend broke.

        Raises:
            Refused: 429, the queue is full.
        """
        if not in_front:
            self.check()
        waiter = _Waiter(n_slots, prefix)
        if in_front:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        self.pump()
        try:
            return await waiter.lease
        except asyncio.CancelledError:
            if waiter.lease.done() and not waiter.lease.cancelled():
                waiter.lease.result().release()  # given in the moment in which it left
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
                self.pump()  # it may have been too big for what the next one fits into
            raise

    def pump(self) -> None:
        """Gives slots to those who wait, in their order, as long as there are any."""
        while self._waiters:
            waiter = self._waiters[0]
            if waiter.lease.done():  # it left, and its task has not run yet
                self._waiters.popleft()
                continue
            backend = self._pool.choose(waiter.n_slots, waiter.prefix)
            if backend is None:
                return
            self._waiters.popleft()
            self._pool.remember(waiter.prefix, backend)
            n_slots = min(waiter.n_slots, backend.n_slots)
            waiter.lease.set_result(Lease(backend, n_slots, self._released))

    def _has_room(self) -> bool:
        return not self._waiters and self._pool.choose(1, ()) is not None

    def _released(self, lease: Lease) -> None:
        held = time.monotonic() - lease.began
        newest = _NEWEST if self._held_seconds else 1.0
        self._held_seconds += newest * (held - self._held_seconds)
        self.pump()
