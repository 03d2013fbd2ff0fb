"""What a first run teaches the next plan, through the whole program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import run_localllm


def plan() -> dict[str, Any]:
    done = run_localllm("plan", "demo", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def engine_line(document: dict[str, Any]) -> dict[str, Any]:
    (host,) = document["memory"]
    (line,) = (line for line in host["lines"] if line["what"] == "engine")
    return dict(line)


def test_a_plan_assumes_before_the_first_run_and_knows_after_it(home: Path) -> None:
    before = plan()
    assert engine_line(before)["source"] == "assumed"
    assert before["speed"]["source"] == "estimated"
    done = run_localllm("chat", "demo", "-p", "What is GGUF?", "--seed", "1", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    after = plan()
    line = engine_line(after)
    assert line["source"] == "measured"
    assert 4 << 20 < line["n_bytes"] < 128 << 20
    assert after["memory"][0]["overhead_bytes"] == line["n_bytes"]
    assert after["chosen"] == before["chosen"]


def test_a_reply_that_is_long_enough_replaces_the_estimated_speed(home: Path) -> None:
    # An answer of some 60 tokens, greedily the same on every machine but for rounding; another
    # question if that makes it a brief one.
    for question in ("What can you do?", "Which commands are there?", "How do I install it?"):
        done = run_localllm("chat", "demo", "-p", question, "--temperature", "0")
        assert done.returncode == 0, done.stderr
    speed = plan()["speed"]
    assert speed["source"] == "measured"
    assert speed["decode_tokens_per_second"] > 0
    assert speed["error"] is None
    assert "over" in {r["field"]: r["because"] for r in plan()["reasons"]}["speed"]


def test_a_damaged_file_of_measurements_is_told_and_loses_no_answer(home: Path) -> None:
    path = home / "state" / "measurements.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{ not json")
    done = run_localllm("chat", "demo", "-p", "What is GGUF?")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "measurements" in done.stderr
    assert engine_line(plan())["source"] == "measured"


def test_what_was_measured_here_says_nothing_of_a_simulated_machine(home: Path) -> None:
    assert run_localllm("chat", "demo", "-p", "hi").returncode == 0
    done = run_localllm("plan", "demo", "--hw", "laptop-2011-8gb", "--json")
    document = json.loads(done.stdout)
    assert engine_line(document)["source"] == "assumed"
