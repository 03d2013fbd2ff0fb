"""The last minute's traffic: exact percentiles and rates, kept as values and counted on demand.

Knows exchanges that ended and tokens that moved. Does not know where either comes from.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, isnan, nan

from localllm.gateway.exchange import Exchange
from localllm.gateway.status import Percentiles, Traffic

#: Times that are kept at most: sorting four lists of 4096 takes some 2 ms, and 68 answers a
#: second for a whole minute are beyond what a machine generates.
_MOST = 4096
#: Queue, TTFT, per token, total.
_N_TIMES = 4


@dataclass
class _Second:
    """What ended and moved in one second of the clock."""

    at: int
    n_requests: int = 0
    n_refused: int = 0
    n_failed: int = 0
    n_left: int = 0
    n_tokens: int = 0
    n_prompt: int = 0


class Window:
    """An Observer that remembers the last seconds; memory is bounded under any load.

    Tokens of a stream count when `moved` tells them, those of an answer in one piece when it
    ends. So whoever relays streams calls `moved` for all of them; where a stream's end tells of
    another number than was counted, it is called once more with the difference.

    Args:
        seconds: how far back it looks.
        most: exchanges whose times are kept; beyond them the oldest go. Counts stay exact.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        seconds: float = 60.0,
        most: int = _MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._clock = seconds, clock
        self._began_at = clock()
        # Numbers in place, and no object for each request: those would live for minutes among what
        # lives for moments, and keep the memory around them from ever being given back.
        self._times = [array("d", [nan]) * most for _ in range(_N_TIMES)]
        self._ended_at = array("d", [-inf]) * most
        self._n_ended = 0
        self._past: deque[_Second] = deque([_Second(int(self._began_at))])

    def moved(self, n_tokens: int = 1) -> None:
        """Tokens of a running stream were written; cheap enough for every chunk."""
        self._second(self._clock()).n_tokens += n_tokens

    def ended(self, exchange: Exchange) -> None:
        """Counts an exchange; see Observer."""
        now = self._clock()
        second = self._second(now)
        if exchange.outcome == "refused":
            second.n_refused += 1
        elif exchange.outcome == "failed":
            second.n_failed += 1
        elif exchange.outcome == "client left":
            second.n_left += 1
        if not exchange.generates:
            return
        second.n_requests += 1
        if exchange.n_prompt is not None:
            second.n_prompt += exchange.n_prompt - (exchange.n_cached or 0)
        if not exchange.streams:
            second.n_tokens += exchange.n_tokens or 0
        times = (
            exchange.queue_seconds,
            exchange.ttft_seconds,
            exchange.seconds_per_token,
            exchange.total_seconds if exchange.succeeded else None,
        )
        if all(each is None for each in times):  # a crowd's refusals would push out all others
            return
        at = self._n_ended % len(self._ended_at)
        self._n_ended += 1
        self._ended_at[at] = now
        for column, each in zip(self._times, times, strict=True):
            column[at] = nan if each is None else each

    def traffic(self) -> Traffic:
        """What happened in the window, or since the beginning where that is shorter.

        Of the times, each percentile has those that are known: a refused request has no TTFT, and
        only answers without an error have a total.
        """
        now = self._clock()
        # Counts are kept by whole seconds, so the span is cut at one: rates stay exact.
        since = max(self._began_at, float(int(now - self._seconds)))
        seconds = max(1.0, now - since)
        past = [second for second in self._past if second.at >= int(since)]
        rows = [at for at, ended_at in enumerate(self._ended_at) if ended_at >= since]
        queue, ttft, per_token, total = (
            percentiles(column[at] for at in rows) for column in self._times
        )
        return Traffic(
            seconds=seconds,
            n_requests=sum(second.n_requests for second in past),
            n_refused=sum(second.n_refused for second in past),
            n_failed=sum(second.n_failed for second in past),
            n_left=sum(second.n_left for second in past),
            tokens_per_second=sum(second.n_tokens for second in past) / seconds,
            prompt_tokens_per_second=sum(second.n_prompt for second in past) / seconds,
            queue_seconds=queue,
            ttft_seconds=ttft,
            seconds_per_token=per_token,
            total_seconds=total,
        )

    def _second(self, now: float) -> _Second:
        last = self._past[-1]
        if last.at == (at := int(now)):
            return last
        while self._past and self._past[0].at < int(now - self._seconds):
            self._past.popleft()
        self._past.append(_Second(at))
        return self._past[-1]


def percentiles(values: Iterable[float]) -> Percentiles:
    """P50, P90 and P99 by nearest rank: the value that at least so many percent do not exceed.

    Each is a value that was there; of fewer than 100 values P99 is the largest. NaN is left out.
    """
    known = sorted(value for value in values if not isnan(value))
    if not known:
        return Percentiles()
    # -(-a // b) is a / b rounded up, in whole numbers: 0.99 * n would not be exact.
    p50, p90, p99 = (known[-(-percent * len(known) // 100) - 1] for percent in (50, 90, 99))
    return Percentiles(len(known), p50, p90, p99)
