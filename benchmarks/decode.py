"""How much of llama.cpp's decode speed is left in `localllm chat`.

    .venv/bin/python -m benchmarks.decode [--rounds 7] [--tokens 96] [--only 0.6B]

Four ways to decode with the same model, threads and settings, interleaved in one run: llama-bench
(no sampling), bare llama-server, `localllm chat` in a pipe, `localllm chat` on a terminal with
Markdown. All but llama-bench report llama-server's own clock, so the ratios show what our reading
and drawing take away from its threads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pexpect

from benchmarks.common import half_billion_model, median_ratio, store
from localllm import demo
from localllm.cli.finding import find_here
from localllm.cli.prepare import prepare
from localllm.completion import Message, Sampling, Usage
from localllm.engine.argv import child_environment
from localllm.engine.client import HttpChatModel
from localllm.engine.locate import BENCH, require_tools
from localllm.engine.server import LlamaServer
from localllm.planner import Wishes

PROMPT = "Tell me a story."
SAMPLING = Sampling(seed=7)
_RATE = re.compile(r"([\d.,]+) tok/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--only", choices=["0.6B", "demo"], help="one of the two models")
    arguments = parser.parse_args()

    models = {"0.6B": half_billion_model, "demo": demo.model_path}
    for name in [arguments.only] if arguments.only else models:
        path = models[name]()
        rates = measure(path, arguments.rounds, arguments.tokens)
        print(f"\n{name}: tokens per second, {arguments.rounds} interleaved rounds")
        for way, values in rates.items():
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"  {way:<22} {middle:9.1f}   ({low:.1f} to {high:.1f})")
        ratios = {
            "chat / llama-server": median_ratio(rates["chat, piped"], rates["llama-server"]),
            "chat tty / llama-server": median_ratio(rates["chat, terminal"], rates["llama-server"]),
            "chat / llama-bench": median_ratio(rates["chat, piped"], rates["llama-bench"]),
            "llama-server / llama-bench": median_ratio(rates["llama-server"], rates["llama-bench"]),
        }
        for ratio, value in ratios.items():
            print(f"  {ratio:<28} {value:.3f}")
        store(
            f"decode-{name.lower()}",
            {"tokens": arguments.tokens, "tokens_per_second": rates, "ratios": ratios},
        )


def measure(path: Path, rounds: int, n_tokens: int) -> dict[str, list[float]]:
    plan = prepare(find_here(str(path)), Wishes(), "chat").plan
    tools = require_tools(BENCH)
    environment = child_environment(plan, os.environ)
    rates: dict[str, list[float]] = {
        "llama-bench": [],
        "llama-server": [],
        "chat, piped": [],
        "chat, terminal": [],
    }

    def bench() -> float:
        done = subprocess.run(
            [str(tools.path(BENCH)), "-m", str(path), "-p", "0", "-n", str(n_tokens), "-r", "1",
             "-t", str(plan.n_threads), "-fa", "1", "-o", "json"],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
        return float(json.loads(done.stdout)[0]["avg_ts"])

    def server() -> float:
        with LlamaServer(tools, plan) as child:
            model = HttpChatModel(child.require_endpoint(), "m")
            sampling = Sampling(seed=SAMPLING.seed, max_tokens=n_tokens)
            *_, usage = model.stream([Message("user", PROMPT)], sampling)
        assert isinstance(usage, Usage)
        return usage.decode_tokens_per_second or 0.0

    command = [sys.executable, "-m", "localllm", "chat", str(path), "-p", PROMPT,
               "-n", str(n_tokens), "--seed", str(SAMPLING.seed), "--stats"]  # fmt: skip

    def piped() -> float:
        done = subprocess.run(
            command, check=True, capture_output=True, stdin=subprocess.DEVNULL, text=True
        )
        return _rate(done.stderr)

    def terminal() -> float:
        # Standard input stays a terminal, so that nothing waits for its end.
        out = pexpect.run(
            " ".join(f"'{word}'" for word in command), timeout=600, encoding="utf-8",
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        return _rate(str(out))

    for _ in range(rounds):
        for way, run in zip(rates, (bench, server, piped, terminal), strict=True):
            rates[way].append(run())
    return rates


def _rate(text: str) -> float:
    """The decode rate of the statistics line: the first rate on it, prompt rates come after."""
    found = _RATE.search(text)
    assert found, text
    return float(found[1].replace(",", ""))


if __name__ == "__main__":
    main()
