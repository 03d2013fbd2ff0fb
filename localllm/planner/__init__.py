"""Hardware + candidates + wishes -> Plan.

Pure: it asks llama.cpp only through the MemoryOracle it is handed, and reads no file, clock,
environment or network.

    places.py      what the machine can hold, and how fast it reads
    placement.py   which weights lie where
    forecast.py    what llama.cpp will probably answer
    speed.py       tokens per second
    price.py       what a plan concedes: the ladder
    search.py      the best plan of one candidate, confirmed by llama.cpp
    settings.py    threads, batches, caches
    writer.py      the plan with a reason for each value, and the verdicts
    refusal.py     by how much it does not fit, and what would
    unasked.py     the plan where llama.cpp cannot be asked
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from localllm.errors import DoesNotFitError, NotFoundError
from localllm.hardware import Hardware
from localllm.plan import Candidate, Device, MemoryOracle, Plan
from localllm.planner import settings
from localllm.planner.places import survey
from localllm.planner.refusal import refusal
from localllm.planner.search import Found, Outcome, Search
from localllm.planner.unasked import unasked
from localllm.planner.wishes import ALL_LAYERS, CTX_STEP, Wishes
from localllm.planner.writer import Writer
from localllm.profiles import Goal, Policy

__all__ = ["ALL_LAYERS", "CTX_STEP", "Wishes", "choose"]

_ANY_PRICE = 1e6


def choose(
    hardware: Hardware,
    candidates: Sequence[Candidate],
    policy: Policy,
    wishes: Wishes,
    goal: Goal,
    oracle: MemoryOracle | None,
    extra_bytes: Mapping[str, int] | None = None,
) -> Plan:
    """The plan for running the best of the candidates on this machine.

    Order: 1. what needs no memory (slots, batch, waiting); 2. for each candidate the KV cache
    type, placement and context with the lowest price (price.py has the ladder), confirmed by
    llama.cpp; 3. the candidate with the lowest price; 4. what the rest of the host's memory is
    good for; or a refusal that says by how much and what would fit.

    Args:
        hardware: the machine.
        candidates: quantizations of one model; at least one.
        policy: the judgement numbers.
        wishes: explicit values, never changed.
        goal: what the plan is for.
        oracle: llama.cpp's word on memory; None where the library is missing, and then the plan
            says that nothing was asked.
        extra_bytes: by place, what a run like this took beyond its dry run when it was measured.

    Raises:
        DoesNotFitError: it cannot run here as wished; the sentence says what is missing.
        UsageError: wishes that contradict each other.
        NotFoundError: no candidate has the wished quantization.
        LocalllmError: llama.cpp will not run any of them; its own word.
    """
    if oracle is None:
        return unasked(hardware, _wanted(candidates, wishes), policy, wishes, goal)
    planning = Planning(candidates, policy, goal, oracle, extra_bytes)
    outcomes, search, best = planning.outcomes(hardware, wishes)
    if best is None:

        def retry(
            wishes: Wishes, hardware: Hardware, *, largest: int | None = None
        ) -> Found | None:
            return planning.outcomes(hardware, wishes, largest)[2]

        raise refusal(outcomes, hardware, wishes, goal, retry)
    return Writer(hardware, policy, wishes, goal, search, outcomes, best).plan()


@dataclass(frozen=True)
class Planning:
    """What stays the same when a refused plan is tried again with other wishes."""

    candidates: Sequence[Candidate]
    policy: Policy
    goal: Goal
    oracle: MemoryOracle
    extra_bytes: Mapping[str, int] | None

    def outcomes(
        self, hardware: Hardware, wishes: Wishes, largest: int | None = None
    ) -> tuple[list[Outcome], Search, Found | None]:
        """What the search came to for each candidate that the wishes leave, and the best of all.

        The best concedes least; among those as good as that it is the smallest file.

        Args:
            hardware: the machine.
            wishes: explicit values.
            largest: look for the largest context up to this one instead of the goal's, and
                however small: the price of anything else then counts for nothing.
        """
        chosen = _wanted(self.candidates, wishes)
        model = next((each.model for each in chosen if not each.unusable), chosen[0].model)
        template = settings.template(model, hardware, self.policy, wishes, self.goal)
        goal = self.goal
        wished, least = settings.contexts(model, goal, wishes, template.n_parallel)
        if largest is not None:
            wished, least = largest, CTX_STEP * template.n_parallel
            goal = replace(goal, price_context_halving=_ANY_PRICE)
        devices: Sequence[Device] = ()
        if wishes.n_gpu_layers != 0:
            devices = self.oracle.devices(wishes.rpc)
        search = Search(
            machine=survey(hardware, devices, self.policy, self.extra_bytes),
            policy=self.policy,
            goal=goal,
            wishes=wishes,
            oracle=self.oracle,
            template=template,
            n_ctx_wished=wished,
            n_ctx_least=min(wished, least),
        )
        outcomes = [
            Outcome(each, refused=DoesNotFitError(each.unusable))
            if each.unusable
            else search.best(each)
            for each in chosen
        ]
        fitting = [
            (outcome.found.option.price, outcome.candidate.model.size_bytes, at)
            for at, outcome in enumerate(outcomes)
            if outcome.found is not None
        ]
        if not fitting:
            return outcomes, search, None
        as_good = min(fitting)[0] + self.policy.price_unnoticed
        at = min((size, at) for price, size, at in fitting if price <= as_good)[-1]
        outcomes[at] = search.polished(outcomes[at])
        return outcomes, search, outcomes[at].found


def _wanted(candidates: Sequence[Candidate], wishes: Wishes) -> list[Candidate]:
    if wishes.quant is None:
        return list(candidates)
    wanted = [each for each in candidates if each.label.upper() == wishes.quant.upper()]
    if not wanted:
        known = ", ".join(each.label for each in candidates)
        raise NotFoundError(f"there is no {wishes.quant!r} here", f"there are {known}")
    return wanted
