"""The whole space of plans, against which a choice is held: is there any that concedes less?

Every quantization, KV cache type, set of devices, step off the devices, split and context counts.
None is left out by a forecast: a plan is ruled out because its price is no lower, or because
llama.cpp says that it, or one that takes less on every place, does not fit. Two things are taken
for granted: more layers on a device take more memory there, and so does more context.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from localllm.errors import LocalllmError
from localllm.plan import Candidate, MemoryOracle
from localllm.planner.option import Option, Pricing
from localllm.planner.placement import Placement, Step, steps
from localllm.planner.places import HOST, Place

_EPSILON = 1e-3


@dataclass(frozen=True)
class Better:
    """A plan that fits and concedes less than the one that was chosen."""

    candidate: str
    option: Option


@dataclass(frozen=True)
class Way:
    """What is settled before how far the model leaves the devices, and its context, are."""

    candidate: Candidate
    types: tuple[str, str]
    places: tuple[Place, ...]


class Space:
    """All plans of some candidates on one machine for one goal."""

    def __init__(self, pricing: Pricing, oracle: MemoryOracle, n_ctx_unit: int) -> None:
        self._pricing = pricing
        self._oracle = oracle
        self._machine = pricing.machine
        self._unit = n_ctx_unit
        self.n_ruled_out = 0

    def better(self, candidates: Sequence[Candidate], price: float) -> Better | None:
        """Some plan with a price lower than this, or None when there is no such plan."""
        for candidate in candidates:
            for types in (("f16", "f16"), ("q8_0", "q8_0")):
                for places in self._sets():
                    walk = steps(candidate.weights) if places else (Step(0),)
                    found = self._among(Way(candidate, types, places), walk, price)
                    if found is not None:
                        return Better(candidate.label, found)
        return None

    def _sets(self) -> Iterator[tuple[Place, ...]]:
        """Every set of devices, those alike counted once; the host alone is the first."""
        kinds: dict[object, list[Place]] = {}
        for place in self._machine.devices:
            kinds.setdefault(place.kind, []).append(place)
        for counts in itertools.product(*(range(len(some) + 1) for some in kinds.values())):
            chosen = [p for some, n in zip(kinds.values(), counts, strict=True) for p in some[:n]]
            yield tuple(place for place in self._machine.devices if place in chosen)

    def _among(
        self,
        way: Way,
        walk: Sequence[Step],
        price: float,
    ) -> Option | None:
        """A plan below the price among these steps, by ruling out runs of them at once.

        Each step of a run needs at least the least context that any of them needs to be cheap
        enough. Where devices cannot hold the last step with that, they can hold none before it,
        which put more on them; where the host cannot hold the first, it can hold none after it.
        """
        needed = [self._least_context(way, step, self._extremes(way, step), price) for step in walk]
        runs = [(0, len(walk) - 1)]
        while runs:
            first, last = runs.pop()
            while first <= last and needed[first] is None:
                first += 1
            while last >= first and needed[last] is None:
                last -= 1
            if first > last:
                continue
            n_ctx = min(n for n in needed[first : last + 1] if n is not None)
            if first == last:
                option = self._fitting(way, walk[last], n_ctx, price)
                if option is not None:
                    return option
                self.n_ruled_out += 1
                continue
            if self._lacks_device(way, walk[last], n_ctx) or (
                self._lacks_host(way, walk[first], n_ctx)
            ):
                self.n_ruled_out += last - first + 1
                continue
            middle = (first + last) // 2
            runs += [(first, middle), (middle + 1, last)]
        return None

    def _least_context(
        self,
        way: Way,
        step: Step,
        splits: Sequence[tuple[int, ...]],
        price: float,
    ) -> int | None:
        """The least context at which a split would be cheap enough; None for none at all."""
        pricing = self._pricing

        def is_cheap(n_ctx: int) -> bool:
            best = min(
                (self._option(way, step, shares, n_ctx).price
                 for shares in splits),
                default=math.inf,
            )  # fmt: skip
            return best < price - _EPSILON

        if not is_cheap(pricing.n_ctx_wished):
            return None
        low, high = pricing.n_ctx_least, pricing.n_ctx_wished
        if is_cheap(low):
            return low
        while high - low > self._unit:
            middle = (low + high) // 2 // self._unit * self._unit
            low, high = (low, middle) if is_cheap(middle) else (max(middle, low + 1), high)
        return high

    def _extremes(self, way: Way, step: Step) -> list[tuple[int, ...]]:
        """Splits that bound the price: all that there is on each device in turn."""
        if not way.places:
            return [()]
        n = step.n_gpu_layers
        return [tuple(n if at == all_on else 0 for at in range(len(way.places)))
                for all_on in range(len(way.places))]  # fmt: skip

    def _fitting(
        self,
        way: Way,
        step: Step,
        n_ctx: int,
        price: float,
    ) -> Option | None:
        """The step with a split that fits below the price, if there is one.

        A split may need more context than n_ctx to be cheap enough; and more context, other
        splits.
        """
        due = [n_ctx]
        for due_ctx in due:
            for shares in self._splits(way, step, due_ctx):
                least = self._least_context(way, step, [shares], price)
                if least is None:
                    continue
                if not self._lacking(way, step, shares, least):
                    return self._option(way, step, shares, least)
                if least not in due:
                    due.append(least)
        return None

    def _lacks_device(
        self,
        way: Way,
        step: Step,
        n_ctx: int,
    ) -> bool:
        """Whether some device cannot hold its part of the step, however it is split."""
        return all(
            self._lacking(way, step, shares, n_ctx) - {HOST}
            for shares in self._splits(way, step, n_ctx)
        )

    def _lacks_host(
        self,
        way: Way,
        step: Step,
        n_ctx: int,
    ) -> bool:
        """Whether main memory cannot hold what the step leaves on the host."""
        shares = self._splits(way, step, n_ctx)[0]
        return HOST in self._lacking(way, step, shares, n_ctx)

    def _splits(
        self,
        way: Way,
        step: Step,
        n_ctx: int,
    ) -> list[tuple[int, ...]]:
        """Splits worth trying: for two devices those around the largest share of the faster that
        llama.cpp says fits; for more, all alike in every preset, even ones."""
        n = step.n_gpu_layers
        if len(way.places) <= 1:
            return [(n,)] if way.places else [()]
        if len(way.places) > 2:
            even, more = divmod(n, len(way.places))
            return [tuple(even + (at >= len(way.places) - more) for at in range(len(way.places)))]
        low, high = 0, n
        while low < high:
            middle = (low + high + 1) // 2
            lacking = self._lacking(way, step, (n - middle, middle), n_ctx)
            fits = way.places[-1].name not in lacking
            low, high = (middle, high) if fits else (low, middle - 1)
        return [(n - share, share) for share in range(low, max(-1, low - 3), -1)]

    def _option(
        self,
        way: Way,
        step: Step,
        shares: tuple[int, ...],
        n_ctx: int,
    ) -> Option:
        placement = Placement(tuple(place.name for place in way.places), step, shares)
        return self._pricing.option(way.candidate, placement, *way.types, n_ctx)

    def _lacking(
        self,
        way: Way,
        step: Step,
        shares: tuple[int, ...],
        n_ctx: int,
    ) -> set[str]:
        """The places where memory is missing; the host stands for all that shares its memory."""
        plan = self._option(way, step, shares, n_ctx).plan
        try:
            rows = self._machine.ledger(self._oracle.memory(plan))
        except LocalllmError:
            return {HOST, *(place.name for place in way.places)}
        return {
            HOST if self._machine.place(each.row.device).pool == self._machine.host.pool
            else each.row.device
            for each in self._machine.left(rows)
            if each.left_bytes < 0
        }  # fmt: skip
