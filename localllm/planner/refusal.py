"""It does not fit: by how much, and the smallest change that would.

Changes are tried from the smallest, each by the same search that found nothing:

    1. a smaller context, where it still serves the goal
    2. layers left to the planner instead of the number asked for
    3. the KV cache in q8_0 instead of the type asked for
    4. fewer slots
    5. another quantization of the same model
    6. a higher limit of the container or cgroup
    7. a context too small for the goal, if nothing else helps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from localllm.errors import DoesNotFitError, LocalllmError
from localllm.hardware import Hardware
from localllm.plan import Plan
from localllm.planner.places import HOST
from localllm.planner.price import quality_loss
from localllm.planner.search import Found, Outcome
from localllm.planner.wishes import Wishes
from localllm.profiles import Goal
from localllm.quants import NATIVE, find_quant, nearest_below
from localllm.units import format_bytes


class Retry(Protocol):
    """Plans again with other wishes."""

    def __call__(
        self, wishes: Wishes, hardware: Hardware, *, largest: int | None = None
    ) -> Found | None:
        """What would then run, or None.

        Args:
            wishes: in place of the ones that were refused.
            hardware: likewise.
            largest: look for the largest context up to this one, however small it turns out.
        """
        ...


def refusal(
    outcomes: Sequence[Outcome], hardware: Hardware, wishes: Wishes, goal: Goal, retry: Retry
) -> LocalllmError:
    """The error to raise when no candidate can run as wished."""
    missed = [outcome for outcome in outcomes if outcome.nearest is not None]
    if not missed:
        refused = next((o.refused for o in outcomes if o.refused is not None), None)
        return refused or DoesNotFitError("there is nothing to choose from")
    nearest = max(missed, key=lambda o: o.nearest[1].left_bytes if o.nearest else 0)
    assert nearest.nearest is not None
    plan, shortfall = nearest.nearest
    row = shortfall.row
    name = plan.model.name or plan.model.ref
    what = f"{name} ({nearest.candidate.label})" if len(outcomes) > 1 else name
    sentence = (
        f"{what} with a context of {plan.n_ctx} needs {format_bytes(row.total_bytes)} on"
        f" {row.device}, where {format_bytes(row.free_bytes)} are free:"
        f" {format_bytes(-shortfall.left_bytes)} are missing, the reserve included"
    )
    hint = _smallest_change(plan, row.device, hardware, wishes, goal, retry)
    return DoesNotFitError(sentence, hint)


def _smallest_change(
    plan: Plan, device: str, hardware: Hardware, wishes: Wishes, goal: Goal, retry: Retry
) -> str:
    smaller = retry(replace(wishes, n_ctx=None), hardware, largest=plan.n_ctx)
    shorter = None
    if smaller is not None:
        fitting = smaller.option.plan
        shorter = f"--ctx {fitting.n_ctx} would fit"
        if fitting.model.quant != plan.model.quant and wishes.quant is None:
            shorter += f", as {fitting.model.quant}"
        if fitting.n_ctx >= goal.n_ctx_least * plan.n_parallel:
            return shorter
    if wishes.n_gpu_layers is not None:
        found = retry(replace(wishes, n_gpu_layers=None), hardware)
        if found is not None:
            n_layers = found.option.plan.n_gpu_layers
            return f"without --ngl it would fit, with {n_layers} layers on the accelerator"
    smaller_cache = replace(wishes, type_k="q8_0", type_v="q8_0")
    if wishes.type_k in ("f32", "f16", "bf16") and retry(smaller_cache, hardware):
        return "--kv q8_0 would fit"
    if plan.n_parallel > 1 and retry(replace(wishes, n_parallel=1), hardware):
        return "--parallel 1 would fit"
    if wishes.quant is not None:
        found = retry(replace(wishes, quant=None), hardware)
        if found is not None:
            return f"--quant {found.option.plan.model.quant} would fit"
    memory = hardware.memory
    if device == HOST and memory.limit_bytes is not None:
        unlimited = replace(hardware, memory=replace(memory, limit_bytes=None))
        if retry(wishes, unlimited) is not None:
            limit = format_bytes(memory.limit_bytes)
            return f"this container or cgroup may use {limit}; raise that"
    return shorter or _smaller(plan)


def _smaller(plan: Plan) -> str:
    """The quantization below, with the size that it would have; or a smaller model."""
    quant = plan.model.quant
    if quality_loss(quant, plan.model.architecture) == 0.0 and quant in NATIVE:
        return "a smaller model would fit"  # there is no other of one that was trained so small
    below = nearest_below(quant) if quant else None
    own = find_quant(quant) if quant else None
    least = find_quant(below) if below else None
    if own and least and own.bits_per_weight and least.bits_per_weight:
        size = plan.model.size_bytes * least.bits_per_weight / own.bits_per_weight
        return f"a smaller quantization ({below} is some {format_bytes(size)}) or a smaller model"
    return "a smaller quantization or a smaller model would fit"
