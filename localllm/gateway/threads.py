"""Work that blocks, done in a thread while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
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


async def aside(work: Callable[[], _T]) -> _T:
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
