"""What `localllm serve` costs, and what it gains on other ways to serve the same model.

    .venv/bin/python -m benchmarks.serving overhead [--only demo] [--pairs 400] [--rounds 7]
    .venv/bin/python -m benchmarks.serving python-server [--python PATH] [--rounds 5]
    .venv/bin/python -m benchmarks.serving defaults [--starts 4] [--rounds 4]

All on this machine, interleaved, every request on a connection of its own.
- overhead: the very llama-server that the gateway started is asked through the gateway and on its
  own unix socket. Goals: TTFT +3 ms at the median and +8 ms at P99 at most, at least 0.98 of the
  throughput with 1, 8 and 32 streams, 150 MB. The memory is the gateway's and its guardian's.
- python-server: `python -m llama_cpp.server` with the same threads and one slot's context, 8
  clients. It is told not to interrupt: of itself it ends a running stream whenever another request
  comes. Goals: 2.5 times its tokens per second, a fifth of its TTFT.
- defaults: llama-server that is told the model, and besides it only as many slots and as much
  context as ours: of itself it has 4 slots. 8 clients and one, quiet and with two other processes
  that compute. Both are started anew some times: where its memory lies makes one process of a
  program 2 % faster than the next. Goals: not slower when quiet, 1.6 times its tokens per second
  when busy.
`python-server` wants the extra packages of llama-cpp-python[server] in the named Python.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from benchmarks.common import half_billion_model, median_ratio, store
from localllm import demo
from localllm.engine.endpoint import free_port
from localllm.engine.locate import SERVER, require_tools
from localllm.units import format_bytes
from tests.load import Address, Answer, ask, run_load

N_SLOTS = 8
#: Of all slots together: 1024 tokens each.
N_CTX = 8192
START_SECONDS = 300.0
_LISTENS = re.compile(r"localllm serve: http://127\.0\.0\.1:(\d+)")
#: No prompt is asked twice, but where that is meant: a cached one is no work.
_numbers = itertools.count(1)
#: An answer with all the tokens that it was allowed to have.
_FULL = re.compile(rb'"finish_reason": ?"length"')


@dataclass(frozen=True)
class Server:
    """Where one answers, and its process."""

    address: Address
    process: psutil.Process
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """What a number of clients had of a server; ttft_seconds is their median."""

    tokens_per_second: float
    ttft_seconds: float
    n_events: int


#: By whose they are.
Runs: TypeAlias = "dict[str, list[Round]]"


@dataclass(frozen=True)
class Size:
    """A model and what is asked of it: long enough to measure, short enough to wait for."""

    model: Callable[[], Path]
    n_tokens: int
    n_requests_least: int


SIZES = {"demo": Size(demo.model_path, 64, 64), "0.6B": Size(half_billion_model, 32, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("overhead")
    command.add_argument("--only", choices=SIZES, help="one of the two models")
    command.add_argument("--pairs", type=int, default=400)
    command.add_argument("--rounds", type=int, default=7)
    command = commands.add_parser("python-server")
    command.add_argument("--python", default=sys.executable, help="one that has the extras")
    command.add_argument("--rounds", type=int, default=5)
    command = commands.add_parser("defaults")
    command.add_argument("--starts", type=int, default=4)
    command.add_argument("--rounds", type=int, default=4, help="of each start")
    arguments = parser.parse_args()
    if arguments.command == "overhead":
        for name in [arguments.only] if arguments.only else SIZES:
            overhead(name, arguments.pairs, arguments.rounds)
    elif arguments.command == "python-server":
        python_server(arguments.python, arguments.rounds)
    else:
        defaults(arguments.starts, arguments.rounds)


def overhead(name: str, n_pairs: int, rounds: int) -> None:
    size = SIZES[name]
    with gateway(size.model()) as through:
        direct = child_of(through)
        for server in (direct, through):
            run_round(server, N_SLOTS, N_SLOTS, 8)
        before = gateway_bytes(through)
        ttft = ttft_pairs(direct, through, n_pairs)
        streams = {
            n_clients: stream_rounds(direct, through, n_clients, size, rounds)
            for n_clients in (1, 8, 32)
        }
        after = gateway_bytes(through)

    print(f"\n{name}: {n_pairs} pairs, {rounds} rounds")
    print(f"  {'TTFT in ms':<12} {'direct':>8} {'gateway':>8} {'added':>8}")
    added = {}
    for share in (50, 90, 99):
        a, b = (percentile(ttft[way], share) * 1e3 for way in ("direct", "gateway"))
        added[f"p{share}"] = b - a
        print(f"  {f'P{share}':<12} {a:8.2f} {b:8.2f} {b - a:+8.2f}")
    print(f"  {'streams':<12} {'direct':>8} {'gateway':>8} {'ratio':>8}   CPU ms / 1000 chunks")
    for n_clients, of in streams.items():
        direct_rate, gateway_rate = (
            statistics.median(each["tokens_per_second"] for each in of[way])
            for way in ("direct", "gateway")
        )
        print(
            f"  {n_clients:<12} {direct_rate:8.1f} {gateway_rate:8.1f} {of['ratio']:8.3f}"
            f"   {of['cpu_ms_per_1000_chunks']:.1f}"
        )
    print(f"  memory: {format_bytes(before)} before, {format_bytes(after)} after")
    store(
        f"serving-overhead-{name.lower()}",
        {
            "slots": N_SLOTS,
            "ctx": N_CTX,
            "tokens": size.n_tokens,
            "added_ttft_ms": added,
            "ttft_seconds": ttft,
            "streams": streams,
            "gateway_bytes": {"before": before, "after": after},
        },
    )


def ttft_pairs(direct: Server, through: Server, n_pairs: int) -> dict[str, list[float]]:
    """One request at a time; who is asked first alternates."""
    ways = {"direct": direct, "gateway": through}
    ttft: dict[str, list[float]] = {way: [] for way in ways}

    async def pairs() -> None:
        for pair in range(n_pairs):
            for way in list(ways)[:: 1 if pair % 2 else -1]:
                # The same question each time: its prompt is cached, and what is left of TTFT is
                # mostly the way there and back.
                answer = await question(ways[way], 0, 2)
                check([answer])
                ttft[way].append(answer.ttft_seconds or 0.0)

    asyncio.run(pairs())
    return ttft


def stream_rounds(
    direct: Server, through: Server, n_clients: int, size: Size, rounds: int
) -> dict[str, Any]:
    runs: dict[str, list[Round]] = {"direct": [], "gateway": []}
    n_requests = max(size.n_requests_least, 2 * n_clients)
    cpu_seconds = 0.0
    for _ in range(rounds):
        runs["direct"].append(run_round(direct, n_clients, n_requests, size.n_tokens))
        times = through.process.cpu_times()
        runs["gateway"].append(run_round(through, n_clients, n_requests, size.n_tokens))
        now = through.process.cpu_times()
        cpu_seconds += now.user + now.system - times.user - times.system
    n_events = sum(each.n_events for each in runs["gateway"])
    return {
        **{way: [asdict(each) for each in of] for way, of in runs.items()},
        "ratio": rate_ratio(runs["gateway"], runs["direct"]),
        "cpu_ms_per_1000_chunks": cpu_seconds * 1e6 / n_events,
    }


def python_server(python: str, rounds: int) -> None:
    size = SIZES["0.6B"]
    with gateway(size.model()) as ours:
        n_threads = word_after("--threads", child_of(ours).process.cmdline())
        port = str(free_port())
        command = [python, "-m", "llama_cpp.server", "--model", str(size.model()),
                   "--n_threads", n_threads, "--n_threads_batch", n_threads,
                   "--n_ctx", str(N_CTX // N_SLOTS), "--interrupt_requests", "False",
                   "--verbose", "False", "--host", "127.0.0.1", "--port", port]  # fmt: skip
        with started(command, int(port), "/v1/models") as theirs:
            found = compared(take_turns(ours, theirs, rounds, N_SLOTS, size.n_tokens))
    print(f"\n0.6B, {n_threads} threads, {N_SLOTS} clients")
    show("llama_cpp.server", found)
    store("serving-python-server", {"threads": int(n_threads), **found})


def defaults(starts: int, rounds: int) -> None:
    size = SIZES["0.6B"]
    port = str(free_port())
    command = [str(require_tools(SERVER).path(SERVER)), "-m", str(size.model()), "--port", port,
               "-np", str(N_SLOTS), "-c", str(N_CTX)]  # fmt: skip
    conditions = {"quiet": (N_SLOTS, 0), "quiet, one client": (1, 0), "busy": (N_SLOTS, 2)}
    runs: dict[str, Runs] = {condition: {"ours": [], "theirs": []} for condition in conditions}
    for _ in range(starts):
        with gateway(size.model()) as ours, started(command, int(port), "/health") as theirs:
            for condition, (n_clients, n_others) in conditions.items():
                with computing(n_others):
                    taken = take_turns(ours, theirs, rounds, n_clients, size.n_tokens)
                for who, of in taken.items():
                    runs[condition][who] += of
    result = {}
    for condition, (n_clients, n_others) in conditions.items():
        print(f"\n0.6B, {n_clients} clients, {n_others} other processes compute, {starts} starts")
        result[condition] = compared(runs[condition])
        show("llama-server's defaults", result[condition])
    store("serving-defaults", {"slots": N_SLOTS, "ctx": N_CTX, "starts": starts, **result})


def take_turns(ours: Server, theirs: Server, rounds: int, n_clients: int, n_tokens: int) -> Runs:
    """Rounds of both in turn, after one of each that does not count; who begins alternates."""
    servers = {"ours": ours, "theirs": theirs}
    runs: Runs = {who: [] for who in servers}
    for server in servers.values():
        run_round(server, n_clients, n_clients, 8)
    for number in range(rounds):
        for who in list(servers)[:: 1 if number % 2 else -1]:
            runs[who].append(run_round(servers[who], n_clients, max(4, 2 * n_clients), n_tokens))
    return runs


def compared(runs: Runs) -> dict[str, Any]:
    ttfts = ([each.ttft_seconds for each in runs[who]] for who in ("ours", "theirs"))
    return {
        **{who: [asdict(each) for each in of] for who, of in runs.items()},
        "tokens_per_second_ratio": rate_ratio(runs["ours"], runs["theirs"]),
        "ttft_ratio": median_ratio(*ttfts),
    }


def show(name: str, found: Mapping[str, Any]) -> None:
    print(f"  {'':<24} {'tok/s':>8} {'(lowest to highest)':>20} {'TTFT in ms':>11}")
    for way, label in (("ours", "localllm serve"), ("theirs", name)):
        rates = [each["tokens_per_second"] for each in found[way]]
        ttft = statistics.median(each["ttft_seconds"] for each in found[way]) * 1e3
        spread = f"({min(rates):.1f} to {max(rates):.1f})"
        print(f"  {label:<24} {statistics.median(rates):8.1f} {spread:>20} {ttft:11.0f}")
    rate, ttft = found["tokens_per_second_ratio"], found["ttft_ratio"]
    print(f"  {'ratio':<24} {rate:8.2f} {'':>20} {ttft:11.2f}")


def run_round(server: Server, n_clients: int, n_requests: int, n_tokens: int) -> Round:
    began = time.perf_counter()
    answers = asyncio.run(
        run_load(
            n_clients,
            lambda _: question(server, next(_numbers), n_tokens),
            n_requests=n_requests,
        )
    )
    seconds = time.perf_counter() - began
    check(answers)
    return Round(
        n_requests * n_tokens / seconds,
        statistics.median(answer.ttft_seconds or 0.0 for answer in answers),
        sum(answer.n_events for answer in answers),
    )


async def question(server: Server, number: int, n_tokens: int) -> Answer:
    """A stream of exactly so many tokens; the number makes its prompt a prompt of its own."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"Tell me story {number}."}],
        "max_tokens": n_tokens,
        "ignore_eos": True,
        "stream": True,
        "seed": 7,
    }
    return await ask(
        server.address,
        "/v1/chat/completions",
        json.dumps(body).encode(),
        server.headers,
        keep_body=True,
        timeout_seconds=600,
    )


def check(answers: Sequence[Answer]) -> None:
    """Ends the benchmark over an answer that is not one: it would count as a quick one."""
    for answer in answers:
        if answer.error or answer.status != 200 or not _FULL.search(answer.body):
            raise SystemExit(f"{answer.status}: {answer.error or answer.body[-400:]!r}")


@contextmanager
def gateway(model: Path) -> Iterator[Server]:
    """`localllm serve` in a home of its own: no tuning and no settings of a person's."""
    port = free_port()
    command = [sys.executable, "-m", "localllm", "serve", str(model), "--port", str(port),
               "--parallel", str(N_SLOTS), "--ctx", str(N_CTX)]  # fmt: skip
    # A short path: unix sockets lie under it.
    with (
        tempfile.TemporaryDirectory(prefix="ll-") as home,
        started(["env", f"LOCALLLM_HOME={home}", *command], port, "/readyz") as server,
    ):
        yield server


@contextmanager
def started(command: Sequence[str], port: int, ready_path: str) -> Iterator[Server]:
    """The command's server on that port of loopback, once it answers there with 200."""
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "log"
        output = stack.enter_context(log.open("wb"))
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        )
        stack.callback(end, process)
        deadline = time.monotonic() + START_SECONDS
        address = ("127.0.0.1", port)
        while asyncio.run(ask(address, ready_path)).status != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command} does not answer:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        yield Server(address, psutil.Process(process.pid))


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def computing(n_processes: int) -> Iterator[None]:
    """Other processes, each of which computes without end on one core."""
    command = [sys.executable, "-c", "while True: sum(range(100_000))"]
    others = [subprocess.Popen(command) for _ in range(n_processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def child_of(through: Server) -> Server:
    """The gateway's llama-server, to be asked without the gateway."""
    [process] = [each for each in family(through) if each.name() == SERVER]
    socket = word_after("--host", process.cmdline())
    # The key is in its environment, which is for its owner alone to read.
    key = process.environ()["LLAMA_API_KEY"]
    return Server(socket, process, {"Authorization": f"Bearer {key}"})


def gateway_bytes(through: Server) -> int:
    """Resident memory of all that `localllm serve` runs besides llama-server."""
    return sum(each.memory_info().rss for each in family(through) if each.name() != SERVER)


def family(server: Server) -> list[psutil.Process]:
    return [server.process, *server.process.children(recursive=True)]


def word_after(flag: str, argv: Sequence[str]) -> str:
    return argv[argv.index(flag) + 1]


def rate_ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> float:
    return median_ratio(
        [each.tokens_per_second for each in ours], [each.tokens_per_second for each in theirs]
    )


def percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


if __name__ == "__main__":
    main()
