"""What each key has used of what it may use: requests, tokens, and how many at the same time.

Values and a clock alone; whose key it is, credentials.py says. The kind of limit is a token
bucket: a minute's worth is there at once, and comes back evenly over a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from localllm.gateway.settings import KeyLimits

#: Of a request or a token: what rounding may take from one who waited as long as was said.
_ROUNDING = 1e-6
#: Nobody knows when a running request will end.
_CONCURRENCY_SECONDS = 1.0


@dataclass(frozen=True)
class Refusal:
    """Why a request is not admitted, in a sentence, and when to come again."""

    reason: str
    retry_after_seconds: float


class TokenBucket:
    """What may be used in a minute, as what was used of it.

    More than there is may be charged: nothing is left until that debt is worked off.

    Args:
        per_minute: what comes back in a minute, and all that there can be.
        clock: seconds, monotonic.
        used: of it, now.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float], used: float = 0.0) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._used = used
        self._at = clock()

    @property
    def used(self) -> float:
        """What has not come back yet; more than `per_minute` is a debt."""
        now = self._clock()
        self._used = max(0.0, self._used - (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._used

    def wait_seconds(self) -> float:
        """Until there is one; 0 where there is."""
        missing = self.used + 1 - self.per_minute
        return missing * 60 / self.per_minute if missing > _ROUNDING else 0.0

    def charge(self, n: int) -> None:
        """Uses n, whether they are there or not."""
        self._used = self.used + n

    def resized(self, per_minute: int) -> TokenBucket:
        """The bucket under another limit.

        What was used stays used where the limit is raised. Where it is lowered the share that was
        used stays: a key that used 1000 of 1000 need not wait out 1000 minutes of the new 1.
        """
        used = self.used * min(1.0, per_minute / self.per_minute)
        return TokenBucket(per_minute, self._clock, used)


@dataclass
class KeyMeter:
    """What one key has used. A bucket is None where there is no limit.

    Attributes:
        concurrency: requests at the same time that it may have; None is without limit.
        n_running: requests that it has, waiting ones included; counted without a limit, too, for
            one may be set while they run.
    """

    requests: TokenBucket | None = None
    tokens: TokenBucket | None = None
    concurrency: int | None = None
    n_running: int = 0

    def refusal(self, who: str) -> Refusal | None:
        """Why another request may not be admitted now: of several reasons the longest one."""
        reasons = []
        if self.concurrency is not None and self.n_running >= self.concurrency:
            reason = f"{who} has {self.n_running} requests at the same time and may have"
            reasons.append(Refusal(f"{reason} {self.concurrency}", _CONCURRENCY_SECONDS))
        for what, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None and (seconds := bucket.wait_seconds()):
                reason = f"{who} has used its {bucket.per_minute} {what} per minute"
                reasons.append(Refusal(reason, seconds))
        return max(reasons, key=lambda reason: reason.retry_after_seconds, default=None)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing is used: forgetting it changes nothing."""
        buckets = (self.requests, self.tokens)
        return not self.n_running and not any(bucket and bucket.used for bucket in buckets)


class Limiter:
    """Admits requests by what their key may still use.

    It holds a few numbers for each key that came, and so must be asked with names of keys alone
    (KeyRing.find), never with what a client sent.

    Args:
        limits: of every key that has none of its own, and of all requests together, as the key
            "", where no keys are asked for.
        key_limits: by the key's name.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limits: KeyLimits,
        key_limits: Mapping[str, KeyLimits],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._key_limits = key_limits
        self._clock = clock
        self._meters: dict[str, KeyMeter] = {}

    def admit(self, key: str) -> Refusal | None:
        """Counts a request of the key, until `ended`; or says why not, and counts nothing."""
        meter = self._meters.get(key)
        if meter is None:
            meter = self._meters[key] = self._adjusted(key, KeyMeter())
        refusal = meter.refusal(f"the key {key}" if key else "this server")
        if refusal is None:
            meter.n_running += 1
            if meter.requests is not None:
                meter.requests.charge(1)
        return refusal

    def ended(self, key: str, tokens: int) -> None:
        """A request that was admitted has ended, and took so many tokens. Once for each."""
        meter = self._meters[key]
        meter.n_running -= 1
        if meter.tokens is not None:
            meter.tokens.charge(tokens)

    def changed(self, limits: KeyLimits, key_limits: Mapping[str, KeyLimits]) -> None:
        """Other limits from now on; what runs and what was used is still counted."""
        self._limits = limits
        self._key_limits = key_limits
        self._meters = {
            key: self._adjusted(key, meter)
            for key, meter in self._meters.items()
            if not meter.is_idle
        }

    def _adjusted(self, key: str, meter: KeyMeter) -> KeyMeter:
        limits = self._key_limits.get(key, self._limits)
        return KeyMeter(
            requests=self._bucket(meter.requests, limits.requests_per_minute),
            tokens=self._bucket(meter.tokens, limits.tokens_per_minute),
            concurrency=limits.concurrency,
            n_running=meter.n_running,
        )

    def _bucket(self, bucket: TokenBucket | None, per_minute: int | None) -> TokenBucket | None:
        if per_minute is None:
            return None
        return bucket.resized(per_minute) if bucket else TokenBucket(per_minute, self._clock)
