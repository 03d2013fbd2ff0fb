"""What the gateway is doing now, as one value: for `top`, `ps` and the performance log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

State = Literal["starting", "loading", "ready", "draining", "failed"]


@dataclass(frozen=True)
class ReplicaStatus:
    """One llama-server.

    Attributes:
        name: "0", "1", ...
        state: starting (its process), loading (its model), ready, draining, failed.
        pid: llama-server's own; None while there is none.
        n_slots, n_busy: requests that it can answer at the same time, and does.
        restarts: since the gateway began. last_error: of its last death, a sentence.
        ready_since: Unix time. load_seconds: how long the model took to load.
        rss_bytes: main memory that it holds now; rss_peak_bytes: the most that was seen.
        gpu_bytes: by the GPU's PCI address.
        concessions: what the plan gave up to fit, in words (recovery.py).
    """

    name: str
    state: State
    n_slots: int
    n_busy: int = 0
    pid: int | None = None
    restarts: int = 0
    last_error: str = ""
    ready_since: float | None = None
    load_seconds: float | None = None
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    gpu_bytes: Mapping[str, int] = field(default_factory=dict)
    concessions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Percentiles:
    """P50, P90 and P99 of n values; None where there are none."""

    n: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Traffic:
    """What happened in the last `seconds`. Times in seconds.

    Attributes:
        n_requests: generating ones that ended; n_refused, n_failed, n_left: of all kinds.
        tokens_per_second: written, over the window. prompt_tokens_per_second: computed.
    """

    seconds: float = 0.0
    n_requests: int = 0
    n_refused: int = 0
    n_failed: int = 0
    n_left: int = 0
    tokens_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0
    queue_seconds: Percentiles = Percentiles()
    ttft_seconds: Percentiles = Percentiles()
    seconds_per_token: Percentiles = Percentiles()
    total_seconds: Percentiles = Percentiles()


@dataclass(frozen=True)
class GpuUse:
    """One GPU now: share of time that it computed, memory in bytes."""

    name: str
    utilization: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class Status:
    """The whole gateway. Times are Unix times.

    Attributes:
        name: of this server, unique on the machine ("demo", "demo-2").
        url: where it answers. model: what it serves. version: localllm's.
        n_waiting, queue_limit: requests in the queue, and how many may be.
        rss_bytes: of the gateway's own process.
        errors: the last lines of error.log, newest last, as (Unix time, sentence).
    """

    name: str
    url: str
    model: str
    version: str
    pid: int
    started_at: float
    now: float
    draining: bool = False
    n_waiting: int = 0
    queue_limit: int = 0
    n_running: int = 0
    rss_bytes: int | None = None
    replicas: tuple[ReplicaStatus, ...] = ()
    traffic: Traffic = Traffic()
    gpus: tuple[GpuUse, ...] = ()
    errors: tuple[tuple[float, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document form."""
        return {"schema_version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Status:
        """The inverse of `to_json`; what a newer localllm adds is left out.

        Raises:
            KeyError, TypeError, ValueError: it is not a status.
        """
        values = _known(cls, document)
        values["replicas"] = tuple(
            ReplicaStatus(**{**known, "concessions": tuple(known.get("concessions", ()))})
            for known in (_known(ReplicaStatus, of) for of in document["replicas"])
        )
        values["traffic"] = _traffic(document["traffic"])
        values["gpus"] = tuple(GpuUse(**_known(GpuUse, gpu)) for gpu in document["gpus"])
        values["errors"] = tuple((float(at), str(what)) for at, what in document["errors"])
        return cls(**values)


def _traffic(document: Mapping[str, Any]) -> Traffic:
    values = _known(Traffic, document)
    for name, value in values.items():
        if isinstance(value, Mapping):
            values[name] = Percentiles(**_known(Percentiles, value))
    return Traffic(**values)


def _known(kind: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in document.items() if name in names}
