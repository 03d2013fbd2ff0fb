"""How many connections a download takes: as many as help.

Knows bytes and seconds. Opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Connections:
    """How many connections a download may take.

    Attributes:
        most: at once. Browsers take 6 a host.
        gain: another step is kept where the whole became faster by this factor.
        settle_seconds: that a step is given to show it.
    """

    most: int = 8
    gain: float = 1.2
    settle_seconds: float = 0.3


class Pace:
    """How many connections: twice as many as long as that made it faster.

    Where it did not, the smaller number is gone back to, and stays.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._wanted = 1
        self._since: float | None = None
        self._bytes_then = 0
        self._rate_before = 0.0
        self._is_settled = connections.most <= 1

    def wanted(self, fetched_bytes: int, now: float) -> int:
        """The number for now, from what was fetched so far."""
        if self._is_settled or not fetched_bytes:
            return self._wanted
        if self._since is None:
            self._since, self._bytes_then = now, fetched_bytes
            return self._wanted
        seconds = now - self._since
        if seconds < self._connections.settle_seconds:
            return self._wanted
        rate = (fetched_bytes - self._bytes_then) / seconds
        if rate < self._rate_before * self._connections.gain:
            self._wanted = max(1, self._wanted // 2)
            self._is_settled = True
            return self._wanted
        if self._wanted >= self._connections.most:
            self._is_settled = True
            return self._wanted
        self._wanted = min(2 * self._wanted, self._connections.most)
        self._rate_before = rate
        self._since = None
        return self._wanted
