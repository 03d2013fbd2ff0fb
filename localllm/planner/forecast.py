"""Foretells llama.cpp's answers, so that few questions are enough; it never decides.

A context's bytes do not depend on the quantization of the weights, and compute buffers hardly do:
what was answered about one candidate foretells the others. Every answer corrects the next
forecast, and only an answer makes a plan (search.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from localllm.plan import DeviceMemory
from localllm.planner.places import HOST
from localllm.planner.wishes import CTX_STEP


@dataclass(frozen=True)
class Curve:
    """Bytes over tokens: straight lines between the points that were asked.

    A context is such a line but for windows (it stops growing) and states (it starts above 0).
    """

    points: tuple[tuple[int, int], ...]

    def at(self, n_ctx: int) -> float:
        """Bytes at that context; the outer lines go on."""
        points = self.points
        if len(points) == 1:
            return float(points[0][1])
        at = bisect_left(points, (n_ctx, 0))
        at = min(max(at, 1), len(points) - 1)
        (x0, y0), (x1, y1) = points[at - 1], points[at]
        return y0 + (y1 - y0) * (n_ctx - x0) / (x1 - x0)

    @property
    def fixed_bytes(self) -> int:
        """What is there whatever the context: states and windows."""
        if len(self.points) < 2:
            return 0
        (x0, y0), (x1, y1) = self.points[-2:]
        return max(0, round(y1 - (y1 - y0) / (x1 - x0) * x1))


@dataclass
class Forecast:
    """What has been learnt about one architecture on one machine.

    Attributes:
        contexts: the whole context's bytes, by KV cache type.
        compute: buffers of the host alone, by KV cache type: the first guess for any place, and
            how they grow with the context.
        seen: the context of an answer and, by place, what that had beyond weights and context; by
            the kind of question (devices, kind of step, cache type).
    """

    contexts: dict[str, Curve] = field(default_factory=dict)
    compute: dict[str, Curve] = field(default_factory=dict)
    seen: dict[tuple[object, ...], tuple[int, Mapping[str, float]]] = field(default_factory=dict)

    def context_bytes(self, type_k: str, n_ctx: int) -> float:
        """The whole context, wherever its layers are."""
        return self.contexts[type_k].at(n_ctx)

    def beyond(self, question: tuple[object, ...], place: str, n_ctx: int) -> float:
        """What a place takes beside weights and context, the latest answer's word."""
        known = self.seen.get(question)
        if known is None:  # the same devices and step with the other cache type is next best
            alike = [seen for asked, seen in self.seen.items() if asked[:-1] == question[:-1]]
            known = alike[-1] if alike else None
        compute = self.compute[str(question[-1])]
        if known is None or place not in known[1]:
            # Rather too hopeful than too careful: a hope is asked about, a fear never is. With all
            # layers on devices the host's buffers are a few MB.
            devices, kind, keeps_experts, _ = question
            idle = place == HOST and devices and kind == "whole" and not keeps_experts
            return 0.0 if idle else compute.at(n_ctx)
        n_asked, seen = known
        return seen[place] + compute.at(n_ctx) - compute.at(n_asked)

    def learn(
        self,
        question: tuple[object, ...],
        n_ctx: int,
        rows: Iterable[DeviceMemory],
        expected: Mapping[str, float],
    ) -> None:
        """Keeps what an answer had beyond the weights and context that were expected."""
        self.seen.pop(question, None)  # the latest is the last
        self.seen[question] = n_ctx, {
            row.device: row.model_bytes + row.context_bytes + row.compute_bytes
            - expected.get(row.device, 0.0)
            for row in rows
        }  # fmt: skip


def contexts_to_ask(least: int, wished: int) -> Sequence[int]:
    """Where to ask for a curve: both ends, and one between so that a window shows.

    Where both ends are one, another is asked for as well: states show in the slope.
    """
    low, high = _rounded(least), _rounded(wished)
    if low == high:
        low = high // 2 // CTX_STEP * CTX_STEP or 2 * high
    return sorted({low, _rounded(low + (high - low) // 4), high})


def _rounded(n_ctx: int) -> int:
    """As llama.cpp rounds it: between, a context is no line."""
    return -(-n_ctx // CTX_STEP) * CTX_STEP


def host_context(rows: Iterable[DeviceMemory]) -> tuple[int, int]:
    """Context and compute bytes of an answer about the host alone."""
    host = next(row for row in rows if row.device == HOST)
    return host.context_bytes, host.compute_bytes
