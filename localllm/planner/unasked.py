"""The plan where no tool can say what memory a run takes: the best that may fit by its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from localllm.errors import DoesNotFitError
from localllm.hardware import Hardware
from localllm.plan import Candidate, Plan, Reason
from localllm.planner import settings
from localllm.planner.price import quality_loss
from localllm.planner.wishes import ALL_LAYERS, Wishes
from localllm.planner.writer import CACHING, cache_types, context, rest, slots, thread_counts
from localllm.profiles import Goal, Policy
from localllm.units import format_bytes


def unasked(
    hardware: Hardware,
    candidates: Sequence[Candidate],
    policy: Policy,
    wishes: Wishes,
    goal: Goal,
) -> Plan:
    """The plan where no tool can say what memory the run takes: the best that may fit by size."""
    wanted = [each for each in candidates if not each.unusable]
    free = hardware.memory.free_bytes
    on_host = not hardware.accelerators if wishes.n_gpu_layers is None else not wishes.n_gpu_layers
    fitting = [e for e in wanted if not on_host or free is None or e.model.size_bytes <= free]
    if not fitting:
        least = min(wanted or candidates, key=lambda each: each.model.size_bytes).model
        raise DoesNotFitError(
            f"{least.name or least.ref} is {format_bytes(least.size_bytes)} and"
            f" {format_bytes(free)} of memory are free",
            "a smaller quantization or a smaller model would fit",
        )
    model = min(fitting, key=_loss_then_size).model
    template = settings.template(model, hardware, policy, wishes, goal)
    wished, _ = settings.contexts(model, goal, wishes, template.n_parallel)
    all_layers = (model.n_layers or 0) + 1
    asked = wishes.n_gpu_layers
    if asked is not None:
        n_layers = all_layers if asked == ALL_LAYERS else asked
        layers = Reason("n_gpu_layers", n_layers, "asked for", "flag")
    elif hardware.accelerators:
        n_layers = all_layers
        because = "all of them; nothing here can tell what fits"
        layers = Reason("n_gpu_layers", n_layers, because, "assumed")
    else:
        n_layers = 0
        layers = Reason("n_gpu_layers", 0, "no accelerator was found", "measured")
    threads = thread_counts(hardware, float(model.size_bytes), wishes, policy)
    batches = settings.batches(template, None, wishes, goal, policy)
    plan = replace(
        template,
        n_ctx=wished,
        n_gpu_layers=n_layers,
        type_k=wishes.type_k or wishes.type_v or "f16",
        type_v=wishes.type_v or wishes.type_k or "f16",
        n_threads=threads[0].value,
        n_threads_batch=threads[1].value,
        n_batch=batches[0].value,
        n_ubatch=batches[1].value,
        cache_ram_bytes=goal.cache_ram_bytes,
    )
    because = "llama-cpp-python is not installed, so nothing was asked"
    reasons = (
        slots(plan, wishes),
        context(plan, wishes, goal),
        *cache_types(plan, wishes),
        layers,
        *threads,
        Reason("cache_ram_bytes", plan.cache_ram_bytes, CACHING, "profile"),
        *batches,
        *rest(plan, wishes),
        Reason("memory", None, because, "assumed"),
    )
    return replace(plan, reasons=reasons)


def _loss_then_size(candidate: Candidate) -> tuple[float, int]:
    """To a tenth of a percent: what nobody can tell apart is decided by size."""
    model = candidate.model
    return round(quality_loss(model.quant, model.architecture) or 0.0, 3), model.size_bytes
