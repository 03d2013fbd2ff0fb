"""Whether a llama-server still moves, from what can be seen of it outside.

Pure but for the clock. The evidence, in the order of its worth: bytes of answers; the counters of
its slots; an answer at all; processor time that it uses. A long prompt on a slow processor is
silent for minutes, and computes; one that is stopped, or waits for a lock for ever, does not.
"""

from __future__ import annotations

import time
from typing import Any

#: Silence in which nothing is suspected: the counters are not asked for.
_QUIET_SECONDS = 5.0
#: Looks in a row without any sign of life.
_ENOUGH_LOOKS = 2
#: Processor time in a look of seconds above which it computes.
_COMPUTES_SECONDS = 0.02


class Motion:
    """What is known of one life of a llama-server."""

    def __init__(self) -> None:
        self._moved_at = time.monotonic()
        self._counted: object = None
        self._n_dead = 0

    def moved(self) -> None:
        """Bytes of an answer came."""
        self._moved_at = time.monotonic()

    def is_suspect(self, n_busy: int) -> bool:
        """Whether it has work and was silent for some seconds."""
        if not n_busy:
            self.moved()
        return time.monotonic() - self._moved_at > _QUIET_SECONDS

    def judge(
        self, slots: object, computed_seconds: float | None, wedged_seconds: float
    ) -> str | None:
        """Why it should be ended, a clause, or None.

        Args:
            slots: the answer of /slots; None where none came in time.
            computed_seconds: processor time that it used meanwhile; None where nobody knows.
            wedged_seconds: see Settings.
        """
        computes = computed_seconds is None or computed_seconds > _COMPUTES_SECONDS
        if slots is not None:
            self._n_dead = 0
            counted = _count(slots)
            # Without counters (--no-slots) it is the processor that tells.
            if computes if counted is None else counted != self._counted:
                self.moved()
            self._counted = counted
        elif not computes:
            self._n_dead += 1
            if self._n_dead >= _ENOUGH_LOOKS:
                return "does not answer and does not compute"
        silent = time.monotonic() - self._moved_at
        if 0 < wedged_seconds < silent:
            return f"has work and did not move for {silent:.0f} s"
        return None


# [{"id": 0, "is_processing": true, "n_prompt_tokens_processed": 2048,
#   "next_token": [{"n_decoded": 12, …}], …}, …]
def _count(slots: object) -> tuple[Any, ...] | None:
    """What the slots have done, to be compared; None where it is no list of slots."""
    if not isinstance(slots, list):
        return None
    return tuple(
        (
            slot.get("id_task"),
            slot.get("n_prompt_tokens_processed"),
            [token.get("n_decoded") for token in slot.get("next_token") or ()],
        )
        for slot in slots
        if isinstance(slot, dict) and slot.get("is_processing")
    )
