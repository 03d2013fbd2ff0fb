"""`localllm serve` for a long while: every kind of client, and llama-servers that are killed.

    .venv/bin/python -m benchmarks.soak [--minutes 20] [--seed 1]

The demo model on two replicas of 4 slots. 16 clients at a time do what chance says: ask and read,
streamed or not; leave at any moment; read nothing for a while; send nonsense, too much or nothing
at all; hold conversations that outlive them; come in bursts beyond the queue. Twice a minute a
llama-server is killed. Memory, descriptors and threads of the gateway are looked at every 10 s.
Growth is between what they were from the second to the fifth minute of twenty and in the last
three, or the same shares of another time. Goals: memory grows by less than 2 %, no descriptor stays
open, no slot stays taken, and whoever asked properly was answered, was told to come again, or was
told in the middle that llama-server ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import store
from benchmarks.crowd import address
from localllm.units import format_bytes
from tests.conftest import wait_until
from tests.gateway.serving import Served, served
from tests.load import Answer, Leave, Slow, ask, run_load

N_CLIENTS = 16
N_BURST = 100
N_LOGS = 3
SAMPLE_SECONDS = 10.0
KILL_SECONDS = 30.0
#: From the second to the fifth minute of twenty; the last three.
EARLY, LATE = (0.1, 0.25), (0.85, 1.0)
SETTINGS = {"slow_client_seconds": 5, "body_bytes": 1_000_000, "body_seconds": 5, "queue_limit": 32}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "serve.yaml"
        config.write_text(json.dumps(SETTINGS))  # JSON is YAML
        argv = ("--config", str(config), "--parallel", "4", "--replicas", "2")
        with served("demo", *argv) as server:
            wait_until(lambda: all_ready(server), "both replicas")
            soak = Soak(server, arguments.minutes * 60, random.Random(arguments.seed))
            asyncio.run(soak.run())
            wait_until(lambda: all_ready(server) and not n_taken(server), "all slots to be free")
            # Connections that were kept alive close by themselves within 15 s.
            wait_until(
                lambda: soak.process.num_fds() <= soak.n_descriptors, "descriptors to be closed"
            )
    soak.tell()
    store("soak", {"minutes": arguments.minutes, "seed": arguments.seed, **soak.result()})


def all_ready(server: Served) -> bool:
    return all(replica.state == "ready" for replica in server.status.replicas)


def n_taken(server: Served) -> int:
    return server.n_busy + server.status.n_waiting


class Soak:
    """One run: what is done to the gateway, what it answered, and how it fared."""

    def __init__(self, server: Served, seconds: float, chance: random.Random) -> None:
        self.server = server
        self.process = psutil.Process(server.process.pid)
        # The logs are opened at their first line.
        self.n_descriptors = self.process.num_fds() + N_LOGS
        self.samples: list[dict[str, float]] = []
        self.kinds: Counter[str] = Counter()
        self.n_kills = 0
        self._seconds, self._chance = seconds, chance
        self._began = time.monotonic()

    async def run(self) -> None:
        """All of it."""
        others = [asyncio.ensure_future(work) for work in (self._sample(), self._kill())]
        await run_load(N_CLIENTS, lambda _: self._visit(), seconds=self._seconds)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for other in others:
            if not other.cancelled() and (error := other.exception()):
                raise error

    async def _visit(self) -> Answer:
        visits: list[tuple[str, float, Callable[[], Awaitable[Answer]]]] = [
            ("stream", 30, lambda: self._generate(stream=True)),
            ("whole", 20, self._generate),
            ("leave", 20, self._leave),
            ("slow", 4, self._slow),
            ("stalled", 2, self._stalled),
            ("conversation", 6, self._converse),
            ("nonsense", 8, self._nonsense),
            ("too large", 4, lambda: self._post("/completion", b" " * 2_000_000)),
            ("models", 5, lambda: ask(address(self.server), "/v1/models")),
            ("burst", 0.3, self._burst),
        ]
        [(kind, _, visit)] = self._chance.choices(visits, [share for _, share, _ in visits])
        answer = await visit()
        self.kinds[f"{kind}: {outcome(answer)}"] += 1
        return answer

    def _post(self, path: str, body: bytes, **options: Any) -> Awaitable[Answer]:
        return ask(
            address(self.server),
            path,
            body,
            keep_body=True,
            timeout_seconds=options.pop("timeout_seconds", 300),
            **options,
        )

    def _generate(self, **more: Any) -> Awaitable[Answer]:
        options = {
            key: more.pop(key)
            for key in ("leave", "slow", "headers", "timeout_seconds")
            if key in more
        }
        document = {
            "messages": [{"role": "user", "content": f"Tell me {self._chance.randint(0, 50)}."}],
            "max_tokens": self._chance.choice((2, 20, 200, 800)),
            "ignore_eos": True,
            **more,
        }
        return self._post("/v1/chat/completions", json.dumps(document).encode(), **options)

    def _leave(self) -> Awaitable[Answer]:
        leave = Leave(
            self._chance.choice((0, 0, 1, 10)),
            wait_seconds=self._chance.random() / 2,
            abruptly=self._chance.random() < 0.5,
        )
        stream = leave.after_events > 0 or self._chance.random() < 0.5
        return self._generate(stream=stream, max_tokens=1500, leave=leave)

    def _slow(self) -> Awaitable[Answer]:
        wide = {"logprobs": True, "top_logprobs": 20, "max_tokens": 200}
        return self._generate(stream=True, slow=Slow(100_000), **wide)

    def _stalled(self) -> Awaitable[Answer]:
        wide = {"logprobs": True, "top_logprobs": 20, "max_tokens": 1000}
        # It would notice that it was dropped only when it has read what is left at its side.
        return self._generate(stream=True, slow=Slow(1), timeout_seconds=8, **wide)

    def _converse(self) -> Awaitable[Answer]:
        name = f"talk-{self._chance.randint(0, 10**9)}"
        leave = Leave(2) if self._chance.random() < 0.5 else None
        return self._generate(stream=True, headers={"X-Conversation-Id": name}, leave=leave)

    def _nonsense(self) -> Awaitable[Answer]:
        path = self._chance.choice(("/v1/chat/completions", "/completion", "/v1/messages", "/no"))
        body = self._chance.choice((b"", b"{", b"[]", b'{"messages": 5}', b"\xff" * 1000))
        return self._post(path, body)

    async def _burst(self) -> Answer:
        answers = await run_load(
            N_BURST, lambda _: self._generate(max_tokens=2), n_requests=N_BURST
        )
        for answer in answers:
            self.kinds[f"burst: {outcome(answer)}"] += 1
        self.kinds[f"burst: {outcome(answers[-1])}"] -= 1  # it is counted by who asked
        return answers[-1]

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(min(KILL_SECONDS, self._seconds / 4))
            children = await asyncio.to_thread(lambda: self.server.children)
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                self._chance.choice(children).kill()
                self.n_kills += 1

    async def _sample(self) -> None:
        while True:
            with self.process.oneshot():
                self.samples.append(
                    {
                        "seconds": time.monotonic() - self._began,
                        "bytes": self.process.memory_info().rss,
                        "descriptors": self.process.num_fds(),
                        "threads": self.process.num_threads(),
                    }
                )
            await asyncio.sleep(min(SAMPLE_SECONDS, self._seconds / 60))

    def _mean(self, name: str, share: tuple[float, float]) -> float:
        first, last = (of * self._seconds for of in share)
        return statistics.mean(of[name] for of in self.samples if first <= of["seconds"] <= last)

    def result(self) -> dict[str, Any]:
        """All that was seen, for a file."""
        early, late = self._mean("bytes", EARLY), self._mean("bytes", LATE)
        return {
            "requests": sum(self.kinds.values()),
            "kills": self.n_kills,
            "kinds": dict(sorted(self.kinds.items())),
            "early_bytes": early,
            "late_bytes": late,
            "growth": late / early - 1,
            "samples": self.samples,
        }

    def tell(self) -> None:
        """Prints it."""
        found = self.result()
        print(f"{found['requests']} requests, {self.n_kills} llama-servers killed")
        for kind, count in found["kinds"].items():
            print(f"  {kind:<52} {count:6}")
        print(f"  {'':<12} {'early':>10} {'late':>10}")
        early, late = found["early_bytes"], found["late_bytes"]
        print(f"  {'memory':<12} {format_bytes(early):>10} {format_bytes(late):>10}", end="")
        print(f" {found['growth']:+.1%}")
        for name in ("descriptors", "threads"):
            print(f"  {name:<12} {self._mean(name, EARLY):10.1f} {self._mean(name, LATE):10.1f}")
        print(
            f"  at the end no slot is taken, and at most {self.n_descriptors} descriptors are open"
        )


def outcome(answer: Answer) -> str:
    """What became of it, one of a few."""
    if answer.left:
        return "left"
    if answer.error:
        return answer.error
    told = b'"error"' in answer.body[-1000:] and answer.status == 200
    return f"{answer.status}{' and an error event' if told else ''}"


if __name__ == "__main__":
    main()
