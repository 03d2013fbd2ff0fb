"""Limits: what is admitted when, on a clock of the test's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from localllm.gateway.limits import Limiter, Refusal, TokenBucket
from localllm.gateway.settings import KeyLimits


class Clock:
    """A monotonic clock that moves when it is told to; it starts where a machine's may stand."""

    def __init__(self, now: float = 1_234_567.8) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limiter: Limiter, key: str, n: int) -> int:
    """How many of n requests at once are admitted; they end at once, too, and cost no tokens."""
    return sum(answered(limiter, key) is None for _ in range(n))


def answered(limiter: Limiter, key: str, tokens: int = 0) -> Refusal | None:
    refusal = limiter.admit(key)
    if refusal is None:
        limiter.ended(key, tokens)
    return refusal


def refused(limiter: Limiter, key: str) -> Refusal:
    refusal = limiter.admit(key)
    assert refusal is not None
    return refusal


def test_a_bucket_comes_back_evenly(clock: Clock) -> None:
    bucket = TokenBucket(60, clock)
    bucket.charge(60)
    assert bucket.wait_seconds() == pytest.approx(1)
    clock.move(0.5)
    assert bucket.wait_seconds() == pytest.approx(0.5)
    clock.move(9.5)
    assert bucket.used == pytest.approx(50)
    assert bucket.wait_seconds() == 0


def test_a_bucket_holds_no_more_than_a_minutes_worth(clock: Clock) -> None:
    bucket = TokenBucket(10, clock)
    clock.move(86_400)
    bucket.charge(10)
    assert bucket.wait_seconds() == pytest.approx(6)


def test_a_bucket_in_debt_admits_nothing_until_the_debt_is_worked_off(clock: Clock) -> None:
    bucket = TokenBucket(60, clock)
    bucket.charge(180)
    assert bucket.wait_seconds() == pytest.approx(121)
    clock.move(120)
    assert bucket.wait_seconds() == pytest.approx(1), "empty, and no longer in debt"
    clock.move(1)
    assert bucket.wait_seconds() == 0


def test_without_limits_everything_is_admitted(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(), {}, clock)
    assert [limiter.admit("alice") for _ in range(1000)] == [None] * 1000
    for _ in range(1000):
        limiter.ended("alice", 1_000_000)
    assert limiter.admit("alice") is None


def test_requests_per_minute_are_there_at_once_and_come_back_evenly(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=6), {}, clock)
    assert admitted(limiter, "alice", 10) == 6
    assert refused(limiter, "alice") == Refusal(
        "the key alice has used its 6 requests per minute", pytest.approx(10)
    )
    clock.move(30)
    assert admitted(limiter, "alice", 10) == 3


def test_tokens_are_charged_when_they_are_known_and_may_make_a_debt(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(tokens_per_minute=600), {}, clock)
    assert [limiter.admit("alice") for _ in range(3)] == [None] * 3, "nothing is used as yet"
    for _ in range(3):
        limiter.ended("alice", 1000)
    assert refused(limiter, "alice") == Refusal(
        "the key alice has used its 600 tokens per minute", pytest.approx(240.1)
    )
    clock.move(241)
    assert limiter.admit("alice") is None


def test_concurrency_is_of_requests_that_have_not_ended(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(concurrency=2), {}, clock)
    assert [limiter.admit("alice") for _ in range(2)] == [None, None]
    assert refused(limiter, "alice") == Refusal(
        "the key alice has 2 requests at the same time and may have 2", 1.0
    )
    clock.move(3600)
    assert refused(limiter, "alice"), "time alone ends no request"
    limiter.ended("alice", 0)
    assert limiter.admit("alice") is None


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(KeyLimits(requests_per_minute=1), id="requests"),
        pytest.param(KeyLimits(requests_per_minute=1, concurrency=1), id="both"),
    ],
)
def test_refused_requests_use_nothing(clock: Clock, limits: KeyLimits) -> None:
    limiter = Limiter(limits, {}, clock)
    assert limiter.admit("alice") is None
    for _ in range(100):
        assert limiter.admit("alice") is not None
    limiter.ended("alice", 0)
    clock.move(60)
    assert limiter.admit("alice") is None


def test_a_request_refused_for_concurrency_uses_none_of_the_minute(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=3, concurrency=1), {}, clock)
    limiter.admit("alice")
    for _ in range(50):
        assert "at the same time" in refused(limiter, "alice").reason
    limiter.ended("alice", 0)
    assert admitted(limiter, "alice", 5) == 2


def test_of_several_reasons_the_one_that_lasts_longest_is_told(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(2, 60, 2), {}, clock)
    assert [limiter.admit("alice") for _ in range(2)] == [None, None]
    assert "requests per minute" in refused(limiter, "alice").reason, "30 s, and not 1 s"
    limiter.ended("alice", 600)
    clock.move(60)
    limiter.changed(KeyLimits(2, 60, 1), {})
    assert "tokens per minute" in refused(limiter, "alice").reason, "481 s, and not 1 s"


def test_keys_do_not_share_what_they_may_use(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=2), {}, clock)
    assert admitted(limiter, "alice", 5) == 2
    assert admitted(limiter, "bob", 5) == 2


def test_a_key_with_limits_of_its_own_has_none_of_the_others(clock: Clock) -> None:
    own = {"alice": KeyLimits(requests_per_minute=5), "root": KeyLimits()}
    limiter = Limiter(KeyLimits(requests_per_minute=2, concurrency=1), own, clock)
    assert [limiter.admit("alice") for _ in range(5)] == [None] * 5
    assert admitted(limiter, "root", 50) == 50
    assert admitted(limiter, "bob", 5) == 2


def test_without_keys_the_limits_are_of_all_together(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=2), {}, clock)
    assert admitted(limiter, "", 5) == 2
    assert refused(limiter, "").reason == "this server has used its 2 requests per minute"


def test_a_reload_keeps_what_runs_even_where_it_was_not_limited(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(), {}, clock)
    assert [limiter.admit("alice") for _ in range(3)] == [None] * 3
    limiter.changed(KeyLimits(concurrency=2), {})
    assert limiter.admit("alice") is not None
    limiter.ended("alice", 0)
    assert limiter.admit("alice") is not None
    limiter.ended("alice", 0)
    assert limiter.admit("alice") is None


@pytest.mark.parametrize(
    ("before", "used", "after", "left"),
    [
        pytest.param(10, 10, 10, 0, id="the same limit"),
        pytest.param(10, 4, 10, 6, id="the same limit, partly used"),
        pytest.param(10, 10, 60, 50, id="a higher limit"),
        pytest.param(60, 30, 10, 5, id="a lower limit: the same share"),
        pytest.param(1000, 1000, 1, 0, id="a much lower limit"),
    ],
)
def test_a_reload_keeps_what_was_used(
    clock: Clock, before: int, used: int, after: int, left: int
) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=before), {}, clock)
    assert admitted(limiter, "alice", used) == used
    limiter.changed(KeyLimits(requests_per_minute=after), {})
    assert admitted(limiter, "alice", after + 1) == left


def test_nobody_waits_longer_than_a_minute_of_the_lower_limit_for_what_was_no_debt(
    clock: Clock,
) -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=1000), {}, clock)
    admitted(limiter, "alice", 1000)
    limiter.changed(KeyLimits(requests_per_minute=1), {})
    assert refused(limiter, "alice").retry_after_seconds <= 60


def test_a_reload_to_higher_limits_helps_a_key_in_debt_at_once(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(tokens_per_minute=1000), {}, clock)
    answered(limiter, "alice", tokens=30_000)
    assert refused(limiter, "alice").retry_after_seconds > 1000
    limiter.changed(KeyLimits(), {"alice": KeyLimits(tokens_per_minute=100_000)})
    assert limiter.admit("alice") is None


def test_a_debt_is_not_forgotten_by_reloads(clock: Clock) -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    limiter = Limiter(limits, {}, clock)
    answered(limiter, "alice", tokens=3000)
    for _ in range(10):
        limiter.changed(limits, {})
        assert limiter.admit("alice") is not None


def test_a_limit_that_is_lifted_is_gone(clock: Clock) -> None:
    limiter = Limiter(KeyLimits(1, 1, 1), {}, clock)
    limiter.admit("alice")
    assert limiter.admit("alice") is not None
    limiter.changed(KeyLimits(), {})
    assert limiter.admit("alice") is None
    limiter.ended("alice", 100)
    limiter.ended("alice", 100)


def test_a_reload_forgets_keys_that_use_nothing(clock: Clock) -> None:
    limits = KeyLimits(requests_per_minute=60)
    limiter = Limiter(limits, {}, clock)
    for number in range(1000):
        answered(limiter, f"key-{number}")
    limiter.admit("running")
    assert len(limiter._meters) == 1001
    clock.move(60)
    limiter.changed(limits, {})
    assert list(limiter._meters) == ["running"]
    limiter.ended("running", 5)


@pytest.mark.parametrize("seed", range(20))
def test_no_minute_admits_more_than_a_full_bucket_and_what_came_back(
    clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    per_minute = chance.choice([1, 2, 3, 7, 60, 1000])
    limiter = Limiter(KeyLimits(requests_per_minute=per_minute), {}, clock)
    pauses: list[Callable[[], float]] = [
        lambda: 0.0,
        lambda: chance.expovariate(per_minute / 60),
        lambda: chance.expovariate(per_minute / 6),
        lambda: chance.uniform(0, 130),
    ]
    times: list[float] = []
    for _ in range(4000):
        clock.move(chance.choices(pauses, weights=(60, 20, 18, 2))[0]())
        if answered(limiter, "alice") is None:
            times.append(clock.now)
    first = 0
    for last, at in enumerate(times):
        while times[first] < at - 60:
            first += 1
        seconds = at - times[first]
        n_admitted = last - first + 1
        assert n_admitted <= per_minute + seconds * per_minute / 60 + 1e-5
        assert n_admitted <= 2 * per_minute
    assert len(times) >= per_minute


@pytest.mark.parametrize("seed", range(10))
def test_who_waits_as_long_as_was_said_is_admitted_then_and_not_before(
    clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    limits = KeyLimits(chance.randint(1, 100), chance.randint(1, 5000))
    limiter = Limiter(limits, {}, clock)
    n_refused = 0
    for _ in range(500):
        refusal = answered(limiter, "alice", tokens=chance.randint(0, 400))
        if refusal is None:
            clock.move(chance.choice([0, 0, 0, 0.3]))
            continue
        n_refused += 1
        clock.move(refusal.retry_after_seconds * 0.99)
        assert limiter.admit("alice") is not None
        clock.move(refusal.retry_after_seconds * 0.01)
        assert answered(limiter, "alice", tokens=1) is None
    assert n_refused > 10


@pytest.mark.parametrize("seed", range(10))
def test_running_requests_are_counted_right_over_any_schedule_and_reload(
    clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    names = ["alice", "bob", ""]
    limits = KeyLimits(concurrency=4)
    limiter = Limiter(limits, {}, clock)
    running: Counter[str] = Counter()
    for _ in range(3000):
        key = chance.choice(names)
        action = chance.random()
        if action < 0.6:
            full = limits.concurrency is not None and running[key] >= limits.concurrency
            assert (limiter.admit(key) is not None) == full
            running[key] += not full
        elif action < 0.97 and running[key]:
            limiter.ended(key, chance.randint(0, 10))
            running[key] -= 1
        elif action >= 0.97:
            limits = KeyLimits(concurrency=chance.choice([None, 1, 3, 8]))
            limiter.changed(limits, {})
