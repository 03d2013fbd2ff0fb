"""How long localllm takes before it does anything.

    .venv/bin/python -m benchmarks.startup [--rounds 15]

Interleaved with `python -c "import json"`, the least that any Python program takes. Goals:
`--version` within 4 times that, `--help` within 10 times, `doctor --json` within 1.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.common import median_ratio, store

COMMANDS = {
    "import json": [sys.executable, "-c", "import json"],
    "--version": [sys.executable, "-m", "localllm", "--version"],
    "--help": [sys.executable, "-m", "localllm", "--help"],
    "chat --help": [sys.executable, "-m", "localllm", "chat", "--help"],
    "doctor --json": [sys.executable, "-m", "localllm", "doctor", "--json"],
    "plan demo --json": [sys.executable, "-m", "localllm", "plan", "demo", "--json"],
    "chat demo -p hi": [sys.executable, "-m", "localllm", "chat", "demo", "-p", "hi"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.rounds):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - started)
    ratios = {
        name: median_ratio(values, seconds["import json"]) for name, values in seconds.items()
    }
    print(f"{'command':<18} {'median':>9}   times import json")
    for name, values in seconds.items():
        print(f"{name:<18} {statistics.median(values) * 1000:6.0f} ms   {ratios[name]:.1f}")
    store("startup", {"rounds": arguments.rounds, "seconds": seconds, "ratios": ratios})


if __name__ == "__main__":
    main()
