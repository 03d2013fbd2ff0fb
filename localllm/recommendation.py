"""Catalogue + machine -> the models that run best here, the best first.

Knows how to guess a model's layers from its number of weights, so that the planner can plan it
without a header; what an exact plan says replaces the guess. It fetches nothing and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from localllm.catalogue import Catalogue, CatalogueEntry, Task
from localllm.hardware import Hardware
from localllm.plan import Candidate, Device, DeviceMemory, Model, Plan
from localllm.planner import settings
from localllm.planner.placement import Layers, Placement, Step, expert_overrides, loads, steps
from localllm.planner.places import HOST, Machine, Place, survey
from localllm.planner.price import quality_loss
from localllm.planner.search import Outcome, Search
from localllm.planner.wishes import Wishes
from localllm.profiles import Goal, Policy
from localllm.quants import find_quant
from localllm.units import KIB, MIB
from localllm.weights import LayerWeights, Weights

#: What most repositories hold: each is a good step from the next.
USUAL_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")

#: A transformer has 12 n_layers n_embd^2 weights (arXiv 2001.08361), and is some 128 times as wide
#: as it is deep: 34 layers for 8B (Llama has 32, Qwen 36), 71 for 70B (80).
_WIDTH_PER_DEPTH = 128
#: Of a layer's context, f16: keys and values of 8 heads of 128, as most models from 4B to 70B have.
_TOKEN_BYTES = 4 * KIB
#: Buffers of a micro-batch. Assumed: a dry run gives 66 MiB for a small model at 32k tokens, and
#: wider ones take more.
_COMPUTE_BYTES = 128 * MIB
#: Of the weights that a token of a mixture of experts passes through, those that all tokens do:
#: 1.5 of 3.3 billion in Qwen3-30B-A3B, 1.2 of 3.6 in gpt-oss-20b.
_ALWAYS_ACTIVE = 0.5


@dataclass(frozen=True)
class Suggestion:
    """A model as it would best run here.

    Attributes:
        entry: what the catalogue tells of it.
        quant: the quantization to take.
        size_bytes: of its files.
        n_ctx: tokens of all slots together.
        where: a few words: "CUDA0", "CUDA0, experts of 12 layers on the host".
        tokens_per_second: of decoding.
        usable_tokens_per_second: the least that the goal calls usable.
        model_price: by how much the model is worse than the best of those asked for, in percent
            of perplexity.
        plan_price: what its plan concedes here, likewise (planner/price.py).
        slow_price: what being slower than comfortable costs on top of that, likewise.
        figures: "exact" where llama.cpp has answered for the model's own header.
        because: why it stands where it stands, a clause.
    """

    entry: CatalogueEntry
    quant: str
    size_bytes: int
    n_ctx: int
    where: str
    tokens_per_second: float
    usable_tokens_per_second: float
    model_price: float
    plan_price: float
    slow_price: float
    figures: Literal["estimated", "exact"] = "estimated"
    because: str = ""

    @property
    def price(self) -> float:
        """Of all three together: the lowest is the best."""
        return self.model_price + self.plan_price + self.slow_price

    @property
    def is_usable(self) -> bool:
        """Whether it decodes as fast as the goal needs it."""
        return self.tokens_per_second >= self.usable_tokens_per_second


def shortlist(
    catalogue: Catalogue,
    hardware: Hardware,
    devices: Sequence[Device],
    policy: Policy,
    goal: Goal,
    task: Task | None = None,
) -> tuple[Suggestion, ...]:
    """The models of the catalogue that fit, the best first, by figures that need no network.

    A model is judged by what its makers tell: how many weights it has, and when it was released.
    How it best runs here is the planner's own word, about layers that are guessed.

    Order: 1. what is usably fast; 2. the lowest price of model and plan. Of what is not usably
    fast the fastest is first.

    Args:
        catalogue: to choose from.
        hardware: the machine.
        devices: what the engine sees; empty for the host alone.
        policy: the judgement numbers.
        goal: what the model is for.
        task: what it must be made for; None for a conversation.
    """
    machine = _with_speeds(survey(hardware, devices, policy), policy)
    entries = [each for each in catalogue.entries.values() if (task or "chat") in each.tasks]
    best = max((_worth(entry, policy) for entry in entries), default=0.0)
    found = []
    for entry in entries:
        outcome = _best_way(entry, hardware, machine, policy, goal)
        if outcome is None or outcome.found is None:
            continue
        option, model = outcome.found.option, outcome.candidate.model
        assert option.decode_seconds is not None  # every place has a speed
        speed = 1 / option.decode_seconds
        found.append(
            Suggestion(
                entry=entry,
                quant=outcome.candidate.label,
                size_bytes=model.size_bytes,
                n_ctx=option.plan.n_ctx,
                where=option.placement.where(outcome.candidate.weights),
                tokens_per_second=speed,
                usable_tokens_per_second=goal.speed_least,
                model_price=policy.price_model_halving * (best - _worth(entry, policy)),
                plan_price=option.price,
                slow_price=_slow_price(speed, policy, goal),
            )
        )
    return _ordered(found, policy)


def rank(
    shortlisted: Iterable[Suggestion],
    exact: Mapping[str, Plan | None],
    policy: Policy,
    goal: Goal,
) -> tuple[Suggestion, ...]:
    """The same models in the order that exact plans give them.

    Args:
        shortlisted: what `shortlist` found.
        exact: by alias, the plan made from the model's own header for the same machine; None
            where it turned out not to fit. What is not in it keeps its estimates.
        policy: that of the shortlist and of the plans.
        goal: likewise.
    """
    found = []
    for suggestion in shortlisted:
        plan = exact.get(suggestion.entry.alias)
        if plan is not None:
            found.append(_exact(suggestion, plan, policy, goal))
        elif suggestion.entry.alias not in exact:
            found.append(suggestion)
    return _ordered(found, policy)


def _exact(suggestion: Suggestion, plan: Plan, policy: Policy, goal: Goal) -> Suggestion:
    """The suggestion with the plan's figures; with its own where nothing was asked for the plan."""
    chosen = next((each for each in plan.verdicts if each.fits and each.why_not is None), None)
    if chosen is None or chosen.price is None:
        return suggestion
    known = replace(
        suggestion,
        quant=chosen.quant,
        size_bytes=chosen.size_bytes,
        n_ctx=plan.n_ctx,
        where=chosen.where,
        figures="exact",
    )
    speed = plan.speed.decode_tokens_per_second
    if speed is None:  # of a device of unknown bandwidth; and the price lacks that of speed
        return known
    return replace(
        known,
        tokens_per_second=speed,
        plan_price=chosen.price,
        slow_price=_slow_price(speed, policy, goal),
    )


def _slow_price(tokens_per_second: float, policy: Policy, goal: Goal) -> float:
    """Below a comfortable speed, twice the weights are worth no more than twice the speed.

    A plan's own price of speed is for a model that somebody chose already, and lower.
    """
    halvings = math.log2(goal.speed_comfortable / tokens_per_second)
    return policy.price_model_halving * max(0.0, halvings)


def _ordered(found: Iterable[Suggestion], policy: Policy) -> tuple[Suggestion, ...]:
    ranked = sorted(
        found,
        key=lambda each: (
            not each.is_usable,
            each.price if each.is_usable else -each.tokens_per_second,
            each.entry.alias,
        ),
    )
    return tuple(replace(each, because=_because(each, ranked[0], policy)) for each in ranked)


def _because(suggestion: Suggestion, first: Suggestion, policy: Policy) -> str:
    """Why it is not first: the part in which it is most behind."""
    speed = f"{suggestion.tokens_per_second:.3g} tokens/s"
    if not suggestion.is_usable:
        return f"{speed}, below the usable {suggestion.usable_tokens_per_second:g}"
    if suggestion is first:
        return "the best that is usable here"
    own, other = _dense_params(suggestion.entry), _dense_params(first.entry)
    smaller = policy.price_model_halving * math.log2(other / own)
    clauses = {
        f"counts as {own / 1e9:.2g}B, {first.entry.alias} as {other / 1e9:.2g}B": smaller,
        f"older than {first.entry.alias}": suggestion.model_price - first.model_price - smaller,
        f"slower: {speed}": suggestion.slow_price - first.slow_price,
        f"fits less well: {suggestion.quant}, {suggestion.where}, {speed}": (
            suggestion.plan_price - first.plan_price
        ),
    }
    return max(clauses, key=lambda clause: clauses[clause])


def _worth(entry: CatalogueEntry, policy: Policy) -> float:
    """How good a model is, in doublings of its weights."""
    year, month = entry.released.split("-")
    years = int(year) + (int(month) - 1) / 12
    return math.log2(_dense_params(entry)) + policy.model_doublings_per_year * years


def _dense_params(entry: CatalogueEntry) -> float:
    """The weights of the dense model that a mixture of experts is as good as.

    The geometric mean of all and the active ones, a rule of thumb ("Geometric Mean Prediction of
    MoE performance", r/LocalLLaMA, March 2024): Mixtral 8x7B stands for some 25B.
    """
    return math.sqrt(entry.n_params * entry.n_params_active)


def _with_speeds(machine: Machine, policy: Policy) -> Machine:
    """The machine with a careful guess where a bandwidth is not known.

    Without one, a model that is far too large would look as good as any.
    """
    host = machine.host
    if host.bytes_per_second is None:
        host = replace(host, bytes_per_second=policy.host_bytes_per_second)
    # An accelerator that shares main memory reaches more of it than the processor does.
    advantage = policy.device_bandwidth_share / policy.host_bandwidth_share
    shared = (host.bytes_per_second or 0.0) * advantage

    def known(place: Place) -> Place:
        if place.bytes_per_second is not None:
            return place
        guess = shared if place.pool == host.pool else policy.device_bytes_per_second
        return replace(place, bytes_per_second=guess)

    return replace(machine, host=host, devices=tuple(known(place) for place in machine.devices))


def _best_way(
    entry: CatalogueEntry, hardware: Hardware, machine: Machine, policy: Policy, goal: Goal
) -> Outcome | None:
    """The planner's choice among the model's quantizations; None where none of them fits."""
    candidates = [_candidate(entry, quant) for quant in entry.quants or USUAL_QUANTS]
    model = candidates[0].model
    # The other cache types are worth little room, and every one is a search of its own.
    wishes = Wishes(type_k="f16", type_v="f16")
    template = settings.template(model, hardware, policy, wishes, goal)
    wished, least = settings.contexts(model, goal, wishes, template.n_parallel)
    search = Search(
        machine=machine,
        policy=policy,
        goal=goal,
        wishes=wishes,
        oracle=_Sums({each.label: Layers(each.weights) for each in candidates}),
        template=template,
        n_ctx_wished=wished,
        n_ctx_least=least,
    )
    pools = {place.pool for place in (machine.host, *machine.devices)}
    room = sum(machine.budgets.get(pool, math.inf) for pool in pools)
    fitting: list[tuple[float, Outcome]] = []
    as_good = math.inf
    for candidate in sorted(candidates, key=_loss):
        # What loses more than another concedes in all need not be searched.
        if _loss(candidate) > as_good or candidate.model.size_bytes > room:
            continue
        outcome = search.best(candidate)
        if outcome.found is not None:
            price = outcome.found.option.price
            as_good = min(as_good, price + policy.price_unnoticed)
            fitting.append((price, outcome))
    return min(
        (outcome for price, outcome in fitting if price <= as_good),
        key=lambda outcome: outcome.candidate.model.size_bytes,
        default=None,
    )


def _loss(candidate: Candidate) -> float:
    """Percent of perplexity that its quantization adds."""
    return 100 * (quality_loss(candidate.label, candidate.model.architecture) or 0.0)


def _candidate(entry: CatalogueEntry, name: str) -> Candidate:
    """The model in one quantization, with layers all alike."""
    quant = find_quant(name)
    assert quant is not None
    assert quant.bits_per_weight is not None  # catalogue.py refuses others
    each_bytes = quant.bits_per_weight / 8
    n_active = entry.n_params_active
    n_always = entry.n_params
    if n_active < entry.n_params:
        n_always = int(n_active * _ALWAYS_ACTIVE)
    n_expert = entry.n_params - n_always
    n_layers = max(1, round((entry.n_params / (12 * _WIDTH_PER_DEPTH**2)) ** (1 / 3)))
    layer = LayerWeights(
        dense_bytes=int(n_always * each_bytes / n_layers),
        expert_bytes=int(n_expert * each_bytes / n_layers),
        dense_elements=n_always // n_layers,
        expert_elements=n_expert // n_layers,
    )
    model = Model(
        ref=entry.alias,
        path=entry.repo,
        name=entry.alias,
        # Told by it is only what was trained in its quantization: gpt-oss, which is called so.
        architecture=entry.family,
        n_layers=n_layers,
        n_ctx_train=entry.n_ctx_train,
        quant=quant.name,
        size_bytes=int(entry.n_params * each_bytes),
    )
    weights = Weights((layer,) * n_layers, n_expert=n_expert, n_expert_used=n_active - n_always)
    return Candidate(quant.name, model, weights)


@dataclass(frozen=True)
class _Sums:
    """What llama.cpp would answer about guessed layers, added up."""

    layers: Mapping[str, Layers]

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """None: the machine has been surveyed already."""
        return ()

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """A row for each place, from the sums that the search itself goes by."""
        layers = self.layers[plan.model.quant or ""]
        placement = _placement(plan, layers.weights)
        on_devices = loads(layers, placement)
        n_away = sum(load.n_layers for name, load in on_devices.items() if name != HOST)
        each = _TOKEN_BYTES * plan.n_ctx
        return tuple(
            DeviceMemory(
                name,
                load.model_bytes,
                int(each * (layers.n_layers - n_away if name == HOST else load.n_layers)),
                _COMPUTE_BYTES,
            )
            for name, load in on_devices.items()
        )


def _placement(plan: Plan, weights: Weights) -> Placement:
    """Where a plan puts the layers: `Placement.applied`, read backwards."""
    if not plan.devices:
        return Placement((), Step(0))
    step = next(
        step
        for step in steps(weights)
        if step.n_gpu_layers == plan.n_gpu_layers
        and expert_overrides(step, weights.n_layers) == plan.tensor_overrides
    )
    shares = plan.tensor_split or (plan.n_gpu_layers,)
    return Placement(plan.devices, step, tuple(int(share) for share in shares))
