"""Hundreds of small machines and models at random: is what is chosen the best there is?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from localllm.errors import DoesNotFitError
from localllm.plan import Plan
from localllm.planner import CTX_STEP, Wishes
from localllm.planner.option import Pricing
from localllm.profiles import Goal
from tests.exhaustive import Space
from tests.planner.brute import cheaper, pricing_of
from tests.planner.fakes import POLICY, Case, chosen
from tests.planner.random_cases import random_case

#: Prices in verdicts are rounded, and the planner calls prices as near as 0.001 the same.
_ROUNDING = 2e-3


def planned(of: Case, goal: Goal, wishes: Wishes) -> tuple[Plan | None, float]:
    """What is chosen, and the price below which another plan would be better."""
    try:
        plan = of.plan(wishes, goal)
    except DoesNotFitError:
        return None, math.inf
    price = chosen(plan).price
    assert price is not None
    return plan, price - POLICY.price_unnoticed - _ROUNDING


def better(seed: int, noise: float) -> str | None:
    """What is better than the choice in this case, in words; and the choice has to fit."""
    of, goal, wishes = random_case(seed, noise)
    plan, price = planned(of, goal, wishes)
    assert plan is None or of.fits(plan), seed
    found = cheaper(of, pricing_of(of, goal, wishes), price)
    return None if found is None else f"seed {seed}: {found}"


@pytest.mark.parametrize("seeds", [range(n, n + 40) for n in range(0, 200, 40)], ids=str)
def test_no_plan_that_fits_is_better_than_the_one_chosen(seeds: Sequence[int]) -> None:
    assert [found for seed in seeds if (found := better(seed, 0.0))] == []


def test_hardly_any_is_better_where_compute_buffers_are_a_surprise() -> None:
    """A forecast that errs by a tenth costs a few choices in a thousand."""
    assert len([found for seed in range(60) if (found := better(seed, 0.1))]) <= 1


def test_the_cases_are_of_all_kinds() -> None:
    cases = [random_case(seed)[0] for seed in range(200)]
    assert {len(of.devices) for of in cases} == {0, 1, 2, 3}
    assert any(gpu.unified for of in cases for gpu in of.hardware.accelerators)
    assert any(model.weights.has_experts for of in cases for model in of.models)
    assert any(model.weights.tied_bytes for of in cases for model in of.models)
    assert any(cache.window for of in cases for cache in of.models[0].caches)
    assert any(cache.state_bytes for of in cases for cache in of.models[0].caches)
    assert any(not of.models[0].takes_q8_0 for of in cases)
    plans = [planned(*random_case(seed))[0] for seed in range(60)]
    assert 3 <= plans.count(None) <= 30
    assert any(plan.tensor_overrides for plan in plans if plan)
    assert any(plan.tensor_split for plan in plans if plan)
    assert any(plan.n_ctx < 1024 or plan.type_k == "q8_0" for plan in plans if plan)


@pytest.mark.parametrize("seeds", [range(n, n + 40) for n in range(200, 320, 40)], ids=str)
def test_the_exhaustive_space_finds_what_plain_loops_find(seeds: Sequence[int]) -> None:
    """tests/exhaustive.py rules most plans out at once: is none of them ruled out wrongly?"""
    n_found = 0
    for seed in seeds:
        of, goal, wishes = random_case(seed)
        # The space splits three devices evenly, as all presets with so many are alike.
        if len(of.devices) > 2 or not of.models[0].takes_q8_0:
            continue
        plan, price = planned(of, goal, wishes)
        pricing = pricing_of(of, goal, wishes)
        assert _in_space(of, pricing, price) is False, seed
        if plan is not None:
            above = price + POLICY.price_unnoticed + 0.05
            assert _in_space(of, pricing, above) is True, seed
            assert cheaper(of, pricing, above) is not None, seed
            n_found += 1
    assert n_found > 5


def _in_space(of: Case, pricing: Pricing, price: float) -> bool:
    space = Space(pricing, of.oracle, CTX_STEP * pricing.template.n_parallel)
    return space.better(of.candidates, price) is not None
