"""What concessions cost: the ladder's numbers, and the speeds between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from localllm.planner import Wishes
from localllm.planner.placement import Placement, Step
from localllm.planner.price import Merits, concessions, quality_loss, speed_price
from tests.planner.brute import pricing_of
from tests.planner.fakes import CHAT, LONG, POLICY, case, gpu, sparse

NOTHING = Merits(0.0, "f16", 8192, 8192, 0, 1000.0)


def price(merits: Merits, *, speed_first: bool = False) -> float:
    found = concessions(merits, CHAT, POLICY, speed_first=speed_first)
    return sum(each.price for each in found)


def test_what_concedes_nothing_costs_nothing() -> None:
    assert concessions(NOTHING, CHAT, POLICY, speed_first=False) == ()
    assert price(replace(NOTHING, tokens_per_second=None)) == 0


@pytest.mark.parametrize(
    ("merits", "cost", "rung", "words"),
    [
        pytest.param(replace(NOTHING, type_k="q8_0"), POLICY.price_kv_q8_0, 1, "q8_0 cache",
                     id="cache"),
        pytest.param(replace(NOTHING, n_ctx=4096), CHAT.price_context_halving, 2, "context 4,096",
                     id="half the context"),
        pytest.param(replace(NOTHING, n_ctx=2048), 2 * CHAT.price_context_halving, 2,
                     "context 2,048", id="a quarter"),
        pytest.param(replace(NOTHING, quality_loss=0.0281), 2.81, 3, "2.8 % loss", id="quality"),
        pytest.param(replace(NOTHING, rung=4), POLICY.price_leaving_device, 4,
                     "experts on the host", id="experts"),
        pytest.param(replace(NOTHING, rung=5), POLICY.price_leaving_device, 5,
                     "layers on the host", id="layers"),
        pytest.param(replace(NOTHING, rung=6), POLICY.price_leaving_device, 6,
                     "nothing on the accelerator", id="host"),
    ],
)  # fmt: skip
def test_each_rung_has_its_price_and_its_words(
    merits: Merits, cost: float, rung: int, words: str
) -> None:
    (conceded,) = concessions(merits, CHAT, POLICY, speed_first=False)
    assert conceded.price == pytest.approx(cost)
    assert (conceded.rung, conceded.because) == (rung, words)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (Placement(("CUDA0",), Step(9), (9,)), None),
        (Placement(("CUDA0",), Step(9, 1), (9,)), "experts on the host"),
        (Placement(("CUDA0",), Step(8, 8), (8,)), "layers on the host"),
        (Placement(("CUDA0",), Step(1, 8), (1,)), "layers on the host"),
        (Placement((), Step(0)), "nothing on the accelerator"),
    ],
)
def test_what_leaves_the_device_is_conceded(placement: Placement, words: str | None) -> None:
    of = case(gpu(), models=[sparse()])
    pricing = pricing_of(of, CHAT, Wishes())
    option = pricing.option(of.candidates[0], placement, "f16", "f16", 8192)
    said = [each.because for each in option.concessions if each.rung in (4, 5, 6)]
    assert [because for because in said if "tok/s" not in because] == ([words] if words else [])


def test_a_host_without_devices_concedes_nothing_by_doing_the_work() -> None:
    of = case(models=[sparse()])
    pricing = pricing_of(of, CHAT, Wishes())
    option = pricing.option(of.candidates[0], Placement((), Step(0)), "f16", "f16", 8192)
    assert all(each.rung in (0, 3) for each in option.concessions)


def test_prices_add_up() -> None:
    merits = Merits(0.01, "q8_0", 4096, 8192, 5, 5.0)
    alone = [
        price(replace(NOTHING, **{name: getattr(merits, name)}))
        for name in ("quality_loss", "type_k", "n_ctx", "rung", "tokens_per_second")
    ]
    assert price(merits) == pytest.approx(sum(alone))


def test_a_finer_cache_costs_nothing_and_a_narrower_one_more() -> None:
    costs = [
        price(replace(NOTHING, type_k=kind)) for kind in ("f32", "bf16", "q8_0", "q5_1", "q4_0")
    ]
    assert costs[:2] == [0, 0]
    assert costs[1] < costs[2] < costs[3] < costs[4]


def test_slower_is_never_cheaper_and_has_no_steps() -> None:
    speeds = [1.02**n for n in range(-100, 300)]
    costs = [speed_price(speed, CHAT, POLICY) for speed in speeds]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0
    steepest = POLICY.price_unusable_halving * 0.0286  # of log2(1.02), a little rounded up
    assert max(a - b for a, b in pairwise(costs)) < steepest


@pytest.mark.parametrize(
    ("slow", "fast", "cost"),
    [
        (POLICY.speed_plenty / 2, POLICY.speed_plenty, POLICY.price_fast_halving),
        (CHAT.speed_comfortable / 2, CHAT.speed_comfortable, POLICY.price_slow_halving),
        (CHAT.speed_least / 2, CHAT.speed_least, POLICY.price_unusable_halving),
        (POLICY.speed_plenty, 10 * POLICY.speed_plenty, 0.0),
    ],
)
def test_a_halving_of_speed_costs_what_it_is_felt_for(
    slow: float, fast: float, cost: float
) -> None:
    paid = speed_price(slow, CHAT, POLICY) - speed_price(fast, CHAT, POLICY)
    assert paid == pytest.approx(cost)


def test_with_speed_first_only_speed_costs_more() -> None:
    slow = replace(NOTHING, tokens_per_second=20.0, quality_loss=0.01)
    usual, first = price(slow), price(slow, speed_first=True)
    speed = speed_price(20.0, CHAT, POLICY)
    assert first - usual == pytest.approx(speed * (POLICY.speed_first_factor - 1))


def test_context_weighs_more_where_it_is_the_goal() -> None:
    half = replace(NOTHING, n_ctx=4096)
    (chat,) = concessions(half, CHAT, POLICY, speed_first=False)
    (long,) = concessions(half, LONG, POLICY, speed_first=False)
    assert long.price > 3 * chat.price


@pytest.mark.parametrize(
    ("quant", "percent"),
    [("Q8_0", 0.04), ("Q6_K", 0.35), ("Q4_K_M", 2.8), ("Q3_K_M", 10.5), ("Q2_K", 56.5)],
)
def test_the_loss_of_a_quantization_is_the_published_one(quant: str, percent: float) -> None:
    loss = quality_loss(quant)
    assert loss is not None
    assert 100 * loss == pytest.approx(percent, abs=0.06)


def test_a_quantization_without_a_figure_has_that_of_the_next_below() -> None:
    assert quality_loss("F16") is not None
    assert quality_loss("Q4_K_XL") in (quality_loss("Q4_K_M"), quality_loss("Q4_K_S"), None)
    assert quality_loss(None) is None
    assert quality_loss("nonsense") is None


def test_what_an_architecture_is_trained_in_loses_nothing() -> None:
    assert quality_loss("MXFP4_MOE", "gpt-oss") == 0
    assert quality_loss("MXFP4_MOE", "llama") != 0
