"""Requests under way: each limit ends those that it is for, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from localllm.gateway.exchange import Exchange
from localllm.gateway.flights import Flight, Flights, Phase
from localllm.gateway.refusal import Refused
from localllm.gateway.settings import Settings

NEVER = Settings(
    queue_seconds=0, deadline_seconds=0, idle_seconds=0, slow_client_seconds=0, body_seconds=0
)
LIMITS = [
    pytest.param("body", "body_seconds", 408, id="body"),
    pytest.param("queue", "queue_seconds", 503, id="queue"),
    pytest.param("work", "idle_seconds", 504, id="work"),
    pytest.param("write", "slow_client_seconds", 408, id="write"),
]


def in_flight(
    check: Callable[[Flights, Flight], Coroutine[Any, Any, None]], *, generates: bool = True
) -> Refused | None:
    """Runs the check beside a request; why that was ended, None where it was not."""

    async def run() -> Refused | None:
        flights, begun = Flights(), asyncio.Event()

        async def request() -> None:
            exchange = Exchange(id="1", arrived_at=0.0, method="POST", path="/")
            exchange.generates = generates
            flight = flights.begin(exchange)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                flights.done(flight)

        task = asyncio.ensure_future(request())
        await begun.wait()
        [flight] = flights._flights
        await check(flights, flight)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.done() == (flight.refusal is not None)
        assert len(flights) == (not task.done())
        task.cancel()
        return flight.refusal

    return asyncio.run(run())


def aged(flight: Flight, phase: Phase, here_seconds: float, all_seconds: float = 0.0) -> None:
    """As if it had been there for so long."""
    flight.enter(phase)
    flight.since -= here_seconds
    flight.arrived -= max(here_seconds, all_seconds)


@pytest.mark.parametrize(("phase", "setting", "status"), LIMITS)
def test_a_request_that_is_somewhere_too_long_is_ended(
    phase: Phase, setting: str, status: int
) -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        aged(flight, phase, 60)
        flights.sweep(replace(NEVER, **{setting: 90.0}))
        assert flight.refusal is None
        flights.sweep(replace(NEVER, **{setting: 30.0}))

    refusal = in_flight(check)
    assert refusal is not None
    assert refusal.status == status
    assert "30 s" in refusal.message


@pytest.mark.parametrize(("phase", "setting", "status"), LIMITS)
def test_a_limit_is_for_its_own_phase(phase: Phase, setting: str, status: int) -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        others: list[Phase] = ["body", "queue", "work", "write"]
        others.remove(phase)
        for other in others:
            aged(flight, other, 1e6)
            flights.sweep(replace(NEVER, **{setting: 1.0}))

    assert in_flight(check) is None


@pytest.mark.parametrize("phase", ["body", "queue", "work", "write"])
def test_limits_of_0_end_nothing(phase: Phase) -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        aged(flight, phase, 1e9)
        flights.sweep(NEVER)

    assert in_flight(check) is None


@pytest.mark.parametrize("phase", ["body", "queue", "work", "write"])
def test_the_deadline_counts_from_the_arrival_wherever_it_is(phase: Phase) -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        aged(flight, phase, 0, all_seconds=60)
        flights.sweep(replace(NEVER, deadline_seconds=90.0))
        assert flight.refusal is None
        flights.sweep(replace(NEVER, deadline_seconds=30.0))

    refusal = in_flight(check)
    assert refusal is not None
    assert refusal.status == 504


def test_what_takes_no_slot_has_no_deadline() -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        aged(flight, "work", 0, all_seconds=1e6)
        flights.sweep(replace(NEVER, deadline_seconds=1.0))

    assert in_flight(check, generates=False) is None


def test_one_that_moves_is_not_idle() -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        for _ in range(100):
            aged(flight, "work", 20)
            flights.sweep(replace(NEVER, idle_seconds=30.0))

    assert in_flight(check) is None


def test_who_waited_in_vain_is_told_when_to_come_again() -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        aged(flight, "queue", 60)
        flights.sweep(replace(NEVER, queue_seconds=30.0), wait_seconds=6.2)

    refusal = in_flight(check)
    assert refusal is not None
    assert refusal.headers == {"Retry-After": "7"}


def test_the_first_reason_stays() -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        flight.end(Refused(408, "first"))
        flights.end_all(Refused(503, "second"))

    refusal = in_flight(check)
    assert refusal is not None
    assert refusal.message == "first"


def test_all_can_be_ended() -> None:
    async def check(flights: Flights, flight: Flight) -> None:
        flights.end_all(Refused(503, "shutting down"))

    refusal = in_flight(check)
    assert refusal is not None
    assert refusal.message == "shutting down"


def test_what_is_held_and_what_generates_is_summed_up() -> None:
    async def run() -> None:
        flights = Flights()
        for number in range(4):
            exchange = Exchange(id=str(number), arrived_at=0.0, method="POST", path="/")
            exchange.generates = number % 2 == 0
            flights.begin(exchange).n_body = 10 * number
        assert (len(flights), flights.n_generating, flights.n_body) == (4, 2, 60)

    asyncio.run(run())
