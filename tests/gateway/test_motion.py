"""Whether a llama-server still moves: a table of what was seen of it, on a clock of our own."""

from __future__ import annotations

from typing import Any

import pytest

from localllm.gateway import motion
from localllm.gateway.motion import Motion

WEDGED_SECONDS = 120.0
#: Processor time of a look: an idle loop's, and that of one that computes.
IDLE, COMPUTES = 0.001, 2.0
DEAD = "does not answer and does not compute"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(motion.time, "monotonic", clock.monotonic)
    return clock


def slots(n_decoded: int, *, n_prompt: int = 8, task: int = 1, busy: bool = True) -> list[Any]:
    """As /slots of llama-server shows one slot."""
    return [
        {
            "id": 0,
            "id_task": task,
            "is_processing": busy,
            "n_prompt_tokens_processed": n_prompt,
            "next_token": [{"n_decoded": n_decoded}],
        }
    ]


@pytest.mark.parametrize(
    ("n_busy", "silent_seconds", "is_suspect"),
    [
        pytest.param(0, 3600.0, False, id="nothing to do, however long"),
        pytest.param(1, 4.9, False, id="work, and a pause of some seconds"),
        pytest.param(1, 5.1, True, id="work, and a longer silence"),
    ],
)
def test_silence_is_suspect_only_where_there_is_work(
    clock: Clock, n_busy: int, silent_seconds: float, is_suspect: bool
) -> None:
    one = Motion()
    clock.now += silent_seconds
    assert one.is_suspect(n_busy) is is_suspect


def test_work_that_comes_after_a_long_rest_is_not_late_already(clock: Clock) -> None:
    one = Motion()
    clock.now += 3600
    assert not one.is_suspect(0)  # as it is asked once a second
    clock.now += 1
    assert not one.is_suspect(1)


def test_bytes_of_an_answer_end_the_suspicion(clock: Clock) -> None:
    one = Motion()
    clock.now += 60
    assert one.is_suspect(1)
    one.moved()
    assert not one.is_suspect(1)


@pytest.mark.parametrize(
    ("looks", "verdict"),
    [
        pytest.param([(None, 0.0)], None, id="no answer once: it may be late"),
        pytest.param([(None, 0.0)] * 2, DEAD, id="no answer twice and no work: stopped"),
        pytest.param([(None, 0.02)] * 2, DEAD, id="what a look itself costs is no work"),
        pytest.param([(None, 0.0), (slots(1), 0.0), (None, 0.0)], None, id="an answer between"),
        pytest.param([(None, 0.0), ([], 0.0), (None, 0.0)], None, id="an answer without slots"),
        pytest.param([(None, COMPUTES)] * 5, None, id="a long batch: no answer, and it computes"),
        pytest.param([(None, None)] * 5, None, id="no answer, its processor time is not known"),
        pytest.param([(None, 0.0), (None, COMPUTES), (None, 0.0)], DEAD, id="dead, with a spark"),
        pytest.param([(slots(1), 0.0)] * 5, None, id="it answers, and stands still for a while"),
    ],
)
def test_one_that_neither_answers_nor_computes_is_ended_at_the_second_look(
    clock: Clock, looks: list[tuple[object, float | None]], verdict: str | None
) -> None:
    one = Motion()
    told = None
    for answer, computed_seconds in looks:
        clock.now += 3
        told = one.judge(answer, computed_seconds, WEDGED_SECONDS)
    assert told == verdict


@pytest.mark.parametrize(
    ("before", "after", "computed_seconds", "moves"),
    [
        pytest.param(slots(1), slots(2), IDLE, True, id="a token more"),
        pytest.param(slots(0), slots(0, n_prompt=520), IDLE, True, id="more of the prompt"),
        pytest.param(slots(9), slots(9, task=2), IDLE, True, id="another task"),
        pytest.param(slots(9), slots(9, busy=False), IDLE, True, id="the task has ended"),
        pytest.param(slots(9), slots(9), IDLE, False, id="nothing"),
        pytest.param(slots(9), slots(9), COMPUTES, False, id="counters stand, whatever it burns"),
        pytest.param({"error": "off"}, {"error": "off"}, COMPUTES, True, id="no counters, work"),
        pytest.param({"error": "off"}, {"error": "off"}, IDLE, False, id="no counters, no work"),
        pytest.param({"error": "off"}, {"error": "off"}, None, True, id="nothing is known"),
        pytest.param(None, None, COMPUTES, False, id="no answer for so long, though it computes"),
    ],
)
def test_what_counts_as_motion(
    clock: Clock, before: object, after: object, computed_seconds: float | None, moves: bool
) -> None:
    one = Motion()
    clock.now += 100
    assert one.judge(before, computed_seconds, WEDGED_SECONDS) is None
    clock.now += 100  # longer than wedged_seconds since the start, if nothing of it counted
    one.judge(before, computed_seconds, WEDGED_SECONDS)
    clock.now += 100
    one.judge(after, computed_seconds, WEDGED_SECONDS)
    clock.now += 30
    # The last look itself: had it seen motion, only 30 s were silent.
    silent = "did not move"
    told = one.judge(None, COMPUTES, WEDGED_SECONDS)
    assert (told is None) is moves, told
    assert moves or (told is not None and silent in told)


def test_a_silence_that_is_too_long_is_told_with_its_seconds(clock: Clock) -> None:
    one = Motion()
    one.judge(slots(3), COMPUTES, WEDGED_SECONDS)
    clock.now += WEDGED_SECONDS + 1
    assert one.judge(slots(3), COMPUTES, WEDGED_SECONDS) == "has work and did not move for 121 s"


def test_without_a_limit_it_may_stand_still_for_ever(clock: Clock) -> None:
    one = Motion()
    one.judge(slots(3), COMPUTES, WEDGED_SECONDS)
    clock.now += 1e6
    assert one.judge(slots(3), COMPUTES, 0) is None


def test_a_limit_that_changed_meanwhile_holds_at_once(clock: Clock) -> None:
    one = Motion()
    clock.now += 11
    assert one.judge(None, COMPUTES, 120) is None
    assert one.judge(None, COMPUTES, 10) is not None


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param([], id="no slots"),
        pytest.param(["slot", 7, None], id="no objects"),
        pytest.param([{"is_processing": True}], id="no counters"),
        pytest.param([{"is_processing": True, "next_token": None}], id="next_token is null"),
    ],
)
def test_an_answer_of_another_form_is_an_answer(clock: Clock, odd: object) -> None:
    one = Motion()
    for _ in range(3):
        clock.now += 3
        assert one.judge(odd, 0.0, WEDGED_SECONDS) is None
