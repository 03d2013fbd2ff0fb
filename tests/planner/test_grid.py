"""Real shapes on the shipped machines, placed by llama.cpp itself on devices on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import DoesNotFitError
from localllm.planner import CTX_STEP, Planning, Wishes, choose
from tests.exhaustive import Space
from tests.grid import Grid, candidates, open_grid, policy, presets
from tests.planner.golden import CELLS, FOLDER, Cell, replanned, shapes
from tests.shapes import SHAPES


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One LOCALLLM_HOME for all of these tests: the outlines that are asked about lie in it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LOCALLLM_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def grid(home: Path) -> Iterator[Grid]:
    with open_grid(shapes()) as opened:
        yield opened


# -- the plans that are kept ---------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_plan_is_the_one_that_is_kept(cell: Cell, grid: Grid) -> None:
    """Where it is meant to be another: python -m tests.planner.golden."""
    kept: dict[str, Any] = json.loads(cell.path.read_text("utf-8"))
    found = replanned(grid, cell)
    if "n_ctx" in kept and "n_ctx" in found:
        # A compute buffer differs by a little from one processor to another.
        assert found["n_ctx"] == pytest.approx(kept["n_ctx"], rel=0.01)
        if found["n_ctx"] != kept["n_ctx"]:
            for plan in (kept, found):
                for row in (plan, *plan["memory"]):
                    row.pop("n_ctx", None)
                    row.pop("context_bytes", None)
    assert found == kept


def test_the_kept_plans_are_those_of_the_cells_and_spread_over_the_grid() -> None:
    assert sorted(FOLDER.glob("*.json")) == sorted(cell.path for cell in CELLS)
    assert {cell.shape for cell in CELLS} == SHAPES.keys()
    assert {cell.preset for cell in CELLS} == presets().keys()
    assert {cell.goal for cell in CELLS} == policy().goals.keys()
    kept = [json.loads(cell.path.read_text("utf-8")) for cell in CELLS]
    n_refused = sum("refused" in plan for plan in kept)
    assert 3 <= n_refused <= len(kept) // 4
    assert any(plan.get("tensor_split") for plan in kept)
    assert any(plan.get("tensor_overrides") for plan in kept)


# -- the whole space -----------------------------------------------------------------------------

#: A slice of benchmarks/choices.py, of what takes the least time.
SLICE = (
    Cell("8b", "desktop-rtx3060-12gb", "chat"),
    Cell("70b", "desktop-2x-rtx3090", "chat"),
    Cell("120b-moe", "desktop-rtx4090-24gb", "chat"),
    Cell("12b-swa", "mac-air-m2-16gb", "long-context"),
    Cell("80b-a3b", "mac-book-m3max-64gb", "chat"),
    Cell("32b", "desktop-rtx4070tisuper-16gb", "long-context"),
    Cell("8x7b", "workstation-2x-xeon-128gb", "serve"),
    Cell("4b", "laptop-rtx3050-4gb", "chat"),
    Cell("1b", "cloud-2vcpu-4gb", "long-context"),
    Cell("30b-a3b", "desktop-rtx4090-rtx3060", "long-context"),
    Cell("12b-swa", "desktop-rtx3060-12gb", "serve"),
    Cell("405b", "mac-studio-m2ultra-192gb", "chat"),
)


@pytest.mark.parametrize("cell", SLICE, ids=str)
def test_no_plan_of_the_whole_space_is_better(cell: Cell, grid: Grid) -> None:
    hardware, goal = presets()[cell.preset], policy().goal(cell.goal)
    oracle, models = grid.oracle(hardware), candidates(cell.shape)
    plan = choose(hardware, models, policy(), Wishes(), goal, oracle)
    _, search, _ = Planning(models, policy(), goal, oracle, None).outcomes(hardware, Wishes())
    tightest = search.machine.tightest(search.machine.ledger(oracle.memory(plan)))
    assert tightest is None or tightest.left_bytes >= 0
    (price,) = [verdict.price for verdict in plan.verdicts if verdict.why_not is None]
    assert price is not None
    space = Space(search.pricing, oracle, CTX_STEP * search.template.n_parallel)
    assert space.better(models, price - policy().price_unnoticed) is None


@pytest.mark.parametrize(
    ("shape", "preset"), [("70b", "cloud-2vcpu-4gb"), ("405b", "mac-air-m2-16gb")]
)
def test_what_is_refused_is_nowhere_in_the_whole_space(shape: str, preset: str, grid: Grid) -> None:
    hardware, goal = presets()[preset], policy().goal("chat")
    oracle, models = grid.oracle(hardware), candidates(shape)
    with pytest.raises(DoesNotFitError):
        choose(hardware, models, policy(), Wishes(), goal, oracle)
    _, search, _ = Planning(models, policy(), goal, oracle, None).outcomes(hardware, Wishes())
    space = Space(search.pricing, oracle, CTX_STEP)
    assert space.better(models, 1e9) is None


def test_a_plan_asks_few_questions(grid: Grid) -> None:
    """Of ten quantizations: two of context and cache, and one or two of each."""
    hardware, goal = presets()["desktop-rtx3060-12gb"], policy().goal("chat")
    before = grid.remembered.n_questions
    choose(hardware, candidates("8b"), policy(), Wishes(), goal, grid.oracle(hardware))
    assert grid.remembered.n_questions - before <= 3 * len(SHAPES["8b"].quants)
