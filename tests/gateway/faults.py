"""Load on a gateway while its children are killed, and what each client had of it.

Used by the tests, a few times, and by benchmarks/faults.py, many times.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.gateway.serving import Served
from tests.load import Answer, ask, run_load

PATH = "/v1/chat/completions"
#: More than the four slots of a test's gateway: some wait.
N_CLIENTS = 6
#: Answers between two kills. All that waited or was tried again has its turn meanwhile, so that
#: no request meets more kills than it may have attempts.
ANSWERS_BETWEEN = 12


@dataclass(frozen=True)
class Asked:
    """One request under load and its answer. Every second one is a stream."""

    streams: bool
    answer: Answer

    @property
    def was_cut(self) -> bool:
        """The stream ended with an error; everything else about it is right."""
        return bool(self.streams and stream_error(self.answer.body))

    def check(self) -> None:
        """Nothing was lost: it is whole, or a stream that had begun and tells why it ended."""
        answer = self.answer
        assert (answer.status, answer.error) == (200, ""), (answer.status, answer.body[-500:])
        if self.streams:
            assert answer.n_events > 1
            stream_error(answer.body)
        else:
            assert json.loads(answer.body)["usage"]["completion_tokens"] > 0


@dataclass(frozen=True)
class Faults:
    """What came of some kills under load.

    Attributes:
        asked: all requests.
        ready_seconds: from each kill to the moment in which another child was ready.
        load_seconds: how long each of these took to load.
    """

    asked: tuple[Asked, ...]
    ready_seconds: tuple[float, ...] = ()
    load_seconds: tuple[float, ...] = ()

    @property
    def n_cut(self) -> int:
        return sum(of.was_cut for of in self.asked)


def request_body(number: int, n_tokens: int = 100, **more: Any) -> bytes:
    """A chat of so many tokens; even ones are streams. None has the prompt of another."""
    return json.dumps(
        {
            "messages": [{"role": "user", "content": f"{number}. Once upon a time"}],
            "max_tokens": n_tokens,
            "ignore_eos": True,
            "stream": number % 2 == 0,
            **more,
        }
    ).encode()


def stream_error(body: bytes) -> Mapping[str, Any] | None:
    """The error with which a stream ended, or None where it is whole; asserts its form."""
    events = list(_events(body))
    if events[-1] == "[DONE]":
        events.pop()
        last = None
    else:
        last = json.loads(events.pop())["error"]
        assert last["code"] == 500
        assert last["message"]
    assert all("choices" in json.loads(event) for event in events)
    return last


def _events(body: bytes) -> Iterator[str]:
    assert body.endswith(b"\n\n"), body[-200:]
    for event in body.decode().split("\n\n")[:-1]:
        assert event.startswith(("data: ", ":")), event
        if event.startswith("data: "):
            yield event.removeprefix("data: ")


def address(served: Served) -> tuple[str, int]:
    """For tests.load."""
    parts = urlsplit(served.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def load(served: Served, n_requests: int, told: list[Asked], n_tokens: int = 100) -> None:
    """So many requests of N_CLIENTS clients; `told` grows with each answer."""
    to = address(served)

    async def one(number: int) -> Answer:
        answer = await ask(
            to,
            PATH,
            request_body(number, n_tokens),
            keep_body=True,
            timeout_seconds=PATIENCE_SECONDS,
        )
        told.append(Asked(number % 2 == 0, answer))
        return answer

    await run_load(N_CLIENTS, one, n_requests=n_requests)


def kill_under_load(served: Served, n_kills: int, number: int = signal.SIGKILL) -> Faults:
    """Signals the only child again and again while it answers, each time until another is ready."""

    async def both() -> Faults:
        asked: list[Asked] = []
        seconds, loads = [], []
        running = asyncio.ensure_future(load(served, (n_kills + 1) * ANSWERS_BETWEEN, asked))
        try:
            for n in range(n_kills):
                while len(asked) < (n + 1) * ANSWERS_BETWEEN:
                    assert not running.done()
                    await asyncio.sleep(0.005)
                waited = await asyncio.to_thread(replace_child, served, number)
                seconds.append(waited)
                loads.append(served.status.replicas[0].load_seconds or 0.0)
            await running
        finally:
            running.cancel()
        return Faults(tuple(asked), tuple(seconds), tuple(loads))

    return asyncio.run(both())


def replace_child(served: Served, number: int = signal.SIGKILL) -> float:
    """Signals the only child; the seconds until another one is ready."""
    old = served.status.replicas[0].pid
    assert old is not None
    began = time.monotonic()
    os.kill(old, number)

    def is_replaced() -> bool:
        assert not served.gone, served.output
        now = served.status.replicas[0]
        return now.state == "ready" and now.pid != old

    wait_until(is_replaced, "another llama-server to be ready")
    return time.monotonic() - began


def run_folders(served: Served) -> list[str]:
    """Of its children."""
    return sorted(folder.name for folder in (served.home / "run").glob("engine-*"))


def wait_at_rest(served: Served) -> None:
    """Until no slot is taken and nobody waits."""
    wait_until(
        lambda: served.n_busy == 0 and served.status.n_running == served.status.n_waiting == 0,
        "all slots to be free",
    )


def n_descriptors(served: Served) -> int:
    """That the gateway holds while it has nothing to do, besides its logs."""
    wait_at_rest(served)
    process = psutil.Process(served.process.pid)
    counts: list[int] = []

    def is_steady() -> bool:
        counts.append(process.num_fds() - len(process.open_files()))
        return len(counts) > 20 and len(set(counts[-20:])) == 1

    wait_until(is_steady, "the number of descriptors to stay")
    return counts[-1]
