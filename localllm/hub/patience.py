"""How long and how often the network is tried, and what is worth another attempt.

Knows time and chance. Knows nothing of HTTP but the headers in which a server asks to wait.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from localllm.errors import NetworkError
from localllm.units import MIB

T = TypeVar("T")

_MAX_BACKOFF_SECONDS = 20.0
# The hub's own header (RFC draft httpapi-ratelimit-headers): "resolvers";r=0;t=123
_RATE_LIMIT = re.compile(r"\br=(\d+)\s*;\s*t=(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """How long and how often the network is tried.

    Attributes:
        connect_seconds: for a connection to stand.
        idle_seconds: without a byte, after which a connection is given up.
        slow_bytes_per_second: a connection that was slower than this over `slow_seconds` is given
            up for another one: servers have been seen dripping for hours.
        slow_seconds: see there.
        attempts: in a row without a byte of progress.
        backoff_seconds: before the second attempt; doubled for each further one.
        wait_seconds: in all, that servers may make us wait (429, 503 with Retry-After).
        document_bytes: of metadata, at most. The listing of 1,000 files takes 0.5 MB.
    """

    connect_seconds: float = 10.0
    idle_seconds: float = 30.0
    slow_bytes_per_second: float = 1024.0
    slow_seconds: float = 30.0
    attempts: int = 6
    backoff_seconds: float = 0.5
    wait_seconds: float = 300.0
    document_bytes: int = 64 * MIB


class TransientError(NetworkError):
    """Something that may go away by itself: worth another attempt.

    `wait_seconds` is how long the server asks for; None where it does not.
    """

    wait_seconds: float | None = None


class Patience:
    """How long to wait before the next attempt, until it is enough.

    Args:
        limits: how often and how long.
        attempts: in a row without progress; None takes the limits'.
    """

    def __init__(self, limits: Limits, attempts: int | None = None) -> None:
        self._limits = limits
        self._attempts = limits.attempts if attempts is None else attempts
        self._n_failed = 0
        self._waited = 0.0

    def progress(self) -> None:
        """Something arrived: failures so far do not count any more."""
        self._n_failed = 0

    def pause(self, error: TransientError) -> float:
        """Seconds to wait after this failure.

        Raises:
            TransientError: the failure itself, when it was one too many.
        """
        if error.wait_seconds:  # "in 0 seconds", for ever, would be an endless loop
            self._waited += error.wait_seconds
            if self._waited > self._limits.wait_seconds:
                raise error
            return error.wait_seconds
        self._n_failed += 1
        if self._n_failed >= self._attempts:
            raise error
        pause = self._limits.backoff_seconds * 2.0 ** (self._n_failed - 1)
        # Spread, so that many clients that one failure hit do not come back as one.
        return min(pause, _MAX_BACKOFF_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: Retry-After (seconds or a date), or RateLimit."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])  # decades, not infinity
    if value:
        date = email.utils.parsedate_tz(value)
        if date is not None:
            with contextlib.suppress(ValueError, OverflowError):  # a date that no clock shows
                return max(0.0, email.utils.mktime_tz(date) - time.time())
    match = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(match[2]) if match and match[1] == "0" else None
