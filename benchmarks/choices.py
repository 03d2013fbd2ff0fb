"""Are the planner's choices the best there are? Every preset x 12 model shapes x 3 goals.

    .venv/bin/python -m benchmarks.choices [--presets A,B] [--shapes A,B] [--goals A,B] [--all]

Each choice is held against the whole space of plans (tests/exhaustive.py) under the same policy
and the same oracle, which is llama.cpp itself on stand-in devices. The table shows where a better
plan was found, and every choice with --all; the result holds every row.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from benchmarks.common import store
from localllm.errors import DoesNotFitError
from localllm.plan import Plan
from localllm.planner import CTX_STEP, Planning, Wishes, choose
from tests.exhaustive import Space
from tests.grid import GOALS, Grid, candidates, open_grid, policy, presets
from tests.shapes import SHAPES


@dataclass(frozen=True)
class Row:
    """One choice and what became of it.

    Attributes:
        quant, where, n_ctx, type_k, decode_tokens_per_second, price: of the chosen plan; None
            where the planner says that nothing fits.
        fits: llama.cpp's word on the finished plan.
        better: a plan that concedes less; None where there is none.
        better_price: of that.
        n_questions: put to llama.cpp for the choice; n_space: steps of the space ruled out.
        seconds: for the choice, answers already known to another cell included.
    """

    shape: str
    preset: str
    goal: str
    quant: str | None
    where: str
    n_ctx: int | None
    type_k: str | None
    decode_tokens_per_second: float | None
    price: float | None
    fits: bool
    better: str | None
    better_price: float | None
    n_questions: int
    n_space: int
    seconds: float

    @property
    def is_best(self) -> bool:
        """No plan concedes noticeably less, and this one fits."""
        return self.fits and self.better is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default=",".join(presets()))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--goals", default=",".join(GOALS))
    parser.add_argument("--all", action="store_true", help="print the best choices too")
    arguments = parser.parse_args()
    rows = []
    for row in measure(
        arguments.shapes.split(","), arguments.presets.split(","), arguments.goals.split(",")
    ):
        rows.append(row)
        if arguments.all or not row.is_best:
            chosen = f"{row.quant} {row.where}, {row.n_ctx} {row.type_k}" if row.quant else "none"
            verdict = "best" if row.is_best else f"{row.better} ({row.better_price})"
            print(f"{row.shape:<9} {row.preset:<28} {row.goal:<13} {chosen:<60} {row.price}"
                  f"  {verdict}", flush=True)  # fmt: skip
    n_best = sum(row.is_best for row in rows)
    n_none = sum(row.quant is None for row in rows)
    n_over = sum(not row.fits for row in rows)
    share = n_best / len(rows)
    print(f"\n{n_best} of {len(rows)} choices are the best there is: {share:.2%}")
    print(f"{n_none} times nothing fits; {n_over} times a chosen plan does not fit")
    store("choices", {"share_best": share, "n_does_not_fit": n_over, "rows": [*map(asdict, rows)]})


def measure(shapes: list[str], names: list[str], goals: list[str]) -> Iterator[Row]:
    """A row for each cell of the grid."""
    for shape in shapes:
        start = time.perf_counter()
        with open_grid((shape,)) as grid:
            for name in names:
                for goal in goals:
                    yield cell(grid, shape, name, goal)
        n_cells = len(names) * len(goals)
        print(f"{shape}: {n_cells} choices in {time.perf_counter() - start:.0f} s", flush=True)


def cell(grid: Grid, shape: str, name: str, goal_name: str) -> Row:
    """One choice, held against all others."""
    hardware, goal = presets()[name], policy().goal(goal_name)
    oracle = grid.oracle(hardware)
    models = candidates(shape)
    n_before, start = grid.remembered.n_questions, time.perf_counter()
    plan: Plan | None
    try:
        plan = choose(hardware, models, policy(), Wishes(), goal, oracle)
    except DoesNotFitError:
        plan = None
    seconds = time.perf_counter() - start
    n_questions = grid.remembered.n_questions - n_before
    _, search, _ = Planning(models, policy(), goal, oracle, None).outcomes(hardware, Wishes())
    space = Space(search.pricing, oracle, CTX_STEP * search.template.n_parallel)
    chosen = (
        next((v for v in plan.verdicts if v.fits and v.why_not is None), None) if plan else None
    )
    price = math.inf
    fits = True
    if plan is not None and chosen is not None and chosen.price is not None:
        price = chosen.price - policy().price_unnoticed
        tightest = search.machine.tightest(search.machine.ledger(oracle.memory(plan)))
        fits = tightest is None or tightest.left_bytes >= 0
    better = space.better(models, price)
    return Row(
        shape=shape,
        preset=name,
        goal=goal_name,
        quant=chosen.quant if chosen else None,
        where=chosen.where if chosen else "",
        n_ctx=chosen.n_ctx if chosen else None,
        type_k=chosen.type_k if chosen else None,
        decode_tokens_per_second=chosen.decode_tokens_per_second if chosen else None,
        price=chosen.price if chosen else None,
        fits=fits,
        better=None
        if better is None
        else f"{better.candidate} {better.option.plan.type_k}"
        f" {better.option.plan.n_ctx} {better.option.placement}",
        better_price=None if better is None else round(better.option.price, 3),
        n_questions=n_questions,
        n_space=space.n_ruled_out,
        seconds=round(seconds, 3),
    )


if __name__ == "__main__":
    main()
