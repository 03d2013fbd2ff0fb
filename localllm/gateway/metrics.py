"""What Prometheus reads of the gateway: its own figures, and llama-server's with a replica's name.

Knows prometheus_client and its text format. Every label's values are bounded in number, so that
no client can make memory or an answer grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from localllm.gateway.exchange import Exchange
from localllm.gateway.status import Status

#: The text format that is written here, whatever else this version of prometheus_client can write.
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: In place of a value that is not told apart.
OTHER = "other"

#: Values of one label. A key has some 75 series on each replica, most of them in histograms: 100
#: keys on two replicas are 15,000, which take 0.2 s to render.
_MOST_VALUES = 100
#: Whom most figures are told apart by.
_OF = ("model", "replica", "key")
#: From a free slot to the default patience of a queue, 120 s, and what people may raise it to.
_QUEUE_BUCKETS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300)
#: From a cached prompt of a small model on a GPU to 64k tokens at a CPU's 100 a second.
_TTFT_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 640)
#: 500 tokens a second (a small model on a GPU) down to 0.5 (weights that do not fit into memory),
#: finest from 100 to 5, where people feel the difference: they read at 5 to 10.
_TOKEN_BUCKETS = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 1, 2,
)  # fmt: skip
#: From one token to the default deadline, an hour.
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 900, 3600)

_PAIR = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"'
#: Numbers as Prometheus reads them: C++ also prints "-nan", at which it would refuse the page.
_NUMBER = r"[Nn]a[Nn]|[-+]?(?:[Ii]nf|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    rf"(?:\{{(?P<labels>(?:{_PAIR}(?:,{_PAIR})*,?)?)\}})?"
    rf"[ \t]+(?P<value>{_NUMBER})(?:[ \t]+-?[0-9]+)?[ \t]*"
)
_COMMENT = re.compile(r"# (?P<kind>HELP|TYPE) (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?: .*)?")


class Metrics:
    """An Observer that counts for Prometheus, in a registry of its own.

    Args:
        models: the served model's names, at least one. A request that names none is counted for
            the first, one that names another for "other".
    """

    def __init__(self, models: Sequence[str]) -> None:
        # A series of Unix times beside each counter and histogram, a third more of them. They are
        # switched off for the whole library, which nothing else in this process uses.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._models = {name: _printable(name) for name in models} | {"": _printable(models[0])}
        self._routes, self._keys = _Label(), _Label()
        self._registry = CollectorRegistry()
        self._requests = self._counter(
            "requests",
            "Requests that ended.",
            ("route", "model", "replica", "key", "status", "outcome"),
        )
        self._queue = self._histogram("queue", "From arrival to a slot.", _QUEUE_BUCKETS)
        self._ttft = self._histogram(
            "ttft", "From arrival to the first token's bytes.", _TTFT_BUCKETS
        )
        self._per_token = self._histogram(
            "time_per_output_token", "Per token after the first.", _TOKEN_BUCKETS
        )
        self._total = self._histogram(
            "request",
            "From arrival to the last byte, of generating requests that were answered.",
            _REQUEST_BUCKETS,
        )
        self._prompt = self._counter("prompt_tokens", "Prompt tokens, cached ones included.")
        self._cached = self._counter("cached_prompt_tokens", "Prompt tokens out of a cache.")
        self._written = self._counter("completion_tokens", "Tokens that were written.")

    def _counter(self, name: str, what: str, labels: Sequence[str] = _OF) -> Counter:
        return Counter(f"localllm_{name}", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float]) -> Histogram:
        name = f"localllm_{name}_seconds"
        return Histogram(name, what, _OF, buckets=buckets, registry=self._registry)

    def ended(self, exchange: Exchange) -> None:
        """Counts an exchange; see Observer."""
        key = self._keys(exchange.key)
        of = (self._models.get(exchange.model, OTHER), exchange.replica, key)
        route = self._routes(exchange.route)
        self._requests.labels(route, *of, str(exchange.status), exchange.outcome).inc()
        if not exchange.generates:
            return
        for histogram, seconds in (
            (self._queue, exchange.queue_seconds),
            (self._ttft, exchange.ttft_seconds),
            (self._per_token, exchange.seconds_per_token),
            (self._total, exchange.total_seconds if exchange.succeeded else None),
        ):
            if seconds is not None:
                histogram.labels(*of).observe(seconds)
        for counter, n_tokens in (
            (self._prompt, exchange.n_prompt),
            (self._cached, exchange.n_cached),
            (self._written, exchange.n_tokens),
        ):
            if n_tokens:
                counter.labels(*of).inc(n_tokens)

    def render(
        self, status: Status, lost_lines: int, children: Mapping[str, bytes]
    ) -> tuple[bytes, str]:
        """The page, and its content type; may run in a thread while exchanges are counted.

        Args:
            status: what the gateway does now.
            lost_lines: log lines that could not be written.
            children: llama-server's own /metrics by the replica's name. What cannot be read of
                it is left out.
        """
        now = _Families(_now(status, lost_lines))
        # A single one's names stay as they are, for whoever reads llama-server's already.
        own = merge(children, labelled=len(status.replicas) > 1)
        return generate_latest(self._registry) + generate_latest(now) + own, _CONTENT_TYPE


class _Label:
    """A label's values, of which only the first hundred are told apart."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= _MOST_VALUES:
                return OTHER
            self._known.add(value)
        return value


class _Families(CollectorRegistry):
    """Families that are made for one page: a replica or GPU that went leaves nothing behind."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _now(status: Status, lost_lines: int) -> Iterator[Metric]:
    def gauge(name: str, what: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"localllm_{name}", what, labels=labels)

    waiting = gauge("waiting_requests", "Requests that wait for a slot.")
    waiting.add_metric((), status.n_waiting)
    lost = CounterMetricFamily("localllm_lost_log_lines", "Log lines that were not written.")
    lost.add_metric((), lost_lines)
    slots = gauge("slots", "Requests that a replica can answer at once.", ("replica", "state"))
    up = gauge("replica_up", "1 where the replica can answer.", ("replica",))
    restarts = CounterMetricFamily(
        "localllm_replica_restarts", "Of llama-server.", labels=("replica",)
    )
    load = gauge("model_load_seconds", "How long the model took to load.", ("replica",))
    resident = gauge("resident_bytes", "Main memory that a process holds.", ("process",))
    held = gauge("gpu_replica_bytes", "GPU memory that a replica holds.", ("replica", "address"))
    if status.rss_bytes is not None:
        resident.add_metric(("gateway",), status.rss_bytes)
    for replica in status.replicas:
        slots.add_metric((replica.name, "busy"), replica.n_busy)
        slots.add_metric((replica.name, "free"), max(0, replica.n_slots - replica.n_busy))
        up.add_metric((replica.name,), replica.state == "ready")
        restarts.add_metric((replica.name,), replica.restarts)
        if replica.load_seconds is not None:
            load.add_metric((replica.name,), replica.load_seconds)
        if replica.rss_bytes is not None:
            resident.add_metric((f"replica-{replica.name}",), replica.rss_bytes)
        for address, n_bytes in replica.gpu_bytes.items():
            held.add_metric((replica.name, address), n_bytes)
    utilization = gauge("gpu_utilization_ratio", "Of time that it computed.", ("gpu", "name"))
    used = gauge("gpu_used_bytes", "GPU memory in use, by anybody.", ("gpu", "name"))
    total = gauge("gpu_total_bytes", "GPU memory.", ("gpu", "name"))
    for number, gpu in enumerate(status.gpus):
        for family, value in (
            (utilization, gpu.utilization),
            (used, gpu.used_bytes),
            (total, gpu.total_bytes),
        ):
            if value is not None:
                family.add_metric((str(number), gpu.name), value)
    yield from (waiting, lost, slots, up, restarts, load, resident, held)
    yield from (utilization, used, total)


@dataclass
class _Merged:
    """A family of the children's: its comments once, and everybody's samples."""

    help: str = ""
    type: str = ""
    samples: list[str] = field(default_factory=list)


def merge(children: Mapping[str, bytes], *, labelled: bool = True) -> bytes:
    r"""Several pages as one: each sample with a label of who told it, each family once.

    # HELP llamacpp:requests_processing Number of requests processing
    # TYPE llamacpp:requests_processing gauge
    llamacpp:requests_processing 2
    llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 17

    Args:
        children: pages in the text format by the replica's name. A line that is not in it is
            left out.
        labelled: with the label.
    """
    families: dict[str, _Merged] = {}
    for replica, page in children.items():
        family = ""
        for line in page.decode("utf-8", "replace").split("\n"):
            if comment := _COMMENT.fullmatch(line):
                family = comment["name"]
                merged = families.setdefault(family, _Merged())
                if comment["kind"] == "HELP":
                    merged.help = merged.help or line
                else:
                    merged.type = merged.type or line
            elif sample := _SAMPLE.fullmatch(line):
                name, labels = sample["name"], sample["labels"]
                # A histogram's samples have longer names than their family.
                longer = (family, f"{family}_bucket", f"{family}_sum", f"{family}_count")
                of = family if name in longer else name
                told = ([f'replica="{replica}"'] if labelled else []) + ([labels] if labels else [])
                all_labels = f"{{{','.join(told)}}}" if told else ""
                merged = families.setdefault(of, _Merged())
                merged.samples.append(f"{name}{all_labels} {sample['value']}")
    lines = [
        line
        for merged in families.values()
        if merged.samples
        for line in (merged.help, merged.type, *merged.samples)
        if line
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _printable(name: str) -> str:
    """Without the half surrogates of a file's name that is not UTF-8: the page must be it."""
    return name.encode("utf-8", "replace").decode("utf-8")
