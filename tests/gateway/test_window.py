"""What is told of the last minute, by a clock that the tests turn."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from math import nan

import pytest

from localllm.gateway.exchange import Exchange, Outcome
from localllm.gateway.status import Percentiles
from localllm.gateway.window import Window, percentiles


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


ANSWERED = Exchange(
    id="1",
    arrived_at=0.0,
    method="POST",
    path="/v1/chat/completions",
    generates=True,
    status=200,
    queue_seconds=0.5,
    ttft_seconds=1.0,
    total_seconds=3.0,
    n_prompt=100,
    n_cached=40,
    n_tokens=21,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def window(clock: Clock) -> Window:
    return Window(60.0, clock=clock)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], Percentiles(), id="none"),
        pytest.param([nan, nan], Percentiles(), id="none-that-is-known"),
        pytest.param([7.0], Percentiles(1, 7.0, 7.0, 7.0), id="one"),
        pytest.param([2.0, nan, 1.0], Percentiles(2, 1.0, 2.0, 2.0), id="two-and-an-unknown"),
        pytest.param(range(10, 0, -1), Percentiles(10, 5, 9, 10), id="ten"),
        pytest.param(range(1, 101), Percentiles(100, 50, 90, 99), id="hundred"),
        pytest.param(range(1, 1001), Percentiles(1000, 500, 900, 990), id="thousand"),
    ],
)
def test_percentiles_are_the_nearest_rank(values, expected):
    assert percentiles(values) == expected


def test_a_percentile_is_the_least_value_that_enough_values_do_not_exceed():
    chance = random.Random(1)
    for _ in range(300):
        values = [chance.choice([chance.random(), 0.5]) for _ in range(chance.randint(1, 250))]
        found = percentiles(values)
        for percent, value in ((50, found.p50), (90, found.p90), (99, found.p99)):
            reached = [
                v for v in values if 100 * sum(w <= v for w in values) >= percent * len(values)
            ]
            assert value == min(reached)


def test_nothing_happened_yet(window):
    traffic = window.traffic()

    assert (traffic.n_requests, traffic.tokens_per_second) == (0, 0.0)
    assert traffic.ttft_seconds == Percentiles()


def test_an_answer_in_one_piece_is_counted_when_it_ends(window, clock):
    clock.now += 60.0
    window.ended(ANSWERED)
    traffic = window.traffic()

    assert traffic.seconds == 60.0
    assert traffic.n_requests == 1
    assert traffic.tokens_per_second == 21 / 60
    assert traffic.prompt_tokens_per_second == 60 / 60  # 40 of the 100 came from a cache
    assert traffic.queue_seconds == Percentiles(1, 0.5, 0.5, 0.5)
    assert traffic.ttft_seconds == Percentiles(1, 1.0, 1.0, 1.0)
    assert traffic.seconds_per_token == Percentiles(1, 0.1, 0.1, 0.1)
    assert traffic.total_seconds == Percentiles(1, 3.0, 3.0, 3.0)


def test_a_streams_tokens_are_counted_as_they_come_and_not_again_at_its_end(window, clock):
    for _ in range(21):
        clock.now += 1.0
        window.moved(1)
    assert window.traffic().tokens_per_second == 1.0

    window.ended(replace(ANSWERED, streams=True))

    assert window.traffic().tokens_per_second == 1.0
    assert window.traffic().n_requests == 1


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        ("answered", (0, 0, 0)),
        ("refused", (1, 0, 0)),
        ("failed", (0, 1, 0)),
        ("client left", (0, 0, 1)),
    ],
)
def test_each_outcome_has_its_count_and_only_answers_a_total(
    window: Window, outcome: Outcome, counts: tuple[int, int, int]
):
    window.ended(replace(ANSWERED, outcome=outcome))
    window.ended(replace(ANSWERED, outcome=outcome, generates=False))
    traffic = window.traffic()

    assert traffic.n_requests == 1
    assert (traffic.n_refused, traffic.n_failed, traffic.n_left) == tuple(2 * n for n in counts)
    assert traffic.ttft_seconds.n == 1
    assert traffic.total_seconds.n == (1 if outcome == "answered" else 0)


def test_an_error_that_the_replica_answered_has_no_total(window):
    window.ended(replace(ANSWERED, status=400))

    assert window.traffic().n_requests == 1
    assert window.traffic().total_seconds == Percentiles()


def test_what_is_older_than_the_window_is_forgotten(window, clock):
    clock.now += 100.0
    window.ended(ANSWERED)
    window.moved(600)
    clock.now += 59.0
    assert window.traffic().n_requests == 1
    assert window.traffic().ttft_seconds.n == 1

    clock.now += 3.0

    traffic = window.traffic()
    assert (traffic.n_requests, traffic.tokens_per_second) == (0, 0.0)
    assert traffic.ttft_seconds == Percentiles()


def test_a_steady_rate_is_told_exactly_at_any_moment():
    clock = Clock(17.3)
    window = Window(10.0, clock=clock)
    for step in range(1, 500):
        clock.now = 17.3 + step / 8
        window.moved(4)
        traffic = window.traffic()
        if step > 80:
            assert 10.0 <= traffic.seconds < 11.0
            # Up to one step may lie on the other side of the cut.
            assert traffic.tokens_per_second == pytest.approx(32.0, abs=4 / 10)


def test_a_server_that_has_just_begun_divides_by_its_own_age(window, clock):
    clock.now += 5.0
    window.moved(100)

    assert window.traffic().seconds == 5.0
    assert window.traffic().tokens_per_second == 20.0


def test_a_flood_of_refusals_does_not_push_the_answers_out(window):
    for _ in range(100):
        window.ended(ANSWERED)
    for _ in range(20_000):
        window.ended(Exchange("2", 0.0, "POST", "/", outcome="refused"))
        refused = Exchange("3", 0.0, "POST", "/v1/messages", outcome="refused", generates=True)
        window.ended(refused)

    assert window.traffic().n_refused == 40_000
    assert window.traffic().ttft_seconds.n == 100


def test_memory_is_bounded_and_counts_stay_exact():
    clock = Clock()
    window = Window(60.0, most=50, clock=clock)
    for n in range(20_000):
        clock.now = 1000.0 + n / 100  # 200 s
        window.ended(replace(ANSWERED, ttft_seconds=float(n)))
        window.moved(1)

    assert len(window._past) <= 62
    assert sys.getsizeof(window._times) < 10_000
    traffic = window.traffic()
    assert traffic.n_requests == pytest.approx(60 * 100, abs=100)
    assert traffic.ttft_seconds == Percentiles(50, 19_974.0, 19_994.0, 19_999.0)
