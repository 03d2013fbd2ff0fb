"""Inside a limited control group: the plan keeps to the limits, and so does the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localllm.units import MIB
from tests.control_groups import limited_groups, run_inside
from tests.ggufs import Llama

LIMIT = 700 * MIB


@pytest.fixture(scope="module")
def hungry_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights, but 64 KiB of context a token: 8,192 tokens take half a GiB."""
    shape = Llama(n_layers=32, n_embd=512, n_ff=512, n_head=8, n_head_kv=8, n_ctx_train=8192)
    return shape.write(tmp_path_factory.mktemp("models") / "hungry.gguf")


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    with limited_groups(LIMIT, 1.0) as made:
        yield made


def planned_inside(groups: list[Path], path: Path, *argv: str) -> dict[str, Any]:
    done = run_inside(groups, "-m", "localllm", "plan", str(path), *argv, "--json")
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def test_the_plan_keeps_to_the_limits_of_its_group(groups: list[Path], hungry_path: Path) -> None:
    plan = planned_inside(groups, hungry_path, "--kv", "f16")
    assert plan["hardware"]["memory"]["limit_bytes"] == LIMIT
    assert plan["chosen"]["n_threads"] == 1
    (host,) = plan["memory"]
    assert host["total_bytes"] + plan["chosen"]["cache_ram_bytes"] < host["free_bytes"] <= LIMIT
    assert 2048 <= plan["chosen"]["n_ctx"] < 8192
    reason = next(r for r in plan["reasons"] if r["field"] == "n_ctx")
    assert "largest that fits" in reason["because"]
    free_choice = planned_inside(groups, hungry_path)["chosen"]
    assert (free_choice["n_ctx"], free_choice["type_k"]) == (8192, "q8_0")


def test_what_is_planned_runs_inside_the_group(groups: list[Path], hungry_path: Path) -> None:
    prompt = "word " * 300
    done = run_inside(
        groups, "-m", "localllm", "chat", str(hungry_path), "-p", prompt, "-n", "4", "--stats"
    )
    assert done.returncode == 0, done.stderr
    assert "4 tokens" in done.stderr


def test_what_cannot_fit_is_refused_with_the_limit_named(
    groups: list[Path], hungry_path: Path
) -> None:
    done = run_inside(groups, "-m", "localllm", "plan", str(hungry_path), "--ctx", "65536")
    assert done.returncode == 7
    assert "are missing" in done.stderr
