"""What a plan gives up when the memory that it was promised is not there.

Values only: who died and of what is told by the engine (engine/failure.py); what was given up is
remembered with the run (measured.py). What a plan gives up before anything ran is price.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from localllm.plan import Plan, Reason
from localllm.planner.placement import Step, expert_overrides
from localllm.planner.wishes import CTX_STEP
from localllm.units import format_bytes

#: The fields of a plan that a concession may change, and what they are made of.
FIELDS: Mapping[str, type] = {
    "cache_ram_bytes": int,
    "n_ctx_checkpoints": int,
    "n_ubatch": int,
    "n_ctx": int,
    "n_parallel": int,
    "type_k": str,
    "type_v": str,
    "tensor_overrides": tuple,
    "n_gpu_layers": int,
    "devices": tuple,
    "n_threads": int,
    "n_threads_batch": int,
}
#: Of these, what has no part in memory.
_THREADS = ("n_threads", "n_threads_batch")

#: Smaller ones free next to nothing and read prompts at half the speed (n_batch_least in
#: profiles/policy.yaml).
_LEAST_MICRO_BATCH = 64
#: Tokens of one slot, as n_ctx_least of the goals chat and serve.
_LEAST_CONTEXT = 2048
#: Cache types that q8_0 is smaller than.
_WIDE = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Concession:
    """One thing that a plan gave up because memory ran out.

    Attributes:
        changes: the plan's fields and their new values; FIELDS are all there are.
        sentence: the same for a person: "micro-batch 512 -> 256".
    """

    changes: Mapping[str, Any]
    sentence: str


def next_concession(
    plan: Plan,
    device: str | None,
    refused: Collection[str] = (),
    n_cores: int | None = None,
) -> tuple[Plan, Concession] | None:
    """What to try next after memory ran out, and what that gives up.

    On a device: 1. a smaller micro-batch, halved, down to 64; 2. a smaller context, halved, down
    to 2048 tokens a slot, then fewer slots; 3. a q8_0 cache, where flash attention is not off;
    4. less on the device: experts of another quarter of the layers where some are on the host
    already, then a quarter of the layers themselves, down to none.
    On the host: 1. the cache of old prompts, then the states to go back to, which cost nothing but
    time; 2. to 4. as 1. to 3. above. Fewer layers on a device would make it worse.

    A value that a person asked for is never changed. Each step keeps or lowers what a run takes,
    so that it ends. How much memory the new plan takes is not known: its ledger is empty.

    Args:
        plan: what ran.
        device: whose memory ran out, as llama.cpp names it; "Host", or None where nobody knows.
        refused: fields to leave alone as well, such as those of a cache type that llama.cpp will
            not load.
        n_cores: threads for a host that has work of its own: a plan that has all on its devices
            gives it one. None leaves them as they are.

    Returns:
        The new plan and the concession; None where nothing is left to give up.
    """
    kept = _asked_for(plan).union(refused)
    on_host = device == "Host" or (device is None and not plan.n_gpu_layers)
    for step in _ON_HOST if on_host else _ON_DEVICE:
        concession = step(plan)
        if concession is not None and kept.isdisjoint(concession.changes):
            if n_cores is not None and step in (_more_experts_on_host, _fewer_layers):
                threads = {n: n_cores for n in _THREADS if n not in kept}
                concession = replace(concession, changes={**concession.changes, **threads})
            return _applied(plan, concession), concession
    return None


def replay(plan: Plan, concessions: Iterable[Concession]) -> Plan:
    """A fresh plan with what was given up when it ran before.

    A concession is left out where it would change what a person asks for now, or would take more
    than the plan does; threads that a person asks for stay beside it.
    """
    asked = _asked_for(plan)
    for concession in concessions:
        changes = {
            name: value
            for name, value in concession.changes.items()
            if name not in _THREADS or name not in asked
        }
        takes_more = any(
            FIELDS[name] is int and name not in _THREADS and value > getattr(plan, name)
            for name, value in changes.items()
        )
        if not takes_more and asked.isdisjoint(changes):
            plan = _applied(plan, replace(concession, changes=changes))
    return plan


def _asked_for(plan: Plan) -> frozenset[str]:
    return frozenset(reason.field for reason in plan.reasons if reason.source == "flag")


def _applied(plan: Plan, concession: Concession) -> Plan:
    changes = concession.changes
    because = f"memory ran out: {concession.sentence}"
    reasons = [reason for reason in plan.reasons if reason.field not in changes]
    for name, value in changes.items():
        told = list(value) if isinstance(value, tuple) else value
        reasons.append(Reason(name, told, because, "measured"))
    return replace(plan, **changes, memory=(), reasons=tuple(reasons))


def _no_prompt_cache(plan: Plan) -> Concession | None:
    if not plan.cache_ram_bytes:
        return None
    size = format_bytes(plan.cache_ram_bytes)
    return Concession({"cache_ram_bytes": 0}, f"prompt cache {size} -> none")


def _no_checkpoints(plan: Plan) -> Concession | None:
    if not plan.n_ctx_checkpoints:
        return None
    return Concession({"n_ctx_checkpoints": 0}, f"checkpoints {plan.n_ctx_checkpoints} -> none")


def _smaller_micro_batch(plan: Plan) -> Concession | None:
    n_ubatch = max(_LEAST_MICRO_BATCH, plan.n_ubatch // 2)
    # An encoder takes a text in one micro-batch, or not at all.
    if n_ubatch >= plan.n_ubatch or not plan.model.is_generative:
        return None
    return Concession({"n_ubatch": n_ubatch}, f"micro-batch {plan.n_ubatch} -> {n_ubatch}")


def _smaller_context(plan: Plan) -> Concession | None:
    each = plan.n_ctx // plan.n_parallel
    half = max(_LEAST_CONTEXT, each // 2 // CTX_STEP * CTX_STEP)
    if half >= each:
        return None
    n_ctx = half * plan.n_parallel
    return Concession({"n_ctx": n_ctx}, f"context {plan.n_ctx} -> {n_ctx}")


def _fewer_slots(plan: Plan) -> Concession | None:
    n_parallel = plan.n_parallel // 2
    if not n_parallel:
        return None
    n_ctx = plan.n_ctx // plan.n_parallel * n_parallel
    return Concession(
        {"n_parallel": n_parallel, "n_ctx": n_ctx}, f"slots {plan.n_parallel} -> {n_parallel}"
    )


def _narrow_cache(plan: Plan) -> Concession | None:
    wide = [name for name in ("type_k", "type_v") if getattr(plan, name) in _WIDE]
    if not wide or plan.flash_attn == "off":  # without it V cannot be quantized
        return None
    return Concession(dict.fromkeys(wide, "q8_0"), f"KV cache {getattr(plan, wide[0])} -> q8_0")


def _more_experts_on_host(plan: Plan) -> Concession | None:
    n_layers, n_moe = plan.model.n_layers or 0, _n_cpu_moe(plan)
    if not n_moe or n_moe >= n_layers:
        return None
    n_more = min(n_layers, n_moe + max(1, n_layers // 4))
    overrides = expert_overrides(Step(plan.n_gpu_layers, n_more), n_layers)
    sentence = f"layers with experts on the host {n_moe} -> {n_more}"
    return Concession({"tensor_overrides": overrides}, sentence)


def _fewer_layers(plan: Plan) -> Concession | None:
    everything = (plan.model.n_layers or plan.n_gpu_layers) + 1
    n_now = min(plan.n_gpu_layers, everything)
    if not n_now:
        return None
    n_left = n_now - max(1, n_now // 4)
    changes: dict[str, Any] = {"n_gpu_layers": n_left}
    if not n_left:
        changes["devices"] = ()  # or the engine would go on to use it for prompts
    if n_moe := _n_cpu_moe(plan):
        # An override would keep a layer that is on the host from being repacked for it.
        overrides = expert_overrides(Step(n_left, n_moe), everything - 1)
        if overrides != plan.tensor_overrides:
            changes["tensor_overrides"] = overrides
    return Concession(changes, f"layers on the device {n_now} -> {n_left}")


def _n_cpu_moe(plan: Plan) -> int:
    """The first so many layers keep their experts on the host; 0 where none do as far as we see."""
    n_layers = plan.model.n_layers or 0
    if not plan.tensor_overrides:
        return 0
    for n_moe in range(1, n_layers + 1):
        if expert_overrides(Step(plan.n_gpu_layers, n_moe), n_layers) == plan.tensor_overrides:
            return n_moe
    return 0


_ANYWHERE: tuple[Callable[[Plan], Concession | None], ...] = (
    _smaller_micro_batch,
    _smaller_context,
    _fewer_slots,
    _narrow_cache,
)
_ON_HOST = (_no_prompt_cache, _no_checkpoints, *_ANYWHERE)
_ON_DEVICE = (*_ANYWHERE, _more_experts_on_host, _fewer_layers)
