"""All plans of a small case, by plain loops: is there one that fits and concedes less?

Nothing is ruled out by a forecast. Ruled out is what the planner promises never to do: offloads
that are slower than none where none is possible, experts on the host while a device of the same
kind or a faster one is unused, and layers on the host while experts are on devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from localllm.errors import LocalllmError
from localllm.plan import Candidate
from localllm.planner import Planning, Wishes
from localllm.planner.option import Option, Pricing
from localllm.planner.placement import Placement, Step, device_sets
from localllm.profiles import Goal
from tests.planner.fakes import Case

TYPES = ("f16", "q8_0")


@dataclass(frozen=True)
class Thought:
    """A plan that fits."""

    label: str
    option: Option

    def __str__(self) -> str:
        plan, where = self.option.plan, self.option.placement
        return f"{self.label} {plan.type_k} {plan.n_ctx} {where} at {self.option.price:.3f}"


def pricing_of(case: Case, goal: Goal, wishes: Wishes) -> Pricing:
    """What any plan concedes in this case."""
    planning = Planning(case.candidates, case.policy, goal, case.oracle, None)
    _, search, _ = planning.outcomes(case.hardware, wishes)
    return search.pricing


def cheaper(case: Case, pricing: Pricing, price: float) -> Thought | None:
    """A plan that fits at a price below this; None where there is none at all."""
    for candidate in case.candidates:
        for type_k, placement in itertools.product(TYPES, placements(candidate, pricing)):
            if _is_slower_than_none(case, pricing, candidate, type_k, placement):
                continue
            # Less context takes less memory: the least that is cheap enough is the one to try.
            for n_ctx in contexts(pricing):
                option = _option(pricing, candidate, placement, type_k, n_ctx)
                if option is None or option.price < price:
                    break
            else:
                continue
            if option is not None and fits(case, option):
                return Thought(candidate.label, option)
    return None


def contexts(pricing: Pricing) -> list[int]:
    """From the least to the wished one, for all slots alike."""
    unit = 256 * pricing.template.n_parallel
    whole = range(-(-pricing.n_ctx_least // unit) * unit, pricing.n_ctx_wished, unit)
    return sorted({pricing.n_ctx_least, *whole, pricing.n_ctx_wished})


def placements(candidate: Candidate, pricing: Pricing) -> Iterator[Placement]:
    """Every set of devices, number of layers on them, share of each, and experts kept back."""
    layers = candidate.weights.layers
    n_layers = len(layers)
    kept = [0, *(at + 1 for at, layer in enumerate(layers) if layer.expert_bytes)]
    names = [place.name for place in pricing.machine.devices]
    may_leave = [
        [place.name for place in places] for places, may in device_sets(pricing.machine) if may
    ]
    yield Placement((), Step(0))
    everything = n_layers + 1
    for n in range(1, len(names) + 1):
        for some in itertools.combinations(names, n):
            yield from (Placement(some, Step(everything), s) for s in _shares(everything, n))
            if [*some] in may_leave:
                for n_kept in kept[1:]:
                    for shares in _shares(everything, n):
                        yield Placement(some, Step(everything, n_kept), shares)
            for n_away in range(1, everything):
                for shares in _shares(n_away, n):
                    yield Placement(some, Step(n_away, kept[-1]), shares)


def _shares(n: int, n_places: int) -> Iterator[tuple[int, ...]]:
    """Every way to hand n layers to so many places; none of them goes without."""
    if n_places == 1:
        yield (n,)
        return
    for first in range(1, n - n_places + 2):
        for rest in _shares(n - first, n_places - 1):
            yield (first, *rest)


def fits(case: Case, option: Option) -> bool:
    """Whether the oracle takes it, and the judge says that it fits."""
    try:
        return case.fits(option.plan)
    except LocalllmError:
        return False


def _option(
    pricing: Pricing, candidate: Candidate, placement: Placement, type_k: str, n_ctx: int
) -> Option | None:
    """None where the cache type is refused."""
    try:
        return pricing.option(candidate, placement, type_k, type_k, n_ctx)
    except KeyError:
        return None


def _is_slower_than_none(
    case: Case, pricing: Pricing, candidate: Candidate, type_k: str, placement: Placement
) -> bool:
    alone = [
        _option(pricing, candidate, Placement((), Step(0)), kind, pricing.n_ctx_least)
        for kind in TYPES
    ]
    if not any(option is not None and fits(case, option) for option in alone):
        return False
    wished = pricing.n_ctx_wished
    some = _option(pricing, candidate, placement, type_k, wished)
    none = _option(pricing, candidate, Placement((), Step(0)), type_k, wished)
    if some is None or none is None or None in (some.decode_seconds, none.decode_seconds):
        return False
    return (some.decode_seconds or 0.0) > (none.decode_seconds or 0.0)
