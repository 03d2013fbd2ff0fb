"""What becomes of requests while llama-servers are killed, and stop, under load.

    .venv/bin/python -m benchmarks.faults [--kills 100] [--stops 5]

Six clients, every second one reading a stream, ask a gateway with four slots and the demo model
without a pause. Goals: no request that had not begun is lost, begun streams end with an error
event, another llama-server is ready 2 s + its time to load after a kill, no process is left, no
descriptor is leaked. A stopped one (SIGSTOP) has to be noticed first, which takes some 11 s.
The same in short is tests/gateway/test_faults.py.
"""

from __future__ import annotations

import argparse
import signal
import statistics
from typing import Any

import psutil

from benchmarks.common import store
from localllm.units import format_bytes
from tests.gateway.faults import Asked, kill_under_load, n_descriptors, run_folders
from tests.gateway.serving import Served, served

#: Beyond the time to load.
GOAL_SECONDS = 2.0
#: Silence before it is suspected, two looks of three seconds (motion.py), and a tick.
NOTICED_SECONDS = 12.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=5)
    arguments = parser.parse_args()
    with served("demo", "--parallel", "4") as gateway:
        kill_under_load(gateway, 2)  # what is made once is made now
        results = {
            name: measure(gateway, count, number, goal_seconds)
            for name, count, number, goal_seconds in (
                ("SIGKILL", arguments.kills, signal.SIGKILL, GOAL_SECONDS),
                ("SIGSTOP", arguments.stops, signal.SIGSTOP, NOTICED_SECONDS + GOAL_SECONDS),
            )
            if count
        }
    show(results)
    store("faults", results)


def measure(gateway: Served, count: int, number: int, goal_seconds: float) -> dict[str, Any]:
    process = psutil.Process(gateway.process.pid)
    before, rss_before = n_descriptors(gateway), process.memory_info().rss
    faults = kill_under_load(gateway, count, number)
    beyond = [
        ready - load for ready, load in zip(faults.ready_seconds, faults.load_seconds, strict=True)
    ]
    return {
        "count": count,
        "goal_seconds_beyond_load": goal_seconds,
        "requests": len(faults.asked),
        "cut_streams": sum(_is_right(asked) and asked.was_cut for asked in faults.asked),
        "lost_requests": sum(not _is_right(asked) for asked in faults.asked),
        "ready_seconds_median": round(statistics.median(faults.ready_seconds), 3),
        "ready_seconds_max": round(max(faults.ready_seconds), 3),
        "beyond_load_seconds_max": round(max(beyond), 3),
        "late": sum(seconds > goal_seconds for seconds in beyond),
        "descriptors": n_descriptors(gateway) - before,
        "rss_growth_bytes": process.memory_info().rss - rss_before,
        "llama_servers": len(gateway.children),
        "run_folders": len(run_folders(gateway)),
    }


def _is_right(asked: Asked) -> bool:
    try:
        asked.check()
    except (AssertionError, ValueError, KeyError):
        return False
    return True


def show(results: dict[str, dict[str, Any]]) -> None:
    """The table: a column for each kind of fault."""
    shown = {
        name: {**result, "rss_growth_bytes": format_bytes(result["rss_growth_bytes"])}
        for name, result in results.items()
    }
    print(f"{'':26}" + "".join(f"{name:>12}" for name in shown))
    for row in next(iter(shown.values())):
        print(f"{row:26}" + "".join(f"{result[row]!s:>12}" for result in shown.values()))


if __name__ == "__main__":
    main()
