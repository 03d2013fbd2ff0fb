"""Who waits for a slot: in order, bounded, and nothing is ever given away or lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from localllm.gateway import queue as queue_module
from localllm.gateway.backends import Pool
from localllm.gateway.queue import Lease, Queue
from localllm.gateway.refusal import Refused

T = TypeVar("T")


class Slots:
    """As much of a Backend as a queue sees."""

    def __init__(self, name: str, n_slots: int) -> None:
        self.name, self.n_slots, self.n_busy, self.state = name, n_slots, 0, "ready"


def queue_of(*n_slots: int, limit: int | None = None) -> tuple[Queue, list[Slots]]:
    backends = [Slots(str(number), n) for number, n in enumerate(n_slots)]
    return Queue(Pool(backends), limit), backends  # type: ignore[arg-type]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def enter(queue: Queue, n_slots: int = 1, **options: Any) -> asyncio.Task[Lease]:
    return asyncio.ensure_future(queue.enter(n_slots, options.pop("prefix", ()), **options))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_slots_are_given_in_order_of_arrival() -> None:
    async def check() -> None:
        queue, _ = queue_of(1)
        tasks = [enter(queue) for _ in range(5)]
        for number, task in enumerate(tasks):
            await settle()
            assert [each.done() for each in tasks] == [True] * (number + 1) + [False] * (4 - number)
            task.result().release()

    run(check())


def test_one_that_needs_more_slots_is_not_overtaken() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(4)
        first = enter(queue, 3)
        big, small = enter(queue, 2), enter(queue, 1)
        await settle()
        assert (big.done(), small.done()) == (False, False)
        first.result().release()
        await settle()
        assert (big.done(), small.done(), slots.n_busy) == (True, True, 3)

    run(check())


def test_more_slots_than_there_are_count_as_all_of_them() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(4)
        lease = await queue.enter(100, ())
        assert slots.n_busy == 4
        lease.release()
        assert slots.n_busy == 0

    run(check())


def test_a_second_release_gives_nothing_away() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(2)
        one, _two = await queue.enter(1, ()), await queue.enter(1, ())
        one.release()
        one.release()
        assert slots.n_busy == 1

    run(check())


def test_those_beyond_the_limit_are_refused_at_once() -> None:
    async def check() -> None:
        queue, _ = queue_of(2, limit=3)
        tasks = [enter(queue) for _ in range(10)]
        await settle()
        refused = [task for task in tasks if task.done() and task.exception()]
        assert [tasks.index(task) for task in refused] == [5, 6, 7, 8, 9]
        assert len(queue) == 3
        for task in refused:
            exception = task.exception()
            assert isinstance(exception, Refused)
            assert exception.status == 429
            assert int(exception.headers["Retry-After"]) >= 1
        for task in tasks:
            task.cancel()

    run(check())


def test_without_a_limit_16_may_wait_for_each_slot() -> None:
    queue, _ = queue_of(4, 2)
    assert queue.limit == 96


def test_a_limit_of_0_lets_nobody_wait_but_those_who_need_not() -> None:
    async def check() -> None:
        queue, _ = queue_of(1, limit=0)
        lease = await queue.enter(1, ())
        with pytest.raises(Refused):
            await queue.enter(1, ())
        lease.release()
        (await queue.enter(1, ())).release()

    run(check())


def test_who_had_its_turn_comes_back_in_front_and_past_the_limit() -> None:
    async def check() -> None:
        queue, _ = queue_of(1, limit=1)
        lease = await queue.enter(1, ())
        waiting = enter(queue)
        await settle()
        again = enter(queue, in_front=True)
        await settle()
        lease.release()
        await settle()
        assert (again.done(), waiting.done()) == (True, False)
        waiting.cancel()

    run(check())


def test_one_that_leaves_lets_those_behind_it_pass() -> None:
    async def check() -> None:
        queue, _ = queue_of(2)
        held = await queue.enter(1, ())
        big, small = enter(queue, 2), enter(queue, 1)
        await settle()
        assert not small.done()
        big.cancel()
        await settle()
        assert small.done()
        held.release()

    run(check())


def test_one_that_leaves_in_the_moment_of_its_turn_gives_it_back() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(1)
        lease = await queue.enter(1, ())
        leaving, next_one = enter(queue), enter(queue)
        await settle()
        lease.release()  # its lease is there, and its task has not run yet
        leaving.cancel()
        await settle()
        assert leaving.cancelled()
        assert next_one.done()
        assert slots.n_busy == 1
        next_one.result().release()
        assert slots.n_busy == 0

    run(check())


def test_one_that_left_just_before_its_turn_is_passed_over() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(1)
        lease = await queue.enter(1, ())
        leaving, next_one = enter(queue), enter(queue)
        await settle()
        leaving.cancel()
        lease.release()
        await settle()
        assert next_one.done()
        assert slots.n_busy == 1

    run(check())


def test_a_backend_that_is_not_ready_gets_nothing_until_it_is() -> None:
    async def check() -> None:
        queue, [slots] = queue_of(2)
        slots.state = "loading"
        task = enter(queue)
        await settle()
        assert not task.done()
        slots.state = "ready"
        queue.pump()
        await settle()
        assert task.done()

    run(check())


def test_the_backend_with_the_most_room_is_chosen() -> None:
    async def check() -> None:
        queue, backends = queue_of(2, 2)
        for _ in range(4):
            await queue.enter(1, ())
        assert [slots.n_busy for slots in backends] == [2, 2]

    run(check())


def test_a_prompt_goes_where_its_beginning_was_seen_while_there_is_room() -> None:
    async def check() -> None:
        queue, _ = queue_of(1, 1)
        first = await queue.enter(1, [b"a"])
        home = first.backend.name
        other = await queue.enter(1, [b"b"])
        first.release()
        other.release()
        again = await queue.enter(1, [b"a", b"x"])
        assert again.backend.name == home
        elsewhere = await queue.enter(1, [b"a", b"y"])
        assert elsewhere.backend.name != home

    run(check())


def test_the_wait_that_is_told_grows_with_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(queue_module, "time", Clock)

    async def check() -> None:
        queue, _ = queue_of(2)
        lease = await queue.enter(1, ())
        Clock.now += 10
        lease.release()
        assert queue.wait_seconds() == pytest.approx(5)
        held = [await queue.enter(1, ()) for _ in range(2)]
        waiting = [enter(queue) for _ in range(3)]
        await settle()
        assert queue.wait_seconds() == pytest.approx(20)
        for task in waiting:
            task.cancel()
        for lease in held:
            lease.release()

    run(check())


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_slots_that_are_taken_are_those_that_are_held(seed: int) -> None:
    """Some 60 schedules a seed: clients that leave at any step, backends that come and go."""
    chance = random.Random(seed)
    for _ in range(60):
        run(one_schedule(chance))


async def one_schedule(chance: random.Random) -> None:
    n_slots = [chance.randint(1, 4) for _ in range(chance.randint(1, 3))]
    queue, backends = queue_of(*n_slots, limit=chance.choice([0, 3, 1000]))
    live: set[Lease] = set()

    async def client(n_slots: int, n_steps: int, in_front: bool) -> None:
        try:
            lease = await queue.enter(n_slots, (), in_front=in_front)
        except Refused:
            assert len(queue) >= queue.limit
            return
        live.add(lease)
        try:
            for _ in range(n_steps):
                await asyncio.sleep(0)
        finally:
            live.discard(lease)
            lease.release()

    tasks: list[asyncio.Task[None]] = []
    for step in range(chance.randint(5, 40)):
        for _ in range(chance.randint(0, 3)):
            work = client(chance.randint(1, 5), chance.randint(0, 6), step % 7 == 6)
            tasks.append(asyncio.ensure_future(work))
        if tasks and chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.2:
            slots = chance.choice(backends)
            slots.state = "ready" if slots.state != "ready" else "loading"
            queue.pump()
        if chance.random() < 0.7:
            await asyncio.sleep(0)
        for slots in backends:
            assert 0 <= slots.n_busy <= slots.n_slots
            held = sum(lease.n_slots for lease in live if lease.backend is slots)
            assert held <= slots.n_busy  # one whose task has not run yet holds slots, too

    for slots in backends:
        slots.state = "ready"
    queue.pump()
    n_steps = 0
    while not all(task.done() for task in tasks):
        n_steps += 1
        assert n_steps < 100 * len(tasks), "somebody waits while nobody works"
        await asyncio.sleep(0)
    assert all(task.cancelled() or task.exception() is None for task in tasks)
    assert [slots.n_busy for slots in backends] == [0] * len(backends)
    assert len(queue) == 0
    assert not live
