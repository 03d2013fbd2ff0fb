"""Foretelling llama.cpp's answers from the answers that there were."""

from __future__ import annotations

import pytest

from localllm.plan import DeviceMemory
from localllm.planner.forecast import Curve, Forecast, contexts_to_ask


@pytest.mark.parametrize("n_ctx", [512, 2048, 3000, 8192, 100_000])
def test_a_straight_line_is_met_exactly(n_ctx: int) -> None:
    curve = Curve(((2048, 2048 * 7 + 5), (4096, 4096 * 7 + 5), (8192, 8192 * 7 + 5)))
    assert curve.at(n_ctx) == n_ctx * 7 + 5
    assert curve.fixed_bytes == 5


def test_a_window_stops_growing_and_is_there_whatever_the_context() -> None:
    curve = Curve(((2048, 2000), (4096, 3000), (8192, 3000)))
    assert curve.at(6000) == 3000
    assert curve.at(3072) == 2500
    assert curve.fixed_bytes == 3000


def test_one_point_says_nothing_of_a_slope() -> None:
    curve = Curve(((2048, 2000),))
    assert (curve.at(9000), curve.fixed_bytes) == (2000, 0)


@pytest.mark.parametrize(
    ("least", "wished", "asked"),
    [
        (2048, 8192, [2048, 3584, 8192]),
        (8192, 32768, [8192, 14336, 32768]),
        (2048, 2048, [1024, 1280, 2048]),
        (1000, 1100, [1024, 1280]),
        (300, 400, [256, 512]),
        (100, 100, [256, 512]),
    ],
)
def test_both_ends_are_asked_for_and_one_between(least: int, wished: int, asked: list[int]) -> None:
    assert contexts_to_ask(least, wished) == asked


def forecast() -> Forecast:
    line = Curve(((1000, 100), (2000, 200)))
    return Forecast({"f16": line, "q8_0": line}, {"f16": line, "q8_0": line})


KIND = (("CUDA0",), "whole", False, "f16")


def test_what_was_never_asked_is_taken_for_the_hosts() -> None:
    assert forecast().beyond(KIND, "CUDA0", 1500) == 150


def test_an_answer_foretells_those_of_its_kind_and_their_growth() -> None:
    learnt = forecast()
    learnt.learn(KIND, 1000, [DeviceMemory("CUDA0", 500, 50, 70)], {"CUDA0": 540.0})
    assert learnt.beyond(KIND, "CUDA0", 1000) == 80
    assert learnt.beyond(KIND, "CUDA0", 2000) == 180
    assert learnt.beyond((*KIND[:-1], "q8_0"), "CUDA0", 1000) == 80  # the next best
    assert learnt.beyond((("CUDA1",), *KIND[1:]), "CUDA1", 1000) == 100


def test_the_latest_answer_counts() -> None:
    learnt = forecast()
    for compute in (70, 90):
        learnt.learn(KIND, 1000, [DeviceMemory("CUDA0", 500, 0, compute)], {"CUDA0": 500.0})
    assert learnt.beyond(KIND, "CUDA0", 1000) == 90
