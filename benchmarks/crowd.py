"""What a crowd and bad clients do to `localllm serve`: refusals, slots, memory.

    .venv/bin/python -m benchmarks.crowd [--clients 500] [--leaving 2000] [--slow 200]

The demo model, all on this machine.
- clients: all at once against 4 slots and the usual queue of 64. Goals: who is not taken is refused
  at once, the others are answered, the gateway stays below 150 MB.
- leaving: 12 at a time, while 4 others stream, before the first byte or after some events, streamed
  and not, by a reset and by a close. Measured is from the last one's leaving until all slots but
  those of the streams are free, as the gateway counts them and as llama-server's /slots does; it
  contains the asking. Goal: 2 s.
- slow: readers that take next to nothing of 5 MiB each, dropped after 2 s. Goal: memory stays, the
  gateway's and the system's for its sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import store
from localllm.units import format_bytes
from tests.gateway.serving import Served, served
from tests.load import Address, Answer, Leave, Slow, ask, run_load

N_AT_ONCE = 12
N_STREAMS = 4
#: 5 MiB of answer.
WIDE = {"n_predict": 3000, "n_probs": 20, "stream": True}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--leaving", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=200)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if arguments.clients:
        with served("demo", "--parallel", "4") as server:
            result["clients"] = asyncio.run(clients(server, arguments.clients))
    if arguments.leaving:
        with served("demo", "--parallel", str(N_AT_ONCE + N_STREAMS)) as server:
            result["leaving"] = asyncio.run(leaving(server, arguments.leaving))
    if arguments.slow:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "serve.yaml"
            config.write_text("slow_client_seconds: 2\nqueue_seconds: 600\n")
            argv = ("--parallel", "16", "--queue-limit", str(arguments.slow))
            with served("demo", "--config", str(config), *argv) as server:
                result["slow"] = asyncio.run(slow(server, arguments.slow))
    store("crowd", result)


async def clients(server: Served, n: int) -> dict[str, Any]:
    before = resident_bytes(server)
    watch = Watch(lambda: resident_bytes(server))
    answers = await run_load(n, lambda _: generate(server, 32, stream=True), n_requests=n)
    most = await watch.end()
    after = resident_bytes(server)
    statuses = Counter(answer.status if not answer.error else 0 for answer in answers)
    refused = sorted(each.total_seconds for each in answers if each.status == 429)
    taken = sorted(each.total_seconds for each in answers if each.status == 200)
    print(f"\n{n} clients at once, 4 slots, a queue of 64")
    for status, count in sorted(statuses.items()):
        print(f"  {status or 'broken'}: {count}")
    print(f"  seconds to a refusal   {shown(refused)}")
    print(f"  seconds to an answer   {shown(taken)}")
    print(
        f"  memory: {format_bytes(before)} before, {format_bytes(most)} at most,"
        f" {format_bytes(after)} after"
    )
    return {
        "statuses": dict(statuses),
        "refused_seconds": percentiles(refused),
        "answered_seconds": percentiles(taken),
        "gateway_bytes": {"before": before, "most": most, "after": after},
    }


async def leaving(server: Served, n: int) -> dict[str, Any]:
    kinds = [
        (f"{'streamed' if stream else 'whole'}, {when}, {'reset' if reset else 'closed'}",
         stream, after_events, reset)
        for stream, when, after_events in (
            (False, "at work", 0), (True, "at once", 0), (True, "after 1 event", 1),
            (True, "after 20 events", 20),
        )
        for reset in (True, False)
    ]  # fmt: skip
    seconds: dict[str, list[float]] = {kind: [] for kind, *_ in kinds}
    before = resident_bytes(server)
    n_left, broken, done = 0, 0, False

    async def stream_on() -> None:
        nonlocal broken
        while not done:
            answer = await generate(server, 200, stream=True)
            broken += answer.status != 200 or bool(answer.error)

    others = [asyncio.ensure_future(stream_on()) for _ in range(N_STREAMS)]
    while n_left < n:
        for kind, stream, after_events, reset in kinds:
            leave = Leave(after_events, wait_seconds=0.1, abruptly=reset)
            answers = await asyncio.gather(
                *(generate(server, 4000, stream=stream, leave=leave) for _ in range(N_AT_ONCE))
            )
            began = time.perf_counter()
            n_left += sum(answer.left for answer in answers)
            while await n_taken(server) > N_STREAMS:
                await asyncio.sleep(0.01)
            seconds[kind].append(time.perf_counter() - began)
    done = True
    await asyncio.gather(*others)
    after = resident_bytes(server)
    print(f"\n{n_left} clients left, {N_AT_ONCE} at a time; seconds until their slots were free")
    for kind, values in seconds.items():
        print(f"  {kind:<34} {shown(values)}")
    print(f"  streams of others that broke: {broken}")
    print(f"  memory: {format_bytes(before)} before, {format_bytes(after)} after")
    return {
        "left": n_left,
        "seconds": seconds,
        "broken_streams": broken,
        "gateway_bytes": {"before": before, "after": after},
    }


async def n_taken(server: Served) -> int:
    """Slots that are taken, as the gateway counts or as llama-server does: the larger number."""
    status = json.loads((await ask_control(server)).body)
    n_busy = sum(replica["n_busy"] for replica in status["replicas"])
    if n_busy > N_STREAMS:
        return int(n_busy)
    slots = json.loads((await ask(address(server), "/slots", keep_body=True)).body)
    return max(n_busy, sum(slot["is_processing"] for slot in slots))


async def slow(server: Served, n: int) -> dict[str, Any]:
    before, kernel_before = resident_bytes(server), socket_bytes()
    watch, kernel = Watch(lambda: resident_bytes(server)), Watch(socket_bytes)
    began = time.perf_counter()
    readers = [asyncio.ensure_future(stalled(server)) for _ in range(n)]
    n_gone = 0
    while n_gone < n:
        await asyncio.sleep(0.5)
        n_gone = server.log("access").count("the client took nothing")
    seconds = time.perf_counter() - began
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    most, kernel_most = await watch.end(), await kernel.end()
    print(f"\n{n} readers that take nothing, 16 slots: all dropped after {seconds:.0f} s")
    print(f"  memory: {format_bytes(before)} before, {format_bytes(most)} at most")
    print(
        f"  the system's, for all sockets: {format_bytes(kernel_before)} before,"
        f" {format_bytes(kernel_most)} at most"
    )
    return {
        "seconds": seconds,
        "gateway_bytes": {"before": before, "most": most},
        "socket_bytes": {"before": kernel_before, "most": kernel_most},
    }


def generate(server: Served, n_predict: int, **options: Any) -> Awaitable[Answer]:
    document = {
        "prompt": "Hello",
        "n_predict": n_predict,
        "ignore_eos": True,
        "stream": options.pop("stream"),
    }
    body = json.dumps(document).encode()
    return ask(address(server), "/completion", body, timeout_seconds=600, **options)


def stalled(server: Served) -> Awaitable[Answer]:
    body = json.dumps({"prompt": "Hello", "ignore_eos": True, **WIDE}).encode()
    return ask(address(server), "/completion", body, slow=Slow(1), timeout_seconds=3600)


def address(server: Served) -> Address:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def ask_control(server: Served) -> Awaitable[Answer]:
    path = server.record.control_socket
    assert path is not None
    return ask(path, "/status", keep_body=True)


class Watch:
    """The most of something that is looked at ten times a second."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look, self._most = look, look()
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self._most = max(self._most, self._look())
            await asyncio.sleep(0.1)

    async def end(self) -> int:
        """Stops looking; the most that was seen."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._most


def resident_bytes(server: Served) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def socket_bytes() -> int:
    """What the system holds for TCP connections (Linux counts it in pages of 4 KiB); else 0."""
    path = Path("/proc/net/sockstat")
    if not path.exists():
        return 0
    [line] = [line for line in path.read_text().splitlines() if line.startswith("TCP:")]
    return int(line.split()[-1]) * 4096


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cut[49], "p99": cut[98], "most": max(values)}


def shown(values: Sequence[float]) -> str:
    found = percentiles(values)
    return "   ".join(f"{name} {seconds:6.3f}" for name, seconds in found.items())


if __name__ == "__main__":
    main()
