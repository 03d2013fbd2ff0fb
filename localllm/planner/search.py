"""The search for the best plan of one candidate: the forecast proposes, llama.cpp disposes.

What is chosen among is the product of KV cache type, device set, step off the devices and context.
For each of the first three the largest context that fits follows; the price (price.py) says which
of all is best. Only what llama.cpp has confirmed is ever returned.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from localllm.errors import LocalllmError
from localllm.plan import Candidate, DeviceMemory, MemoryOracle, Plan
from localllm.planner.forecast import Curve, Forecast, contexts_to_ask, host_context
from localllm.planner.option import Option, Pricing
from localllm.planner.placement import (
    Placement,
    Step,
    device_sets,
    groups_of,
    loads,
    share_out,
    steps,
)
from localllm.planner.places import HOST, Machine, Place, Shortfall
from localllm.planner.wishes import ALL_LAYERS, CTX_STEP, Wishes
from localllm.profiles import Goal, Policy

#: Questions about one candidate. Two or three are usual; the rest is for forecasts that err.
_MOST_QUESTIONS = 16
#: Prices nearer than this are the same: a step of 256 tokens at the far end of a context.
_SAME_PRICE = 1e-3


@dataclass(frozen=True)
class Found:
    """A way to run a candidate that llama.cpp has confirmed, with its ledger."""

    option: Option
    rows: tuple[DeviceMemory, ...]


@dataclass(frozen=True)
class Outcome:
    """What the search for one candidate came to.

    Attributes:
        candidate: the candidate.
        found: its best way to run; None where there is none.
        nearest: the plan that missed by least, and by how much, where nothing fits.
        refused: llama.cpp's word, where it will not run the model at all.
    """

    candidate: Candidate
    found: Found | None = None
    nearest: tuple[Plan, Shortfall] | None = None
    refused: LocalllmError | None = None


@dataclass
class Search:
    """The search on one machine for one goal; what it learns about one candidate serves the next.

    Attributes:
        machine: the places and their budgets.
        policy, goal, wishes: what is wanted.
        oracle: llama.cpp.
        template: a plan with all that needs no memory decided.
        n_ctx_wished, n_ctx_least: of all slots together.
    """

    machine: Machine
    policy: Policy
    goal: Goal
    wishes: Wishes
    oracle: MemoryOracle
    template: Plan
    n_ctx_wished: int
    n_ctx_least: int
    _forecasts: dict[object, Forecast] = field(default_factory=dict)
    _searched: dict[str, _Candidate] = field(default_factory=dict)

    @functools.cached_property
    def pricing(self) -> Pricing:
        """What any way to run any candidate concedes here."""
        return Pricing(
            machine=self.machine,
            policy=self.policy,
            goal=self.goal,
            speed_first=self.wishes.prefer == "speed",
            template=self.template,
            n_ctx_wished=self.n_ctx_wished,
            n_ctx_least=self.n_ctx_least,
            context_bytes=lambda candidate, type_k, n_ctx: self.forecast(candidate).context_bytes(
                type_k, n_ctx
            ),
        )

    def best(self, candidate: Candidate) -> Outcome:
        """The best way to run this candidate."""
        try:
            self._searched[candidate.label] = _Candidate(self, candidate)
            return self._searched[candidate.label].best()
        except LocalllmError as refused:
            return Outcome(candidate, refused=refused)

    def polished(self, outcome: Outcome) -> Outcome:
        """The same with the last layer and the last tokens that llama.cpp says fit."""
        return replace(outcome, found=self._searched[outcome.candidate.label].polished())

    def ask(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """llama.cpp's rows for the plan, in the machine's ledger."""
        return self.machine.ledger(self.oracle.memory(plan))

    def forecast(self, candidate: Candidate) -> Forecast:
        """What is known of the candidate's architecture; asked for at the first of its kind.

        Raises:
            LocalllmError: llama.cpp will not run this model.
        """
        weights = candidate.weights
        kind = (candidate.model.architecture, weights.n_layers, weights.n_expert)
        if kind not in self._forecasts:
            self._forecasts[kind] = self._learn(candidate)
        return self._forecasts[kind]

    def _learn(self, candidate: Candidate) -> Forecast:
        forecast = Forecast()
        contexts = contexts_to_ask(self.n_ctx_least, self.n_ctx_wished)
        alone = replace(self.template, model=candidate.model, n_gpu_layers=0, devices=())
        for type_k, type_v in self.cache_types():
            points, compute = [], []
            try:
                for n_ctx in contexts:
                    plan = replace(alone, type_k=type_k, type_v=type_v, n_ctx=n_ctx)
                    context_bytes, compute_bytes = host_context(self.oracle.memory(plan))
                    points.append((n_ctx, context_bytes))
                    compute.append((n_ctx, compute_bytes))
            except LocalllmError:
                if not forecast.contexts and type_k == self.cache_types()[-1][0]:
                    raise
                continue  # a cache type that this architecture does not take
            forecast.contexts[type_k] = Curve(tuple(points))
            forecast.compute[type_k] = Curve(tuple(compute))
        return forecast

    def cache_types(self) -> list[tuple[str, str]]:
        """What the KV cache may be kept in, the better first."""
        type_k, type_v = self.wishes.type_k, self.wishes.type_v
        if type_k is not None or type_v is not None:
            return [(type_k or type_v or "f16", type_v or type_k or "f16")]
        return [("f16", "f16"), ("q8_0", "q8_0")]


class _Candidate:
    """The search for one candidate."""

    def __init__(self, search: Search, candidate: Candidate) -> None:
        self._search = search
        self._machine = search.machine
        self._candidate = candidate
        self._layers = search.pricing.layers(candidate)
        self._forecast = search.forecast(candidate)
        self._steps = steps(candidate.weights)
        self._bad: dict[tuple[object, ...], int] = {}
        self._found: list[Found] = []
        self._nearest: tuple[Plan, Shortfall] | None = None
        self._refused: dict[tuple[str, bool], LocalllmError] = {}
        self._n_asked = 0
        alone = self._option(Placement((), Step(0)), *next(iter(self._types())), 0)
        self._host_seconds = alone.decode_seconds
        least, (type_k, _) = search.n_ctx_least, self._types()[-1]
        self._host_holds = self._placed((), Step(0), type_k, least) is not None

    def best(self) -> Outcome:
        """Its best way to run, as far as single steps do not matter."""
        self._try_the_foreseen()
        if not self._found:
            self._try_the_most_frugal()
            self._try_the_foreseen()  # what was learnt may show more ways
        refused = None if self._found or self._nearest else next(iter(self._refused.values()), None)
        return Outcome(self._candidate, self._best, self._nearest, refused)

    def _try_the_foreseen(self) -> None:
        """Asks about the best that the forecast thinks possible, until nothing better is left."""
        while self._n_asked < _MOST_QUESTIONS:
            option = min(self._options(), key=lambda each: each.order, default=None)
            if option is None or not self._is_better(option):
                break
            self._try(option)

    @property
    def _best(self) -> Found | None:
        return min(self._found, key=lambda found: found.option.order, default=None)

    def _is_better(self, option: Option) -> bool:
        best = self._best
        return best is None or option.price < best.option.price - _SAME_PRICE

    def _try(self, option: Option) -> bool:
        """Asks llama.cpp, and learns from the answer; whether it fits."""
        self._n_asked += 1
        kind = (option.plan.type_k, bool(option.placement.devices))
        try:
            rows = self._search.ask(option.plan)
        except LocalllmError as refused:
            self._refused[kind] = refused  # a cache type that devices do not take, most likely
            return False
        self._forecast.learn(
            self._question(option.placement, option.plan.type_k),
            option.plan.n_ctx,
            rows,
            self._expected(option.placement, option.plan.type_k, option.plan.n_ctx),
        )
        tightest = self._machine.tightest(rows)
        if tightest is None or tightest.left_bytes >= 0:
            self._found.append(Found(option, rows))
            return True
        key = (option.placement, option.plan.type_k)
        self._bad[key] = min(option.plan.n_ctx, self._bad.get(key, option.plan.n_ctx))
        if self._nearest is None or tightest.left_bytes > self._nearest[1].left_bytes:
            self._nearest = (option.plan, tightest)
        return False

    def _try_the_most_frugal(self) -> None:
        """The forecast sees no way: llama.cpp is asked about what comes nearest to one."""
        n_ctx = self._search.n_ctx_least
        type_k, type_v = self._types()[-1]
        placements = [Placement((), self._wanted_step())] if self._may_stay_on_host() else []
        for places, some in self._walks():
            names = tuple(place.name for place in places)
            for step in some:
                share = step.n_gpu_layers // len(names)
                shares = (*[share] * (len(names) - 1), step.n_gpu_layers - share * (len(names) - 1))
                placements.append(Placement(names, step, shares))
        ranked = sorted(placements, key=lambda p: -self._foreseen_left(p, type_k, n_ctx))
        for placement in ranked[:2]:
            if self._try(self._option(placement, type_k, type_v, n_ctx)):
                return

    def polished(self) -> Found:
        """The best, moved by single steps as long as llama.cpp says that more fits.

        A forecast that is too careful by a little stops a little early.
        """
        best = self._best
        assert best is not None
        n_more = 1
        while best.option.plan.n_ctx < self._search.n_ctx_wished and n_more:
            option = best.option
            n_ctx = min(
                option.plan.n_ctx + n_more * CTX_STEP * option.plan.n_parallel,
                self._search.n_ctx_wished,
            )
            larger = self._option(option.placement, option.plan.type_k, option.plan.type_v, n_ctx)
            n_bad = self._bad.get((option.placement, option.plan.type_k), n_ctx + 1)
            if n_ctx < n_bad and self._try(larger):
                best = self._found[-1]
                n_more *= 2
            else:
                n_more //= 2
        return self._with_one_more_layer(best)

    def _with_one_more_layer(self, best: Found) -> Found:
        """The step before the best's, where llama.cpp says that it fits as well."""
        placement = best.option.placement
        places = [self._machine.place(name) for name in placement.devices]
        walk = next((some for p, some in self._walks() if [*p] == places), ())
        while placement.step in walk[1:]:
            step = walk[walk.index(placement.step) - 1]
            more = step.n_gpu_layers - placement.step.n_gpu_layers
            shares = (*placement.shares[:-1], placement.shares[-1] + more)
            placement = Placement(placement.devices, step, shares)
            plan = best.option.plan
            if plan.n_ctx >= self._bad.get((placement, plan.type_k), plan.n_ctx + 1):
                break
            option = self._option(placement, plan.type_k, plan.type_v, plan.n_ctx)
            if option.order >= best.option.order or not self._try(option):
                break
            best = self._found[-1]
        return best

    def _options(self) -> Iterator[Option]:
        """Every way that the forecast thinks possible, each with the largest context."""
        slower = set(self._machine.slower)
        for type_k, type_v in self._types():
            if self._may_stay_on_host():
                alone, n_ctx = self._largest((), self._wanted_step(), type_k, 0)
                if alone is not None:
                    yield self._option(alone, type_k, type_v, n_ctx)
            for places, some in self._walks():
                n_least = 0
                for step in some:
                    placement, n_ctx = self._largest(places, step, type_k, n_least)
                    if placement is None:
                        continue
                    n_least = n_ctx
                    option = self._option(placement, type_k, type_v, n_ctx)
                    if not self._is_slower_than_none(option):
                        yield option
                    if n_ctx == self._search.n_ctx_wished and not set(places) & slower:
                        break  # further steps only get slower

    def _types(self) -> list[tuple[str, str]]:
        """The KV cache types that the architecture takes, the better first."""
        return [
            types for types in self._search.cache_types() if types[0] in self._forecast.contexts
        ]

    def _walks(self) -> Iterator[tuple[tuple[Place, ...], Sequence[Step]]]:
        """Device sets, and the steps worth trying on each."""
        wanted = self._search.wishes.n_gpu_layers
        if wanted == 0:
            return
        for places, may_leave in device_sets(self._machine):
            if wanted is not None:
                yield places, (self._wanted_step(),)
            else:
                yield places, self._steps if may_leave else self._steps[:1]

    def _wanted_step(self) -> Step:
        """The layers that were asked for, as far as there are so many; none for none."""
        wanted = self._search.wishes.n_gpu_layers or 0
        everything = self._layers.n_layers + 1
        return Step(everything if wanted == ALL_LAYERS else min(wanted, everything))

    def _may_stay_on_host(self) -> bool:
        """Without devices llama.cpp takes any number of layers for none."""
        return self._search.wishes.n_gpu_layers in (None, 0) or not self._machine.devices

    def _largest(
        self, places: tuple[Place, ...], step: Step, type_k: str, n_least: int
    ) -> tuple[Placement | None, int]:
        """The placement at the largest context that fits, and that context; (None, 0) if none.

        Whatever fits, fits with a smaller context too; at `n_least` it is known to.
        """
        wished, least = self._search.n_ctx_wished, self._search.n_ctx_least
        placement = self._placed(places, step, type_k, wished)
        if placement is not None:
            return placement, wished
        n_ctx = max(least, n_least)
        best = self._placed(places, step, type_k, n_ctx)
        if best is None:
            return None, 0
        unit = CTX_STEP * self._search.template.n_parallel
        n_low, n_high = n_ctx // unit, -(-wished // unit)
        while n_high - n_low > 1:
            middle = (n_low + n_high) // 2
            placement = self._placed(places, step, type_k, middle * unit)
            if placement is None:
                n_high = middle
            else:
                n_low, best, n_ctx = middle, placement, middle * unit
        return best, n_ctx

    def _placed(
        self, places: tuple[Place, ...], step: Step, type_k: str, n_ctx: int
    ) -> Placement | None:
        """The placement at that context where the forecast says that it fits."""
        names = tuple(place.name for place in places)
        forecast, machine = self._forecast, self._machine
        question = self._question(Placement(names, step), type_k)
        each = forecast.context_bytes(type_k, n_ctx) / max(1, self._layers.n_layers)
        first = self._layers.first(step) if places else self._layers.n_layers
        weights = self._layers.host(step if places else Step(0)).model_bytes
        host = weights + each * first + forecast.beyond(question, HOST, n_ctx)
        host += machine.host.overhead_bytes
        pool = machine.budgets.get(machine.host.pool)
        if pool is not None and host > pool:
            return None
        room = []
        for place in places:
            free: float = machine.budgets.get(place.name, _NO_BOUND)
            if place.pool == machine.host.pool and pool is not None:
                free = min(free, pool - host)
            room.append(free - forecast.beyond(question, place.name, n_ctx) - place.overhead_bytes)
        if len(places) == 1:
            end = self._layers.n_layers + 1
            load = self._layers.span(step, first, end)
            fits = load.model_bytes + load.n_layers * each <= room[0]
            shares: tuple[int, ...] | None = (step.n_gpu_layers,) if fits else None
        elif places:
            shares = share_out(self._layers, step, room, groups_of(places), each)
        else:
            shares = ()
        if shares is None:
            return None
        if (type_k, bool(names)) in self._refused:
            return None
        placement = Placement(names, step, shares)
        return None if n_ctx >= self._bad.get((placement, type_k), n_ctx + 1) else placement

    def _foreseen_left(self, placement: Placement, type_k: str, n_ctx: int) -> float:
        """What the tightest pool would have left by the forecast; negative is missing."""
        question = self._question(placement, type_k)
        rows = [
            DeviceMemory(name, 0, 0, int(size + self._forecast.beyond(question, name, n_ctx)))
            for name, size in self._expected(placement, type_k, n_ctx).items()
        ]
        tightest = self._machine.tightest(self._machine.ledger(rows))
        return float(tightest.left_bytes) if tightest else 0.0

    def _expected(self, placement: Placement, type_k: str, n_ctx: int) -> dict[str, float]:
        """Weights and context by place, as far as arithmetic goes."""
        each = self._forecast.context_bytes(type_k, n_ctx) / max(1, self._layers.n_layers)
        on_devices = loads(self._layers, placement)
        n_away = sum(load.n_layers for name, load in on_devices.items() if name != HOST)
        return {
            name: load.model_bytes
            + each * (self._layers.n_layers - n_away if name == HOST else load.n_layers)
            for name, load in on_devices.items()
        }

    def _question(self, placement: Placement, type_k: str) -> tuple[object, ...]:
        """What kind of question this is: answers of one kind have much in common."""
        step, everything = placement.step, self._layers.n_layers + 1
        kind = "whole" if step.n_gpu_layers == everything else "layers"
        return (placement.devices, kind, step.n_cpu_moe > 0, type_k)

    def _option(self, placement: Placement, type_k: str, type_v: str, n_ctx: int) -> Option:
        return self._search.pricing.option(self._candidate, placement, type_k, type_v, n_ctx)

    def _is_slower_than_none(self, option: Option) -> bool:
        """Never an offload that is slower than none, where none is possible."""
        if option.decode_seconds is None or self._host_seconds is None:
            return False
        return self._search.wishes.n_gpu_layers is None and (
            option.decode_seconds > self._host_seconds and self._host_holds
        )


_NO_BOUND = 1 << 62
