"""One life's alarm."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from localllm.gateway.child import Child


@pytest.mark.parametrize("n_turns", range(5))
def test_to_be_cancelled_in_the_moment_of_the_alarm_is_to_be_cancelled(n_turns: int) -> None:
    async def check() -> None:
        child = Child(cast(Any, None))
        task = asyncio.ensure_future(child.pause(600))
        await asyncio.sleep(0)
        child.alarm.set()
        for _ in range(n_turns):
            await asyncio.sleep(0)
        was_over = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() != was_over

    asyncio.run(check())


def test_a_pause_ends_without_an_alarm_too() -> None:
    async def check() -> None:
        child = Child(cast(Any, None))
        await asyncio.wait_for(child.pause(0.01), 60)
        assert not child.alarm.is_set()

    asyncio.run(check())
